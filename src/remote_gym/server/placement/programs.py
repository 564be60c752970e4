"""Programs such as a container engine that a server runs to their end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from remote_gym.ipc.variables import for_other_pythons
from remote_gym.transport.waiting import within


@dataclass(frozen=True)
class Done:
    """Output of a program, and its status: 127 where there is none of its name, -1 where it took too long."""

    status: int
    output: str
    errors: str


async def run(words: Sequence[str], timeout: float) -> Done:
    """Run a program, and kill it if it takes longer than `timeout` seconds."""
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=for_other_pythons(),
            start_new_session=True,  # Ctrl-C at a terminal is for the server, which then needs it
        )
    except OSError as error:
        return Done(127, "", f"{words[0]}: {error.strerror}")
    try:
        output, errors = await within(timeout, process.communicate())
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, asyncio.TimeoutError):
            return Done(-1, "", f"{words[0]} took over {timeout:g} s")
        raise
    return Done(process.returncode or 0, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))
