"""A remote environment returns what a local one does: bit for bit, and kind for kind."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

from environments import Sampler, make_spaces
from remote_gym.testing import find_difference, loopback_server, play_in_lockstep

STEPS = pytest.mark.parametrize("steps", [100, pytest.param(2000, marks=pytest.mark.long)])

REGISTERED: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "CartPole-v1": ({}, ()),
    "Acrobot-v1": ({}, ()),
    "MountainCarContinuous-v0": ({}, ()),
    "FrozenLake-v1": ({}, ()),
    "Taxi-v4": ({}, ()),
    "Blackjack-v1": ({}, ()),
    "ALE/Pong-v5": ({"render_mode": "rgb_array"}, ("ale_py",)),
    "HalfCheetah-v5": ({}, ()),
    "Humanoid-v5": ({}, ()),
    "MiniGrid-Empty-5x5-v0": ({"render_mode": "rgb_array"}, ("minigrid",)),
}


CHECKED = ("CartPole-v1", "Blackjack-v1", "ALE/Pong-v5", "HalfCheetah-v5")
"""What Gymnasium's checker looks at by default: plain numbers, a Tuple, frames, and what cannot be rendered here."""

MUJOCO = ("HalfCheetah-v5", "Humanoid-v5")


@pytest.fixture(scope="module", autouse=True)
def _without_a_screen() -> Iterator[None]:
    # Of the module, as the servers are: workers have what their forkserver began with.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDL_VIDEODRIVER", "dummy")
        yield


def import_or_skip(id_: str, modules: tuple[str, ...]) -> None:
    for module in modules:
        pytest.importorskip(module)
    if id_ not in gym.registry:
        pytest.skip(f"this gymnasium ({gym.__version__}) has no {id_}")
    if id_ in MUJOCO:
        pytest.importorskip("mujoco")


@STEPS
@pytest.mark.parametrize("id_", REGISTERED)
def test_a_registered_environment_plays_in_lockstep_with_a_local_one(id_, steps, servers):
    arguments, modules = REGISTERED[id_]
    import_or_skip(id_, modules)
    with servers.lend(id_, imports=modules) as server:
        remote = server.environment(**arguments)
        local = gym.make(id_, **arguments)
        try:
            assert remote.observation_space == local.observation_space or id_.startswith("MiniGrid")
            assert remote.action_space == local.action_space
            assert remote.spec is not None
            assert local.spec is not None
            assert remote.spec.id == local.spec.id
            assert remote.metadata["render_fps"] == local.metadata["render_fps"]
            play_in_lockstep(local, remote, steps=steps, seed=7, frames=bool(arguments))
        finally:
            local.close()


@STEPS
@pytest.mark.parametrize("name", make_spaces())
def test_an_environment_of_any_space_plays_in_lockstep_with_a_local_one(name, steps, monkeypatch, tests_folder):
    monkeypatch.chdir(tests_folder)
    arguments = {"entrypoint": "environments.py", "entrypoint_kwargs": {"space": name}}
    with loopback_server(arguments, use_thread=True) as server:
        remote = server.environment()
        local = Sampler(make_spaces()[name])
        assert remote.observation_space == local.observation_space
        play_in_lockstep(local, remote, steps=steps, seed=11)


@pytest.mark.parametrize(
    "id_", [id_ if id_ in CHECKED else pytest.param(id_, marks=pytest.mark.long) for id_ in REGISTERED]
)
def test_gymnasiums_checker_accepts_a_remote_environment(id_, servers, monkeypatch):
    arguments, modules = REGISTERED[id_]
    import_or_skip(id_, modules)
    with servers.lend(id_, imports=modules) as server:
        assert_checker_agrees(
            lambda: gym.make(id_, **arguments).unwrapped,
            lambda: server.environment(**arguments),
            # Without a screen MuJoCo's renderer does not raise: it aborts the process.
            skip_render_check=id_ in MUJOCO,
        )


@pytest.mark.parametrize("name", make_spaces())
def test_gymnasiums_checker_accepts_a_remote_environment_of_any_space(name, monkeypatch, tests_folder):
    monkeypatch.chdir(tests_folder)
    arguments = {"entrypoint": "environments.py", "entrypoint_kwargs": {"space": name}}
    with loopback_server(arguments, use_thread=True) as server:
        assert_checker_agrees(lambda: Sampler(make_spaces()[name]), server.environment, skip_render_check=False)


def assert_checker_agrees(local: Callable[[], Any], remote: Callable[[], Any], *, skip_render_check: bool) -> None:
    """The checker says the same of both: no more warnings, and no error that it does not raise locally."""
    expected_error, expected = check(local(), skip_render_check)
    found_error, found = check(remote(), skip_render_check)
    assert found_error == expected_error
    assert [warning for warning in found if warning not in expected] == []


def check(environment: Any, skip_render_check: bool) -> tuple[str | None, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(environment, skip_render_check=skip_render_check)
        except AssertionError as error:  # of an empty Tuple space, which it does not allow
            if not str(error).startswith("An empty Tuple"):
                raise
            return str(error), []
    return None, [first_words(warning) for warning in caught]


def first_words(warning: warnings.WarningMessage) -> str:
    return str(warning.message)[:60]


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (1, True), (0.0, -0.0), ([1], (1,)), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (float("nan"), 1.0)],
)
def test_the_comparison_sees_differences_of_value_and_kind(one, other):
    assert find_difference(one, other) is not None
    assert find_difference(one, one) is None
