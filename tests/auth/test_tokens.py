"""The tokens of a file that changes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from remote_gym.auth import tokens as tokens_module
from remote_gym.auth.tokens import SETTLE, TokenFile, add_token, read_tokens
from remote_gym.errors import ConfigError


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Tells for how long a token has been gone; files that bear the time of their writing are new."""
    clock, start = SimpleNamespace(now=0.0), time.time()
    ours = SimpleNamespace(monotonic=lambda: clock.now, time=lambda: start)
    monkeypatch.setattr(tokens_module, "time", ours)
    return clock


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "tokens"


@pytest.fixture
def alices(path) -> str:
    return add_token(path, "alice")


@pytest.fixture
def file(path, alices, clock) -> TokenFile:
    file = TokenFile(path)
    assert file.get().name_of(alices) == "alice"
    return file


def test_a_new_token_counts_at_once(file, path):
    bobs = add_token(path, "bob")
    assert file.get().name_of(bobs) == "bob"


def test_a_token_that_is_gone_counts_until_that_has_settled(file, path, alices, clock):
    path.write_text("")
    assert file.get().name_of(alices) == "alice"
    clock.now += 0.9 * SETTLE
    assert file.get().name_of(alices) == "alice"
    clock.now += 0.2 * SETTLE
    assert file.get().name_of(alices) is None


def test_a_token_that_is_gone_counts_no_more_though_the_file_goes_on_changing(file, path, alices, clock):
    path.write_text("")
    assert file.get().name_of(alices) == "alice"
    for number in range(2):
        clock.now += 0.5 * SETTLE
        others = add_token(path, f"n{number}")
        assert file.get().name_of(others) == f"n{number}"
    assert file.get().name_of(alices) is None


def test_a_token_that_was_gone_for_a_moment_counts_on(file, path, alices, clock):
    content = path.read_text()
    path.write_text("")
    assert file.get().names == {"alice"}
    clock.now += 0.9 * SETTLE
    path.write_text(content)
    assert file.get().names == {"alice"}
    clock.now += SETTLE
    assert file.get().name_of(alices) == "alice"
    path.write_text("")
    assert file.get().name_of(alices) == "alice"  # its time begins anew


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("half a li"), lambda path: path.unlink()])
def test_what_is_no_file_of_tokens_takes_none_away(file, path, alices, clock, spoil):
    spoil(path)
    for _ in range(3):
        assert file.get().name_of(alices) == "alice"
        clock.now += SETTLE


def test_who_looks_rarely_believes_a_files_own_time_and_who_looks_often_does_not(path, alices, clock):
    before = read_tokens(path)
    rare, frequent = TokenFile(path, before), TokenFile(path)
    frequent.get()
    path.write_text("")
    assert rare.get().name_of(alices) == frequent.get().name_of(alices) == "alice"
    os.utime(path, (time.time() - 10.0 * SETTLE,) * 2)
    assert rare.get().name_of(alices) is None
    assert frequent.get().name_of(alices) == "alice"


def test_two_rare_looks_amid_changes_take_nothing_away_that_was_there_in_between(path, alices, clock):
    rare = TokenFile(path, read_tokens(path))
    whole = path.read_text()
    path.write_text("")
    assert rare.get().name_of(alices) == "alice"
    path.write_text(whole)
    clock.now += 3600.0
    path.write_text("half a li")
    assert rare.get().name_of(alices) == "alice"
    path.write_text("")
    assert rare.get().name_of(alices) == "alice"


def test_a_rare_look_is_not_put_off_by_a_file_of_the_future(path, alices, clock):
    rare = TokenFile(path, read_tokens(path))
    path.write_text("")
    os.utime(path, (time.time() + 3600.0,) * 2)
    assert rare.get().name_of(alices) is None


def test_a_file_that_never_was_one_is_an_error_unless_something_is_known(path, alices):
    before = read_tokens(path)
    path.write_text("rubbish")
    with pytest.raises(ConfigError, match="line 1"):
        TokenFile(path).get()
    assert TokenFile(path, before).get().name_of(alices) == "alice"
