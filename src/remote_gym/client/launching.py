"""`launch`: a server that belongs to this program, and its clients, in one line."""

from __future__ import annotations

import atexit
import dataclasses
import re
import socket
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from remote_gym.client.connect.diagnosis import diagnose, reason_of, summarise
from remote_gym.client.docker_image import start_image
from remote_gym.client.dropped import close_all
from remote_gym.client.environment import RemoteEnvironment
from remote_gym.client.vector.env import RemoteVectorEnv
from remote_gym.config import (
    ClientOptions,
    EnvironmentKeys,
    EnvironmentLike,
    RemoteArgs,
    ServerOptions,
    TlsFiles,
    differing_options,
    merge_options,
    read_environment,
    shows_options,
)
from remote_gym.errors import ConfigError, ConnectError
from remote_gym.launched.hosted import HostedProcess
from remote_gym.launched.order import write_order
from remote_gym.launched.process import LaunchedProcess
from remote_gym.validation import check_seconds

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from remote_gym.config import LaunchKeywords

RECONNECT_TIMEOUT = 10.0
"""Seconds that clients of a launched server try for a broken connection, unless their options say otherwise: no network
lies between, and a server that has ended does not come back."""

START_TIMEOUT = 120.0
"""Seconds until a launched server listens, and has tried its environment once."""

_HEALTH_TIMEOUT = 10.0
OF_ENVIRONMENTS = frozenset(EnvironmentKeys.__annotations__)
"""Keyword arguments of `launch` that are keys of its environment, rather than options of the server."""


_SERVERS: weakref.WeakKeyDictionary[RemoteEnvironment | RemoteVectorEnv, LaunchedServer] = weakref.WeakKeyDictionary()
"""Servers by their clients: each client keeps its server running, also where nothing else refers to that."""


class LaunchedServer:
    """A server of this program's own; use it as a context manager, or `stop` it.

    It ends with this program, however that ends, and its environments with it.

    Attributes:
        url, port: Where it listens.
        pid: Its process's id.
        at: The host on which it runs, as `launch` was told; None for this machine.
        tls: Files by which clients reach it; None where it needs none.
    """

    def __init__(
        self,
        process: LaunchedProcess | HostedProcess,
        url: str,
        port: int,
        at: str | None = None,
        tls: TlsFiles | None = None,
    ) -> None:
        self.at = at
        self.url = url
        self.port = port
        self.tls = tls
        self.pid = process.pid
        self._process = process
        self._clients: weakref.WeakSet[RemoteEnvironment | RemoteVectorEnv] = weakref.WeakSet()

    def __repr__(self) -> str:
        at = "" if self.at is None else f" at {self.at}"
        state = f"process {self._process.pid}{at}" if self.is_running else "ended"
        return f"<LaunchedServer {self.url}, {state}>"

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self._process.is_running

    def environment(
        self,
        name: str | None = None,
        /,
        *,
        render_mode: str | None = None,
        options: ClientOptions | None = None,
        **entrypoint_kwargs: Any,
    ) -> RemoteEnvironment:
        """Open an environment, which is closed with the server, and keeps it.

        Args:
            name: One of the server's option `environments`; None for the one that it was launched with.
            render_mode: As for `RemoteEnvironment`.
            options: As for `RemoteEnvironment`.
            **entrypoint_kwargs: Keyword arguments of ``create_environment``, or of `gymnasium.make`. One that is called
                as an argument above needs `RemoteEnvironment` itself, with this `url`.

        Raises:
            RemoteGymError: As `RemoteEnvironment` does.
        """
        client: RemoteEnvironment = self.open_as(RemoteEnvironment, name, entrypoint_kwargs, render_mode, options)
        return client

    def open_as(
        self,
        kind: type[Any],
        name: str | None,
        entrypoint_kwargs: dict[str, Any],
        render_mode: str | None,
        options: ClientOptions | None,
    ) -> Any:
        """The same for a class that is made of `RemoteEnvironment`."""
        asked, its = _asked(name, entrypoint_kwargs), self._options(options)
        client = kind(self.url, self.port, asked, render_mode=render_mode, tls=self.tls, options=its)
        _SERVERS[client] = self
        self._clients.add(client)
        return client

    def vector_environment(
        self,
        name: str | None = None,
        /,
        *,
        num_envs: int,
        workers: int | None = None,
        render_mode: str | None = None,
        options: ClientOptions | None = None,
        **entrypoint_kwargs: Any,
    ) -> RemoteVectorEnv:
        """Open a vector environment, which is closed with the server, and keeps it.

        Args:
            name: As for `environment`.
            num_envs: How many.
            workers: Processes that share them; None for one.
            render_mode: As for `RemoteVectorEnv`.
            options: As for `RemoteVectorEnv`.
            **entrypoint_kwargs: As for `environment`.

        Raises:
            RemoteGymError: As `RemoteVectorEnv` does.
        """
        client = RemoteVectorEnv(
            self.url,
            self.port,
            _asked(name, entrypoint_kwargs),
            render_mode=render_mode,
            num_envs=num_envs,
            workers=workers,
            tls=self.tls,
            options=self._options(options),
        )
        _SERVERS[client] = self
        self._clients.add(client)
        return client

    def _options(self, given: ClientOptions | None) -> ClientOptions:
        """Options of a client: one whose server is on this machine does not wait for its return for so long."""
        options = ClientOptions() if given is None else given
        if not isinstance(options, ClientOptions):
            raise ConfigError(f"is {given!r:.200}; use ClientOptions(...)", field="options", where="options")
        if self.at is None and options.reconnect_timeout is None:
            return dataclasses.replace(options, reconnect_timeout=RECONNECT_TIMEOUT)
        return options

    def log(self, lines: int = 100) -> str:
        """The last lines that the server has logged, with what environments printed among them.

        Args:
            lines: How many.

        Returns:
            Lines without control characters; none once it was stopped.
        """
        return self._process.log(lines)

    def stop(self) -> None:
        """Close its clients and stop it; does nothing once it was stopped."""
        try:
            for client in tuple(self._clients):
                client.close()
        finally:  # also where Ctrl-C has struck a client that waits for its environment
            self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@shows_options(ServerOptions)
def launch(
    environment: EnvironmentLike | None = None,
    *,
    serves: int | None = None,
    at: str | None = None,
    at_python: str | None = None,
    start_timeout: float = START_TIMEOUT,
    options: ServerOptions | None = None,
    **keywords: Unpack[LaunchKeywords],
) -> LaunchedServer:
    """Start a server of this program's own, on a Unix socket that only this user reaches, and wait until it serves.

    It runs in the same Python as this program, and the environment where its keys say, such as in another Python.

    Args:
        environment: A Gymnasium id, an entrypoint's path, or a dict, as for `create_remote_environment_server`. At
            another host paths are that host's, but for an entrypoint's file that is here, which is sent.
        serves: Port on which ``image`` runs a whole server of ours, in place of ``environment``.
        at: Where the server runs: ``"ssh:user@gpu-box"``, a host as OpenSSH's client takes it, where this package has
            to be installed. None for this machine.
        at_python: The Python of that host that has this package; None for the command ``remote-gym`` of its path.
        start_timeout: Seconds until it listens, and has tried its environment once.
        options: Options of the server all at once.
        **keywords: Keys of the environment, such as ``python``, `RemoteArgs` lists them, and single options of the
            server.

    Raises:
        ConfigError: If an argument cannot work, or the environment cannot be created; if the host has no remote_gym,
            or that of another release.
        ConnectError: If the server ends, or is not ready in time; with the last lines that it logged. If the host
            cannot be reached; with those of ssh.
    """
    check_seconds("start_timeout", start_timeout)
    if at_python is not None and not (isinstance(at_python, str) and at_python):
        raise ConfigError(
            f"is {at_python!r}; use the path of a Python at the host, such as '/usr/bin/python3'",
            field="at_python",
            where="at_python",
        )
    if serves is not None:
        beside = {"environment": environment, "at": at, "at_python": at_python}
        return _launch_image(serves, beside, dict(keywords), options, start_timeout)
    if environment is None:
        raise ConfigError(
            "is missing: name one, or, where the image runs a server of ours, its port by serves=PORT",
            field="environment",
            where="environment",
        )
    host = None if at is None else _host(at)
    if host is None and at_python is not None:
        raise ConfigError(
            "is for a server at a host; give at='ssh:HOST', or leave it out", field="at_python", where="at_python"
        )
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("launch() needs Unix sockets; start 'remote-gym serve' here, and connect to it")
    keys: dict[str, Any] = {name: value for name, value in keywords.items() if name in OF_ENVIRONMENTS}
    rest: dict[str, Any] = {name: value for name, value in keywords.items() if name not in keys}
    options = merge_options(ServerOptions, options, rest, of=launch, beside=OF_ENVIRONMENTS)
    asked = _merged(read_environment("environment", environment), keys)
    order = write_order(asked, options, sends=host is not None)
    process: LaunchedProcess | HostedProcess
    if host is None:
        process = LaunchedProcess(order)
    else:
        process = HostedProcess(host, at_python, order, lease=options.lease, start_timeout=start_timeout)
    try:
        if isinstance(process, LaunchedProcess):
            place = process.wait_until_ready(start_timeout)
            server = LaunchedServer(process, place["url"], place["port"])
        else:
            server = LaunchedServer(process, process.url, 0, at)
        checks = diagnose(server.url, server.port, None, timeout=_HEALTH_TIMEOUT)
        if not all(check.works for check in checks):
            found = summarise(checks)
            if isinstance(process, HostedProcess):
                found = (
                    f"by way of ssh, which has to forward Unix sockets (AllowStreamLocalForwarding of sshd): "
                    f"{process.said() or found}"
                )
            raise ConnectError(f"the server that was launched cannot be used: {found}", reason=reason_of(checks))
    except BaseException:
        process.stop()
        raise
    return server


def _launch_image(
    serves: int,
    beside: Mapping[str, Any],
    keywords: dict[str, Any],
    options: ServerOptions | None,
    start_timeout: float,
) -> LaunchedServer:
    for name, value in beside.items():
        if value is not None:
            raise ConfigError("is given beside serves; the image has a server of its own, here", field=name, where=name)
    differing = {} if options is None else differing_options(options)
    process, url, port, tls = start_image(serves, keywords, differing, start_timeout)
    return LaunchedServer(process, url, port, tls=tls)


_HOST = re.compile(r"(?!-)[A-Za-z0-9._%+:\[\]-]+(@(?!-)[A-Za-z0-9._%:\[\]-]+)?")
"""A host as OpenSSH takes one, and nothing that a configuration of its could hand to a shell."""


def _host(at: str) -> str:
    """The host of ``ssh:HOST``."""
    kind, _, host = at.partition(":") if isinstance(at, str) else ("", "", "")
    if kind != "ssh" or not _HOST.fullmatch(host):
        raise ConfigError(f"is {at!r}; use 'ssh:HOST', such as 'ssh:user@gpu-box'", field="at", where="at")
    return host


def _asked(name: str | None, entrypoint_kwargs: dict[str, Any]) -> RemoteArgs | None:
    asked: RemoteArgs = {}
    if name is not None:
        asked["environment"] = name
    if entrypoint_kwargs:
        asked["entrypoint_kwargs"] = entrypoint_kwargs
    return asked or None


def _merged(environment: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """An environment and the keys that were given beside it, of which keyword arguments come together."""
    twice = [name for name in keys if name in environment and name != "entrypoint_kwargs"]
    if twice:
        raise ConfigError(
            "is given twice, also in the environment's dict; give it once", field=twice[0], where=twice[0]
        )
    kwargs = {**(environment.get("entrypoint_kwargs") or {}), **(keys.get("entrypoint_kwargs") or {})}
    return {**environment, **keys, "entrypoint_kwargs": kwargs}


# Sessions are closed before their servers end. Of itself `close_all` would come later: it was registered earlier.
atexit.register(close_all)
