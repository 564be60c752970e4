"""`create_remote_environment_server`: what a server is given, checked and brought into one form."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from remote_gym.address import grpc_address, is_loopback, is_unix, to_place
from remote_gym.config import (
    EnvironmentLike,
    ServerOptions,
    TlsFiles,
    merge_options,
    read_environment,
    shows_options,
)
from remote_gym.errors import ConfigError
from remote_gym.server.frontends.grpc import ONE_PORT
from remote_gym.server.frontends.hub_dialler import check_names
from remote_gym.server.launch_request import check_arguments, check_thread, leaves_id_open
from remote_gym.server.serve import RemoteEnvironmentServer
from remote_gym.tls import server_files

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from remote_gym.config import ServerKeywords

PathLike = str | os.PathLike[str]


def _check_hub(hub: object, files: TlsFiles | None) -> None:
    """Refuse a hub that cannot be dialled out to as this server is.

    Raises:
        ConfigError: Saying what is missing.
    """

    def refuse(problem: str) -> ConfigError:
        return ConfigError(problem, field="hub", where="ServerOptions.hub")

    if not isinstance(hub, str) or is_unix(hub):
        raise refuse(f"is {hub!r}; use HOST:PORT, such as 'trainer:56780'")
    try:
        to_place(hub)
    except ConfigError as error:
        raise refuse(error.problem) from error
    if not ONE_PORT:
        raise refuse("needs Linux, where all connections come to one port")
    if files is None or files.ca is None:
        raise refuse("needs certificates, with the authority that the hub's comes from; give certificate, key and ca")
    check_names(files)


@shows_options(ServerOptions)
def create_remote_environment_server(
    default_args: EnvironmentLike | None = None,
    url: str = "localhost",
    port: int = 56789,
    server_credentials_paths: tuple[PathLike | None, PathLike | None, PathLike | None] | None = None,
    use_thread: bool | None = None,
    *,
    tls: TlsFiles | None = None,
    options: ServerOptions | None = None,
    **keywords: Unpack[ServerKeywords],
) -> RemoteEnvironmentServer:
    """Serve environments to `RemoteEnvironment` clients, and return once it listens.

    Args:
        default_args: The environment of a client that names none: a Gymnasium id, ``"CartPole-v1"``; the path of an
            entrypoint, ``"entrypoint.py"``; the keyword arguments of `gymnasium.make`, ``{"id": "CartPole-v1", ...}``;
            or `RemoteArgs`, ``{"entrypoint": ..., "entrypoint_kwargs": ..., "repo": ..., "reference": ...}``. None if
            clients have to choose one of the option `environments`.
        url: Host name or address to listen on, or ``unix:`` and a path.
        port: TCP port; 0 picks a free one, which is then `RemoteEnvironmentServer.port`.
        server_credentials_paths: `tls` as a tuple: certificate, private key, and certificate authority or None.
        use_thread: Run environments in threads of this process rather than in processes of their own.
        tls: PEM files of this server, such as ``TlsFiles.from_folder("certificates", "server")``; without `ca` any
            client may connect. None for no TLS, which only this machine can reach.
        options: Options all at once, as `ServerOptions`.
        **keywords: Single options; of `options` too, the keyword argument wins.

    Raises:
        ConfigError: If an argument, an option, or a certificate file cannot work, or the port is in use.
    """
    chosen = merge_options(
        ServerOptions,
        options,
        {**keywords, **({} if use_thread is None else {"use_thread": use_thread})},
        of=create_remote_environment_server,
    )
    grpc_address(url, port)  # says so, if they are none
    if default_args is None and not chosen.environments and chosen.client_entrypoints is None:
        raise ConfigError(
            "is None, and there are no named environments; give one of them", field="default_args", where="default_args"
        )
    default = None if default_args is None else read_environment("default_args", default_args)
    named = {name: read_environment("environments", given, name) for name, given in chosen.environments.items()}
    if default is not None:
        check_arguments("default_args", default)
    for name, arguments in named.items():
        check_arguments("environments", arguments, name)
    if chosen.use_thread:
        check_thread("default_args", default or {})
        for name, arguments in named.items():
            check_thread("environments", arguments, name)
    offered = [*([] if default is None else [default]), *named.values()]
    if chosen.ids and not any(map(leaves_id_open, offered)):
        raise ConfigError(
            f"is {chosen.ids!r}, but no environment leaves its id to clients; leave out the id in "
            "entrypoint_kwargs, or this option",
            field="ids",
            where="ServerOptions.ids",
        )
    files = server_files(server_credentials_paths, tls)
    if files is None and not chosen.allow_insecure and not is_loopback(url):
        raise ConfigError(
            f"{url!r} can be reached from other machines, and without certificates anybody could use the server; "
            "give certificates ('remote-gym certs init' makes them), listen on 'localhost', or accept it by "
            "allow_insecure=True",
            field="url",
            where="url",
        )
    if files is None and chosen.token_file is not None:
        raise ConfigError(
            "needs TLS, or anybody could read the tokens; give certificates, of which ca "
            "may be left out: with it clients need certificates as well",
            field="token_file",
            where="ServerOptions.token_file",
        )
    if chosen.hub is not None:
        _check_hub(chosen.hub, files)
    return RemoteEnvironmentServer(default, url, port, files, dataclasses.replace(chosen, environments=named))
