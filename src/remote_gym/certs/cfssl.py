"""The JSON files of cfssl, read into typed requests and profiles. No cryptography happens here.

The fields mean what they mean to cfssl: keys of either case, Go's durations, its defaults. Where cfssl would quietly
make something of no use for TLS, such as for a usage that it does not know or a profile that does not exist, this
refuses and says what to write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

from remote_gym.certs.json_object import JsonObject
from remote_gym.errors import ConfigError

AUTHORITY_EXPIRY = timedelta(hours=43800)
CERTIFICATE_EXPIRY = timedelta(hours=8760)
BACKDATE = timedelta(minutes=5)

KEY_USAGES = (
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
)
EXTENDED_USAGES: Mapping[str, str] = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}
"""Usage to object identifier."""

_REQUEST_FIELDS = ("CN", "names", "serialnumber", "hosts", "key", "ca")
_UNSUPPORTED_IN_REQUEST = ("extensions", "delegation_enabled", "crl_url")
_NAME_FIELDS = ("C", "ST", "L", "O", "OU", "E", "SerialNumber")
_AUTHORITY_FIELDS = ("expiry", "backdate", "pathlen", "pathlenzero")
_PROFILE_FIELDS = ("usages", "expiry", "backdate")


@dataclass(frozen=True, kw_only=True)
class Name:
    """One entry of ``names``; ``""`` for what the file leaves out."""

    country: str = ""
    state: str = ""
    locality: str = ""
    organization: str = ""
    unit: str = ""
    email: str = ""


@dataclass(frozen=True, kw_only=True)
class KeyRequest:
    """Which key to make: ``"ecdsa"`` of 256 or 384 bits, or ``"rsa"`` of 2048 to 8192 bits."""

    algorithm: str = "ecdsa"
    size: int = 256

    def __post_init__(self) -> None:
        if self.algorithm == "ed25519" or (self.algorithm, self.size) == ("ecdsa", 521):
            raise ConfigError(f"is {self.algorithm} {self.size or ''}".rstrip() + ", which gRPC refuses; use ecdsa 256")
        if self.algorithm not in ("ecdsa", "rsa"):
            raise ConfigError(f"has algo {self.algorithm!r}; use 'ecdsa' or 'rsa'")
        if self.algorithm == "ecdsa" and self.size not in (256, 384):
            raise ConfigError(f"has size {self.size}; use 256 or 384 for ecdsa")
        if self.algorithm == "rsa" and not 2048 <= self.size <= 8192:
            raise ConfigError(f"has size {self.size}; use 2048 to 8192 for rsa")


@dataclass(frozen=True, kw_only=True)
class AuthorityRequest:
    """The ``ca`` section. With a ``path_length`` of None, the chains below may be of any length."""

    expiry: timedelta = AUTHORITY_EXPIRY
    backdate: timedelta = BACKDATE
    path_length: int | None = None


@dataclass(frozen=True, kw_only=True)
class CertificateRequest:
    """A certificate to make, as a file like ``server-csr.json`` describes it."""

    common_name: str = ""
    names: tuple[Name, ...] = ()
    serial_number: str = ""
    hosts: tuple[str, ...] = ()
    key: KeyRequest = KeyRequest()
    authority: AuthorityRequest | None = None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Purpose and lifetime of certificates, as ``ca-config.json`` describes it."""

    usages: tuple[str, ...]
    expiry: timedelta = CERTIFICATE_EXPIRY
    backdate: timedelta = BACKDATE


BUILT_IN_PROFILES: Mapping[str, Profile] = {
    "default": Profile(usages=("signing", "key encipherment", "server auth", "client auth")),
    "server": Profile(usages=("signing", "key encipherment", "server auth")),
    "client": Profile(usages=("signing", "key encipherment", "client auth")),
}
"""Where there is no configuration file. ``default`` is the one that cfssl has built in."""


def read_request(path: Path) -> CertificateRequest:
    """Read a certificate request, such as ``server-csr.json``.

    Raises:
        ConfigError: If the file cannot be read, or a field is of the wrong kind or not supported.
    """
    fields = JsonObject.read(path)
    fields.refuse(*_UNSUPPORTED_IN_REQUEST)
    fields.ignore(*fields.others(*_REQUEST_FIELDS, *_UNSUPPORTED_IN_REQUEST))
    return CertificateRequest(
        common_name=fields.text("CN"),
        names=tuple(_name(entry) for entry in fields.objects("names")),
        serial_number=fields.text("serialnumber"),
        hosts=fields.texts("hosts"),
        key=_key(fields),
        authority=_authority(fields.object("ca")) if fields.present("ca") else None,
    )


def read_profile(path: Path | None, name: str | None) -> Profile:
    """Read a signing profile. Other profiles in the file may be of kinds that are not supported.

    Args:
        path: A file such as ``ca-config.json``; None for `BUILT_IN_PROFILES`.
        name: One of ``signing.profiles``. None for ``signing.default``; where the file has none, for the profile of the
            name ``default``, which cfssl does not look at; and else for the built-in one.

    Raises:
        ConfigError: If the file cannot be read, there is no such profile, or it asks for something not supported.
    """
    if path is None:
        if (name or "default") not in BUILT_IN_PROFILES:
            raise ConfigError(
                f"there is no profile {name!r} without a configuration file; {_choices(BUILT_IN_PROFILES)}"
            )
        return BUILT_IN_PROFILES[name or "default"]
    signing = JsonObject.read(path).object("signing")
    profiles = signing.members("profiles")
    if name is None and signing.present("default"):
        return _profile(signing.object("default"))
    if name is None and "default" not in profiles:
        return BUILT_IN_PROFILES["default"]
    if (name or "default") not in profiles:
        raise signing.error("profiles", f"has no {name!r}; {_choices(profiles)}")
    return _profile(profiles[name or "default"])


_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "\N{MICRO SIGN}s": 10**3,
    "\N{GREEK SMALL LETTER MU}s": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_QUANTITY = rf"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)({'|'.join(_NANOSECONDS)})"
_DURATION = re.compile(rf"[+-]?(0|({_QUANTITY})+)")


def parse_duration(text: str) -> timedelta:
    """Parse a duration as Go writes it, such as ``"8760h"`` or ``"1h30m"``. What is below a microsecond is cut off.

    Raises:
        ConfigError: If it is no duration, or longer than the 292 years that Go has room for.
    """
    if not _DURATION.fullmatch(text):
        raise ConfigError(f"is {text!r}; use hours, minutes and seconds, such as '8760h' (a year) or '1h30m'")
    quantities = re.findall(_QUANTITY, text)
    nanoseconds = sum(int(Fraction(number) * _NANOSECONDS[unit]) for number, unit in quantities)
    if nanoseconds >= 2**63:
        raise ConfigError(f"is {text!r}; use at most 292 years, '2562047h'")
    duration = timedelta(microseconds=nanoseconds // 1000)
    return -duration if text.startswith("-") else duration


def _duration(fields: JsonObject, field: str, default: timedelta) -> timedelta:
    text = fields.text(field)
    try:
        duration = parse_duration(text) if text else default
    except ConfigError as error:
        raise fields.error(field, error) from None
    if duration < timedelta(0):
        raise fields.error(field, f"is {text!r}; use a positive duration")
    return duration or default  # To cfssl, a zero is as good as absent.


def _name(fields: JsonObject) -> Name:
    fields.refuse("OID")
    fields.ignore(*fields.others(*_NAME_FIELDS, "OID"))
    country = fields.text("C")
    if country and not re.fullmatch("[A-Za-z]{2}", country):
        raise fields.error("C", f"is {country!r}; use the two letters of a country, such as 'DE'")
    return Name(
        country=country,
        state=fields.text("ST"),
        locality=fields.text("L"),
        organization=fields.text("O"),
        unit=fields.text("OU"),
        email=fields.text("E"),
    )


def _key(request: JsonObject) -> KeyRequest:
    fields = request.object("key")
    algorithm, size = fields.text("algo"), fields.integer("size")
    if not algorithm and not size:
        return KeyRequest()
    try:
        return KeyRequest(algorithm=algorithm, size=size)
    except ConfigError as error:
        raise request.error("key", error) from None


def _authority(fields: JsonObject) -> AuthorityRequest:
    fields.ignore(*fields.others(*_AUTHORITY_FIELDS))
    length = fields.integer("pathlen")
    if length < 0:
        raise fields.error("pathlen", f"is {length}; use a number from 0, or leave it out for no bound")
    return AuthorityRequest(
        expiry=_duration(fields, "expiry", AUTHORITY_EXPIRY),
        backdate=_duration(fields, "backdate", BACKDATE),
        path_length=length if length or fields.flag("pathlenzero") else None,
    )


def _profile(fields: JsonObject) -> Profile:
    fields.refuse(*fields.others(*_PROFILE_FIELDS))
    usages = fields.texts("usages")
    if not usages:
        raise fields.error("usages", "is empty; use a list such as ['signing', 'key encipherment', 'server auth']")
    for usage in usages:
        if usage not in KEY_USAGES and usage not in EXTENDED_USAGES:
            raise fields.error("usages", f"has {usage!r}; use some of {', '.join((*KEY_USAGES, *EXTENDED_USAGES))}")
    if not fields.text("expiry"):
        raise fields.error("expiry", "is missing; use a duration such as '8760h' (a year)")
    return Profile(
        usages=usages,
        expiry=_duration(fields, "expiry", CERTIFICATE_EXPIRY),
        backdate=_duration(fields, "backdate", BACKDATE),
    )


def _choices(profiles: Mapping[str, object]) -> str:
    return f"use one of {', '.join(sorted(profiles))}" if profiles else "add it"
