"""The two ends of a server's connection to a hub, in which the server, which has dialled, is TLS's server.

So each shows a certificate of the usage that it has anyhow: a server's, and one of a client's usage that names the hub.
"""

from __future__ import annotations

import ipaddress
import ssl

from remote_gym.config import TlsFiles
from remote_gym.errors import ConfigError
from remote_gym.tls.credentials import client_context, server_context


def check_hub_files(files: TlsFiles) -> None:
    """Refuse files by which a hub can neither show who it is nor know servers.

    Raises:
        ConfigError: Naming what is missing.
    """
    for name in ("ca", "certificate", "private_key"):
        if getattr(files, name) is None:
            raise ConfigError(
                f"is missing; a hub needs a certificate, its private key, and the authority of its servers ({name})",
                field="tls",
                where="tls",
            )


def hub_context(files: TlsFiles, protocol: str) -> ssl.SSLContext:
    """Make a hub's context, which takes any server of its authority: who that is, the certificate says.

    Raises:
        ConfigError: As `remote_gym.tls.check_files` for a client.
    """
    context = client_context(files)
    context.check_hostname = False
    context.set_alpn_protocols([protocol])
    return context


def dialler_context(files: TlsFiles, protocol: str) -> ssl.SSLContext:
    """Make the context of a server that dials out to a hub, which has to show a certificate of its authority.

    Raises:
        ConfigError: As `remote_gym.tls.check_files` for a server.
    """
    context = server_context(files)
    context.set_alpn_protocols([protocol])
    return context


def names_host(hosts: tuple[str, ...], host: str) -> bool:
    """Whether a certificate that holds these hosts is that host's. Patterns do not count: a hub is one machine."""
    try:
        wanted = str(ipaddress.ip_address(host))
    except ValueError:
        wanted = host.lower().rstrip(".")
    return wanted in {name.lower() for name in hosts}
