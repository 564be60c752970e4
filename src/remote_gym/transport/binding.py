"""Checks before a server listens: no address is shared, none is taken away."""

from __future__ import annotations

import contextlib
import errno
import socket
import stat
from pathlib import Path

from remote_gym.address import is_unix
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
    """Explain why gRPC could not have an address."""
    if is_unix(address):
        return f"{address} is in use, or cannot be made; choose another path"
    return f"{address} is in use, or not this machine's; port 0 picks a free port"


def _mend(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another program; port 0 picks a free one"
    if error.errno == errno.EACCES:
        return "ports below 1024 are the system administrator's; use a higher one"
    return "use one of this machine's addresses"


def claim_path(path: str) -> None:
    """Make way for a Unix socket: remove one that a killed server left, and see that one can be made there.

    Raises:
        ConfigError: If a server listens there, something else is in its place, or the system does not allow it.
    """
    try:
        _remove_stale(path)
        # gRPC would not tell why it could not have it.
        with socket.socket(socket.AF_UNIX) as trial:
            trial.bind(path)
        Path(path).unlink()
    except OSError as error:
        reason = error.strerror or str(error)  # of a path that is too long Python itself says so
        raise ConfigError(f"cannot listen on unix:{path}: {reason}; choose another path") from error


def _remove_stale(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise ConfigError(f"cannot listen on unix:{path}: there is a file, which is no socket; choose another path")
        with socket.socket(socket.AF_UNIX) as trial:
            trial.settimeout(1.0)
            try:
                trial.connect(path)
            except (ConnectionRefusedError, FileNotFoundError):
                Path(path).unlink()
                return
            except TimeoutError:
                pass
        raise ConfigError(f"cannot listen on unix:{path}: it is in use by another server; choose another path")
