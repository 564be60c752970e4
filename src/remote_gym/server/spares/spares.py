"""Environments that no session has: made ahead, kept for a client's next session, and given to sessions."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, cast

from remote_gym.config import ServerOptions
from remote_gym.errors import FullReason, RemoteEnvironmentError, ServerFull, SessionLost
from remote_gym.logs import get_logger
from remote_gym.server.access.policy import DEFAULT
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.launcher import Launcher
from remote_gym.server.placement.placement import Placement
from remote_gym.server.sessions import EnvIds, Session, Sessions
from remote_gym.server.spares.making import ClientHasToSayError, Maker
from remote_gym.server.spares.stock import Offer, Recipe, Spare, Stock
from remote_gym.transport.waiting import within
from remote_gym.v1 import worker_pb2

logger = get_logger(__name__)

ASSIGN_TIMEOUT = 5.0
"""Seconds that a worker whose environment is there has to take a session: it looks at some arguments, no more."""


class Spares:
    """All of a server's. Runs on its event loop.

    Args:
        launcher: Starts workers.
        default_args: What clients get that name no environment; None where they have to.
        options: The server's.
        placement: Says where they run.
        clock: Monotonic seconds.

    Attributes:
        env_ids: Numbers of environments, those of sessions among them.
    """

    def __init__(
        self,
        launcher: Launcher,
        default_args: Mapping[str, Any] | None,
        options: ServerOptions,
        placement: Placement,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._maker = Maker(launcher, default_args, options, placement)
        self._close_timeout = options.close_timeout
        self._placement = placement
        offered = cast("dict[str, Mapping[str, Any]]", dict(options.environments))
        if default_args is not None:
            offered[""] = default_args
        offers = {name: _offer(arguments) for name, arguments in offered.items()}
        self._stock: Stock[WorkerHandle] = Stock(offers, options.max_sessions, clock)
        self.env_ids = EnvIds()
        self._sessions: Sessions | None = None
        self._is_closed = False
        self._numbers = itertools.count(1)
        self._watching: dict[Spare[WorkerHandle], Callable[[asyncio.Future[str]], None]] = {}  # that wait for a session
        self._making: dict[Spare[WorkerHandle], asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def count(self) -> int:
        """How many could be a session's now."""
        return len(self._watching)

    @property
    def has_reuse(self) -> bool:
        """Whether environments of some name are to be kept."""
        return any(offer.reuse for offer in self._stock.offers.values())

    def workers(self) -> dict[str, WorkerHandle]:
        """Their workers, by name."""
        return {spare.name: spare.worker for spare in self._watching if spare.worker is not None}

    def start(self, sessions: Sessions) -> None:
        """Make what is to be there, from now on."""
        self._sessions = sessions
        self.look()

    # --------------------------------------------------------------------------------------------------------------
    # The server's trial

    def takes_over(self, environment: str, *, is_last: bool) -> bool:
        """Whether a trial of an environment of that name is to leave it here: it is made ahead, and there is room.

        Args:
            environment: Its name.
            is_last: Whether no other is tried after it, which needs room, too.
        """
        return self._stock.is_warm(environment) and len(self._stock) + (1 if is_last else 2) <= self._stock.most

    def tried(self, environment: str, request: worker_pb2.Opening | None) -> None:
        """It has been found how an environment is created if no more of it is said; by None that it cannot be."""
        self._stock.tried(environment, None if request is None else Recipe.of(environment, request))

    def add(self, environment: str, request: worker_pb2.Opening, env_id: int, worker: WorkerHandle) -> None:
        """Take over the worker of a trial, which was told that its environment is made ahead."""
        self._put(self._named("ahead", Recipe.of(environment, request), env_id), worker)

    # --------------------------------------------------------------------------------------------------------------
    # Sessions

    def keeps(self, environment: str | None, identity: str) -> bool:
        """Whether that client's environment is kept when it has closed it."""
        return self._stock.keeps(environment, identity)

    async def give(
        self, recipe: Recipe, entry: Session, message: worker_pb2.Launch
    ) -> tuple[WorkerHandle, bytes] | None:
        """Give a session an environment that is there already.

        Args:
            recipe: What it asks for.
            entry: The session.
            message: What its worker is to be told.

        Returns:
            The worker, and what it answers, which may be an error; None if there is none.
        """
        while not self._is_closed and (spare := self._stock.take(recipe, entry.identity)) is not None:
            worker = self._stop_watching(spare)
            assert self._sessions is not None
            self._sessions.take_over(entry, spare.env_id)
            message.env_id = spare.env_id
            worker.assign(entry.id)
            try:
                return worker, await within(ASSIGN_TIMEOUT, worker.ask(message.SerializeToString()))
            except (asyncio.TimeoutError, SessionLost) as error:
                logger.warning("%s, an environment for session %s, is of no use: %r", spare.name, entry.id, error)
                await asyncio.shield(self._in_background(worker.close(0.0)))
            except BaseException:
                self._in_background(worker.close(0.0))
                raise
            finally:
                self.look()
        return None

    async def make_room(self, environment: str | None) -> None:
        """Close what is in the way of a session, which has its place already, and wait until that is gone.

        Raises:
            ServerFull: If something does not go.
        """
        for spare in self._stock.in_the_way(environment, *self._count()):
            self._end(spare)
        while self._stock.is_crowded(environment, *self._count()):
            if not self._ending:
                raise ServerFull(
                    "an environment that does not end has the place that this session would have; try again later",
                    reason=FullReason.SESSIONS,
                )
            await asyncio.wait(self._ending, return_when=asyncio.FIRST_COMPLETED)

    def opened(self, recipe: Recipe, identity: str) -> None:
        """A session of that client has been opened."""
        self._stock.opened(recipe, identity)
        self.look()

    async def keep(self, entry: Session, recipe: Recipe, worker: WorkerHandle, timeout: float) -> bool:
        """Keep the environment of a session that its client has closed, for the next one of that client.

        Args:
            entry: The session, which has ended.
            recipe: What it had asked for.
            worker: Where the environment is.
            timeout: Seconds that it has to forget the session.

        Returns:
            Whether it is kept; else it is to be closed.
        """
        is_busy = worker.is_asked or worker.counters().operation is not None
        if self._is_closed or is_busy or not self.keeps(entry.environment, entry.identity):
            return False
        if not await worker.leave(timeout) or self._is_closed:
            return False
        entry.has_env_ids = False
        self._put(self._named("kept", recipe, entry.env_id, entry.identity), worker)
        return True

    # --------------------------------------------------------------------------------------------------------------
    # By themselves

    def look(self) -> None:
        """Do what is to be done now, and come back when time alone changes that."""
        if self._is_closed or self._sessions is None:
            return
        for spare in self._stock.surplus():
            self._end(spare)
        for recipe in self._stock.missing(*self._count()):
            spare = self._named("ahead", recipe, self.env_ids.take(recipe.num_envs or 1))
            self._stock.add(spare)
            self._making[spare] = asyncio.ensure_future(self._make(spare))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if (seconds := self._stock.next_change()) is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds + 0.01, self.look)

    def revise(self, may_open: Callable[[str, str], bool]) -> None:
        """Close what is kept of clients that may not have it any more.

        Args:
            may_open: Whether a client, by its identity, may open an environment, by its name.
        """
        for spare in self._stock:
            if spare.identity and not may_open(spare.identity, spare.recipe.environment):
                self._end(spare)

    def end_all(self) -> None:
        """Close all, and make no more."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for spare in self._stock:
            self._end(spare)

    async def close(self) -> None:
        """Close all, and wait until they are gone."""
        self.end_all()
        while self._ending:
            await asyncio.wait(self._ending)

    def _count(self) -> tuple[int, Mapping[str, int]]:
        return (0 if self._sessions is None else self._sessions.places), self._placement.held

    def _named(self, kind: str, recipe: Recipe, env_id: int, identity: str = "") -> Spare[WorkerHandle]:
        return Spare(name=f"{kind}-{next(self._numbers)}", recipe=recipe, env_id=env_id, identity=identity)

    async def _make(self, spare: Spare[WorkerHandle]) -> None:
        try:
            worker = await self._maker.make(spare.name, spare.recipe, spare.env_id)
        except Exception as error:  # noqa: BLE001 - whatever it was, sessions make their own
            if not spare.is_ending:
                del self._making[spare]
                self._failed(spare, error)
                self._end(spare)
        else:
            if spare.is_ending:  # it was made in spite of that, as what is cancelled when it is done may be
                spare.worker = worker  # which `_close` waits for
            else:
                del self._making[spare]
                self._put(spare, worker)

    def _failed(self, spare: Spare[WorkerHandle], error: Exception) -> None:
        name = spare.recipe.environment or DEFAULT
        if isinstance(error, ClientHasToSayError):
            logger.info("%s is not made ahead until it is known what clients ask for: %s", name, error)
            self._stock.give_up(spare.recipe)
            return
        log = logger.warning if self._stock.failed(spare.recipe) else logger.debug
        details = error.remote_traceback if isinstance(error, RemoteEnvironmentError) else ""
        log("%s could not be made ahead, which is tried again: %s", name, error, details=details)

    def _put(self, spare: Spare[WorkerHandle], worker: WorkerHandle) -> None:
        """Have a worker wait for a session from now on."""

        def lost(gone: asyncio.Future[str]) -> None:
            name = spare.recipe.environment or DEFAULT
            log = logger.warning if spare.identity or self._stock.failed(spare.recipe) else logger.debug
            log("%s, an environment of %s that no session had, is gone: %s", spare.name, name, gone.result())
            self._end(spare)
            self.look()

        worker.assign(spare.name)
        spare.worker = worker
        self._stock.add(spare)
        self._watching[spare] = lost
        worker.gone.add_done_callback(lost)
        if self._is_closed:
            self._end(spare)
        self.look()

    def _stop_watching(self, spare: Spare[WorkerHandle]) -> WorkerHandle:
        assert spare.worker is not None
        spare.worker.gone.remove_done_callback(self._watching.pop(spare))
        return spare.worker

    def _end(self, spare: Spare[WorkerHandle]) -> None:
        """Close one, in the background."""
        if not spare.is_ending:
            spare.is_ending = True
            if spare in self._watching:
                self._stop_watching(spare)
            self._in_background(self._close(spare))

    async def _close(self, spare: Spare[WorkerHandle]) -> None:
        if (making := self._making.pop(spare, None)) is not None:
            making.cancel()
            await asyncio.wait([making])
        if spare.worker is not None:
            await spare.worker.close(self._close_timeout)
            if (
                not spare.worker.exited.done()
            ):  # a thread that hangs cannot be killed, and counts for as long as it does
                spare.worker.exited.add_done_callback(lambda _: self._forget(spare))
                return
        self._forget(spare)

    def _forget(self, spare: Spare[WorkerHandle]) -> None:
        self._stock.remove(spare)
        self.env_ids.give_back(spare.env_id, spare.recipe.num_envs or 1)
        self.look()

    def _in_background(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(coroutine)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        return task


def _offer(arguments: Mapping[str, Any]) -> Offer:
    most = arguments.get("max_sessions")
    return Offer(
        warm=arguments.get("warm") or 0,
        reuse=bool(arguments.get("reuse")),
        most=math.inf if most is None else most,
    )
