"""The flags of ``remote-gym serve``, in the groups in which help shows them and configuration files have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from remote_gym.cli.command import INTEGER, NUMBER, OTHERS, SECONDS, Decorated, flag
from remote_gym.cli.config_file import ACCESS, LISTEN, OFFER, SESSIONS, WORKERS, load
from remote_gym.cli.options import (
    FILE,
    FOLDER,
    Size,
    certs_option,
    parse_kwargs,
    parse_limits,
    parse_numbers,
    parse_variables,
    show_size,
)
from remote_gym.config import ServerOptions
from remote_gym.config.server import HTTP_IMAGES, HTTP_PROTOCOLS

_DEFAULTS = ServerOptions()


def _option(group: str, *names: str, **attributes: Any) -> Callable[[Decorated], Decorated]:
    """Declare a flag for the field of `ServerOptions` that its last name is, with that one's default."""
    field = next((name for name in names if not name.startswith("-")), names[0].partition("/")[0].strip("-"))
    field = field.replace("-", "_")
    if not attributes.get("is_flag") and not attributes.get("multiple"):
        default = getattr(_DEFAULTS, field)
        is_size = isinstance(attributes.get("type"), Size) and default is not None
        attributes.setdefault("default", show_size(default) if is_size else default)
    return flag(group, *names, **attributes)


_FLAGS = (
    # ------------------------------------------------------------------------------------------ what to serve
    flag(OFFER, "--entrypoint", help="Python file that defines create_environment, instead of an ID."),
    flag(
        OFFER,
        "--kwargs",
        metavar="[NAME=]JSON",
        multiple=True,
        callback=parse_kwargs,
        help="Keyword arguments of the environment; after NAME=, of the one of that name. Repeatable.",
    ),
    flag(OFFER, "--repo", help="Git repository that the entrypoint is in."),
    flag(OFFER, "--reference", help="Branch, tag or commit of the repository."),
    flag(
        OFFER,
        "--python",
        metavar="PYTHON",
        help="Another Python for the environment, from 3.6 on; nothing of ours need be there.",
    ),
    flag(OFFER, "--command", help="Command that ends in such a Python, such as 'conda run -n sim python'."),
    flag(OFFER, "--conda", metavar="NAME|PATH", help="Conda environment whose Python that is."),
    flag(OFFER, "--uv", metavar="VERSION", help="Version of a Python that uv provides."),
    flag(
        OFFER,
        "--uv-with",
        metavar="REQUIREMENT",
        multiple=True,
        help="Package that uv has there, such as 'gym==0.26.2'. Repeatable.",
    ),
    flag(OFFER, "--image", help="Container image that the Python is in, without a network."),
    flag(OFFER, "--engine", help="What runs the image: docker, podman or apptainer.  [default: docker]"),
    flag(OFFER, "--network", help="Network of the container, such as bridge or host."),
    flag(
        OFFER,
        "--mount",
        "mounts",
        metavar="HERE:THERE[:ro]",
        multiple=True,
        help="Folder or file that the container sees. Repeatable.",
    ),
    flag(
        OFFER,
        "--engine-options",
        metavar="WORDS",
        help="More for the engine, in front of the image, such as '--shm-size 8g --user 1000'.",
    ),
    flag(OFFER, "--ssh", metavar="[USER@]HOST", help="Host on which that Python, command or image is."),
    flag(
        OFFER,
        "--gpus",
        metavar="NUMBERS",
        callback=parse_numbers,
        help="Devices such as 0,1,2,3, of which each session gets the least used.",
    ),
    flag(OFFER, "--cpus", metavar="NUMBERS", callback=parse_numbers, help="Processors to run on, such as 0-7,16."),
    flag(
        OFFER,
        "--variable",
        "variables",
        metavar="NAME[=VALUE]",
        multiple=True,
        callback=parse_variables,
        help="Environment variable of the environment; without a value, this server's own. Repeatable.",
    ),
    flag(
        OFFER,
        "--warm",
        type=INTEGER,
        metavar="NUMBER",
        help="Environments made ahead, so that sessions need not wait for a slow constructor.",
    ),
    flag(
        OFFER, "--reuse", is_flag=True, help="Keep an environment for its client's next session with the same kwargs."
    ),
    flag(OFFER, "--there", is_flag=True, help="The entrypoint is where that Python runs, rather than here."),
    flag(OFFER, "--include", metavar="PATH", multiple=True, help="File or folder sent along with it. Repeatable."),
    flag(
        OFFER,
        "--environment",
        "environments",
        metavar="NAME=ID|FILE.py",
        multiple=True,
        help="One more environment, which clients choose by its NAME. Repeatable.",
    ),
    _option(
        OFFER,
        "--ids",
        metavar="PATTERN",
        multiple=True,
        help="Let clients choose among registered IDs, such as CartPole-v1 or 'ALE/*'. Takes the place of an ID. "
        "Repeatable.",
    ),
    _option(
        OFFER,
        "--client-entrypoints",
        type=FOLDER,
        help="Let clients run any entrypoint file below this folder.",
    ),
    _option(
        OFFER,
        "--import",
        "imports",
        metavar="MODULE",
        multiple=True,
        help="Module that registers environments, imported by each worker. Repeatable.",
    ),
    _option(
        OFFER,
        "--check/--no-check",
        help="Create each environment once before listening, and refuse what nobody could open.",
    ),
    # ---------------------------------------------------------------------------------------- where to listen
    flag(LISTEN, "--url", default="localhost", help="Name or address to listen on, or unix:PATH."),
    flag(LISTEN, "--port", type=INTEGER, default=56789, help="TCP port; 0 picks a free one."),
    _option(
        LISTEN,
        "--direct/--no-direct",
        help="Offer connections to the environments' workers themselves, the fast path.",
    ),
    _option(LISTEN, "--grpc-port", type=INTEGER, help="One more TCP port, of gRPC alone; 0 picks a free one."),
    _option(LISTEN, "--hub", metavar="HOST:PORT", help="Hub to dial out to, for clients that cannot connect to here."),
    _option(LISTEN, "--dm-env-rpc", is_flag=True, help="Answer clients of dm_env_rpc, and of remote-gym 0.7, too."),
    _option(LISTEN, "--http", is_flag=True, help="Answer HTTP at the port, too: clients of OpenEnv, and others."),
    _option(LISTEN, "--http-port", type=INTEGER, help="One more TCP port, of HTTP alone; 0 picks a free one."),
    _option(
        LISTEN,
        "--http-root",
        type=click.Choice(HTTP_PROTOCOLS),
        help="Protocol that is found without its prefix as well.",
    ),
    _option(
        LISTEN,
        "--http-host",
        "http_hosts",
        metavar="NAME",
        multiple=True,
        help="One more name by which HTTP may be asked for. Repeatable.",
    ),
    _option(
        LISTEN,
        "--http-images",
        type=click.Choice(HTTP_IMAGES),
        help="Images by HTTP as lists of numbers, as base64 of a PNG, or both.",
    ),
    _option(LISTEN, "--max-connections", type=INTEGER, help="TCP connections of gRPC at once."),
    _option(
        LISTEN,
        "--max-pending",
        type=INTEGER,
        help="Connections at once that have not shown yet what they come for.",
    ),
    _option(
        LISTEN,
        "--receive-bytes",
        type=Size(),
        help="Requests held at once, such as 1GiB; half of that for one client.",
    ),
    _option(
        LISTEN,
        "--message-limit",
        "message_limits",
        metavar="NAME=NUMBER",
        multiple=True,
        callback=parse_limits,
        help="Bound on what clients send, such as message_bytes=512MiB, depth=16. Repeatable.",
    ),
    _option(LISTEN, "--reflection", is_flag=True, help="Answer gRPC server reflection."),
    # ---------------------------------------------------------------------------------------- who may connect
    certs_option(ACCESS, "server.pem, server-key.pem and ca.pem"),
    flag(ACCESS, "--certificate", type=FILE, help="Certificate of this server."),
    flag(ACCESS, "--key", type=FILE, help="Private key of this server."),
    flag(ACCESS, "--ca", type=FILE, help="Authority whose clients may connect. Without it any client may."),
    _option(
        ACCESS,
        "--token-file",
        type=FILE,
        help="Let clients with a token of 'remote-gym token' connect, who then need no certificate.",
    ),
    _option(
        ACCESS,
        "--common-names",
        is_flag=True,
        help="Know clients by common names, where certificates have no others.",
    ),
    _option(
        ACCESS,
        "--certificate-lifetime",
        type=SECONDS,
        help="Seconds after which clients have to show their certificates again.",
    ),
    _option(ACCESS, "--allow-insecure", is_flag=True, help="Serve other machines without certificates."),
    _option(
        ACCESS,
        "--http-origin",
        "http_origins",
        metavar="ORIGIN",
        multiple=True,
        help="Origin, such as https://lab.example, whose pages may ask by HTTP. Repeatable.",
    ),
    _option(ACCESS, "--http-url-tokens", is_flag=True, help="Take tokens by HTTP also from URLs."),
    _option(
        ACCESS,
        "--allow",
        metavar="IDENTITY[=NAME,...]",
        multiple=True,
        help="Let an identity, such as DNS:alice, 'URI:spiffe://lab/*' or '*', open any environment, or only the named "
        "ones. All others may open nothing. Repeatable.",
    ),
    _option(
        ACCESS,
        "--policy",
        type=FILE,
        help="TOML file of rules about who may open what, how often and with which arguments. It is read again when it "
        "changes.",
    ),
    # ----------------------------------------------------------------------------------------------- sessions
    _option(SESSIONS, "--max-sessions", type=INTEGER, help="Sessions open at once."),
    _option(SESSIONS, "--max-sessions-per-identity", type=INTEGER, help="Sessions of one identity open at once."),
    _option(SESSIONS, "--max-opens-per-second", type=NUMBER, help="Sessions that one identity opens in a second."),
    _option(SESSIONS, "--max-num-envs", type=INTEGER, help="Environments in one session of a RemoteVectorEnv."),
    _option(SESSIONS, "--queue-timeout", type=SECONDS, help="Seconds that an opening waits for a free place."),
    _option(SESSIONS, "--lease", type=SECONDS, help="Seconds that a session outlives its connection."),
    _option(
        SESSIONS, "--idle-timeout", type=SECONDS, help="Seconds that a client may ask nothing before its session ends."
    ),
    _option(SESSIONS, "--drain-timeout", type=SECONDS, help="Seconds that running episodes have to end when stopped."),
    # ------------------------------------------------------------------------------------------------ workers
    _option(
        WORKERS, "--thread", "use_thread", is_flag=True, help="Run environments in threads rather than in processes."
    ),
    _option(WORKERS, "--interpreter", metavar="PYTHON", help="Python of the environments, if not the server's."),
    _option(WORKERS, "--open-timeout", type=SECONDS, help="Seconds that creating an environment may take."),
    _option(WORKERS, "--close-timeout", type=SECONDS, help="Seconds that closing one may take."),
    _option(WORKERS, "--step-timeout", type=SECONDS, help="Seconds that a step may run before its worker is killed."),
    _option(WORKERS, "--reset-timeout", type=SECONDS, help="Seconds that a reset may run before its worker is killed."),
    _option(
        WORKERS,
        "--memory-limit",
        type=Size(),
        help="What a worker may hold before it is killed, such as 2GiB.",
    ),
    _option(
        WORKERS,
        "--rlimit",
        "rlimits",
        metavar="NAME=NUMBER",
        multiple=True,
        callback=parse_limits,
        help="Limit of the system for each worker, such as nofile=256, as=4GiB, cpu=3600. Repeatable.",
    ),
    _option(
        WORKERS,
        "--output-rate",
        type=INTEGER,
        help="Bytes a second that the log takes of what a worker prints, and four times as many of all.",
    ),
    _option(
        WORKERS,
        "--poll-us",
        type=INTEGER,
        help="Microseconds that a worker looks for the next direct request without sleeping.",
    ),
    _option(WORKERS, "--check-actions", is_flag=True, help="Refuse actions outside the bounds of their space."),
    # ------------------------------------------------------------------------------------------- this command
    flag(
        OTHERS,
        "--config",
        type=FILE,
        is_eager=True,
        expose_value=False,
        callback=load,
        help="TOML file with all that flags can say. Flags win over it.",
    ),
    flag(OTHERS, "--print-config", is_flag=True, help="Print the TOML file that means the same as the flags, and end."),
    flag(OTHERS, "-v", "--verbose", is_flag=True, help="Log more."),
    flag(
        OTHERS,
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="Log lines of text, or one JSON object a line.",
    ),
)


def serve_flags(command: Decorated) -> Decorated:
    """Decorate a command with all of them, and with the argument ``ID|FILE.py``."""
    for decorate in reversed(_FLAGS):
        command = decorate(command)
    return click.argument("environment_id", metavar="[ID|FILE.py]", required=False)(command)
