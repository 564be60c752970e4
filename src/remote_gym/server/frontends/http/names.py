"""Names by which the server may be asked for over HTTP: a browser that was led here by another name is refused."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Sequence

from remote_gym.address import is_loopback, is_unix
from remote_gym.config import ServerOptions, TlsFiles
from remote_gym.tls import Reloaded

_EVERY_ADDRESS = ("0.0.0.0", "::", "*")


class Names:
    """Names of a server: this machine's own, the certificate's, where it listens, and those of `http_hosts`.

    A page of another site can have its own name lead to this machine, and then asks by that name (DNS rebinding).

    Args:
        files: The server's; None without TLS.
        options: The server's.
        url: Name or address that it listens on.
    """

    def __init__(self, files: TlsFiles | None, options: ServerOptions, url: str) -> None:
        own = [] if is_unix(url) or url.strip("[]") in _EVERY_ADDRESS else [url]
        self._own = [_plain(name) for name in (*own, *options.http_hosts)]
        self._certificate: Reloaded[tuple[str, ...]] | None = None
        if files is not None and files.certificate is not None:
            self._certificate = Reloaded([files.certificate], functools.partial(_hosts, files))

    def allow(self, host: str) -> bool:
        """Whether a request may ask for it.

        Args:
            host: As the header ``Host`` has it, with or without a port.
        """
        name = _plain(_without_port(host))
        if is_loopback(name) or name in self._own:
            return True
        certified = () if self._certificate is None else self._certificate.get()
        return any(_covers(_plain(each), name) for each in certified)

    def listed(self) -> Sequence[str]:
        """All of them, for people to read."""
        certified = () if self._certificate is None else self._certificate.get()
        return list(dict.fromkeys(["localhost", *certified, *self._own]))


def _hosts(files: TlsFiles) -> tuple[str, ...]:
    # Here, since without TLS there is no need to load cryptography.
    from remote_gym.tls.facts import read_certificate

    assert files.certificate is not None
    return read_certificate(files.certificate).hosts


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _plain(name: str) -> str:
    name = name.strip("[]").rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _covers(pattern: str, name: str) -> bool:
    if pattern.startswith("*."):
        return "." in name and name.partition(".")[2] == pattern[2:]
    return pattern == name
