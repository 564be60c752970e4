"""Gives each session the place where its environment runs, and takes it back when the session is gone."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from remote_gym.server.placement.commands import guest_command
from remote_gym.server.placement.hosts import Hosts
from remote_gym.server.placement.owner import this_process
from remote_gym.server.placement.place import Place, read_place
from remote_gym.v1 import worker_pb2


class Placement:
    """Places of one server's sessions. Runs on its event loop."""

    def __init__(self) -> None:
        self._hosts = Hosts()
        self._owner = str(this_process())

    async def place(self, message: worker_pb2.Launch, arguments: Mapping[str, Any]) -> None:
        """Write into the message for a worker where its environment runs.

        Args:
            message: For the worker; its session is set.
            arguments: The server's own of that environment, as `RemoteArgs` has them.

        Raises:
            ConfigError: If the host where that is cannot be reached.
        """
        place = read_place(arguments, field="default_args", where=f"the environment of session {message.session}")
        if not place.is_elsewhere:
            return
        message.guest.there = bool(arguments.get("there"))
        if _is_plain_python(place):  # which may have our release, and run the worker itself then
            message.guest.python = place.python or ""
            return
        control = None if place.ssh is None else await self._hosts.connect(place.ssh)
        name = f"remote_gym-{message.session}-{secrets.token_hex(4)}"
        command = guest_command(place, name=name, owner=self._owner, control=control)
        message.guest.command.extend(command.words)
        message.guest.variables.update(command.variables)
        message.guest.first_line = command.first_line
        message.guest.ends_in_shell = command.ends_in_shell

    async def close(self) -> None:
        """Give up what sessions share, once all have ended."""
        await self._hosts.close()


def _is_plain_python(place: Place) -> bool:
    return place.python is not None and place.image is None and place.ssh is None
