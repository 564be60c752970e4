"""The names that a certificate is valid for, sorted by kind as cfssl sorts its ``hosts``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from remote_gym.errors import ConfigError

_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = rf"{_LABEL}(\.{_LABEL})*"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DNS = re.compile(rf"(\*\.)?{_NAME}")
_EMAIL = re.compile(rf"{_ATOM}(\.{_ATOM})*@{_NAME}")
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://|urn:)[!-~]+")
_PORT = re.compile(r"(.*[^:]|\[.*\]):[0-9]+")
_PLACEHOLDER = re.compile(r".*[<>{}$].*|[A-Z0-9]+(_[A-Z0-9]+)+")


@dataclass(frozen=True, kw_only=True)
class Hosts:
    """Names of a certificate, in the order in which they stand in it."""

    dns: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()
    uris: tuple[str, ...] = ()


def parse_hosts(texts: Sequence[str]) -> Hosts:
    """Sort names by kind: an IP address, else an email address, else a URI, else a DNS name.

    Raises:
        ConfigError: For a name that no peer could ever match, most of which cfssl would take for a DNS name: a
            placeholder, an address with port, brackets, zone or prefix length, an empty or non-ASCII text.
    """
    dns, emails, uris = [], [], []
    addresses: list[IPv4Address | IPv6Address] = []
    for text in texts:
        address = _address(text)
        if address is not None:
            addresses.append(address)
        elif _EMAIL.fullmatch(text):
            emails.append(text)
        elif _URI.fullmatch(text):
            uris.append(text)
        elif _is_dns_name(text):
            dns.append(text)
        else:
            raise ConfigError(f"host {text!r} {_fault(text)}")
    return Hosts(dns=tuple(dns), emails=tuple(emails), addresses=tuple(addresses), uris=tuple(uris))


def _address(text: str) -> IPv4Address | IPv6Address | None:
    if "%" in text:  # Python takes a zone, which has no place in a certificate.
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # Go writes an IPv4 address in its short form however it was spelled.
    return getattr(address, "ipv4_mapped", None) or address


def _is_dns_name(text: str) -> bool:
    if not _DNS.fullmatch(text) or len(text) > 253 or _PLACEHOLDER.fullmatch(text):
        return False
    return not text.rpartition(".")[2].isdecimal()  # 10.0.0 and 10.0.0.256 are neither address nor name.


def _fault(text: str) -> str:
    if not text:
        return "is empty; leave it out"
    if not text.isascii():
        return "is not ASCII; write an international name in its 'xn--' form"
    if _PLACEHOLDER.fullmatch(text):
        return "is a placeholder; write the name or IP address under which clients reach the server"
    if _PORT.fullmatch(text):
        return "has a port; a certificate is for a name or an address, so leave the port out"
    if text.startswith("["):
        return "has brackets; write an IPv6 address without them"
    if "%" in text:
        return "has a zone; write the address without it, up to the '%'"
    if "/" in text:
        return "has a slash; write a single name or address, without path or prefix length"
    return "is neither an IP address nor a host name; use one such as 'server.example.com' or '192.0.2.7'"
