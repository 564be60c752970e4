"""Start a server and keep it running beside the caller's own code."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import math
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, TypeVar, cast

from remote_gym.address import grpc_address
from remote_gym.auth.expiry import OwnCertificates
from remote_gym.config import ServerOptions, TlsFiles
from remote_gym.errors import ConfigError
from remote_gym.logs import flush, get_logger
from remote_gym.server.access.authorizer import PolicySource, has_policy
from remote_gym.server.access.clients import Clients
from remote_gym.server.access.policy import EVERYTHING_TO_EVERYBODY
from remote_gym.server.frontends.ports import Ports
from remote_gym.server.launch.fork import STOP_TIMEOUT, ForkLauncher
from remote_gym.server.launch.launcher import Launcher
from remote_gym.server.launch.open_files import make_room
from remote_gym.server.launch.thread import ThreadLauncher
from remote_gym.server.placement.placement import Placement
from remote_gym.server.preflight import try_environments
from remote_gym.server.service import Service
from remote_gym.server.spares.spares import Spares
from remote_gym.server.status import SessionStatus
from remote_gym.server.supervision.supervisor import watch
from remote_gym.tls import ServerCertificates
from remote_gym.validation import check_seconds

logger = get_logger(__name__)

EXPIRY_INTERVAL = 0.25
"""Seconds between two looks for sessions whose lease is over."""

SIGNAL_INTERVAL = 0.5
"""Seconds for which a signal, such as Ctrl-C's, may have to wait to be heard."""

POLICY_INTERVAL = 1.0
"""Seconds between two looks whether the policy has changed."""

PLACEMENT_TIMEOUT = 10.0
"""Seconds in which connections to hosts where environments run have to end."""

T = TypeVar("T")


class RemoteEnvironmentServer:
    """A running server. Made by `create_remote_environment_server`; a context manager, which stops it.

    Attributes:
        url: Where it listens, as it was given.
        port: The port, also where 0 asked for a free one; 0 for a Unix socket.
        grpc_port: That of gRPC alone, if `ServerOptions.grpc_port` asked for one; else 0.
        http_port: That of HTTP alone, if `ServerOptions.http_port` asked for one; else 0.
        options: All of them; their `environments` in the form of `RemoteArgs`.
        secure: Whether clients need TLS.
        examples: Some ids that clients may choose, if the trial of what is offered found that they have to.
    """

    def __init__(
        self,
        default_args: Mapping[str, Any] | None,
        url: str,
        port: int,
        files: TlsFiles | None,
        options: ServerOptions,
    ) -> None:
        self.url = url
        self.options = options
        self.secure = files is not None
        self._clients = Clients(files, options)
        credentials = None if files is None else ServerCertificates(files).credentials
        limits = options.message_limits
        make_room(options.max_sessions)
        self._launcher: Launcher = (
            ThreadLauncher(limits.message_bytes)
            if options.use_thread
            else ForkLauncher(limits.message_bytes, options.output_rate)
        )
        self._placement = Placement()
        self._spares = Spares(self._launcher, default_args, options, self._placement)
        if self._spares.has_reuse and not self._clients.have_identities:
            logger.warning(
                "reuse=True keeps no environment here, since this server knows none of its clients; give it an "
                "authority (tls) or ServerOptions.token_file"
            )
        # Counted rather than locked: a signal's function may call `stop` while `stop` is running beneath it.
        self._stops = itertools.count()
        self._stopper = threading.Thread(target=self._stop, name="remote_gym-stop")
        self._grace = options.drain_timeout
        self._stop_deadline = 0.0
        self._following: asyncio.Task[None] | None = None
        self._terminated = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_handle_loop_error)
        # A daemon: a script that forgets to stop its server must still end. The forkserver notices, and ends workers.
        self._thread = threading.Thread(target=self._run_loop, name="remote_gym-server", daemon=True)
        self._thread.start()
        try:
            self._remove_abandoned(default_args)
            self.examples = self._try_environments(default_args) if options.check else ()
            bound = self._call(self._start(default_args, port, files, credentials), timeout=30.0)
        except (TimeoutError, concurrent.futures.TimeoutError) as error:
            self._abandon()
            raise ConfigError(f"could not listen on {url!r} within 30 s; is its name resolved?", field="url") from error
        except BaseException:
            self._abandon()
            raise
        self.port, self.grpc_port, self.http_port = bound

    @property
    def address(self) -> str:
        """Address for clients, such as ``localhost:56789``."""
        return grpc_address(self.url, self.port)

    @property
    def session_count(self) -> int:
        """How many sessions are open."""
        return len(self._service)

    @property
    def spare_count(self) -> int:
        """How many environments wait for a session: made ahead by `warm`, or kept by `reuse`."""
        return self._service.spare_count

    def sessions(self) -> tuple[SessionStatus, ...]:
        """State of each open session, the oldest first; empty once the server has stopped."""
        if self._terminated.is_set():
            return ()
        return self._call(self._look_at_sessions(), timeout=10.0)

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped, as `grpc.Server.wait_for_termination` does.

        Args:
            timeout: Seconds; None waits for as long as the server runs, which is what it is for.

        Returns:
            Whether the time ran out first.
        """
        return not self._wait(math.inf if timeout is None else time.monotonic() + timeout)

    def stop(self, grace: float | None = None) -> threading.Event:
        """Refuse new sessions and new episodes, wait for running episodes to end, and close what is left then.

        Returns at once, and may be called by a signal's function. Called again it hurries: what is left is closed
        after `grace` seconds from now if that is sooner, or at once.

        Args:
            grace: Seconds that episodes have to end; None for `ServerOptions.drain_timeout`, or 0 when called again.

        Returns:
            An event that is set when that is done: environments are closed, and those whose ``close`` hung are killed.

        Raises:
            ConfigError: If `grace` is no time to wait.
        """
        if grace is not None:
            check_seconds("grace", grace, lowest=0.0)
        if not self._begin_stop(grace):
            with contextlib.suppress(RuntimeError):  # it has stopped
                self._loop.call_soon_threadsafe(self._service.end_drain, grace or 0.0)
        return self._terminated

    def __repr__(self) -> str:
        security = "with TLS" if self.secure else "without TLS"
        count = self.session_count
        state = "stopped" if self._terminated.is_set() else f"{count} session{'' if count == 1 else 's'}"
        return f"<{type(self).__name__}: at {self.address}, {security}, {state}>"

    def __enter__(self) -> RemoteEnvironmentServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._begin_stop(None)
            self._wait(self._stop_deadline)
        except BaseException:  # Ctrl-C once more, which may have come before the thread was started
            with contextlib.suppress(RuntimeError):  # it was
                self._stopper.start()
            self.stop()
            self._wait(time.monotonic() + self._stop_timeout(0.0))
            raise

    def _try_environments(self, default_args: Mapping[str, Any] | None) -> tuple[str, ...]:
        """See that what is offered can be created. Each wait of it has an end of its own."""
        return self._finish(try_environments(self._launcher, default_args, self.options, self._placement, self._spares))

    def _remove_abandoned(self, default_args: Mapping[str, Any] | None) -> None:
        """Before anything is tried: what a killed server has left may hold a device."""
        offered = cast("list[Mapping[str, Any]]", [default_args or {}, *self.options.environments.values()])
        self._finish(self._placement.remove_abandoned(offered))

    def _finish(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for something each of whose own waits has an end."""
        done = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        # In short waits, for the reason that `_wait` has them.
        while not done.done():
            concurrent.futures.wait([done], SIGNAL_INTERVAL)
        return done.result()

    def _abandon(self) -> None:
        """Leave nothing of a server that does not start."""
        with contextlib.suppress(Exception):  # the reason why it does not start matters more
            self._call(self._spares.close(), self._stop_timeout(0.0))
        with contextlib.suppress(Exception):
            self._call(self._launcher.stop(), STOP_TIMEOUT + 1.0)
            self._call(self._placement.close(), PLACEMENT_TIMEOUT)
        self._end_loop()

    def _wait(self, deadline: float) -> bool:
        """Whether it has stopped by then."""
        # In short waits: a signal that another thread receives does not end a long one of this thread.
        while not self._terminated.wait(min(SIGNAL_INTERVAL, max(0.0, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return False
        return True

    def _begin_stop(self, grace: float | None) -> bool:
        """Stop in a thread, unless that has begun before."""
        if next(self._stops):
            return False
        self._grace = self.options.drain_timeout if grace is None else grace
        self._stop_deadline = time.monotonic() + self._stop_timeout(self._grace)
        self._stopper.start()
        return True

    def _stop_timeout(self, grace: float) -> float:
        return grace + 2 * self.options.close_timeout + 5.0

    async def _start(
        self, default_args: Mapping[str, Any] | None, port: int, files: TlsFiles | None, credentials: Any
    ) -> tuple[int, int, int]:
        options = self.options
        policy = EVERYTHING_TO_EVERYBODY
        source: PolicySource | None = None
        if has_policy(options):
            source = PolicySource(options, default_args)
            if options.check:
                source.check_reachable(have_identities=self._clients.have_identities)
            policy = source.policy
        self._ports = Ports(self.url, port, credentials, options, files)
        try:
            self._service = Service(
                self._launcher,
                default_args,
                options,
                clients=self._clients,
                policy=policy,
                direct=self._ports.direct,
                placement=self._placement,
                spares=self._spares,
            )
            await self._ports.open(self._service)
        except BaseException:
            await self._ports.stop_listening()
            await self._ports.stop()
            raise
        if source is not None:
            self._following = asyncio.ensure_future(self._follow(source))
        self._own_certificates = OwnCertificates(files)
        self._expiring = asyncio.ensure_future(self._expire())
        self._watching = asyncio.ensure_future(watch(self._service.watched_workers, self.options))
        return self._ports.port, self._ports.grpc_port, self._ports.http_port

    async def _look_at_sessions(self) -> tuple[SessionStatus, ...]:
        return self._service.statuses()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL)
            try:
                self._service.expire()
                self._service.cut_off()
                self._own_certificates.look()
                flush()
            except Exception:  # a fault of ours must not be the last look
                logger.exception("could not look after the sessions")

    async def _follow(self, source: PolicySource) -> None:
        """Let a policy that has been rewritten hold."""
        while True:
            await asyncio.sleep(POLICY_INTERVAL)
            try:
                # Beside the event loop, since the file may be far away.
                policy = await _in_thread(source.look)
                if policy is not None:
                    self._service.set_policy(policy)
            except Exception:  # whatever it was: a right that is withdrawn later is to be withdrawn
                logger.exception("could not look whether the policy has changed")

    async def _shut_down(self, grace: float) -> None:
        self._ports.report_stopping()  # which waits for nobody
        await self._service.drain(grace)
        self._expiring.cancel()
        if self._following is not None:
            self._following.cancel()
        await self._ports.stop_listening()
        await self._service.close()
        self._watching.cancel()
        await self._ports.stop()
        await self._launcher.stop()
        await self._placement.close()

    def _stop(self) -> None:
        try:
            self._call(self._shut_down(self._grace), timeout=self._stop_timeout(self._grace))
        except (TimeoutError, concurrent.futures.TimeoutError):
            logger.error("the server did not stop in time")
        finally:
            self._end_loop()
            flush(everything=True)
            self._terminated.set()

    def _call(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            leftover = asyncio.all_tasks(self._loop)
            for task in leftover:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*leftover, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)


async def _in_thread(function: Callable[[], T]) -> T:
    """Call a function in a thread of its own.

    `asyncio.to_thread` would not do: it takes no more work once a program's last line has run, when a drain may go on.
    """
    done: concurrent.futures.Future[T] = concurrent.futures.Future()
    done.set_running_or_notify_cancel()  # so that nobody cancels it, and the thread can always report

    def run() -> None:
        try:
            done.set_result(function())
        except BaseException as error:  # noqa: BLE001 - for the task that waits
            done.set_exception(error)

    threading.Thread(target=run, name="remote_gym-beside", daemon=True).start()
    return await asyncio.wrap_future(done)


def _handle_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # All of a process's event loops that use grpc.aio wait for the same wake-up socket, and the slower ones find it
    # empty, which grpc.aio lets escape: https://github.com/grpc/grpc/issues/25364
    if isinstance(context.get("exception"), BlockingIOError) and "PollerCompletionQueue" in context.get("message", ""):
        return
    loop.default_exception_handler(context)
