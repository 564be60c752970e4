"""`launch`: a server that belongs to this program, and its clients, in one line."""

from __future__ import annotations

import dataclasses
import os
import socket
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from remote_gym.client.connect.diagnosis import diagnose, reason_of, summarise
from remote_gym.client.environment import RemoteEnvironment
from remote_gym.client.launched_process import LaunchedProcess
from remote_gym.client.vector.env import RemoteVectorEnv
from remote_gym.config import (
    ClientOptions,
    EnvironmentLike,
    Limits,
    RemoteArgs,
    ServerOptions,
    differing_options,
    merge_options,
    read_environment,
    shows_options,
)
from remote_gym.errors import ConfigError, ConnectError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from remote_gym.config import LaunchKeywords

RECONNECT_TIMEOUT = 10.0
"""Seconds that clients of a launched server try for a broken connection, unless their options say otherwise: no network
lies between, and a server that has ended does not come back."""

_HEALTH_TIMEOUT = 10.0
_OF_ENVIRONMENTS = frozenset(RemoteArgs.__annotations__) - {"environment", "entrypoint"}


class LaunchedServer:
    """A server of this program's own; use it as a context manager, or `stop` it.

    It ends with this program, however that ends, and its environments with it.

    Attributes:
        url, port: Where it listens.
    """

    def __init__(self, process: LaunchedProcess, url: str, port: int) -> None:
        self.url = url
        self.port = port
        self._process = process
        self._clients: weakref.WeakSet[RemoteEnvironment | RemoteVectorEnv] = weakref.WeakSet()

    def __repr__(self) -> str:
        state = f"process {self._process.pid}" if self.is_running else "ended"
        return f"<LaunchedServer {self.url}, {state}>"

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended."""
        return self._process.is_running

    def environment(
        self, *, render_mode: str | None = None, options: ClientOptions | None = None, **entrypoint_kwargs: Any
    ) -> RemoteEnvironment:
        """Open an environment, which is closed with the server.

        Args:
            render_mode: As for `RemoteEnvironment`.
            options: As for `RemoteEnvironment`.
            **entrypoint_kwargs: Keyword arguments of ``create_environment``, or of `gymnasium.make`.

        Raises:
            RemoteGymError: As `RemoteEnvironment` does.
        """
        client = RemoteEnvironment(
            self.url, self.port, _asked(entrypoint_kwargs), render_mode=render_mode, options=_options(options)
        )
        self._clients.add(client)
        return client

    def vector_environment(
        self,
        num_envs: int,
        *,
        workers: int | None = None,
        render_mode: str | None = None,
        options: ClientOptions | None = None,
        **entrypoint_kwargs: Any,
    ) -> RemoteVectorEnv:
        """Open a vector environment, which is closed with the server.

        Args:
            num_envs: How many.
            workers: Processes that share them; None for one.
            render_mode: As for `RemoteVectorEnv`.
            options: As for `RemoteVectorEnv`.
            **entrypoint_kwargs: Keyword arguments of ``create_environment``, or of `gymnasium.make`.

        Raises:
            RemoteGymError: As `RemoteVectorEnv` does.
        """
        client = RemoteVectorEnv(
            self.url,
            self.port,
            _asked(entrypoint_kwargs),
            render_mode=render_mode,
            num_envs=num_envs,
            workers=workers,
            options=_options(options),
        )
        self._clients.add(client)
        return client

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
        for client in tuple(self._clients):
            client.close()
        self._process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@shows_options(ServerOptions)
def launch(
    environment: EnvironmentLike,
    *,
    start_timeout: float = 120.0,
    options: ServerOptions | None = None,
    **keywords: Unpack[LaunchKeywords],
) -> LaunchedServer:
    """Start a server of this program's own, on a Unix socket that only this user reaches, and wait until it serves.

    It runs in the same Python as this program, and the environment where its keys say, such as in another Python.

    Args:
        environment: A Gymnasium id, an entrypoint's path, or a dict, as for `create_remote_environment_server`.
        start_timeout: Seconds until it listens, and has tried its environment once.
        options: Options of the server all at once.
        **keywords: Keys of the environment, such as ``python``, `RemoteArgs` lists them, and single options of the
            server.

    Raises:
        ConfigError: If an argument cannot work, or the environment cannot be created.
        ConnectError: If the server ends, or is not ready in time; with the last lines that it logged.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("launch() needs Unix sockets; start 'remote-gym serve' here, and connect to it")
    keys = {name: value for name, value in keywords.items() if name in _OF_ENVIRONMENTS}
    rest: dict[str, Any] = {name: value for name, value in keywords.items() if name not in keys}
    chosen = merge_options(ServerOptions, options, rest, of=launch)
    order = {
        "environment": {**read_environment("environment", environment), **keys},
        "options": {name: _plain(name, value) for name, value in differing_options(chosen).items()},
    }
    process = LaunchedProcess(_checked(order))
    try:
        place = process.wait_until_ready(start_timeout)
        server = LaunchedServer(process, place["url"], place["port"])
        checks = diagnose(server.url, server.port, None, timeout=_HEALTH_TIMEOUT)
        if not all(check.works for check in checks):
            raise ConnectError(
                f"the server that was launched cannot be used: {summarise(checks)}", reason=reason_of(checks)
            )
    except BaseException:
        process.stop()
        raise
    return server


def _asked(entrypoint_kwargs: dict[str, Any]) -> RemoteArgs | None:
    return {"entrypoint_kwargs": entrypoint_kwargs} if entrypoint_kwargs else None


def _options(given: ClientOptions | None) -> ClientOptions:
    if given is None:
        return ClientOptions(reconnect_timeout=RECONNECT_TIMEOUT)
    if given.reconnect_timeout is None:
        return dataclasses.replace(given, reconnect_timeout=RECONNECT_TIMEOUT)
    return given


def _plain(name: str, value: Any) -> Any:
    """An option as JSON can say it."""
    if isinstance(value, Limits):
        return dataclasses.asdict(value)
    if callable(value):
        raise ConfigError(
            "is a function, which a process of its own cannot be given; use create_remote_environment_server",
            field=name,
            where=f"ServerOptions.{name}",
        )
    if name == "environments":
        return {each: dict(read_environment(name, given, each)) for each, given in value.items()}
    return value


def _checked(order: dict[str, Any]) -> Mapping[str, Any]:
    """An order without objects that JSON has no form for; paths become texts.

    Raises:
        ConfigError: Naming what has none.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(each) for each in value]
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise ConfigError(
            f"launch() was given {value!r:.200}, of type {type(value).__name__}, which a server's process cannot be "
            "told; use numbers, texts, lists and dicts"
        )

    checked: dict[str, Any] = plain(order)
    return checked
