"""The part of a vector environment that one worker holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from remote_gym.address import Place
from remote_gym.client.connection_info import ConnectionInfo
from remote_gym.client.recovery import LOSSES
from remote_gym.client.session import ClientSession
from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, RemoteGymError, SessionLost
from remote_gym.protocol.exchange import Answer
from remote_gym.protocol.requests import reset_request
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.validation import check_integer
from remote_gym.wire.infos import add_info
from remote_gym.wire.values import decode_value
from remote_gym.wire.values.arrays import view_row

_OUTCOMES = {"reward_value": np.float64, "terminated_value": np.bool_, "truncated_value": np.bool_}

OpenSession = Callable[[int, threading.Event], ClientSession]


class Shard:
    """Environments `start` to `stop`, less one, of a vector environment, and the session of the worker that holds them.

    Args:
        start: Index of the first.
        stop: Index after the last.
        open_session: Opens a session of that many environments; gives up early once the event is set.

    Attributes:
        transition: The newest that came; None before the first reset.
        packed: Its observation, if that is large and was left out of it.
        is_waiting: Whether an answer is still to come.
        needs_reset: Whether they failed since they were reset, or never were.
        lost_because: How the session was lost, where that has ended their episodes; None once they were reset.
        frame: What was rendered last.
    """

    def __init__(self, start: int, stop: int, open_session: OpenSession) -> None:
        self.start = start
        self.stop = stop
        self.size = stop - start
        self.rows = slice(start, stop)
        self.transition: pb.Transition | None = None
        self.packed: memoryview | None = None
        self.is_waiting = False
        self.needs_reset = True
        self.lost_because: str | None = None
        self.frame: Any = None
        self._is_reset = False  # whether `reset` has sent what was sent last
        self._is_blank = False  # whether the newest answer has no outcomes, as it is a reset's or never came
        self._blanks: dict[str, NDArray[Any]] = {}  # which then stand for them, where a step was asked for
        self._open_session = open_session
        self._session: ClientSession | None = None
        self._error: Exception | None = None
        self._lock = threading.RLock()  # held where `_session` is set; a signal's function may close amid that

    def __reduce__(self) -> tuple[Any, ...]:
        # A session belongs to one process: the copy has what a slice begins with, and opens its own.
        return Shard, (self.start, self.stop, self._open_session)

    @property
    def session(self) -> ClientSession:
        """The session that was opened last."""
        assert self._session is not None
        return self._session

    @property
    def is_lost(self) -> bool:
        """Whether a session has to be opened before anything else."""
        return self._session is None or self._session.lost

    @property
    def is_behind(self) -> bool:
        """Whether the last request has not been answered: its deadline passed, or Ctrl-C interrupted it."""
        return self._session is not None and not self._session.lost and self._session.is_behind

    @property
    def place(self) -> Place | None:
        """Where the session was that was opened last; None if there is none."""
        return None if self._session is None else self._session.place

    def connection_info(self, place: Place, remote_args: Mapping[str, Any]) -> ConnectionInfo:
        """Where the environments are, or are to be: at `place`, by the client's `remote_args`."""
        return ConnectionInfo.of(self._session, place, remote_args)

    def __str__(self) -> str:
        return f"environment {self.start}" if self.size == 1 else f"environments {self.start} to {self.stop - 1}"

    def open(self, given_up: threading.Event) -> None:
        """Open a session, in place of one that may have been.

        Args:
            given_up: Set by another thread once nobody waits for this any more. What is opened even so is closed.

        Raises:
            RemoteGymError: As `ClientSession` does.
        """
        self.close()
        session = self._open_session(self.size, given_up)
        with self._lock:
            if not given_up.is_set():
                self._session = session
                self.needs_reset = True
        if given_up.is_set():
            session.close()
            return
        # Here, where others do so at the same time: requests are sent one after another.
        session.attach()

    def resume(self, session: ClientSession, answer: Answer | None) -> None:
        """Go on with a session that another process has opened.

        Args:
            session: Taken over.
            answer: What was answered last; None if nothing was asked.
        """
        self._session = session
        kind = None if answer is None else answer[0].WhichOneof("result")
        if answer is not None and kind in ("step", "reset"):
            self.adopt(answer)
        else:  # after a render or a call nobody can say what was observed before
            self.needs_reset = kind in (None, "error")

    def reset(
        self,
        seed: int | Sequence[int | None] | None,
        mask: NDArray[np.bool_],
        options: dict[str, Any] | None,
        limits: Limits,
        timeout: float,
    ) -> None:
        """Send a reset, where `seed` and `mask` are those of all environments. What goes wrong comes as for `send`.

        Raises:
            EncodingError: If a seed or an option has no wire form.
        """
        own = seed + self.start if isinstance(seed, int) else (None if seed is None else list(seed[self.rows]))
        if not mask[self.rows].all():
            options = {**(options or {}), "reset_mask": mask[self.rows]}
        self.send(reset_request(own, options, limits), timeout)
        self._is_reset = True

    def send(self, request: pb.Request, timeout: float) -> None:
        """Send a request. What goes wrong is raised by `receive`, so that other shards get theirs."""
        self.is_waiting, self._error, self._is_reset = True, None, False
        try:
            if self._session is None:
                raise SessionLost("no session was opened; reset opens one")
            if request.HasField("reset"):
                self._session.improve()
            self._session.send(request, timeout)
        except (RemoteGymError, ResetNeeded) as error:
            self._error = error

    def fail(self, error: RemoteGymError) -> None:
        """Let `receive` raise the error, in place of what could not even be sent."""
        self.is_waiting, self._error = True, error

    def adopt(self, answer: Answer) -> None:
        """Have what a step or a reset was answered, whichever it was."""
        response, self.packed = answer
        self._is_blank = response.HasField("reset")
        self.transition = response.reset if self._is_blank else response.step
        if not self._is_blank:
            self._blanks = {}
        self.needs_reset = False
        self.lost_because = None

    def end_by(self, error: Exception, limits: Limits) -> bool:
        """End the episodes as truncated, if the session is lost in the midst of them, or found lost by `reset`.

        The newest observation remains; rewards are 0.

        Returns:
            Whether it is. If not, there is nothing to end: they were not reset, or the error is another.
        """
        if not isinstance(error, LOSSES):
            return False
        if (self.needs_reset or self.transition is None) and not self._is_reset:
            return False
        if self._is_blank or self.transition is None:
            self._blanks = {name: np.zeros(self.size, dtype) for name, dtype in _OUTCOMES.items()}
        else:  # of the dtypes that the environments have
            self._blanks = {name: np.zeros_like(self.array(name, limits)) for name in _OUTCOMES}
        self._is_blank = self.needs_reset = True
        self.lost_because = str(error)
        return True

    def receive(self) -> Answer:
        """Wait for the answer.

        Raises:
            RemoteGymError: As `ClientSession.ask` does.
        """
        self.is_waiting = False
        if self._error is not None:
            raise self._error
        return self.session.receive()

    def fileno(self) -> int | None:
        """Descriptor to wait for before `receive` can be called without waiting; None where there is none."""
        return None if self._error is not None else self.session.fileno()

    def array(self, name: str, limits: Limits) -> NDArray[Any]:
        """The rewards or flags of the newest step.

        Args:
            name: The field of a transition.
            limits: Bounds on what is decoded.

        Returns:
            Shape ``(size,)``; it may be read-only.

        Raises:
            EncodingError: If it is no such array.
        """
        assert self.transition is not None
        if self._is_blank:
            blank = self._blanks.get(name)
            if blank is None:
                raise EncodingError(f"{self}: a reset was answered where a step was asked for")
            return blank if self.lost_because is None or name != "truncated_value" else np.ones_like(blank)
        message = getattr(self.transition, name)
        if (row := view_row(message.array, self.size)) is not None:
            return row
        found = decode_value(message, limits)
        if not isinstance(found, np.ndarray) or found.shape != (self.size,):
            raise EncodingError(f"{self}: {name} is {found!r}, not an array of shape ({self.size},)")
        return found

    def info(self, limits: Limits) -> dict[str, Any]:
        """The info of the newest step or reset.

        Raises:
            EncodingError: If it is no dict.
        """
        if self.lost_because is not None:
            return mark_lost({}, slice(0, self.size), self.size, self.lost_because)
        if self.transition is None or not self.transition.HasField("info"):
            return {}
        found = decode_value(self.transition.info, limits)
        if not isinstance(found, dict):
            raise EncodingError(f"{self}: the info is {found!r}, not a dict")
        return found

    def drop(self) -> None:
        """Have no session any more, without waiting for anything: shards and their pool refer to each other."""
        self._session = None

    def close(self) -> None:
        """Close the environments and the session, if there is one."""
        with self._lock:  # of a thread that opens one, though nobody waits for it
            session, self._session = self._session, None
        self.is_waiting = False
        if session is not None:
            session.close()


def check_numbers(num_envs: int, workers: int, addresses: int) -> None:
    """Refuse numbers that cannot be divided.

    Raises:
        ConfigError: Naming what does not fit.
    """
    check_integer("num_envs", num_envs, 1, 2**31 - 1)
    check_integer("workers", workers, 1, 2**31 - 1)
    if workers < addresses:
        problem = f"is {workers}, but there are {addresses} addresses; use one worker for each at least"
    elif num_envs < workers:
        problem = f"is {workers}, but num_envs only {num_envs}; use at least as many environments as workers"
    else:
        return
    raise ConfigError(problem, field="workers", where="workers")


def shards_of(env_ids: list[int], shards: Sequence[Shard]) -> list[Shard]:
    """Shards that these environments belong to.

    Raises:
        ValueError: If they are not all of some shards' environments, one slice's after another's.
    """
    by_start = {each.start: each for each in shards}
    chosen: list[Shard] = []
    position = 0
    while position < len(env_ids):
        each = by_start.get(env_ids[position])
        if each is None or env_ids[position : position + each.size] != list(range(each.start, each.stop)):
            raise ValueError(
                f"env_ids {env_ids} are not whole workers' environments, as `recv` tells them: "
                + ", ".join(map(str, shards))
            )
        chosen.append(each)
        position += each.size
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"env_ids are {env_ids}; name each environment once, and at least those of one worker")
    return chosen


def choose(
    shards: Sequence[Shard], seed: int | Sequence[int | None] | None, options: dict[str, Any] | None
) -> tuple[list[Shard], NDArray[np.bool_], dict[str, Any] | None]:
    """Choose what of a vector environment to reset: shards, which of all environments, and the options for these.

    Raises:
        TypeError: As `take_mask`.
        ValueError: As `take_mask`, or if there is another number of seeds.
        ResetNeeded: If some were never reset, or have failed, and are not all in the mask.
    """
    num_envs = shards[-1].stop
    if seed is not None and not isinstance(seed, int) and len(seed) != num_envs:
        raise ValueError(f"{len(seed)} seeds for {num_envs} environments")
    mask, options = take_mask(options, num_envs)
    chosen = [each for each in shards if mask[each.rows].any()]
    for each in shards:
        if not mask[each.rows].all() and (each.transition is None or (each.needs_reset and each in chosen)):
            raise ResetNeeded(f"{each} were never reset, or share a worker that failed; reset them all")
    return chosen, mask, options


def take_mask(options: dict[str, Any] | None, num_envs: int) -> tuple[NDArray[np.bool_], dict[str, Any] | None]:
    """Which environments to reset, and the options without that.

    Raises:
        TypeError: If ``reset_mask`` is no array of bools.
        ValueError: If it has another shape, or is false throughout.
    """
    if options is None or "reset_mask" not in options:
        return np.ones(num_envs, np.bool_), options
    rest = {key: value for key, value in options.items() if key != "reset_mask"}
    mask = options["reset_mask"]
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"`options['reset_mask']` is {mask!r}; use a numpy array of dtype bool")
    if mask.shape != (num_envs,) or not mask.any():
        raise ValueError(f"`options['reset_mask']` is {mask!r}; use shape ({num_envs},) with at least one True")
    return mask, rest


def mark_lost(infos: dict[str, Any], rows: slice, count: int, reason: str) -> dict[str, Any]:
    """Tell in the infos of `count` environments that those of some rows were lost, as Gymnasium merges infos."""
    for index in range(rows.start, rows.stop):
        add_info(infos, {"remote_gym": {"session_lost": reason}}, index, count)
    return infos
