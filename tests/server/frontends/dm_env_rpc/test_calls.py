"""Clients of dm_env_rpc at a server of ours: its own adaptor, the predecessor's way of asking, and strangers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("dm_env_rpc", reason="needs dm-env-rpc: pip install 'remote-gym[dm-env-rpc]'")

from dm_env_rpc.v1 import connection as dm_connection
from dm_env_rpc.v1 import dm_env_adaptor, error, tensor_utils
from dm_env_rpc.v1 import dm_env_rpc_pb2 as dm

from certificates import sign
from remote_gym import RemoteEnvironment, TlsFiles, create_remote_environment_server, from_dm_env_rpc
from remote_gym.certs import create_all
from waiting import wait_until

ENTRYPOINT = """
import os
import gymnasium as gym

class Raising(gym.Wrapper):
    def step(self, action):
        if self.unwrapped.steps_beyond_terminated is None and action == 1 and self.raises:
            raise ValueError("it does not like 1")
        if action == 1 and self.ends:
            os._exit(3)
        return self.env.step(action)

def create_environment(limit=500, raises=False, ends=False, render_mode=None):
    environment = Raising(gym.make("CartPole-v1", max_episode_steps=int(limit), render_mode=render_mode))
    environment.raises, environment.ends = raises, ends
    return environment
"""


@pytest.fixture(scope="module")
def entrypoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("worlds") / "cartpole.py"
    file.write_text(ENTRYPOINT)
    return str(file)


@pytest.fixture(scope="module")
def server(entrypoint: str) -> Iterator[Any]:
    with create_remote_environment_server(entrypoint, port=0, check=False, dm_env_rpc=True, lease=30.0) as running:
        yield running


@contextlib.contextmanager
def connected(address: str, credentials: Any = None) -> Iterator[Any]:
    channel = grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials)
    with channel, contextlib.closing(dm_connection.Connection(channel)) as connection:
        yield connection


def create(connection: Any, **settings: Any) -> str:
    packed = {name: tensor_utils.pack_tensor(value) for name, value in settings.items()}
    return str(connection.send(dm.CreateWorldRequest(settings=packed)).world_name)


def sessions(server: Any) -> int:
    return len(server.sessions())


def play(address: str, steps: int, **settings: Any) -> list[Any]:
    """Observations, rewards and kinds of steps by dm_env_rpc's own adaptor."""
    with connected(address) as connection:
        packed = {name: tensor_utils.pack_tensor(value) for name, value in settings.items()}
        environment, _ = dm_env_adaptor.create_and_join_world(connection, packed, {})
        connection.send(dm.ResetRequest(settings={"seed": tensor_utils.pack_tensor(7)}))
        environment._last_state = dm.EnvironmentStateType.INTERRUPTED
        found = [environment.step({})]
        while len(found) <= steps and not found[-1].last():
            found.append(environment.step({"action": len(found) % 2}))
        environment.close()
        return found


def test_numbers_are_those_of_the_environment_itself(server):
    local = gym.make("CartPole-v1", max_episode_steps=20)
    first, *others = play(server.address, 50, limit=20)
    assert np.array_equal(first.observation["observation"], local.reset(seed=7)[0])
    assert first.reward is None or first.reward == 0
    for number, step in enumerate(others, 1):
        observation, reward, terminated, truncated, _ = local.step(number % 2)
        assert np.array_equal(step.observation["observation"], observation)
        assert step.observation["observation"].dtype == observation.dtype
        assert step.reward == reward
        assert step.last() == (terminated or truncated)
    assert others[-1].discount == 1.0  # of what was truncated
    assert len(others) == 20
    wait_until(lambda: sessions(server) == 0)


def test_an_episode_that_ends_by_itself_has_no_discount(server):
    last = play(server.address, 500)[-1]
    assert (last.last(), last.discount) == (True, 0.0)


def test_a_client_of_the_predecessor_sends_its_arguments_as_json(server):
    with connected(server.address) as connection:
        args = {"entrypoint_kwargs": {"limit": 3, "render_mode": "rgb_array"}}
        environment, name = dm_env_adaptor.create_and_join_world(connection, {"args": json.dumps(args)}, {})
        assert environment.action_spec()["action"].num_values == 2
        step = environment.reset()
        assert step.observation["rendering"].shape == (400, 600, 3)
        assert step.observation["rendering"].any()
        steps = [environment.step({"action": 1}) for _ in range(3)]
        assert [each.last() for each in steps] == [False, False, True]
        environment.close()
        connection.send(dm.DestroyWorldRequest(world_name=name))


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"colour": "red"}, "colour"),
        ({"args": "{"}, "no JSON"),
        ({"args": "[1]"}, "no object"),
        ({"args": "[" * 100_000}, "no JSON"),
        ({"args": json.dumps({"repo": "https://example.org/x.git"})}, "repo"),
        ({"args": json.dumps({"entrypoint": "/etc/passwd"})}, "entrypoint"),
        ({"args": json.dumps({"nothing": 1})}, "nothing"),
        ({"render_mode": 3}, "render_mode"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(server, settings, text):
    with connected(server.address) as connection:
        with pytest.raises(error.DmEnvRpcError, match=text):
            create(connection, **settings)
    wait_until(lambda: sessions(server) == 0)


def test_what_the_environment_raises_is_told_and_the_world_lives_on(server):
    with connected(server.address) as connection:
        environment, name = dm_env_adaptor.create_and_join_world(
            connection, {"raises": tensor_utils.pack_tensor(True)}, {}
        )
        environment.reset()
        with pytest.raises(error.DmEnvRpcError, match="it does not like 1"):
            environment.step({"action": 1})
        assert not environment.step({"action": 0}).last()
        environment.close()
        connection.send(dm.DestroyWorldRequest(world_name=name))


def test_a_world_whose_worker_dies_is_gone_and_another_can_be_had(server):
    with connected(server.address) as connection:
        environment, name = dm_env_adaptor.create_and_join_world(
            connection, {"ends": tensor_utils.pack_tensor(True)}, {}
        )
        environment.reset()
        with pytest.raises(error.DmEnvRpcError, match="status 3"):
            environment.step({"action": 1})
        with pytest.raises(error.DmEnvRpcError, match="no world"):
            connection.send(dm.JoinWorldRequest(world_name=name))
        other = create(connection)
        connection.send(dm.JoinWorldRequest(world_name=other))
        connection.send(dm.LeaveWorldRequest())
        connection.send(dm.DestroyWorldRequest(world_name=other))


def test_a_world_lives_as_long_as_one_that_has_made_or_joined_it(server):
    with connected(server.address) as maker:
        name = create(maker)
    with connected(server.address) as connection:  # it was made for others
        connection.send(dm.JoinWorldRequest(world_name=name))
        connection.send(dm.LeaveWorldRequest())
        connection.send(dm.JoinWorldRequest(world_name=name))
        assert sessions(server) == 1
    wait_until(lambda: sessions(server) == 0)
    with connected(server.address) as connection, pytest.raises(error.DmEnvRpcError, match="no world"):
        connection.send(dm.JoinWorldRequest(world_name=name))


def test_a_world_is_joined_by_one_at_a_time(server):
    with connected(server.address) as maker:
        name = create(maker)
        with connected(server.address) as connection:
            connection.send(dm.JoinWorldRequest(world_name=name))
            with pytest.raises(error.DmEnvRpcError, match="joined by another"):
                maker.send(dm.JoinWorldRequest(world_name=name))

        def join() -> bool:
            with contextlib.suppress(error.DmEnvRpcError):
                return bool(maker.send(dm.JoinWorldRequest(world_name=name)).specs.actions)
            return False

        wait_until(join)  # once the server has seen the other connection's end
    wait_until(lambda: sessions(server) == 0)


def test_our_own_client_of_dm_env_rpc_plays_here(server):
    local = gym.make("CartPole-v1")
    with contextlib.closing(from_dm_env_rpc(server.address, seed_setting="seed")) as environment:
        for seed in (3, 4):
            observation, _ = environment.reset(seed=seed)
            assert np.array_equal(observation, local.reset(seed=seed)[0])
            for action in (1, 0, 1):
                assert np.array_equal(environment.step(action)[0], local.step(action)[0])
    wait_until(lambda: sessions(server) == 0)


def test_clients_of_both_kinds_are_served_at_once(server):
    with connected(server.address) as connection, contextlib.closing(RemoteEnvironment(port=server.port)) as ours:
        ours.reset(seed=1)
        name = create(connection)
        assert sessions(server) == 2
        ours.step(0)
        connection.send(dm.DestroyWorldRequest(world_name=name))


def test_a_world_is_its_owners_alone(entrypoint: str, tmp_path: Path):
    files = create_all(tmp_path / "c", ["localhost"])
    sign(tmp_path / "c", tmp_path / "c", "mallory", ["mallory"], profile="client")
    options = {"check": False, "dm_env_rpc": True, "tls": TlsFiles.from_folder(tmp_path / "c", "server")}
    with create_remote_environment_server(entrypoint, port=0, **options) as server:
        root = files.ca.certificate.read_bytes()

        def credentials(role: str) -> Any:
            pair = [(tmp_path / "c" / f"{role}{end}").read_bytes() for end in ("-key.pem", ".pem")]
            return grpc.ssl_channel_credentials(root, *pair)

        with connected(server.address, credentials("client")) as owner:
            name = create(owner)
            with connected(server.address, credentials("mallory")) as stranger:
                for request in (dm.JoinWorldRequest, dm.DestroyWorldRequest, dm.ResetWorldRequest):
                    with pytest.raises(error.DmEnvRpcError, match="no world"):
                        stranger.send(request(world_name=name))
            owner.send(dm.DestroyWorldRequest(world_name=name))
        with pytest.raises(grpc.RpcError), connected(server.address, grpc.ssl_channel_credentials(root)) as nobody:
            create(nobody)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff",
        b"\x0a\xff\xff\xff\xff\x0f",
        dm.EnvironmentRequest(step=dm.StepRequest(requested_observations=[*range(1000)])).SerializeToString() * 900,
        b"\x0a\x02\x0a\x00" * 2**19,
    ],
    ids=["no message", "too long", "many observations", "many settings"],
)
def test_hostile_bytes_end_their_call_and_nothing_else(server, data):
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream("/dm_env_rpc.v1.Environment/Process")(iter([data]))
        with contextlib.suppress(grpc.RpcError):
            for answer in call:
                assert dm.EnvironmentResponse.FromString(answer).HasField("error")
    with connected(server.address) as connection:
        connection.send(dm.LeaveWorldRequest())


def test_a_server_that_was_not_asked_to_speaks_no_dm_env_rpc(entrypoint: str):
    with create_remote_environment_server(entrypoint, port=0, check=False) as server:
        with connected(server.address) as connection, pytest.raises(grpc.RpcError) as caught:
            create(connection)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
