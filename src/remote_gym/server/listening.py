"""What has to be right before a server listens: no address is shared, none is taken away."""

from __future__ import annotations

import contextlib
import errno
import socket
from pathlib import Path

from remote_gym.errors import ConfigError

_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}


def local_addresses(host: str, port: int) -> list[str]:
    """The addresses of a host name that this machine can listen on.

    gRPC is content with one of them, so that two servers of one name could each have one, and each half of the clients.

    Raises:
        ConfigError: If there are none, or another program listens on one.
    """
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(
            f"url {host!r} has no address: {error}; use one of this machine's names or addresses"
        ) from None
    addresses = []
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind(address)
        except OSError as error:
            if error.errno in _NOT_HERE and len(found) > 1:
                continue  # such as ::1 on a machine without IPv6
            raise ConfigError(f"cannot listen on {address[0]} port {port}: {error.strerror}; {_mend(error)}") from error
        addresses.append(str(address[0]))
    if not addresses:
        raise ConfigError(f"url {host!r} is no address of this machine; use one of its own")
    return list(dict.fromkeys(addresses))


def address_in_use(address: str) -> str:
    """What to say when gRPC could not have an address."""
    return f"{address} is in use, or not this machine's; port=0 picks a free port"


def _mend(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another program; port=0 picks a free one"
    if error.errno == errno.EACCES:
        return "ports below 1024 are the system administrator's; use a higher one"
    return "use one of this machine's addresses"


def unix_path(url: str) -> str:
    """The path in ``unix:path`` or ``unix:///path``."""
    path = url.removeprefix("unix:")
    return path[2:] if path.startswith("///") else path


def claim_path(path: str) -> None:
    """Make way for a Unix socket: remove one that a killed server left.

    Raises:
        ConfigError: If a server listens there, or something else is in its place.
    """
    with contextlib.suppress(FileNotFoundError):
        if not Path(path).is_socket():
            if Path(path).exists():
                raise ConfigError(
                    f"cannot listen on unix:{path}: there is a file, which is no socket; choose another path"
                )
            return
        with socket.socket(socket.AF_UNIX) as trial:
            trial.settimeout(1.0)
            try:
                trial.connect(path)
            except (ConnectionRefusedError, FileNotFoundError):
                Path(path).unlink()
                return
            except TimeoutError:
                pass
        raise ConfigError(f"cannot listen on unix:{path}: it is in use by another server")
