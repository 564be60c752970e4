"""The trainer of docs/long-runs.md goes on after what the page says can go wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from remote_gym.testing import loopback_server
from waiting import scaled

PAGE = Path(__file__).parents[2] / "docs" / "long-runs.md"
ENTRYPOINT = """
import os, pathlib
import gymnasium as gym


class Fragile(gym.Wrapper):
    def step(self, action):
        if action == 1 and (fault := pathlib.Path("fault")).exists():
            what = fault.read_text()
            fault.unlink()
            exec(what)
        return self.env.step(0)


def create_environment():
    return Fragile(gym.make("CartPole-v1"))
"""


@pytest.fixture
def play_episode() -> Any:
    code = re.search(r"file=trainer.py -->\n```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert code is not None
    namespace: dict[str, Any] = {}
    exec(code[1], namespace)
    return namespace["play_episode"]


@pytest.mark.parametrize("fault", ["os._exit(1)", "raise KeyError(7)", "import time; time.sleep(900)"])
def test_an_episode_is_lost_and_the_next_one_is_not(
    fault: str, play_episode: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "entrypoint.py").write_text(ENTRYPOINT)
    with loopback_server({"entrypoint": "entrypoint.py"}, close_timeout=scaled(0.5)) as server:
        environment = server.environment(step_timeout=scaled(5.0), close_timeout=scaled(0.5))
        (tmp_path / "fault").write_text(fault)
        assert play_episode(environment, lambda _: 1) is None
        assert play_episode(environment, lambda _: 1) > 5
