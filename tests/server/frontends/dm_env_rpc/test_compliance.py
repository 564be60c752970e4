"""The tests that dm-env-rpc ships for servers, against a server of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("dm_env_rpc", reason="needs dm-env-rpc: pip install 'remote-gym[dm-env-rpc]'")
pytest.importorskip("absl", reason="needs absl-py, which dm-env-rpc's tests are written with")

from absl.testing import absltest
from dm_env import test_utils
from dm_env_rpc.v1 import compliance, connection, dm_env_adaptor, dm_env_rpc_pb2, tensor_utils

from remote_gym import RemoteEnvironmentServer, create_remote_environment_server

ENTRYPOINT = """
import gymnasium as gym
import numpy as np
from gymnasium import spaces

class Everything(gym.Env):
    observation_space = spaces.Dict(
        image=spaces.Box(0, 255, (4, 5, 3), np.uint8),
        position=spaces.Box(-1, 1, (2,), np.float32),
        inner=spaces.Dict(count=spaces.Discrete(7), switches=spaces.MultiBinary(3)),
        text=spaces.Text(8),
    )
    action_space = spaces.Dict(
        force=spaces.Box(-1, 1, (2, 2), np.float32),
        choice=spaces.Discrete(3, start=1),
        choices=spaces.MultiDiscrete([2, 5]),
        word=spaces.Text(8),
    )

    def __init__(self, level):
        self.level = level

    def observe(self):
        return self.observation_space.sample()

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observe(), {}

    def step(self, action):
        assert self.action_space["force"].contains(action["force"])
        return self.observe(), 1.0, False, False, {}

def create_environment(level, size=1):
    return Everything(int(level))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RemoteEnvironmentServer]:
    entrypoint = tmp_path_factory.mktemp("compliance") / "everything.py"
    entrypoint.write_text(ENTRYPOINT)
    options: dict[str, Any] = {"check": False, "use_thread": True, "dm_env_rpc": True}
    with create_remote_environment_server(str(entrypoint), port=0, **options) as running:
        yield running


@pytest.fixture(autouse=True)
def address(server: RemoteEnvironmentServer, request: pytest.FixtureRequest) -> None:
    if request.cls is not None:
        request.cls.address = server.address


class Connected:
    """What the tests need: a connection, a world that is there, and its settings."""

    address = ""
    _connection: Any = None
    _world = ""
    settings = {"level": tensor_utils.pack_tensor(3)}  # noqa: RUF012  what the tests ask for

    @property
    def connection(self) -> Any:
        if self._connection is None:
            self._connection = connection.create_secure_channel_and_connect(self.address, _plaintext())
        return self._connection

    @property
    def world_name(self) -> str:
        if not self._world:
            request = dm_env_rpc_pb2.CreateWorldRequest(settings=self.settings)
            self._world = self.connection.send(request).world_name
        return self._world

    def join_world(self, **arguments: Any) -> Any:
        arguments = {"world_name": self.world_name, **arguments}
        return self.connection.send(dm_env_rpc_pb2.JoinWorldRequest(**arguments)).specs

    def tearDown(self) -> None:
        super().tearDown()  # type: ignore[misc]
        if self._world:
            self.connection.send(dm_env_rpc_pb2.LeaveWorldRequest())
            self.connection.send(dm_env_rpc_pb2.DestroyWorldRequest(world_name=self._world))
        if self._connection is not None:
            self._connection.close()
            self._connection, self._world = None, ""


def _plaintext() -> Any:
    import grpc

    return grpc.local_channel_credentials()


class TestCreateDestroyWorld(Connected, compliance.CreateDestroyWorld):
    required_world_settings = Connected.settings
    invalid_world_settings = {"colour": tensor_utils.pack_tensor("red")}  # noqa: RUF012
    has_multiple_world_support = True


class TestJoinLeaveWorld(Connected, compliance.JoinLeaveWorld):
    invalid_join_settings = {"colour": tensor_utils.pack_tensor("red")}  # noqa: RUF012
    join_world = compliance.JoinLeaveWorld.join_world


class TestReset(Connected, compliance.Reset):
    pass


class TestResetWorld(Connected, compliance.ResetWorld):
    pass


class TestStep(Connected, compliance.Step):
    @property
    def specs(self) -> Any:
        if not hasattr(self, "_specs"):
            self._specs = self.join_world()
        return self._specs

    @property
    def required_actions(self) -> Any:
        values = {"choice": 1, "choices": [0, 0], "word": "", "force": [[0.0, 0.0], [0.0, 0.0]]}
        return {
            uid: tensor_utils.pack_tensor(values[spec.name], dtype=spec.dtype)
            for uid, spec in self.specs.actions.items()
        }


class TestDmEnvironment(Connected, test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self) -> Any:
        specs = self.join_world()
        return dm_env_adaptor.DmEnvAdaptor(self.connection, specs)


def test_that_they_are_all_there():
    classes = [TestCreateDestroyWorld, TestJoinLeaveWorld, TestReset, TestResetWorld, TestStep, TestDmEnvironment]
    assert [sum(name.startswith("test_") for name in dir(one)) for one in classes] == [5, 11, 3, 3, 18, 4]
