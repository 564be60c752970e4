"""Waiting for many workers at once, and telling of those that failed."""

from __future__ import annotations

import contextlib
import queue
import select
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from gymnasium.error import ResetNeeded

from remote_gym.client.vector.shard import Shard
from remote_gym.errors import RemoteEnvironmentError, RemoteGymError, reworded
from remote_gym.protocol.exchange import Answer
from remote_gym.transport.busy_poll import SLEEPS, Wakefulness, look

MOST_THREADS = 32
THREAD_NAME = "remote_gym-each-worker"

SIGNAL_INTERVAL = 0.2
"""Seconds within which Ctrl-C is noticed, whichever thread receives it."""

Failure = tuple[Shard, Exception]
Done = tuple[Shard, BaseException | None]


def receive(
    shards: Iterable[Shard], wakefulness: Wakefulness = SLEEPS, at_least: int | None = None
) -> tuple[dict[Shard, Answer], list[Failure]]:
    """Wait for answers, and tell who failed instead.

    Args:
        shards: All waiting.
        wakefulness: How long to look for answers without sleeping.
        at_least: Of how many environments to wait for answers, or failures; None for all.
    """
    answers: dict[Shard, Answer] = {}
    failures: list[Failure] = []
    count = 0
    coming = as_they_come(shards, wakefulness)
    while (at_least is None or count < at_least) and (each := next(coming, None)) is not None:
        count += each.size
        try:
            answers[each] = each.receive()
        except (RemoteGymError, ResetNeeded) as error:
            failures.append((each, error))
    return answers, failures


def as_they_come(shards: Iterable[Shard], wakefulness: Wakefulness = SLEEPS) -> Iterator[Shard]:
    """Slices that wait for answers: each when its answer has begun to arrive, or its time is up.

    Those on direct connections come as they are; then, one after another, those over gRPC, which cannot be waited for
    together.

    Args:
        shards: All waiting.
        wakefulness: How long to look for answers without sleeping.
    """
    waiting: dict[int, Shard] = {}
    others = []
    poll = select.poll()
    for each in shards:
        descriptor = each.fileno()
        if descriptor is None:
            others.append(each)
        else:
            waiting[descriptor] = each
            poll.register(descriptor, select.POLLIN)
    while waiting:
        events = look(poll.poll, wakefulness)
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


def in_threads(
    shards: Sequence[Shard], do: Callable[[Shard], None], given_up: threading.Event | None = None
) -> list[Failure]:
    """Do for all at once what takes a round trip or more each.

    Args:
        shards: Each of which `do` gets.
        do: Called in threads, if there is more than one slice.
        given_up: Set where Ctrl-C or the like ends the waiting: `do` has to look at it, and to leave nothing behind.
            None for what is soon over: the threads are then waited for even so.

    Returns:
        Those that raised an error of ours, with the error.
    """
    if len(shards) < 2:
        found = [_attempt(do, each) for each in shards]
    else:
        tasks: queue.SimpleQueue[Shard] = queue.SimpleQueue()
        results: queue.SimpleQueue[Done] = queue.SimpleQueue()
        for each in shards:
            tasks.put(each)

        def work() -> None:
            while not (given_up is not None and given_up.is_set()):
                try:
                    each = tasks.get_nowait()
                except queue.Empty:
                    return
                results.put(_attempt(do, each))

        # Not those of concurrent.futures, whose threads hold up the end of the interpreter.
        threads = [
            threading.Thread(target=work, name=THREAD_NAME, daemon=True) for _ in range(min(len(shards), MOST_THREADS))
        ]
        try:
            for thread in threads:
                thread.start()
            found = [_next(results) for _ in shards]
        except BaseException:
            if given_up is not None:
                given_up.set()
            else:
                for thread in threads:
                    if thread.ident is not None:
                        thread.join()
            raise
    error_of = dict(found)
    for error in error_of.values():
        if error is not None and not isinstance(error, RemoteGymError):
            raise error
    return [(each, error) for each in shards if isinstance(error := error_of[each], RemoteGymError)]


def _next(results: queue.SimpleQueue[Done]) -> Done:
    # In short waits: a signal that another thread receives does not end a long one of this thread.
    while True:
        with contextlib.suppress(queue.Empty):
            return results.get(timeout=SIGNAL_INTERVAL)


def _attempt(do: Callable[[Shard], None], each: Shard) -> Done:
    try:
        do(each)
    except BaseException as error:  # noqa: BLE001 - what is not ours is raised by the thread that waits
        return each, error
    return each, None


def raise_failures(failures: Sequence[Failure]) -> None:
    """Raise an error of the first failure's kind that names the environments of all; nothing if there is none.

    Raises:
        RemoteGymError: Whose ``environments`` are their indices.
    """
    if not failures:
        return
    failures = sorted(failures, key=lambda failure: failure[0].start)
    error = failures[0][1]
    differ = len({type(other) for _, other in failures}) > 1
    concerned: dict[str, list[str]] = {}  # what is said of several is said once
    for each, other in failures:
        message = f"{type(other).__name__}: {_message(other)}" if differ else _message(other)
        concerned.setdefault(message, []).append(str(each))
    text = "; ".join(f"{', '.join(names)}: {message}" for message, names in concerned.items())
    raised: Exception
    if isinstance(error, RemoteEnvironmentError):
        raised = RemoteEnvironmentError(error.remote_type, text, error.remote_traceback)
    elif isinstance(error, RemoteGymError):
        raised = reworded(error, text)
    else:
        raised = type(error)(text)
    if isinstance(raised, RemoteGymError):
        raised.environments = tuple(index for each, _ in failures for index in range(each.start, each.stop))
    raise raised from error


def _message(error: Exception) -> str:
    return error.remote_message if isinstance(error, RemoteEnvironmentError) else str(error)
