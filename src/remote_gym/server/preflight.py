"""One creation of each environment before a server listens, so that what nobody could open is found by its operator."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from remote_gym.config import ServerOptions
from remote_gym.errors import ConfigError, RemoteEnvironmentError, SessionLost
from remote_gym.logs import get_logger
from remote_gym.server.access.policy import DEFAULT
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.launcher import Launcher
from remote_gym.server.launch_request import launch_message, offered_arguments
from remote_gym.server.placement.placement import Placed, Placement
from remote_gym.server.spares.making import asks_the_client, create_alone
from remote_gym.server.spares.spares import Spares
from remote_gym.v1 import worker_pb2
from remote_gym.wire.errors import decode_error
from remote_gym.worker.environment.registered_ids import IdNeeded

logger = get_logger(__name__)

REQUESTS: tuple[dict[str, Any], ...] = ({}, {"render_mode": "rgb_array"}, {"num_envs": 1})
"""Ways in which a client may open an environment. It is good if one of them works: an entrypoint may insist on a
render mode, or make vectors of environments only."""


async def try_environments(
    launcher: Launcher,
    default_args: Mapping[str, Any] | None,
    options: ServerOptions,
    placement: Placement,
    spares: Spares,
) -> tuple[str, ...]:
    """Create each environment that a server offers once, in a worker as a session has one.

    It is closed again, unless such environments are made ahead anyway.

    Args:
        launcher: Starts workers.
        default_args: What clients get that name no environment; None where they have to.
        options: The server's.
        placement: Says where they run.
        spares: Takes those over that are made ahead.

    Returns:
        Some ids that clients may choose, where an environment leaves its id to them.

    Raises:
        ConfigError: If one cannot be created, with the environment's own error. Its traceback is logged. Or if no id
            matches what clients are to choose from.
    """
    examples: tuple[str, ...] = ()
    offered: dict[str, Any] = dict(options.environments)
    if default_args is not None:
        offered.setdefault("", default_args)
    last = list(offered)[-1:]
    for name in offered:
        where = f"environment {name!r}" if name else f"the {DEFAULT} environment"
        takes_over = spares.takes_over(name, is_last=[name] == last)
        error = await _try(launcher, name, default_args, options, placement, spares, takes_over=takes_over)
        if isinstance(error, IdNeeded) and error.fault:
            raise ConfigError(error.fault, field="ids") from error
        if error is None or isinstance(error, IdNeeded):
            examples = examples or getattr(error, "examples", ())
            continue
        if asks_the_client(error):
            logger.info("%s was not tried, since it needs arguments of its clients: %s", where, error)
            continue
        if isinstance(error, RemoteEnvironmentError):
            logger.error("%s cannot be created", where, details=error.remote_traceback, event="environment_error")
            text = f"it raised {error.remote_type.removeprefix('builtins.')}: {error.remote_message}{_place_in(error)}"
        else:
            text = str(error)
        if "No module named 'remote_gym'" in text:
            text = f"{options.interpreter} has no remote_gym; install the same release there as here ({text})"
        raise ConfigError(
            f"{where} cannot be created, so no client could open it (check=False serves it all the same): {text}",
            field="environments" if name else "default_args",
        ) from error
    if not offered and options.imports:  # all that clients open are entrypoints of their own, which need these, too
        error = await _try(launcher, "", {}, options, placement, spares)
        if error is not None and not isinstance(error, IdNeeded):
            raise ConfigError(str(error), field="imports") from error
    return examples


def _place_in(error: RemoteEnvironmentError) -> str:
    """Where it was raised, to go on in an error; empty where that is not known."""
    places = re.findall(r'^ *File "([^"]+)", line (\d+), in', error.remote_traceback, re.MULTILINE)
    return f", in {places[-1][0]} line {places[-1][1]}" if places else ""


async def _try(
    launcher: Launcher,
    name: str,
    default_args: Mapping[str, Any] | None,
    options: ServerOptions,
    placement: Placement,
    spares: Spares,
    *,
    takes_over: bool = False,
) -> Exception | None:
    """Return what the first way to open an environment raised, if no other way works."""
    first: Exception | None = None
    for fields in REQUESTS:
        request = worker_pb2.Opening(environment=name, **fields)
        message = launch_message(request, default_args, options)
        message.session = "trial"
        try:
            placed = await placement.place(message, offered_arguments(request, default_args, options))
        except ConfigError as refusal:
            return refusal
        count = request.num_envs or 1
        message.ahead, message.env_id = takes_over, spares.env_ids.take(count)
        keep = partial(spares.add, name, request, message.env_id) if takes_over else None
        error = await _create(launcher, message, options, placed, keep)
        if error is not None or not takes_over:
            spares.env_ids.give_back(message.env_id, count)
        if error is None:
            spares.tried(name, request)
            return None
        first = first or error
        if isinstance(error, SessionLost) or asks_the_client(error) or isinstance(error, IdNeeded):
            break  # another way would end alike, and a hang takes `open_timeout` each time
    spares.tried(name, None)
    return first


async def _create(
    launcher: Launcher,
    message: worker_pb2.Launch,
    options: ServerOptions,
    placed: Placed,
    keep: Callable[[WorkerHandle], None] | None,
) -> Exception | None:
    try:
        worker, launched = await create_alone(launcher, message, placed, options)
    except SessionLost as error:  # its worker has crashed, or takes too long
        return error
    if keep is not None and launched.HasField("description"):
        keep(worker)
    else:  # before anything else is created: two might not have room on a device, or the same port
        await worker.close(options.close_timeout)
    if launched.HasField("choice"):
        return IdNeeded(launched.error.message, launched.choice.examples, launched.choice.fault)
    if launched.description.lacking:  # not an error: an entrypoint may create several kinds, and list the names of all
        names = ", ".join(map(repr, launched.description.lacking))
        logger.warning("EXPOSED of %s lists %s, which the environment does not have", message.entrypoint, names)
    return decode_error(launched.error) if launched.HasField("error") else None
