"""Writes what workers print to the server's log, as far as there is room in it.

An environment may print as much and as fast as it likes, and neither other clients nor the log are to suffer. So what
is written is bounded in bytes a second, for each worker and for all of them, and what is above that is read, counted
and dropped. And reading is bounded, too: the event loop, which also serves other clients, takes part of what has been
printed at a time, and workers that print without end take turns. One that prints faster than it is read waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable

from remote_gym.logs import get_logger, printable

logger = get_logger(__name__)

BURST = 64
"""Seconds' worth of output that a worker may print at once, after as long a silence."""
WORKERS = 4
"""How many times as much as one worker all of them may write together."""

READ_BYTES = 2**16
"""Bytes that are read at once: as many as a pipe holds, unless made larger; some 30 µs to read and drop."""
LINES_AT_ONCE = 64
"""Lines that are written at once, which takes about a millisecond."""
TURN = 0.01
"""Seconds from one turn of those that print a lot to the next."""
READERS = 4
"""How many of them are read in a turn. So 25 MiB are read in a second at most, of one worker 6 MiB."""

LONGEST = 2_000
"""Bytes of a line of the log; longer lines go on in another one."""
LINE_BYTES = 80
"""Bytes of a line in the log beside its text: its time, the logger's name, and the session's."""
RESUME = 1 / 8
"""Share of a worker's budget that it must have left to write again after it had used it up."""
REPORT = 10.0
"""Seconds after which the log says what was dropped, where a worker that was too loud has fallen silent."""

LAST_BYTES = 4 * 1024
"""Bytes that are kept of the end of a worker's output."""
LEFT_BYTES = 2**20
"""Bytes of an ended worker's output that are read, at most: the most that a pipe holds, as Linux has it by default."""
KEPT_BYTES = 2**18
"""Bytes of these that are kept to be written."""


class Budget:
    """Bytes that may be written: `rate` more each second, up to `BURST` seconds' worth.

    Args:
        rate: Bytes a second.
        clock: Monotonic seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self.size = rate * BURST
        self._left = self.size
        self._at = clock()

    def left(self) -> float:
        """How many there are; less than none after more was taken than there were."""
        now = self._clock()
        self._left = min(self.size, self._left + (now - self._at) * self._rate)
        self._at = now
        return self._left

    def take(self, count: int) -> None:
        """Have that many less."""
        self._left -= count


class Outputs:
    """All workers' output. Runs on one event loop.

    Args:
        rate: Bytes a second that each worker may add to the log; all of them together `WORKERS` times as many.
        clock: Monotonic seconds.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.clock = clock
        self.budget = Budget(rate * WORKERS, clock)
        self.buffer = memoryview(bytearray(READ_BYTES))
        self._followed: set[Output] = set()
        self._waiting: deque[Output] = deque()  # those that have more than was taken, in turn
        self._turn: asyncio.TimerHandle | None = None

    def follow(self, session: str, descriptor: int) -> Output:
        """Write what comes out of a pipe.

        Args:
            session: Whose worker's it is.
            descriptor: Of the pipe, which is taken over.
        """
        output = Output(self, session, descriptor)
        self._followed.add(output)
        return output

    def close(self) -> None:
        """Follow none any more."""
        for output in list(self._followed):
            output.close()
            output.finish()

    def wait(self, output: Output) -> None:
        """Let it have a turn later."""
        self._waiting.append(output)
        if self._turn is None:
            self._turn = asyncio.get_running_loop().call_later(TURN, self._take_turns)

    def forget(self, output: Output) -> None:
        """It is done."""
        self._followed.discard(output)
        with contextlib.suppress(ValueError):
            self._waiting.remove(output)

    def _take_turns(self) -> None:
        self._turn = None
        for _ in range(min(READERS, len(self._waiting))):
            self._waiting.popleft().go_on()
        if self._waiting and self._turn is None:
            self._turn = asyncio.get_running_loop().call_later(TURN, self._take_turns)


class Output:
    """One worker's output, line by line; made by `Outputs.follow`."""

    def __init__(self, outputs: Outputs, session: str, descriptor: int) -> None:
        self._outputs = outputs
        self._session = session
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._budget = Budget(outputs.rate, outputs.clock)
        self._unread = bytearray()  # printed, and not written yet
        self._last = b""
        self._is_dropping = False
        self._dropped_bytes = self._dropped_lines = 0
        self._report: asyncio.TimerHandle | None = None
        os.set_blocking(descriptor, False)
        self._is_listening = True  # else it waits for a turn
        self._loop.add_reader(descriptor, self.go_on)

    def last_lines(self) -> str:
        """The end of what the worker has printed by now: whole lines of `LAST_BYTES` at most, each printable."""
        self._read_all()
        last = self._last
        if len(last) == LAST_BYTES and b"\n" in last[:-1]:
            last = last[last.index(b"\n") + 1 :]
        return "\n".join(printable(line.rstrip("\r")) for line in last.decode(errors="replace").rstrip().split("\n"))

    def label(self, session: str) -> None:
        """Take what is printed from now on as that session's; errors do not repeat what was printed before."""
        self._read_all()
        if self._unread and not self._unread.endswith(b"\n"):
            self._unread += b"\n"
        while self._has_line() and not self._is_dropping:
            self._write_some()
        self._drop()
        self._tell_dropped()
        self._last, self._session = b"", session

    def go_on(self) -> None:
        """Take part of what there is, and come back for the rest."""
        count = self._read() if not self._has_line() else None
        if count == 0:
            self._hang_up()
        self._write_some()
        # More than is written is read in turns, too, however little of it there was at once.
        if self._has_line() or count == READ_BYTES or (count and self._is_dropping):
            if self._is_listening:
                self._is_listening = False
                self._loop.remove_reader(self._descriptor)
            self._outputs.wait(self)
        elif self._descriptor < 0:
            self.finish()
        elif not self._is_listening:
            self._is_listening = True
            self._loop.add_reader(self._descriptor, self.go_on)

    def close(self) -> None:
        """Take what there is, even if other processes still print; it is written in the turns that follow."""
        if self._descriptor >= 0:
            self._read_all()
            was_listening = self._is_listening
            self._hang_up()
            if was_listening:  # else it has a turn anyway
                self._outputs.wait(self)

    def finish(self) -> None:
        """Write what is left without waiting for further turns. A second call does nothing."""
        if self._unread and not self._has_line():
            self._unread += b"\n"
        self._write_some()
        self._drop()
        self._tell_dropped()
        self._outputs.forget(self)

    def _hang_up(self) -> None:
        if self._descriptor < 0:  # it was closed while it waited for its turn
            return
        if self._is_listening:
            self._is_listening = False
            self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def _read_all(self) -> None:
        left = LEFT_BYTES
        while left > 0 and (count := self._read()):
            left -= count
            if len(self._unread) > KEPT_BYTES:
                self._drop()

    def _read(self) -> int | None:
        """Take bytes from the pipe: how many; None if there are none now, 0 at its end."""
        if self._descriptor < 0:
            return 0
        buffer = self._outputs.buffer
        try:
            count = os.readv(self._descriptor, [buffer])
        except BlockingIOError:
            return None
        except OSError as error:
            logger.debug("session %s: its output cannot be read: %s", self._session, error)
            return 0
        # A copy of the end alone: most of what is dropped was looked at by nobody but `count`.
        self._last = (self._last + buffer[max(0, count - LAST_BYTES) : count])[-LAST_BYTES:]
        self._unread += buffer[:count]
        return count

    def _has_line(self) -> bool:
        return len(self._unread) >= LONGEST or b"\n" in self._unread

    def _write_some(self) -> None:
        """Write a few lines; drop all of them while there is no room for more."""
        if self._is_dropping and self._has_room(RESUME):
            self._is_dropping = False
            self._tell_dropped()
        for _ in range(LINES_AT_ONCE):
            if not self._has_line():
                break
            self._is_dropping = self._is_dropping or not self._has_room()
            if self._is_dropping:
                break
            self._write_line()
        if self._is_dropping:
            self._drop()

    def _has_room(self, share: float = 0.0) -> bool:
        """Whether more than that share of its budget is left, and of that of all workers.

        One that has used up half of its own leaves the second half of the others' to them.
        """
        own, everybody = self._budget, self._outputs.budget
        left = own.left()
        floor = 0.0 if left > own.size / 2 else everybody.size / 2
        return left > share * own.size and everybody.left() > floor + share * everybody.size / 2

    def _write_line(self) -> None:
        end = self._unread.find(b"\n", 0, LONGEST)
        line = bytes(self._unread[: _whole_characters(self._unread) if end < 0 else end])
        del self._unread[: len(line) + (end >= 0)]
        self._log(line.decode(errors="replace").rstrip("\r"))

    def _drop(self) -> None:
        if not self._unread:
            return
        self._dropped_bytes += len(self._unread)
        self._dropped_lines += self._unread.count(b"\n")
        self._unread.clear()
        if self._report is None:
            self._report = self._loop.call_later(REPORT, self._tell_dropped)

    def _tell_dropped(self) -> None:
        if self._report is not None:
            self._report.cancel()
            self._report = None
        if self._dropped_bytes and self._outputs.rate:
            count, lines = self._dropped_bytes, self._dropped_lines
            self._dropped_bytes = self._dropped_lines = 0
            self._log(
                f"({count:,} bytes in {lines:,} lines were dropped: it prints more than the "
                f"{self._outputs.rate:,.0f} bytes a second of ServerOptions.output_rate)"
            )

    def _log(self, line: str) -> None:
        shown = printable(line)
        cost = len(shown) + LINE_BYTES
        self._budget.take(cost)
        self._outputs.budget.take(cost)
        if logger.hasHandlers():
            # Not what is shown, which may be longer than the logger lets a value be.
            logger.info("[%s] %s", self._session, line, event="output", session=self._session)
        else:  # a script that configured no logging is still to see what its environments print
            print(f"[{self._session}] {shown}", file=sys.stderr, flush=True)


def _whole_characters(data: bytearray) -> int:
    """How many of the first `LONGEST` bytes to take, so that no character of UTF-8 is cut in two."""
    end = min(LONGEST, len(data))
    begin = end
    while begin > max(0, end - 3) and begin < len(data) and data[begin] & 0xC0 == 0x80:
        begin -= 1
    return begin if begin < len(data) and data[begin] >= 0xC0 else end
