"""What workers print is written to the log within bounds, and nobody waits for a worker that prints without end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from clocks import Clock
from remote_gym.logs import printable
from remote_gym.server.launch import output as module
from remote_gym.server.launch.output import (
    BURST,
    LAST_BYTES,
    LINE_BYTES,
    LINES_AT_ONCE,
    LONGEST,
    READ_BYTES,
    READERS,
    TURN,
    WORKERS,
    Outputs,
)
from waiting import scaled

RATE = 1_000


class Log(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def size(self) -> int:
        return sum(len(line) for line in self.lines)

    def dropped(self) -> int:
        """Bytes that were dropped, as it says."""
        found = (re.match(r"\[\w+\] \(([\d,]+) bytes in [\d,]+ lines were dropped", line) for line in self.lines)
        return sum(int(match[1].replace(",", "")) for match in found if match)


@pytest.fixture
def log() -> Iterator[Log]:
    handler, logger = Log(), logging.getLogger("remote_gym")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # pytest's own handlers take longer than what is tested
    yield handler
    logger.propagate = True
    logger.removeHandler(handler)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), scaled(60)))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)


async def printed(descriptor: int, data: bytes) -> None:
    """Print without waiting in the event loop, and close."""

    def write() -> None:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(data)

    await asyncio.to_thread(write)


def test_lines_are_named_and_whole(log):
    async def test() -> None:
        outputs = Outputs(RATE)
        reader, writer = os.pipe()
        output = outputs.follow("name", reader)
        text = "ü" * 1_500  # of two bytes each, so that the longest line would end within one
        await printed(writer, b"one\r\n\n\x1b[2Jforged\x07\tx\n" + b"a" + text.encode() + b"\nunfinished")
        await until(lambda: len(log.lines) == 6)
        output.close()
        cut = (LONGEST - 1) // 2
        expected = ["one", "", r"\x1b[2Jforged\x07" + "\tx", "a" + "ü" * cut, "ü" * (1_500 - cut), "unfinished"]
        assert log.lines == [f"[name] {line}" for line in expected]

    run(test)


@pytest.mark.parametrize(
    "data",
    [b"hello\n" * 200_000, b"x" * 2**20, b"\x1b\x01\xff" * 2**18, b"\n" * 2**20],
    ids=["lines", "one line", "binary", "empty lines"],
)
def test_what_is_over_the_rate_is_dropped_and_counted_in_bytes(log, data):
    async def test() -> None:
        outputs = Outputs(RATE, Clock())
        reader, writer = os.pipe()
        output = outputs.follow("name", reader)
        await printed(writer, data)
        await until(lambda: bool(log.dropped()))
        output.close()
        taken = RATE * BURST
        *lines, report = log.lines
        assert taken <= sum(map(len, lines)) + LINE_BYTES * len(lines) <= taken + 5 * LONGEST
        assert f"{log.dropped():,} bytes" in report
        if b"\x1b" not in data:  # so that one byte is one in the log
            written = sum(len(line) - len("[name] ") for line in lines)
            newlines = len(lines) if b"\n" in data else 0
            assert written + newlines + log.dropped() == len(data)

    run(test)


def test_who_was_too_loud_is_written_again_later(log):
    async def test() -> None:
        clock = Clock()
        outputs = Outputs(RATE, clock)
        reader, writer = os.pipe()
        output = outputs.follow("name", reader)
        with os.fdopen(writer, "wb", buffering=0) as file:
            await asyncio.to_thread(file.write, b"x" * 1_000 * BURST * 2)
            await until(lambda: not output._has_line())
            before = len(log.lines)
            file.write(b"too early\n")
            await until(lambda: output._last.endswith(b"too early\n") and not output._has_line())
            assert len(log.lines) == before
            clock.now += BURST
            file.write(b"later\n")
            await until(lambda: len(log.lines) == before + 2)
        assert "dropped" in log.lines[-2]
        assert log.lines[-1] == "[name] later"
        outputs.close()

    run(test)


def test_what_was_dropped_is_told_although_nothing_follows(log, monkeypatch):
    monkeypatch.setattr(module, "REPORT", 0.05)

    async def test() -> None:
        outputs = Outputs(RATE, Clock())
        reader, writer = os.pipe()
        outputs.follow("name", reader)
        with os.fdopen(writer, "wb", buffering=0) as file:
            await asyncio.to_thread(file.write, b"x" * 1_000 * BURST * 2)
            await until(lambda: log.dropped() > 0)
        outputs.close()

    run(test)


def test_workers_that_print_without_end_leave_room_for_another(log):
    async def test() -> None:
        outputs = Outputs(RATE, Clock())
        pipes = [os.pipe() for _ in range(WORKERS + 1)]
        loud = [outputs.follow(f"loud{index}", reader) for index, (reader, _) in enumerate(pipes[1:])]
        for _, writer in pipes[1:]:
            await printed(writer, b"x" * RATE * BURST * 3)
        await until(lambda: all(output._descriptor < 0 for output in loud))
        spent = log.size()
        assert spent <= RATE * BURST * WORKERS
        outputs.follow("quiet", pipes[0][0])
        await printed(pipes[0][1], b"hello\n" * 20)
        await until(lambda: log.lines[-20:] == ["[quiet] hello"] * 20)
        outputs.close()

    run(test)


def test_all_workers_together_keep_to_a_rate(log):
    async def test() -> None:
        outputs = Outputs(RATE, Clock())
        for index in range(3 * WORKERS):
            reader, writer = os.pipe()
            outputs.follow(f"loud{index}", reader)
            await printed(writer, b"x" * RATE * BURST)
        await until(lambda: not outputs._followed)
        reports = sum("dropped" in line for line in log.lines)
        assert log.size() <= RATE * BURST * WORKERS + 3 * WORKERS * LONGEST + 200 * reports

    run(test)


def test_with_a_rate_of_0_nothing_is_written(log):
    async def test() -> None:
        outputs = Outputs(0)
        reader, writer = os.pipe()
        output = outputs.follow("name", reader)
        await printed(writer, b"hello\n" * 100)
        await until(lambda: output._descriptor < 0)
        outputs.close()
        assert log.lines == []
        assert output.last_lines().endswith("hello\nhello")

    run(test)


def test_reading_is_bounded_where_printing_is_not(log):
    async def test() -> None:
        outputs = Outputs(RATE)
        stop = threading.Event()
        pipes = [os.pipe() for _ in range(2 * READERS)]

        def flood(descriptor: int) -> None:
            with contextlib.suppress(OSError), os.fdopen(descriptor, "wb", buffering=0) as file:
                while not stop.is_set():
                    file.write(b"x" * 1_000 + b"\n")

        outputs_of = [outputs.follow(f"loud{index}", reader) for index, (reader, _) in enumerate(pipes)]
        threads = [threading.Thread(target=flood, args=(writer,)) for _, writer in pipes]
        for thread in threads:
            thread.start()
        await until(lambda: all(output._is_dropping for output in outputs_of))
        before, begin = sum(output._dropped_bytes for output in outputs_of), time.monotonic()
        await asyncio.sleep(0.5)
        passed = time.monotonic() - begin
        dropped = sum(output._dropped_bytes for output in outputs_of) - before
        stop.set()
        for output in outputs_of:
            output.close()
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
        outputs.close()
        assert 0 < dropped <= (passed / TURN + 1) * READERS * READ_BYTES

    run(test)


def test_what_a_worker_printed_before_its_end_is_written_though_others_hold_the_pipe(log):
    async def test() -> None:
        outputs = Outputs(10**6)
        reader, writer = os.pipe()
        output = outputs.follow("name", reader)
        count = 10 * LINES_AT_ONCE
        os.write(writer, b"hello\n" * count)
        output.close()
        output.close()
        await until(lambda: len(log.lines) == count)
        await until(lambda: not outputs._followed)
        with pytest.raises(BrokenPipeError):
            os.write(writer, b"more")
        os.close(writer)

    run(test)


@pytest.mark.parametrize("held", [True, False], ids=["others hold the pipe", "nobody does"])
@pytest.mark.parametrize("text", [b"", b"no line yet"])
def test_one_that_is_closed_writes_its_last_words_and_fails_in_no_later_turn(log, text, held):
    async def test() -> None:
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        outputs = Outputs(10**6)
        reader, writer = os.pipe()
        output = outputs.follow("name", reader)
        os.write(writer, text)
        output.close()
        if not held:
            os.close(writer)
        await until(lambda: output not in outputs._followed or bool(failures))
        await asyncio.sleep(2 * TURN)
        if held:
            os.close(writer)
        assert failures == []
        assert log.lines == ([f"[name] {text.decode()}"] if text else [])

    run(test)


def test_the_last_lines_are_whole_printable_and_few(log):
    async def test() -> None:
        outputs = Outputs(RATE)
        reader, writer = os.pipe()
        output = outputs.follow("name", reader)
        assert output.last_lines() == ""
        os.write(writer, b"first\n" + b"0123456789\n" * LAST_BYTES)  # more than is kept
        os.write(writer, b"\x1b[31mlast\r\n\n")
        lines = output.last_lines().split("\n")
        assert set(lines[:-1]) == {"0123456789"}
        assert lines[-1] == r"\x1b[31mlast"
        assert sum(map(len, lines)) < LAST_BYTES
        os.close(writer)
        outputs.close()
        assert output.last_lines().split("\n") == lines

    run(test)


def test_a_server_that_stops_takes_what_there_is_and_follows_nothing(log):
    async def test() -> None:
        outputs = Outputs(10**6)
        readers = []
        writers = []
        for index in range(3):
            reader, writer = os.pipe()
            outputs.follow(f"name{index}", reader)
            os.write(writer, b"hello\n" * (index + 1) * LINES_AT_ONCE)
            readers.append(reader)
            writers.append(writer)
        outputs.close()
        assert log.lines.count("[name0] hello") == LINES_AT_ONCE
        assert log.dropped() == 6 * (1 + 2) * LINES_AT_ONCE
        for descriptor in readers:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(descriptor)
        for descriptor in writers:
            os.close(descriptor)

    run(test)


def test_characters_are_escaped_as_python_does():
    for first in range(0, sys.maxunicode, 1024):
        text = "".join(map(chr, range(first, min(first + 1024, sys.maxunicode))))
        assert printable(text) == "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)


def test_what_was_printed_before_a_session_is_another_ones(log):
    async def test() -> None:
        outputs = Outputs(RATE)
        reader, writer = os.pipe()
        output = outputs.follow("one", reader)
        os.write(writer, b"first\nwithout an end")
        output.label("two")
        assert output.last_lines() == ""
        os.write(writer, b"second\n")
        assert output.last_lines() == "second"
        os.close(writer)
        await until(lambda: len(log.lines) == 3)
        outputs.close()

    run(test)
    assert log.lines == ["[one] first", "[one] without an end", "[two] second"]
