"""Gives each session the place where its environment runs, and takes it back when the session is gone."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from remote_gym.errors import ConfigError
from remote_gym.logs import get_logger
from remote_gym.server.placement import containers
from remote_gym.server.placement.commands import guest_command
from remote_gym.server.placement.hosts import Hosts
from remote_gym.server.placement.owner import this_process
from remote_gym.server.placement.place import Place, read_place
from remote_gym.v1 import worker_pb2

logger = get_logger(__name__)


@dataclass(frozen=True)
class Placed:
    """A session's place.

    Attributes:
        remove: The command that removes its container; empty where it has none.
    """

    remove: tuple[str, ...] = ()

    async def leave(self, is_settled: bool) -> None:
        """Leave nothing there.

        Args:
            is_settled: Whether the worker has ended by itself, and so has what it had started.
        """
        if self.remove:
            await containers.remove(self.remove, is_settled=is_settled)


class Placement:
    """Places of one server's sessions. Runs on its event loop."""

    def __init__(self) -> None:
        self._hosts = Hosts()
        self._owner = str(this_process())

    async def place(self, message: worker_pb2.Launch, arguments: Mapping[str, Any]) -> Placed:
        """Write into the message for a worker where its environment runs.

        Args:
            message: For the worker; its session is set.
            arguments: The server's own of that environment, as `RemoteArgs` has them.

        Raises:
            ConfigError: If the host where that is cannot be reached.
        """
        place = read_place(arguments, field="default_args", where=f"the environment of session {message.session}")
        if not place.is_elsewhere:
            return Placed()
        message.guest.there = bool(arguments.get("there"))
        if _is_plain_python(place):  # which may have our release, and run the worker itself then
            message.guest.python = place.python or ""
            return Placed()
        control = None if place.ssh is None else await self._hosts.connect(place.ssh)
        name = f"remote_gym-{message.session}-{secrets.token_hex(4)}"
        command = guest_command(place, name=name, owner=self._owner, control=control)
        message.guest.command.extend(command.words)
        message.guest.variables.update(command.variables)
        message.guest.first_line = command.first_line
        message.guest.ends_in_shell = command.ends_in_shell
        return Placed(command.remove)

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
