"""In which Python a worker runs: the server's, that of an option, or one that an environment names."""

from __future__ import annotations

import asyncio
import contextlib

from remote_gym.config import ServerOptions
from remote_gym.ipc.variables import for_other_pythons
from remote_gym.logs import get_logger
from remote_gym.protocol.constants import package_versions
from remote_gym.transport.waiting import within
from remote_gym.v1 import worker_pb2

logger = get_logger(__name__)

PROBE_TIMEOUT = 60.0
"""Seconds that a Python has to say which release of ours it has, all that a worker needs imported."""

_PROBE = (
    "import remote_gym.worker.forkserver; from remote_gym.protocol.constants import package_versions; "
    "print(package_versions()['remote-gym'])"
)
_has_our_release: dict[str, bool] = {}


async def interpreter_for(message: worker_pb2.Launch, options: ServerOptions) -> str | None:
    """The Python for the worker that this message is for; None for the server's own.

    A Python that an environment names runs the worker itself where it has our release: then the message says no more
    that the environment is a guest's. Each is asked until it has answered.
    """
    python = message.guest.python
    if not python or options.use_thread:
        return options.interpreter
    if python not in _has_our_release:
        found = await _probe(python)
        if found is None:  # it may be busy, or just being installed: asked again for the next session
            logger.warning("the Python %s did not say which release it has; it hosts a guest", python)
            return options.interpreter
        _has_our_release[python] = found
        where = "has this release, so workers run in it" if found else "hosts guests"
        logger.info("the Python %s %s", python, where)
    if not _has_our_release[python]:
        return options.interpreter
    message.ClearField("guest")
    return python


async def _probe(python: str) -> bool | None:
    """Whether it has our release; None if it did not say."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(python, "-c", _PROBE),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env=for_other_pythons(),
        )
    except OSError:  # which the worker says as it starts the guest
        return None
    try:
        printed, _ = await within(PROBE_TIMEOUT, process.communicate())
    except asyncio.TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        return None
    return process.returncode == 0 and printed.decode("utf-8", "replace").strip() == package_versions()["remote-gym"]
