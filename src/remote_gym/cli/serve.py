"""``remote-gym serve``: offer environments to clients."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from remote_gym.address import is_loopback, is_unix
from remote_gym.cli import LOGS_ERRORS, TLS_1_3_ONLY
from remote_gym.cli.options import FILE, FOLDER, check_pair, kwargs_option, parse_limits, size_or_none
from remote_gym.cli.report import report
from remote_gym.config import RemoteArgs, ServerOptions
from remote_gym.errors import ConfigError
from remote_gym.logs import JsonFormatter, TextFormatter
from remote_gym.server.access.authorizer import has_policy
from remote_gym.server.offer import check_offer
from remote_gym.server.serve import RemoteEnvironmentServer, create_remote_environment_server
from remote_gym.validation import LONGEST

LISTENS_ON = "Listens on: "
"""Begins the line that tells a program which port was chosen."""

_EVERY_ADDRESS = ("0.0.0.0", "::", "[::]", "*")
_DEFAULTS = ServerOptions()
_SECONDS = click.FloatRange(0, LONGEST, min_open=True)
_WAIT = click.FloatRange(0, LONGEST)


@click.command()
@click.argument("environment_id", metavar="[ID]", required=False)
@click.option("--entrypoint", help="Python file that defines create_environment, instead of a Gymnasium ID.")
@kwargs_option
@click.option("--repo", help="Git repository that the entrypoint is in.")
@click.option("--reference", help="Its branch, tag or commit.")
@click.option(
    "--environment", "named", metavar="NAME=ID|FILE.py", multiple=True, help="Offer one more, by name; repeatable."
)
@click.option("--import", "imports", metavar="MODULE", multiple=True, help="Registers environments; repeatable.")
@click.option(
    "--ids",
    metavar="PATTERN",
    multiple=True,
    help="Let clients choose among registered IDs, such as CartPole-v1 or 'ALE/*'; repeatable, instead of an ID.",
)
@click.option("--url", default="localhost", help="Name or address to listen on, or unix:PATH.")
@click.option("--port", type=click.IntRange(0, 65535), default=56789, help="0 picks a free one.")
@click.option("--certificate", type=FILE, help="This server's certificate.")
@click.option("--key", type=FILE, help="Its private key.")
@click.option("--ca", type=FILE, help="Authority whose clients may connect; without it any client may.")
@click.option("--token-file", type=FILE, help="Clients with a token of 'remote-gym token' may connect, without --ca.")
@click.option("--common-names", is_flag=True, help="Know clients by common names, where certificates have no others.")
@click.option(
    "--certificate-lifetime", type=_SECONDS, help="Seconds after which clients have to show their certificates again."
)
@click.option("--allow-insecure", is_flag=True, help="Serve other machines without certificates.")
@click.option("--thread", "use_thread", is_flag=True, help="Run environments in threads rather than processes.")
@click.option("--max-sessions", type=click.IntRange(1), default=_DEFAULTS.max_sessions, help="Open at once.")
@click.option("--max-sessions-per-identity", type=click.IntRange(1), help="Of them, for one client certificate.")
@click.option(
    "--max-opens-per-second", type=click.FloatRange(0.001, 1e6), help="Sessions opened with one client certificate."
)
@click.option("--max-connections", type=click.IntRange(1), help="TCP connections to each address listened on.")
@click.option(
    "--max-pending",
    type=click.IntRange(1),
    default=_DEFAULTS.max_pending,
    help="Direct connections that have not said for which session they come.",
)
@click.option(
    "--receive-bytes",
    metavar="SIZE",
    default=str(_DEFAULTS.receive_bytes),
    callback=size_or_none,
    help="Bytes of requests held at once, such as 1GiB; half of them one client's.",
)
@click.option(
    "--allow",
    metavar="IDENTITY[=NAME,...]",
    multiple=True,
    help="Let DNS:alice, URI:spiffe://lab/*, or * open anything, or what is named; all others nothing. Repeatable.",
)
@click.option("--policy", type=FILE, help="TOML file that says more of who may open what; read again when it changes.")
@click.option("--lease", type=_SECONDS, default=_DEFAULTS.lease, help="Seconds a session outlives its connection.")
@click.option("--idle-timeout", type=_SECONDS, default=_DEFAULTS.idle_timeout, help="Seconds a client may ask nothing.")
@click.option("--admit-timeout", type=_WAIT, default=_DEFAULTS.admit_timeout, help="Seconds to wait for a free place.")
@click.option("--drain", type=_WAIT, default=_DEFAULTS.drain, help="Seconds running episodes have to end when stopped.")
@click.option("--open-timeout", type=_SECONDS, default=_DEFAULTS.open_timeout, help="Seconds to create an environment.")
@click.option("--close-timeout", type=_SECONDS, default=_DEFAULTS.close_timeout, help="Seconds to close one.")
@click.option("--step-timeout", type=_SECONDS, help="Seconds a step may run before its worker is killed.")
@click.option("--reset-timeout", type=_SECONDS, help="The same for a reset.")
@click.option(
    "--memory-limit",
    metavar="SIZE",
    callback=size_or_none,
    help="What a worker may hold before it is killed, such as 2GiB.",
)
@click.option(
    "--rlimit",
    "worker_limits",
    metavar="NAME=NUMBER",
    multiple=True,
    callback=parse_limits,
    help="The system's limit of each worker, such as nofile=256, as=4GiB, cpu=3600; repeatable.",
)
@click.option(
    "--output-rate",
    type=click.IntRange(0, 10**9),
    default=_DEFAULTS.output_rate,
    help="Bytes a second that the log takes of what a worker prints; of all workers, four times as many.",
)
@click.option(
    "--direct/--no-direct",
    default=_DEFAULTS.direct,
    help="Offer connections to the environments' workers themselves, the fast path.",
)
@click.option(
    "--direct-port", type=click.IntRange(0, 65535), default=_DEFAULTS.direct_port, help="For those; 0 picks a free one."
)
@click.option(
    "--poll-us", type=click.IntRange(0, 1_000_000), default=_DEFAULTS.poll_us, help="Microseconds a worker looks awake."
)
@click.option("--interpreter", metavar="PYTHON", help="Runs environments that need another Python than the server.")
@click.option(
    "--check/--no-check",
    default=_DEFAULTS.check,
    help="Create each environment once before listening, and refuse what nobody could open.",
)
@click.option("--check-actions", is_flag=True, help="Refuse actions outside the bounds of their space.")
@click.option("--reflection", is_flag=True, help="Answer gRPC server reflection.")
@click.option("--client-entrypoints", type=FOLDER, help="Clients may run any entrypoint file below it.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", help="As lines, or as one JSON object a line."
)
def serve(
    environment_id: str | None,
    entrypoint: str | None,
    kwargs: dict[str, Any],
    repo: str | None,
    reference: str | None,
    named: tuple[str, ...],
    url: str,
    port: int,
    certificate: Path | None,
    key: Path | None,
    ca: Path | None,
    use_thread: bool,
    verbose: bool,
    log_format: str,
    **options: Any,
) -> None:
    """Serve an environment, by its Gymnasium ID or an entrypoint file, until Ctrl-C or SIGTERM; again ends a drain.

    SIGUSR1 makes it print what its sessions have done so far.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, handlers=[handler])
    for talker in ("asyncio", "grpc"):  # which tell of each thread and call that they look at an event loop
        logging.getLogger(talker).setLevel(logging.INFO)
    if log_format == "json":
        click.get_current_context().meta[LOGS_ERRORS] = True
    signal.signal(signal.SIGTERM, _interrupt)
    asked = threading.Event()
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, lambda *_: asked.set())
    check_pair(certificate, key)
    if ca and not certificate:
        raise click.UsageError(f"--ca {ca} needs --certificate and --key, this server's own.")
    files = (certificate, key, ca) if certificate or key or ca else None
    default_args = _default_args(environment_id, entrypoint, kwargs, repo, reference, is_open=bool(options["ids"]))
    options["environments"] = _parse_all_named(named)
    if default_args is None and not named and options["client_entrypoints"] is None:
        raise click.UsageError(
            "Say what to serve: an ID such as CartPole-v1, --entrypoint FILE.py, --environment, or --ids PATTERN."
        )
    for arguments in (*([default_args] if default_args else []), *options["environments"].values()):
        check_offer(arguments, imports=options["imports"], own_interpreter=options["interpreter"] is None)
    try:
        with create_remote_environment_server(default_args, url, port, files, use_thread, **options) as server:
            # GRPC has read it by now; what environments do by gRPC, with whom, is theirs.
            if os.environ.get("GRPC_SSL_CIPHER_SUITES") == TLS_1_3_ONLY:
                del os.environ["GRPC_SSL_CIPHER_SUITES"]
            click.echo("\n".join(_greeting(server, environment_id or entrypoint, certificate, ca)))
            try:
                while server.wait_for_termination(1.0):
                    if asked.is_set():
                        asked.clear()
                        click.echo(report(server.sessions()))
            except KeyboardInterrupt:
                # Begun before it is announced, so that one more signal, however soon, ends the drain.
                server.stop()
                try:
                    if options["drain"]:
                        count, seconds = server.session_count, options["drain"]
                        click.echo(
                            f"Stopping: episodes of {count} sessions have {seconds:g} s to end; again stops at once."
                        )
                    server.wait_for_termination()
                except KeyboardInterrupt:
                    server.stop()
                    raise
                raise
    except KeyboardInterrupt:
        click.echo("Stopped.")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _default_args(
    environment_id: str | None,
    entrypoint: str | None,
    kwargs: dict[str, Any],
    repo: str | None,
    reference: str | None,
    *,
    is_open: bool,
) -> RemoteArgs | None:
    if environment_id and entrypoint:
        raise click.UsageError("Give either an ID or --entrypoint.")
    if entrypoint:
        return {"entrypoint": entrypoint, "entrypoint_kwargs": kwargs, "repo": repo, "reference": reference}
    if repo or reference:
        raise click.UsageError("--repo and --reference need --entrypoint, a file in that repository.")
    if environment_id:
        return {"entrypoint_kwargs": {"id": environment_id, **kwargs}}
    if is_open:
        return {"entrypoint_kwargs": kwargs}
    if kwargs:
        raise click.UsageError("--kwargs needs an ID or --entrypoint.")
    return None


def _parse_all_named(texts: Iterable[str]) -> dict[str, RemoteArgs]:
    found: dict[str, RemoteArgs] = {}
    for text in texts:
        name, arguments = _parse_named(text)
        if name in found:
            raise ConfigError(f"--environment is given twice for {name!r}; use a name once")
        found[name] = arguments
    return found


def _parse_named(text: str) -> tuple[str, RemoteArgs]:
    name, _, what = text.partition("=")
    if not name or not what:
        raise ConfigError(f"--environment is {text!r}; use NAME=ID or NAME=FILE.py, such as easy=CartPole-v1")
    return name, {"entrypoint": what} if what.endswith(".py") else {"entrypoint_kwargs": {"id": what}}


def _greeting(
    server: RemoteEnvironmentServer, served: str | None, certificate: Path | None, ca: Path | None
) -> list[str]:
    """What is served where to whom, and how to connect to it."""
    names = list(server.options.environments)
    folder = server.options.client_entrypoints
    patterns = ", ".join(server.options.ids)
    offered = [*([served] if served else []), *names, *([f"ids that match {patterns}"] if patterns else [])]
    offered += [f"any entrypoint below {folder}"] if folder else []
    lines = [f"Serves: {', '.join(offered)}", f"{LISTENS_ON}{server.address}"]
    if server.direct_port:
        lines.append(f"Direct connections: port {server.direct_port}")
    hosts = _hosts(certificate)
    if certificate is None:
        lines.append(f"Open to: {'anybody, unencrypted' if server.options.allow_insecure else 'this machine'}")
    elif ca is None and server.options.token_file is not None:
        lines.append(f"Open to: clients with a token of {server.options.token_file}, in REMOTE_GYM_TOKEN")
    elif ca is None:
        lines.append(
            "Open to: any client; the connection is encrypted (--ca restricts it to clients with certificates)"
        )
    else:
        lines.append(f"Open to: clients with a certificate from {ca}")
    if has_policy(server.options):
        lines.append("Of these: only whom --allow or --policy names")
    if certificate and (warning := _certificate_warning(server.url, certificate, hosts)):
        lines.append(f"Warning: {warning}")
    host = _reachable_name(server.url, hosts)
    arguments = [f'url="{host}"', *([] if is_unix(server.url) else [f"port={server.port}"])]
    if patterns and not served:
        # Without the trial nobody has looked; a pattern may be an id itself, and is the place for one in any case.
        example = (*server.examples, *server.options.ids)[0]
        arguments.append(f'remote_args={{"entrypoint_kwargs": {{"id": "{example}"}}}}')
    elif names and not served:
        arguments.append(f'remote_args={{"environment": "{names[0]}"}}')
    elif not served:
        arguments.append('remote_args={"entrypoint": "FILE.py"}')
    if certificate:
        # As `remote-gym certs init` names them, and where it put them; on another machine, copies of them.
        folder = (ca or certificate).parent
        client = (folder / "client.pem", folder / "client-key.pem") if ca else (None, None)
        paths = (ca or folder / "ca.pem", *client)
        shown = ", ".join(f'"{path.as_posix()}"' if path else "None" for path in paths)
        arguments.append(f"client_credentials_paths=({shown})")
    elif host not in ("localhost", "127.0.0.1", "::1") and not is_unix(host):
        arguments.append("allow_insecure=True")
    return [
        *lines,
        "Connect with:",
        "",
        "    from remote_gym import RemoteEnvironment",
        "",
        f"    environment = RemoteEnvironment({', '.join(arguments)})",
        "",
    ]


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
    if is_unix(url) or url in hosts or (not hosts and url not in _EVERY_ADDRESS):
        return url
    return hosts[0] if hosts else socket.gethostname()
