"""Clients choose among the registered environments that the server lets them, and among no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

from remote_gym import create_remote_environment_server
from remote_gym.config import ServerOptions
from remote_gym.errors import ConfigError, NotPermitted
from remote_gym.testing import loopback_server
from remote_gym.v1 import worker_pb2
from remote_gym.worker.environment.entrypoint import create_environment
from remote_gym.worker.environment.registered_ids import check_client_id, noting
from waiting import scaled


@pytest.fixture
def registry():
    """What tests register is gone afterwards."""
    before = dict(gym.registry)
    yield gym.registry
    gym.registry.clear()
    gym.registry.update(before)


def check(id_, *, offered=None, patterns=(), imports=()):
    check_client_id(id_, offered, patterns, imports)


@pytest.mark.parametrize("id_", ["CartPole-v1", "CartPole", "Acrobot-v1", "MountainCarContinuous-v0", "NoSuch-v0"])
def test_what_gymnasium_registers_may_be_chosen_and_what_is_not_registered_is_no_matter_of_rights(id_):
    check(id_)


def test_what_else_is_registered_may_not_be_chosen(registry):
    gym.register("Door-v0", entry_point="shimmy.openai_gym_compatibility:GymV26CompatibilityV0")
    gym.register("CalledDoor-v0", entry_point=lambda **_: None)
    gym.register("ns/Lookalike-v0", entry_point="gymnasium.envsx.evil:Env")
    for id_ in ("Door-v0", "Door", "CalledDoor-v0", "ns/Lookalike-v0", "remote_gym/Remote-v0", "remote_gym/Remote"):
        with pytest.raises(NotPermitted, match="neither Gymnasium itself nor a module that the server imports"):
            check(id_)


def test_what_a_module_of_the_servers_registers_may_be_chosen(registry):
    gym.register("theirs/Plugin-v0", entry_point="their_package.envs:Env")
    check("theirs/Plugin-v0", imports=["their_package.registration"])
    with noting("registers_others"):
        gym.register("others/Env-v0", entry_point="another_package:Env")
    check("others/Env-v0", imports=["registers_others"])
    with pytest.raises(NotPermitted):
        check("others/Env-v0", imports=["their_package"])


@pytest.mark.parametrize("id_", ["CartPole-v1", "CartPole", "CartPole-v0"])
def test_patterns_say_which_may_be_chosen(id_):
    check(id_, patterns=["Acrobot-v1", "CartPole-*"])
    check(id_, patterns=["*"])
    with pytest.raises(NotPermitted, match=r"ServerOptions.ids is 'Acrobot-v1', 'cartpole-\*'"):
        check(id_, patterns=["Acrobot-v1", "cartpole-*"])


def test_a_pattern_can_allow_what_the_default_does_not():
    check("remote_gym/Remote-v0", patterns=["remote_gym/*"])


def test_a_pattern_imports_nothing():
    with pytest.raises(NotPermitted, match="would import 'os'"):
        check("os:CartPole-v1", patterns=["*"])


def test_a_client_chooses_by_pattern_from_a_real_server():
    with loopback_server({}, ids=("Acrobot-*",)) as server:
        choose = {"entrypoint_kwargs": {"id": "Acrobot-v1"}}
        assert server.environment(remote_args=choose).observation_space.shape == (6,)
        with pytest.raises(NotPermitted, match="CartPole"):
            server.environment(remote_args={"entrypoint_kwargs": {"id": "CartPole-v1"}})


@pytest.mark.parametrize("ids", ["CartPole-v1", ("",), (1,)])
def test_ids_are_patterns(ids):
    with pytest.raises(ConfigError, match="use a tuple of patterns"):
        ServerOptions(ids=ids)


def test_ids_that_nobody_could_choose_are_refused():
    with pytest.raises(ConfigError, match="no environment leaves its id to clients"):
        create_remote_environment_server({"entrypoint_kwargs": {"id": "CartPole-v1"}}, port=0, ids=("Acrobot-v1",))


def test_the_command_refuses_ids_beside_an_id():
    command = [sys.executable, "-m", "remote_gym", "serve", "CartPole-v1", "--ids", "Acrobot-v1", "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60))
    assert ended.returncode == 1
    assert "--ids is ('Acrobot-v1',), but no environment leaves its id to clients" in ended.stderr


@pytest.mark.parametrize("num_envs", [0, 2])
@pytest.mark.parametrize("function", ["create_environment(**kwargs)", "create_environment(env_id=None, /, **kwargs)"])
def test_a_clients_env_id_reaches_no_entrypoint(tmp_path, monkeypatch, function, num_envs):
    monkeypatch.setattr(sys, "path", list(sys.path))
    name = f"taker_{abs(hash((function, num_envs)))}"
    Path(tmp_path, f"{name}.py").write_text(
        f"import gymnasium\nSEEN = []\n"
        f"def {function}:\n    SEEN.append(kwargs)\n    return gymnasium.make('CartPole-v1')\n"
    )
    launch = worker_pb2.Launch(root=str(tmp_path), entrypoint=f"{name}.py", num_envs=num_envs, env_id=3)
    created = create_environment(launch, {"own": 1}, {"env_id": 5, "theirs": 2}, own_process=False)
    created.environment.close()
    seen = sys.modules[name].SEEN
    assert seen == [{"own": 1, "theirs": 2}] * max(1, num_envs)


def test_a_clients_env_id_reaches_no_environment_served_by_id():
    with loopback_server("CartPole-v1") as server:
        environment = server.environment(remote_args={"entrypoint_kwargs": {"env_id": 5}})
        assert environment.spec.kwargs.get("env_id") is None
        environment.reset()
