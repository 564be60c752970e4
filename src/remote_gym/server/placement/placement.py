"""Gives each session the place where its environment runs, and takes it back when the session is gone."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from remote_gym.errors import ConfigError, FullReason, ServerFull
from remote_gym.ipc.owner import this_process
from remote_gym.logs import get_logger
from remote_gym.server.launch.launcher import LaunchSpec
from remote_gym.server.placement import containers
from remote_gym.server.placement.commands import guest_command
from remote_gym.server.placement.hosts import Hosts
from remote_gym.server.placement.place import Place, read_place
from remote_gym.server.placement.resources import Gpus, gpu_variables, read_resources
from remote_gym.v1 import worker_pb2

logger = get_logger(__name__)


@dataclass(kw_only=True)
class Placed:
    """A session's place.

    Attributes:
        variables: Environment variables that its worker has from its start; none where they are a guest's.
        remove: The command that removes its container; empty where it has none.
        give_back: Called once when others may have what was its own.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    remove: tuple[str, ...] = ()
    give_back: Callable[[], None] | None = None

    def release(self) -> None:
        """Let others have what was this session's, unless that has been done."""
        give_back, self.give_back = self.give_back, None
        if give_back is not None:
            give_back()

    async def leave(self, is_settled: bool) -> None:
        """Leave nothing there.

        Args:
            is_settled: Whether the worker has ended by itself, and so has what it had started.
        """
        if self.remove:
            await containers.remove(self.remove, is_settled=is_settled)
        self.release()


class Placement:
    """Places of one server's sessions. Runs on its event loop.

    Attributes:
        held: Sessions of each environment that has any, by its name.
    """

    def __init__(self) -> None:
        self._hosts = Hosts()
        self._owner = str(this_process())
        self._gpus = Gpus()
        self.held: Counter[str] = Counter()

    def admit(self, environment: str | None, arguments: Mapping[str, Any]) -> None:
        """Let one more session of an environment be opened. It counts until `let_go`.

        Args:
            environment: Its name; empty for the default one, None for a client's own, which has no limit.
            arguments: The server's own of it.

        Raises:
            ServerFull: If it has as many as it may.
        """
        if environment is None:
            return
        most, held = arguments.get("max_sessions"), self.held[environment]
        if most is not None and held >= most:
            shown = f"the environment {environment!r}" if environment else "the default environment"
            count = f"{held} session{'' if held == 1 else 's'}"
            raise ServerFull(
                f"{shown} has {count}, those that open and close among them, as many as its max_sessions of {most} "
                "allows; close one, or raise it",
                reason=FullReason.SAME_ENVIRONMENT,
            )
        self.held[environment] += 1

    def let_go(self, environment: str | None) -> None:
        """A session that was admitted is gone, with its environment, or was never opened."""
        if environment is None:
            return
        self.held[environment] -= 1
        if not self.held[environment]:
            del self.held[environment]

    async def place(self, message: worker_pb2.Launch, arguments: Mapping[str, Any]) -> Placed:
        """Write into the message for a worker where its environment runs.

        Args:
            message: For the worker; its session is set.
            arguments: The server's own of that environment, as `RemoteArgs` has them.

        Raises:
            ConfigError: If the host where that is cannot be reached.
        """
        where = {"field": "default_args", "where": f"the environment of session {message.session}"}
        place = read_place(arguments, **where)
        resources = read_resources(arguments, **where, is_here=place.ssh is None)
        control = None if place.ssh is None else await self._hosts.connect(place.ssh)
        gpu, give_back = None, None
        if resources.gpus:
            gpu = self._gpus.take(place.ssh, resources.gpus)
            give_back = partial(self._gpus.give_back, place.ssh, gpu)
        if place.ssh is None:
            message.cpus.extend(resources.cpus)
        if not place.is_elsewhere or _is_plain_python(place):
            message.variables.update(resources.variables)
            message.variables.update({} if gpu is None else gpu_variables(gpu))
        if not place.is_elsewhere:
            return Placed(variables=resources.variables, give_back=give_back)
        message.guest.there = bool(arguments.get("there"))
        message.guest.include.extend(arguments.get("include") or ())
        if _is_plain_python(place):  # which may have our release, and run the worker itself then
            message.guest.python = place.python or ""
            message.guest.variables.update(message.variables)
            return Placed(variables=resources.variables, give_back=give_back)
        command = guest_command(
            place,
            name=f"remote_gym-{message.session}-{secrets.token_hex(4)}",
            owner=self._owner,
            control=control,
            variables=resources.variables,
            gpu=gpu,
            cpus=resources.cpus,
        )
        message.guest.command.extend(command.words)
        message.guest.variables.update(command.variables)
        message.guest.first_line = command.first_line
        message.guest.ends_in_shell = command.ends_in_shell
        return Placed(remove=command.remove, give_back=give_back)

    async def remove_abandoned(self, offered: Iterable[Mapping[str, Any]]) -> None:
        """Remove the containers of servers that were killed, by whatever engine and on whatever host is used now.

        Args:
            offered: The server's environments, as `RemoteArgs` have them.
        """
        places = [read_place(arguments, field="environments", where="environments") for arguments in offered]
        for place in {(each.engine, each.ssh): each for each in places if each.is_named_container}.values():
            try:
                control = None if place.ssh is None else await self._hosts.connect(place.ssh)
            except ConfigError as error:  # which a trial says, or a client learns
                logger.debug("what servers have left on %s was not looked for: %s", place.ssh, error)
                continue
            if count := await containers.remove_abandoned(place, control):
                logger.info("removed %d containers of servers that are gone", count)

    async def close(self) -> None:
        """Give up what sessions share, once all have ended."""
        await self._hosts.close()


def _is_plain_python(place: Place) -> bool:
    return place.python is not None and place.image is None and place.ssh is None


def launch_spec(message: worker_pb2.Launch, interpreter: str | None, placed: Placed) -> LaunchSpec:
    """Which worker to start, once it is known which Python that is."""
    variables = {} if message.HasField("guest") else dict(placed.variables)
    return LaunchSpec(session=message.session, interpreter=interpreter, variables=variables)
