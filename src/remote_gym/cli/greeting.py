"""Lines that ``remote-gym serve`` prints once it listens: environments, address, clients, and how to connect."""

from __future__ import annotations

import socket
from pathlib import Path

from remote_gym.address import is_loopback, is_unix, parse_address
from remote_gym.cli.wording import LISTENS_ON
from remote_gym.config import ServerOptions, TlsFiles
from remote_gym.protocol.hub import names_to_register
from remote_gym.server.access.authorizer import has_policy
from remote_gym.server.offer import names_offered
from remote_gym.server.serve import RemoteEnvironmentServer

_EVERY_ADDRESS = ("0.0.0.0", "::", "[::]", "*")


def greeting(server: RemoteEnvironmentServer, served: str | None, tls: TlsFiles | None) -> list[str]:
    """Lines to print.

    Args:
        server: Which listens.
        served: The default environment's id or entrypoint, if it has one.
        tls: The server's.
    """
    options = server.options
    lines = [f"Serves: {', '.join(names_offered(served, options))}", f"{LISTENS_ON}{server.address}"]
    if server.grpc_port:
        lines.append(f"gRPC alone: port {server.grpc_port}")
    if options.hub is not None:
        lines.append(f"Dials out to: {options.hub}")
    if server.http_port:
        lines.append(f"HTTP alone: port {server.http_port}")
    lines.append(f"Open to: {_open_to(options, tls)}")
    if has_policy(options):
        lines.append("Of these: only whom --allow or --policy names")
    certificate = tls.certificate if tls is not None else None
    hosts = _hosts(certificate)
    if certificate and (warning := _certificate_warning(server.url, certificate, hosts)):
        lines.append(f"Warning: {warning}")
    return [
        *lines,
        "Connect with:",
        "",
        f"    from remote_gym import RemoteEnvironment{', TlsFiles' if tls else ''}",
        "",
        f"    environment = RemoteEnvironment({', '.join(_arguments(server, served, tls, hosts))})",
        "",
    ]


def _open_to(options: ServerOptions, tls: TlsFiles | None) -> str:
    if tls is None:
        return "anybody, unencrypted" if options.allow_insecure else "this machine"
    if tls.ca is not None:
        return f"clients with a certificate from {tls.ca}"
    if options.token_file is not None:
        return f"clients with a token of {options.token_file}, in REMOTE_GYM_TOKEN"
    return "any client; the connection is encrypted (--ca restricts it to clients with certificates)"


def _arguments(
    server: RemoteEnvironmentServer, served: str | None, tls: TlsFiles | None, hosts: tuple[str, ...]
) -> list[str]:
    """Arguments of a `RemoteEnvironment` that connects."""
    host, port, options = _reachable_name(server.url, hosts), server.port, server.options
    if options.hub is not None:
        host, port = parse_address(options.hub)
    arguments = [f'url="{host}"', *([] if is_unix(host) else [f"port={port}"])]
    if options.ids and not served:
        # Without the trial nobody has looked; a pattern may be an id itself, and is the place for one in any case.
        arguments.append(f'remote_args="{(*server.examples, *options.ids)[0]}"')
    elif options.environments and not served:
        arguments.append(f'remote_args={{"environment": "{next(iter(options.environments))}"}}')
    elif not served:
        arguments.append('remote_args={"entrypoint": "FILE.py"}')
    if tls is not None:
        arguments.append(f"tls={_client_files(tls)}")
        if options.hub is not None:
            arguments.append(f'server_name="{names_to_register(hosts)[0]}"')
    elif host not in ("localhost", "127.0.0.1", "::1") and not is_unix(host):
        arguments.append("allow_insecure=True")
    return arguments


def _client_files(tls: TlsFiles) -> str:
    """As `remote-gym certs init` names them, and where it put them; on another machine, copies of them."""
    folder = (tls.ca or tls.certificate or Path()).parent
    names = {"ca": tls.ca or folder / "ca.pem"}
    if tls.ca is not None:
        names |= {"certificate": folder / "client.pem", "private_key": folder / "client-key.pem"}
        if tls.ca.name == "ca.pem" and all(path.exists() for path in names.values()):
            return f'TlsFiles.from_folder("{folder.as_posix()}", "client")'
    return f"TlsFiles({', '.join(f'{name}={path.as_posix()!r}' for name, path in names.items())})".replace("'", '"')


def _certificate_warning(url: str, certificate: Path, hosts: tuple[str, ...]) -> str:
    """Why clients will not accept the certificate where the server listens; empty if they will."""
    if not hosts:
        return f"{certificate} names no host, so no client will accept it"
    mend = "'remote-gym certs server' makes one for another --host"
    names = ", ".join(hosts)
    if url in _EVERY_ADDRESS:
        if all(map(is_loopback, hosts)):
            return f"{certificate} names only this machine ({names}), so clients on others will not accept it; {mend}"
    elif not is_loopback(url) and not any(_covers(host, url.strip("[]")) for host in hosts):
        return f"{certificate} names {names} and not {url}, so clients that connect to that will not accept it; {mend}"
    return ""


def _covers(host: str, name: str) -> bool:
    """Whether a certificate's host, which may begin with a wildcard, is that name."""
    if host.startswith("*."):
        return name.lower().partition(".")[2] == host[2:].lower()
    return host.lower() == name.lower()


def _hosts(certificate: Path | None) -> tuple[str, ...]:
    if certificate is None:
        return ()
    # Here, since without TLS there is no need to load cryptography.
    from remote_gym.tls.facts import read_certificate

    return read_certificate(certificate).hosts


def _reachable_name(url: str, hosts: tuple[str, ...]) -> str:
    """By which name a client can connect: one that the certificate holds, where there is a certificate."""
    if url in _EVERY_ADDRESS:
        # A certificate for this machine alone leaves "localhost", by which the lines work here; a warning says so.
        others = [host for host in hosts if not is_loopback(host) and "*" not in host]
        return (*others, *hosts, socket.gethostname())[0]
    return url if is_unix(url) or url in hosts or not hosts else hosts[0]
