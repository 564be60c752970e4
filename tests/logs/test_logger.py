"""What is logged stays within its line, whoever chose the text, and whatever logger is asked."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path

import pytest

from remote_gym.logs import JsonFormatter, TextFormatter, get_logger, printable
from remote_gym.logs.escaping import LONGEST, LONGEST_ESCAPED, PREFIX
from remote_gym.logs.logger import DETAILS_LENGTH
from remote_gym.logs.repeats import LINES, REPEATS

SOURCE = Path(__file__).resolve().parents[2] / "src" / "remote_gym"
FORGED = "\n2026-01-01 00:00:00,000 ERROR remote_gym: all is lost\x1b[2J\r\u2028\x9b"
HOSTILE = [FORGED, FORGED.encode(), ValueError(FORGED), {FORGED: FORGED}]


class Hostile(Exception):
    def __str__(self):
        raise RuntimeError("no text for you")


@pytest.fixture
def logger(caplog):
    caplog.set_level(logging.DEBUG)
    REPEATS.flush(everything=True)
    yield get_logger("tests.logger")
    REPEATS.flush(everything=True)


def formatted(caplog, formatter=None):
    return [(formatter or TextFormatter()).format(record) for record in caplog.records]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("template", ["refused %s", "refused %r"])
def test_a_value_stays_within_its_line_for_any_formatter(logger, caplog, value, template):
    logger.warning(template, value)
    for text in (*formatted(caplog), *formatted(caplog, logging.Formatter("%(message)s"))):
        assert text.isprintable()
        assert "all is lost" in text


def test_an_exception_that_raises_when_it_is_shown_is_logged_all_the_same(logger, caplog):
    logger.warning("it raised %s", Hostile())
    assert formatted(caplog, logging.Formatter("%(message)s")) == ["it raised a Hostile that cannot be shown"]


def test_numbers_are_formatted_as_ever(logger, caplog):
    logger.info("%d of %.1f", 3, 4.25)
    assert caplog.messages == ["3 of 4.2"]


def test_a_value_of_megabytes_is_shortened(logger, caplog):
    logger.info("%s", "x" * 2**22)
    assert len(caplog.messages[0]) < LONGEST + 100
    assert caplog.messages[0].endswith("(4,192,304 characters more)")


def test_escaping_makes_nothing_longer_than_its_bound(logger, caplog):
    logger.info("%s", "\U0010ffff" * 2**20, details="\U0010ffff" * 2**20)
    first, *further = caplog.messages[0].split("\n")
    assert len(first) < LONGEST_ESCAPED + 100
    assert sum(map(len, further)) < DETAILS_LENGTH + 100
    assert further[0] == "  | (more before)"
    assert further[1].endswith("\\U0010ffff")


def test_details_are_written_below_the_first_lines_of_a_kind(logger, caplog):
    for number in range(2 * LINES):
        logger.info("%d", number, details="where", repeats="details", lines=100)
    assert [message.endswith("where") for message in caplog.messages] == [True] * LINES + [False] * LINES


def test_details_are_lines_below_the_message_that_cannot_pass_for_records(logger, caplog):
    logger.error("full: %s", "x", details=f"Traceback:{FORGED}")
    for text in (*formatted(caplog), *formatted(caplog, logging.Formatter("%(message)s"))):
        first, *further = text.split("\n")
        assert first.endswith("full: x")
        assert len(further) == 2
        assert all(line.startswith(PREFIX) and line.isprintable() for line in further)


def test_details_without_values_keep_the_percent_sign(logger, caplog):
    logger.error("100 % full", details="where")
    assert caplog.messages == ["100 % full\n  | where"]


@pytest.mark.parametrize("name", ["remote_gym", "grpc"])
def test_lines_of_other_loggers_cannot_pass_for_records(caplog, name):
    logging.getLogger(name).error("a handshake with %s", FORGED)
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger(name).exception("it raised")
    for text in formatted(caplog):
        first, *further = text.split("\n")
        assert f"ERROR {name}: " in first
        assert further
        assert all(line.startswith(PREFIX) and line.isprintable() for line in further)


def test_a_json_record_is_an_object_on_one_line_with_its_fields(logger, caplog):
    logger.warning("refused %s", FORGED, event="refused", identity=FORGED, session="s", details=f"where{FORGED}")
    [text] = formatted(caplog, JsonFormatter())
    assert text.isascii()
    assert text.isprintable()
    found = json.loads(text)
    assert found["message"] == f"refused {printable(FORGED)}"
    assert (found["level"], found["logger"], found["event"]) == ("WARNING", "tests.logger", "refused")
    assert (found["identity"], found["session"]) == (FORGED, "s")
    assert found["details"].startswith("where\n2026-01-01")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", found["time"])


def test_a_json_record_has_its_traceback(logger, caplog):
    try:
        raise ValueError("no")
    except ValueError:
        logger.exception("it raised")
    [found] = map(json.loads, formatted(caplog, JsonFormatter()))
    assert found["exception"].endswith("ValueError: no")


def test_a_record_says_where_it_was_logged(logger, caplog):
    logger.info("here")
    logger.log(logging.INFO, "here, too")
    logger.error("and here")
    assert {Path(record.pathname) for record in (caplog.records[0], caplog.records[2])} == {Path(__file__)}


def test_nothing_of_the_package_is_logged_past_its_loggers():
    found = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] not in ("logs", "cli")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "logging.getLogger" in line or re.search(r"\blogging\.(debug|info|warning|error|exception)\(", line)
    ]
    assert found == [], "use remote_gym.logs.get_logger, which escapes and counts"


def test_what_is_not_logged_costs_nothing(caplog):
    caplog.set_level(logging.ERROR)
    get_logger("tests.logger").info("%s", Hostile(), repeats="x")
    assert "tests.logger" not in {key[0] for key in REPEATS._kinds}


def test_recursion_limit_is_no_way_to_end_a_logger(logger, caplog):
    deep: list[object] = []
    for _ in range(sys.getrecursionlimit() * 2):
        deep = [deep]
    logger.info("%s", deep)
    assert len(caplog.messages) == 1
