"""Repeated lines are counted, so that neither a stranger nor a client fills a log."""

from __future__ import annotations

import logging

import pytest

from remote_gym.logs import get_logger, host_of
from remote_gym.logs.repeats import LINES, SOURCES, WINDOW, Repeats


class Log:
    """Lines that were written, on a clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lines: list[str] = []
        self.repeats = Repeats(lambda: self.now)

    def say(self, text: str = "line", source: str = "here", template: str = "%s", lines: int = LINES) -> None:
        if self.repeats.admit("logger", template, source, lines, lambda: text, self.lines.append):
            self.lines.append(text)


@pytest.fixture
def log():
    return Log()


def test_the_first_lines_are_written_and_the_others_counted(log):
    for number in range(1000):
        log.say(f"line {number}")
    assert log.lines == [f"line {number}" for number in range(LINES)]
    log.now = WINDOW
    log.repeats.flush()
    assert log.lines[LINES:] == [f"and {1000 - LINES} more like it in 60 s: line 0"]


def test_a_flood_that_goes_on_is_one_line_a_minute(log):
    for second in range(600):
        log.now = float(second)
        for _ in range(100):
            log.say()
    assert len(log.lines) == LINES + 9
    assert log.lines[-1] == "and 6,000 more like it in 60 s: line"


def test_a_quiet_window_ends_it(log):
    for _ in range(10):
        log.say()
    for second in (WINDOW, 2 * WINDOW, 3 * WINDOW):
        log.now = second
        log.repeats.flush()
    before = len(log.lines)
    log.say("again")
    assert log.lines[before:] == ["again"]


def test_one_source_silences_no_other(log):
    for _ in range(100):
        log.say(source="stranger")
    log.say("mine", source="client")
    log.say("another", source="stranger", template="other %s")
    assert log.lines[LINES:] == ["mine", "another"]


def test_many_sources_fill_neither_memory_nor_log(log):
    for number in range(10_000):
        log.say(source=str(number))
    assert len(log.repeats._kinds) <= SOURCES + 1
    assert len(log.lines) <= SOURCES + LINES


def test_what_is_left_is_written_at_the_end(log):
    for _ in range(LINES + 7):
        log.say()
    log.now = 10.0
    log.repeats.flush(everything=True)
    log.repeats.flush(everything=True)
    assert log.lines[LINES:] == ["and 7 more like it in 10 s: line"]


def test_summaries_have_the_level_and_logger_of_their_lines(caplog):
    caplog.set_level(logging.INFO)
    logger = get_logger("tests.repeats")
    for number in range(3):
        logger.warning("no %s", number, repeats="here", lines=1, session="s")
    from remote_gym.logs import flush

    flush(everything=True)
    assert [(record.levelname, record.name) for record in caplog.records] == [("WARNING", "tests.repeats")] * 2
    assert caplog.messages[0] == "no 0"
    assert caplog.messages[1].startswith("and 2 more like it in ")
    assert caplog.messages[1].endswith(": no 0")


@pytest.mark.parametrize(
    ("peer", "host"),
    [("ipv4:10.0.0.1:4321", "ipv4:10.0.0.1"), ("ipv6:[::1]:4321", "ipv6:[::1]"), ("unix:", "unix:")],
)
def test_a_peers_ports_are_one_source(peer, host):
    assert host_of(peer) == host
