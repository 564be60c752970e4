"""Containers that sessions leave, and that servers have left: removed by name."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from remote_gym.ipc.leftovers import KILL_AFTER
from remote_gym.ipc.owner import find_owner
from remote_gym.logs import get_logger
from remote_gym.server.placement.commands import list_command, on_host, remove_command
from remote_gym.server.placement.place import Place
from remote_gym.server.placement.programs import Done, run

logger = get_logger(__name__)

REMOVE_TIMEOUT = 10.0
"""Seconds in which an engine removes a container. It takes less than one, if it has nothing else to do."""
LIST_TIMEOUT = 20.0
"""Seconds in which an engine says which there are; a daemon may be started for that."""
SETTLE = KILL_AFTER + 0.5
"""Seconds after which what a killed worker has started, an engine's client say, starts nothing more."""


async def remove(words: Sequence[str], *, is_settled: bool) -> None:
    """Remove a session's container, if it is still there.

    Args:
        words: The command that does.
        is_settled: Whether what started the container is known to have ended. Else it is looked for once more.
    """
    done = await run(words, REMOVE_TIMEOUT)
    if not is_settled and _was_absent(done):
        await asyncio.sleep(SETTLE)
        done = await run(words, REMOVE_TIMEOUT)
    if done.status != 0 and not _was_absent(done):
        logger.warning("a container could not be removed by %s", " ".join(words[-4:]), details=done.errors)


async def remove_abandoned(place: Place, control: str | None) -> int:
    """Remove the containers of servers that are gone.

    Args:
        place: Where to look: by its engine, on its host.
        control: Socket of the connection to that.

    Returns:
        How many there were. None are found where there is no such engine, or it does not answer.
    """

    def there(words: tuple[str, ...]) -> tuple[str, ...]:
        return words if place.ssh is None else on_host(place.ssh, words, control)

    listed = await run(there(list_command(place)), LIST_TIMEOUT)
    names = []
    for line in listed.output.splitlines() if listed.status == 0 else ():
        name, _, labels = line.partition(" ")
        owner = find_owner(labels)
        if owner is not None and owner.is_dead():
            names.append(name)
    if names:
        await remove(there(remove_command(place, names)), is_settled=True)
    return len(names)


def _was_absent(done: Done) -> bool:
    # Docker says so, and so do some releases of Podman, of which others just succeed: both print what they remove.
    return "no such container" in done.errors.lower() or (done.status == 0 and not done.output.strip())
