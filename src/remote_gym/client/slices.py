"""The part of a vector environment that one worker holds, and waiting for many of them at once."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from remote_gym.client.session import ClientSession
from remote_gym.errors import RemoteEnvironmentError, RemoteGymError, SessionLost
from remote_gym.v1 import remote_gym_pb2 as pb

MOST_THREADS = 32

Failure = tuple["Slice", Exception]


class Slice:
    """Environments `start` to `stop`, less one, of a vector environment, and the session of the worker that holds them.

    Args:
        start: Index of the first.
        stop: Index after the last.
        open_session: Opens a session of that many environments.

    Attributes:
        transition: The newest that came; None before the first reset.
        is_waiting: Whether an answer is still to come.
        needs_reset: Whether they failed since they were reset, or never were.
    """

    def __init__(self, start: int, stop: int, open_session: Callable[[int], ClientSession]) -> None:
        self.start = start
        self.stop = stop
        self.size = stop - start
        self.rows = slice(start, stop)
        self.transition: pb.Transition | None = None
        self.is_waiting = False
        self.needs_reset = True
        self._open_session = open_session
        self._session: ClientSession | None = None
        self._error: Exception | None = None

    @property
    def session(self) -> ClientSession:
        """The session that was opened last."""
        assert self._session is not None
        return self._session

    @property
    def is_lost(self) -> bool:
        """Whether a session has to be opened before anything else."""
        return self._session is None or self._session.lost

    def __str__(self) -> str:
        return f"environment {self.start}" if self.size == 1 else f"environments {self.start} to {self.stop - 1}"

    def open(self) -> None:
        """Open a session, in place of one that may have been.

        Raises:
            RemoteGymError: As `ClientSession` does.
        """
        self.close()
        self._session = self._open_session(self.size)
        self.needs_reset = True

    def send(self, request: pb.Request, timeout: float) -> None:
        """Send a request. What goes wrong is raised by `receive`, so that other slices get theirs."""
        self.is_waiting, self._error = True, None
        try:
            if self._session is None:
                raise SessionLost("no session was opened; reset opens one")
            self._session.send(request, timeout)
        except (RemoteGymError, ResetNeeded) as error:
            self._error = error

    def receive(self) -> pb.Response:
        """Wait for the answer.

        Raises:
            RemoteGymError: As `ClientSession.ask` does.
        """
        self.is_waiting = False
        if self._error is not None:
            raise self._error
        return self.session.receive()

    def fileno(self) -> int | None:
        """What to wait for before `receive` can be called without waiting; None where that cannot be told."""
        return None if self._error is not None else self.session.fileno()

    def close(self) -> None:
        """Close the environments and the session, if there is one."""
        session, self._session = self._session, None
        self.is_waiting = False
        if session is not None:
            session.close()


def receive(
    slices: Iterable[Slice], spin_seconds: float, at_least: int | None = None
) -> tuple[dict[Slice, pb.Response], list[Failure]]:
    """Wait for answers, and tell who failed instead.

    Args:
        slices: All waiting.
        spin_seconds: How long to look for answers without sleeping.
        at_least: Of how many environments to wait for answers, or failures; None for all.
    """
    answers: dict[Slice, pb.Response] = {}
    failures: list[Failure] = []
    count = 0
    for each in as_they_come(slices, spin_seconds):
        if at_least is not None and count >= at_least:
            break
        count += each.size
        try:
            answers[each] = each.receive()
        except (RemoteGymError, ResetNeeded) as error:
            failures.append((each, error))
    return answers, failures


def as_they_come(slices: Iterable[Slice], spin_seconds: float = 0.0) -> Iterator[Slice]:
    """Slices that wait for answers: each when its answer has begun to arrive, or its time is up.

    Those on direct connections come as they are; then, one after another, those over gRPC, which cannot be waited for
    together.

    Args:
        slices: All waiting.
        spin_seconds: How long to look for answers without sleeping.
    """
    waiting: dict[int, Slice] = {}
    others = []
    poll = select.poll()
    for each in slices:
        descriptor = each.fileno()
        if descriptor is None:
            others.append(each)
        else:
            waiting[descriptor] = each
            poll.register(descriptor, select.POLLIN)
    spin_until = time.perf_counter() + spin_seconds
    while waiting:
        events = poll.poll(0)
        while not events and time.perf_counter() < spin_until:
            events = poll.poll(0)
        if not events:
            remaining = min(each.session.deadline for each in waiting.values()) - time.monotonic()
            events = poll.poll(min(max(0.0, remaining), 1e6) * 1000)
        found = [descriptor for descriptor, _ in events]
        if not found:
            now = time.monotonic()
            found = [descriptor for descriptor, each in waiting.items() if each.session.deadline <= now]
        for descriptor in found:
            poll.unregister(descriptor)
            yield waiting.pop(descriptor)
    yield from others


def in_threads(slices: Sequence[Slice], do: Callable[[Slice], None]) -> list[Failure]:
    """Do for all at once what takes a round trip or more each.

    Returns:
        Those that raised an error of ours, with the error.
    """

    def attempt(each: Slice) -> Exception | None:
        try:
            do(each)
        except RemoteGymError as error:
            return error
        return None

    if len(slices) < 2:
        errors = [attempt(each) for each in slices]
    else:
        with ThreadPoolExecutor(min(len(slices), MOST_THREADS)) as threads:
            errors = list(threads.map(attempt, slices))
    return [(each, error) for each, error in zip(slices, errors, strict=True) if error is not None]


def slices_of(env_ids: list[int], slices: Sequence[Slice]) -> list[Slice]:
    """Whose environments those are.

    Raises:
        ValueError: If they are not all of some slices' environments, one slice's after another's.
    """
    by_start = {each.start: each for each in slices}
    chosen: list[Slice] = []
    position = 0
    while position < len(env_ids):
        each = by_start.get(env_ids[position])
        if each is None or env_ids[position : position + each.size] != list(range(each.start, each.stop)):
            raise ValueError(
                f"env_ids {env_ids} are not whole workers' environments, as `recv` tells them: "
                + ", ".join(map(str, slices))
            )
        chosen.append(each)
        position += each.size
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"env_ids are {env_ids}; name each environment once, and at least those of one worker")
    return chosen


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


def raise_failures(failures: Sequence[Failure]) -> None:
    """Raise an error of the first failure's kind that names the environments of all; nothing if there is none.

    Raises:
        RemoteGymError: Whose ``environments`` are their indices.
    """
    if not failures:
        return
    failures = sorted(failures, key=lambda failure: failure[0].start)
    (first, error), *others = failures
    also = "".join(f"; {each}: {type(other).__name__}: {_message(other)}" for each, other in others)
    text = f"{first}: {_message(error)}{also}"
    raised: Exception
    if isinstance(error, RemoteEnvironmentError):
        raised = RemoteEnvironmentError(error.remote_type, text, error.remote_traceback)
    else:
        raised = type(error)(text)
    if isinstance(raised, RemoteGymError):
        raised.environments = tuple(index for each, _ in failures for index in range(each.start, each.stop))
    raise raised from error


def _message(error: Exception) -> str:
    return error.remote_message if isinstance(error, RemoteEnvironmentError) else str(error)
