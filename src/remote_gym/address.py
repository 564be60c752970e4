"""Where a server is: `url` and `port` as users write them, and as gRPC does."""

from __future__ import annotations

import ipaddress
from typing import Any

from remote_gym.errors import ConfigError

Place = tuple[str, int]
"""A url and a port."""

Address = str | Place
"""As users write one of several: ``"host:port"``, or a pair."""

UNKNOWN_PEER = "unix:"
"""As gRPC names a client without an address."""


def is_unix(url: str) -> bool:
    """Whether it names a Unix socket, as ``unix:/path`` does."""
    return url.startswith("unix:")


def unix_path(url: str) -> str:
    """The path in ``unix:path`` or ``unix:///path``."""
    path = url.removeprefix("unix:")
    return path[2:] if path.startswith("///") else path


def is_loopback(url: str) -> bool:
    """Whether only this machine can be reached by it."""
    if is_unix(url) or url == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.strip("[]")).is_loopback
    except ValueError:
        return False


def grpc_address(url: str, port: int) -> str:
    """As gRPC writes it: ``host:port``, ``[::1]:port``, or ``unix:path``.

    Raises:
        ConfigError: If the host is empty or holds a scheme or a port, or the port is out of range.
    """
    if isinstance(url, str) and is_unix(url):
        return url
    if isinstance(url, str) and url.startswith(("/", "./", "~/")):
        raise ConfigError(f"is {url!r}; write 'unix:{url}' for a Unix socket", field="url", where="url")
    if not isinstance(url, str) or not url or "/" in url:
        raise ConfigError(
            f"is {url!r}; use a host name or an address, such as 'localhost', without a scheme",
            field="url",
            where="url",
        )
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise ConfigError(
            f"is {port!r}; use an integer from 1 to 65535, or, for a server, 0 for a free one",
            field="port",
            where="port",
        )
    host = url.strip("[]")
    if ":" not in host:
        return f"{host}:{port}"
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        raise ConfigError(
            f"is {url!r}; use a host name or an address, and the port apart from it", field="url", where="url"
        ) from None
    return f"[{host}]:{port}"


def parse_address(address: str) -> tuple[str, int]:
    """Split ``host:port``, ``[::1]:port`` or ``unix:path`` into url and port (0 for a Unix socket).

    Raises:
        ConfigError: If there is no port, or it is no number.
    """
    if is_unix(address):
        return address, 0
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(
            f"is {address!r}; use HOST:PORT, such as localhost:56789, or unix:PATH", field="address", where="address"
        )
    return host.strip("[]"), int(port)


def to_place(address: Address) -> Place:
    """Url and port of one of several addresses.

    Raises:
        ConfigError: If it is neither ``"host:port"`` nor a pair of a host and a port.
    """
    if isinstance(address, str):
        address = parse_address(address)
    elif not isinstance(address, tuple) or len(address) != 2:
        raise ConfigError(
            f"is {address!r}; use 'HOST:PORT', or a pair of a host and a port", field="address", where="address"
        )
    url, port = address
    grpc_address(url, port)
    if port == 0 and not is_unix(url):
        raise ConfigError(
            f"is 0 in {address!r}; use the server's, an integer from 1 to 65535", field="port", where="port"
        )
    return url, port


def address_of_socket(address: Any) -> str:
    """Write an address that `socket.accept` returned as gRPC does."""
    if not isinstance(address, tuple):
        return UNKNOWN_PEER
    host, port = str(address[0]), address[1]
    if ":" not in host:
        return f"ipv4:{host}:{port}"
    # A client by IPv4 of a server that listens on "::" is the same client as on any other address.
    mapped = ipaddress.IPv6Address(host).ipv4_mapped
    return f"ipv6:[{host}]:{port}" if mapped is None else f"ipv4:{mapped}:{port}"


def host_in(address: str) -> str:
    """An address without its port, by which one client's connections count together."""
    return address.rpartition(":")[0] if address.startswith(("ipv4:", "ipv6:")) else address


def network_in(address: str) -> str:
    """An address without its port and what its owner chooses at will: of IPv6 the first 64 bits."""
    host = host_in(address)
    if not host.startswith("ipv6:["):
        return host
    bare = host[len("ipv6:[") :].rstrip("]").partition("%")[0]
    return f"ipv6:{ipaddress.IPv6Network((bare, 64), strict=False)}"
