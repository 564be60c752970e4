"""Workers as threads of the server, where processes cannot be had or are not wanted."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import traceback

from remote_gym.errors import FullReason, ServerFull
from remote_gym.ipc.counters import Counters, new_page
from remote_gym.logs import get_logger
from remote_gym.server.launch.disconnects import Disconnects
from remote_gym.server.launch.handle import THREAD_ENDED, WorkerHandle
from remote_gym.server.launch.launcher import LaunchSpec, socket_pairs
from remote_gym.transport.direct_socket import DirectSocket
from remote_gym.worker.environment.forked_children import ForkedChild

logger = get_logger(__name__)


class ThreadLauncher:
    """Starts workers as threads of this process.

    Args:
        message_bytes: Longest message accepted from a worker.
    """

    def __init__(self, message_bytes: int) -> None:
        self._message_bytes = message_bytes
        self._disconnects = Disconnects()

    async def launch(self, spec: LaunchSpec) -> WorkerHandle:
        """Start one, as `Launcher.launch` does."""
        from remote_gym.worker import main as worker_module

        loop, session = asyncio.get_running_loop(), spec.session
        with contextlib.ExitStack() as stack:
            try:
                ours, theirs = socket_pairs(stack)
            except OSError as error:
                raise ServerFull(
                    f"no more workers can be started: {error}; see 'ulimit -n'", reason=FullReason.MACHINE
                ) from error
            stack.pop_all()
        page = new_page()
        direct: list[DirectSocket] = []  # the newest, if there was one

        def on_direct(connection: DirectSocket) -> None:
            direct[:] = [connection]

        def kill() -> None:
            logger.error("session %s: a thread cannot be killed", session)
            for connection in direct:  # its client need not wait, at least
                connection.shut_down()

        async def stacks() -> str:
            frame = sys._current_frames().get(thread.ident or 0)
            return "".join(traceback.format_stack(frame)) if frame else "(its thread has ended)"

        worker = WorkerHandle(
            session,
            kill,
            self._message_bytes,
            counters=lambda: Counters.decode(page.tobytes()),
            stacks=stacks,
        )

        def run() -> None:
            try:
                worker_module.run(*theirs, own_process=False, page=page, on_direct=on_direct)
            except ForkedChild as child:
                child.end()
            finally:
                # The server may have stopped without waiting, and its loop with it.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(worker.set_exited, THREAD_ENDED)

        # A daemon: an environment that hangs must not keep the server's process from ending.
        thread = threading.Thread(target=run, name=f"remote_gym-{session}", daemon=True)
        thread.start()
        await worker.connect(*ours, disconnects=self._disconnects)
        return worker

    async def stop(self) -> None:
        """Forget their clients; else nothing is shared between threads."""
        self._disconnects.close()
