"""Images that run a whole server of ours: launched, waited for, and owned by an environment whose closing ends one."""

from __future__ import annotations

import time
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from remote_gym.client.connect.diagnosis import diagnose, reason_of, summarise
from remote_gym.config import CERTS_FOLDER, TlsFiles
from remote_gym.errors import ConfigError, ConnectError, ConnectReason
from remote_gym.validation import check_integer

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from remote_gym.client.launching import LaunchedServer
    from remote_gym.config import ClientOptions, EnvironmentLike, LaunchKeywords
    from remote_gym.launched.process import LaunchedProcess

KEYS = ("image", "engine", "command", "network", "mounts", "engine_options", "variables", "gpus", "cpus")
"""Keys of `EnvironmentKeys` that say something of a container as a whole."""

CHECK_TIMEOUT = 5.0
"""Seconds for one step of a connection that is tried."""
CHECK_INTERVAL = 0.2
END_TIMEOUT = 30.0
"""Seconds for a container to be removed in that is not ready."""

_OWN: weakref.WeakKeyDictionary[FromDockerImage, LaunchedServer] = weakref.WeakKeyDictionary()
"""Servers by their owners. A copy of one owns nothing."""


class FromDockerImage:
    """The part of `RemoteEnvironment` that launches an image for it."""

    @classmethod
    def from_docker_image(
        cls,
        image: str,
        /,
        environment: EnvironmentLike | None = None,
        *,
        serves: int | None = None,
        name: str | None = None,
        render_mode: str | None = None,
        options: ClientOptions | None = None,
        start_timeout: float = 120.0,
        **keywords: Unpack[LaunchKeywords],
    ) -> Self:
        """Launch an image by `launch`, and open an environment which owns that: closing it ends the container.

        Args:
            image: Its name, such as ``"sim:3"``.
            environment: What to host in it, as for `launch`; None where it runs a server of ours.
            serves: Port on which its server listens there. Without that, an environment runs in it.
            name: One of those that the image's server offers by name; None for the one that it offers by itself.
            render_mode: As for `RemoteEnvironment`.
            options: As for `RemoteEnvironment`.
            start_timeout: Seconds until it serves.
            **keywords: As for `launch`. ``entrypoint_kwargs`` are keyword arguments of the environment in any case.

        Raises:
            RemoteGymError: As `launch` and `RemoteEnvironment` do.
        """
        from remote_gym.client.launching import launch  # which is made of this

        given: dict[str, Any] = dict(keywords)
        kwargs = {} if serves is None else dict(given.pop("entrypoint_kwargs", None) or {})
        server = launch(environment, image=image, serves=serves, start_timeout=start_timeout, **given)
        try:
            opened: Self = server.open_as(cls, name, kwargs, render_mode, options)
        except BaseException:
            server.stop()
            raise
        _OWN[opened] = server
        return opened

    def _end_own_server(self) -> None:
        if (server := _OWN.pop(self, None)) is not None:
            server.stop()


def start_image(
    serves: int, keys: Mapping[str, Any], options: Mapping[str, Any], start_timeout: float
) -> tuple[LaunchedProcess, str, int, TlsFiles]:
    """Run an image, and wait until its server can be used.

    Args:
        serves: Port on which it listens there.
        keys: Of these, those in `KEYS` are taken.
        options: Options of a server, of which there may be none: its server has its own.
        start_timeout: Seconds until it can be used.

    Returns:
        Process that keeps it, where it listens, and the files by which it is reached.

    Raises:
        ConfigError: If an argument cannot work.
        ConnectError: If it ends, or cannot be used in time; with the last lines that it logged.
    """
    from remote_gym.launched.process import LaunchedProcess  # which most clients do without

    _check(serves, keys, options)
    arguments = {name: keys[name] for name in KEYS if keys.get(name) is not None}
    deadline = time.monotonic() + start_timeout
    process = LaunchedProcess(
        {"serves": serves, "arguments": arguments}, module="remote_gym.server.placement.keeper", end_timeout=END_TIMEOUT
    )
    try:
        place = process.wait_until_ready(start_timeout)
        files = TlsFiles.from_folder(place["certs"], "client")
        _wait_until_it_serves(process, place["url"], place["port"], files, deadline, serves)
    except BaseException:
        process.stop()
        raise
    return process, place["url"], place["port"], files


def _check(serves: int, keys: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    check_integer("serves", serves, 1, 65535)
    if keys.get("image") is None:
        raise ConfigError("needs image, which runs a server on that port", field="serves", where="serves")
    for name, value in [*keys.items(), *options.items()]:
        if value is not None and name not in KEYS:
            raise ConfigError(
                "is of a server here, and the image that 'serves' has one of its own; say it there, or leave 'serves' "
                "out to host the environment in the image",
                field=name,
                where=name,
            )


def _wait_until_it_serves(
    process: LaunchedProcess, url: str, port: int, files: TlsFiles, deadline: float, serves: int
) -> None:
    needed = f"It has to listen on 0.0.0.0, port {serves}, with the certificates in {CERTS_FOLDER}"
    while True:
        checks = diagnose(url, port, files, timeout=CHECK_TIMEOUT)
        if all(check.works for check in checks):
            return
        if not process.is_running:
            text = f"the image's server has ended. {needed}{process.last_lines()}"
            raise ConnectError(text, reason=ConnectReason.UNREACHABLE)
        # What publishes a port may take connections before anything listens inside, and closes them.
        if time.monotonic() > deadline or any(check.hopeless for check in checks):
            text = f"the image's server cannot be used: {summarise(checks)}. {needed}{process.last_lines()}"
            raise ConnectError(text, reason=reason_of(checks))
        time.sleep(CHECK_INTERVAL)
