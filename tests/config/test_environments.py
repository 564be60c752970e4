"""The forms in which an environment can be named."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from remote_gym import ConfigError, RemoteEnvironment, create_remote_environment_server
from remote_gym.config import read_environment

SHORT = """\
import gymnasium

def create_environment(length=3):
    return gymnasium.make("CartPole-v1", max_episode_steps=length)
"""


def steps_of_an_episode(port, remote_args=None):
    with contextlib.closing(RemoteEnvironment(port=port, remote_args=remote_args)) as environment:
        environment.reset(seed=1)
        for count in range(1, 1000):
            if any(environment.step(count % 2)[2:4]):
                return environment.spec.id, count
        return None


def test_all_forms_mean_the_same_as_the_long_one():
    for form, long in [
        ("CartPole-v1", {"entrypoint_kwargs": {"id": "CartPole-v1"}}),
        ("module:Pole-v3", {"entrypoint_kwargs": {"id": "module:Pole-v3"}}),
        ({"id": "CartPole-v1", "x": 3}, {"entrypoint_kwargs": {"id": "CartPole-v1", "x": 3}}),
        ("a/entrypoint.py", {"entrypoint": "a/entrypoint.py"}),
        (Path("a/entrypoint.py"), {"entrypoint": "a/entrypoint.py"}),
        ({"entrypoint": "e.py", "repo": "r"}, {"entrypoint": "e.py", "repo": "r"}),
        ({"environment": "easy"}, {"environment": "easy"}),
        ({}, {}),
    ]:
        assert read_environment("default_args", form) == long


def test_all_forms_are_served_alone_and_by_name_and_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.py").write_text(SHORT)
    named = {"id": "CartPole-v1", "file": "short.py", "path": tmp_path / "short.py"}
    named["kwargs"] = {"id": "CartPole-v1", "max_episode_steps": 5}
    named["long"] = {"entrypoint": "short.py", "entrypoint_kwargs": {"length": 2}}
    with create_remote_environment_server(
        {"id": "CartPole-v1", "max_episode_steps": 7}, port=0, use_thread=True, environments=named
    ) as server:
        assert steps_of_an_episode(server.port) == ("CartPole-v1", 7)
        found = {name: steps_of_an_episode(server.port, {"environment": name}) for name in named}
        assert {name: count for name, (_, count) in found.items() if name != "id"} == {
            "file": 3,
            "path": 3,
            "kwargs": 5,
            "long": 2,
        }
        assert set(server.options.environments["file"]) == {"entrypoint"}
    with create_remote_environment_server(
        {}, port=0, use_thread=True, ids=("CartPole-*",), client_entrypoints=tmp_path
    ) as server:
        assert steps_of_an_episode(server.port, {"id": "CartPole-v1", "max_episode_steps": 4}) == ("CartPole-v1", 4)
        assert steps_of_an_episode(server.port, "short.py") == ("CartPole-v1", 3)
        assert steps_of_an_episode(server.port, "CartPole-v1")[0] == "CartPole-v1"


def test_an_id_beside_what_is_no_keyword_of_gymnasium_is_refused():
    for name in ("entrypoint", "entrypoint_kwargs", "repo", "reference", "environment"):
        with pytest.raises(ConfigError, match=f"^default_args has '{name}' beside 'id'"):
            read_environment("default_args", {"id": "CartPole-v1", name: "x"})
