"""`from_dm_env_rpc`, over servers that are written with dm_env_rpc's own package."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.error import ResetNeeded

pytest.importorskip("dm_env_rpc", reason="needs dm-env-rpc: pip install 'remote-gym[dm-env-rpc]'")

from peers.dm_env_rpc_server import CartPole, Levels, serving, spec
from remote_gym import (
    ConfigError,
    ConnectError,
    ConnectionLost,
    DeadlineExceeded,
    EncodingError,
    InvalidAction,
    ProtocolMismatch,
    RemoteEnvironment,
    RemoteEnvironmentError,
    RemoteGymError,
    create_remote_environment_server,
    from_dm_env_rpc,
)


@contextlib.contextmanager
def playing(kind: Any, **arguments: Any):
    with (
        serving(kind) as (address, servicer),
        contextlib.closing(from_dm_env_rpc(address, **arguments)) as environment,
    ):
        yield environment, servicer


def test_episodes_are_those_of_the_environment_itself():
    local = gym.make("CartPole-v1", render_mode="rgb_array")
    with playing(CartPole, seed_setting="seed", rendering="picture") as (environment, _):
        assert environment.action_space == spaces.Discrete(2)
        assert environment.observation_space.shape == (4,)
        for seed in (1, 2):
            observation, info = environment.reset(seed=seed)
            expected, _ = local.reset(seed=seed)
            assert info == {}
            ended = False
            while not ended:
                assert np.array_equal(observation, expected)
                assert observation.dtype == expected.dtype
                assert np.array_equal(environment.render(), local.render())
                observation, reward, terminated, truncated, _ = environment.step(1)
                expected, *others, _ = local.step(1)
                assert [reward, terminated, truncated] == others
                ended = terminated or truncated


def test_the_end_of_time_is_a_truncation():
    with playing(CartPole, world={"limit": 3}) as (environment, _):
        environment.reset()
        flags = [environment.step(action)[2:4] for action in (0, 1, 0)]
    assert flags == [(False, False), (False, False), (False, True)]


def test_names_with_dots_are_levels():
    with playing(Levels) as (environment, _):
        assert isinstance(environment.action_space["arm"]["left"], spaces.Box)
        assert environment.observation_space["arm"]["right"]["count"] == spaces.Discrete(10)
        observation, info = environment.reset()
        assert info == {"discount": np.float32(1)}
        action = {"arm": {"left": np.array([0.5, -0.5], np.float32)}, "say": "ouch"}
        observation, reward, *_, info = environment.step(action)
        assert observation["said"] == "ouch"
        assert observation["arm"]["right"]["count"] == 9
        assert np.array_equal(observation["arm"]["left"], action["arm"]["left"])
        assert (reward, info) == (0.0, {"discount": np.float32(0.5)})
        observation["arm"]["left"][:] = 0  # its own memory
        assert environment.observation_space.contains(observation)


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ({"arm": {"left": np.zeros(2, np.float32)}}, "action has no 'say'"),
        ({"arm": {"left": np.zeros(3, np.float32)}, "say": ""}, r"expected shape \(2,\), found \(3,\)"),
        ({"arm": {"left": "x"}, "say": ""}, "'arm.left'"),
        (3, "action has no 'arm.left'"),
    ],
)
def test_an_action_that_does_not_fit_is_not_sent(action, text):
    with playing(Levels) as (environment, servicer):
        environment.reset()
        asked = len(servicer.asked)
        with pytest.raises(InvalidAction, match=text):
            environment.step(action)
        assert len(servicer.asked) == asked


def test_a_step_after_the_end_needs_a_reset():
    with playing(CartPole, world={"limit": 1}) as (environment, _):
        with pytest.raises(ResetNeeded):
            environment.step(0)
        environment.reset()
        environment.step(0)
        with pytest.raises(ResetNeeded):  # the server would begin the next episode by it
            environment.step(0)


def test_worlds_of_its_own_are_destroyed_and_others_are_not():
    with serving(CartPole) as (address, servicer):
        servicer.worlds["ours"] = CartPole({})
        with contextlib.closing(from_dm_env_rpc(address, world_name="ours")) as environment:
            environment.reset()
        assert list(servicer.worlds) == ["ours"]
        with contextlib.closing(from_dm_env_rpc(address)) as environment:
            environment.reset()
            assert len(servicer.worlds) == 2
        assert list(servicer.worlds) == ["ours"]


def test_what_the_server_refuses_is_raised_with_its_words():
    with playing(Levels) as (environment, servicer):
        environment.reset()
        action = {"arm": {"left": np.zeros(2, np.float32)}, "say": "raise"}
        with pytest.raises(RemoteEnvironmentError, match="it does not like that"):
            environment.step(action)
        environment.step({**action, "say": ""})  # and goes on
    with serving(CartPole) as (address, servicer):
        with pytest.raises(RemoteEnvironmentError, match="no world 'there'"):
            from_dm_env_rpc(address, world_name="there")
        with pytest.raises(RemoteEnvironmentError, match="colour"):
            from_dm_env_rpc(address, world={"colour": "red"})
        assert servicer.worlds == {}
        with contextlib.closing(from_dm_env_rpc(address)) as environment:
            with pytest.raises(RemoteEnvironmentError, match="unknown settings"):
                environment.reset(options={"level": 3})
            environment.reset()


def test_a_late_answer_is_nobody_elses():
    with playing(Levels, step_timeout=0.5) as (environment, _):
        environment.reset()
        action = {"arm": {"left": np.zeros(2, np.float32)}, "say": "sleep"}
        with pytest.raises(DeadlineExceeded):
            environment.step(action)
        with pytest.raises(ResetNeeded):
            environment.step(action)
        environment.reset()
        assert environment.step({**action, "say": "new"})[0]["said"] == "new"


def test_a_server_that_goes_and_comes_back_is_joined_anew():
    with serving(CartPole) as (address, _):
        environment = from_dm_env_rpc(address, connect_timeout=1.0, reset_timeout=2.0, close_timeout=1.0)
        environment.reset()
        environment.step(0)
    with contextlib.closing(environment):
        with pytest.raises(ConnectionLost):
            environment.step(0)
        with pytest.raises(ConnectError, match="refused"):
            environment.reset()
        with serving(CartPole, int(address.rpartition(":")[2])) as (_, servicer):
            environment.reset()
            environment.step(0)
            environment.close()
            assert servicer.worlds == {}


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        (lambda answer: answer.step.observations[1].shape.append(10**9), "expected shape"),
        (lambda answer: answer.step.observations[1].floats.array.append(1), "observation"),
        (lambda answer: answer.step.observations.pop(1), "sent no 'observation'"),
        (lambda answer: answer.step.observations[2].CopyFrom(answer.step.observations[1]), "'reward'"),
        (lambda answer: answer.reset.SetInParent(), "answered reset to step"),
    ],
)
def test_a_server_that_does_not_keep_to_its_specs_is_told_of(changed, text):
    with playing(CartPole) as (environment, servicer):
        environment.reset()

        def change(answer):
            if answer.WhichOneof("payload") == "step":
                changed(answer)

        servicer.change = change
        with pytest.raises((EncodingError, ProtocolMismatch), match=text):
            environment.step(0)


@pytest.mark.parametrize(
    ("hostile", "text"),
    [
        (spec("wide", np.float32, (10**6, 10**6)), "Limits.array_bytes"),
        (spec("varies", np.float32, (-1,)), "varies"),
        (spec("observation.inner", np.float32), "observation"),
        (spec("", np.float32), "name of its own"),
        (spec("texts", str, (3,)), "no space"),
    ],
)
def test_specs_that_have_no_space_are_refused(hostile, text):
    class World(CartPole):
        observations: ClassVar = {**CartPole.observations, 9: hostile}

    with serving(World) as (address, servicer):
        with pytest.raises(EncodingError, match=text):
            from_dm_env_rpc(address)
        assert servicer.worlds == {}


def test_nobody_there_is_told_within_the_time():
    with pytest.raises(ConnectError, match="refused"):
        from_dm_env_rpc("127.0.0.1:1", connect_timeout=1.0, close_timeout=0.5)


def test_another_machine_needs_certificates():
    with pytest.raises(ConfigError, match="another machine"):
        from_dm_env_rpc("192.0.2.1:56789")


def test_another_kind_of_server_is_named():
    with create_remote_environment_server("CartPole-v1", port=0, check=False) as server:
        with pytest.raises(RemoteGymError):
            from_dm_env_rpc(f"localhost:{server.port}", connect_timeout=2.0, close_timeout=0.5)


def test_it_can_be_put_behind_a_server_of_ours(tmp_path):
    with serving(CartPole) as (address, _):
        entrypoint = tmp_path / "entrypoint.py"
        entrypoint.write_text(
            "import remote_gym\n\ndef create_environment(render_mode=None):\n"
            f"    return remote_gym.from_dm_env_rpc({address!r}, seed_setting='seed', rendering='picture')\n"
        )
        local = gym.make("CartPole-v1")
        with (
            create_remote_environment_server(str(entrypoint), port=0) as server,
            contextlib.closing(RemoteEnvironment(port=server.port, render_mode="rgb_array")) as environment,
        ):
            assert np.array_equal(environment.reset(seed=5)[0], local.reset(seed=5)[0])
            assert np.array_equal(environment.step(1)[0], local.step(1)[0])
            assert environment.render().shape == (400, 600, 3)
