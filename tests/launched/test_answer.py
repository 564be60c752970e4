"""The process's end of a `LaunchedProcess`."""

from __future__ import annotations

import json
import os

import pytest

from remote_gym import ConfigError
from remote_gym.launched.answer import answer, refusal, take_order
from remote_gym.launched.order import ORDER
from remote_gym.launched.process import raise_refusal


def test_an_order_is_gone_once_it_was_read(tmp_path):
    (tmp_path / ORDER).write_text('{"serves": 3}')
    assert take_order(tmp_path) == {"serves": 3}
    assert not (tmp_path / ORDER).exists()


@pytest.mark.parametrize("program", ["waits", "is gone"])
def test_an_answer_is_the_last_of_its_descriptor(program):
    ours, theirs = os.pipe()
    if program == "is gone":
        os.close(ours)
    answer(theirs, {"url": "unix:/x"})
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(theirs)
    if program == "waits":
        with os.fdopen(ours) as answers:
            assert json.loads(answers.read()) == {"url": "unix:/x"}


def test_a_refusal_is_raised_as_what_it_was():
    with pytest.raises(ConfigError, match=r"^lease is 'long'; use a number \(at 'box'\)") as caught:
        raise_refusal(refusal(ConfigError("is 'long'; use a number", field="lease", where="lease")), "at 'box'")
    assert caught.value.field == "lease"
