"""Servers of dm_env_rpc for tests: the servicer that a user of it would write, on gRPC's own server."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

import grpc
import gymnasium as gym
import numpy as np
from dm_env_rpc.v1 import dm_env_rpc_pb2 as dm
from dm_env_rpc.v1 import dm_env_rpc_pb2_grpc, spec_manager, tensor_spec_utils, tensor_utils
from google.rpc import code_pb2

STATE = dm.EnvironmentStateType


def spec(name: str, dtype: Any, shape: tuple[int, ...] = (), low: Any = None, high: Any = None) -> dm.TensorSpec:
    """A spec."""
    made = dm.TensorSpec(name=name, dtype=tensor_utils.np_type_to_data_type(np.dtype(dtype)), shape=shape)
    if low is not None:
        kind = np.dtype(dtype).type  # of which NumPy 2 has it that the bounds are
        tensor_spec_utils.set_bounds(made, kind(low), kind(high))
    return made


class CartPole:
    """Gymnasium's, as a world."""

    actions: ClassVar = {1: spec("action", np.int32, (), 0, 1)}
    observations: ClassVar = {
        1: spec("observation", np.float32, (4,)),
        2: spec("reward", np.float64),
        3: spec("picture", np.uint8, (400, 600, 3)),
    }

    def __init__(self, settings: dict[str, Any]) -> None:
        limit = settings.pop("limit", None)
        assert not settings, settings
        self._environment = gym.make("CartPole-v1", render_mode="rgb_array", max_episode_steps=limit and int(limit))

    def reset(self, settings: dict[str, Any]) -> dict[str, Any]:
        seed = settings.pop("seed", None)
        assert not settings, f"unknown settings {sorted(settings)}"
        observation, _ = self._environment.reset(seed=None if seed is None else int(seed))
        return {"observation": observation, "reward": 0.0, "picture": self._environment.render()}

    def step(self, action: dict[str, Any]) -> tuple[dict[str, Any], int]:
        observation, reward, terminated, truncated, _ = self._environment.step(int(action["action"]))
        state = STATE.TERMINATED if terminated else STATE.INTERRUPTED if truncated else STATE.RUNNING
        return {"observation": observation, "reward": float(reward), "picture": self._environment.render()}, state


class Levels:
    """Names with dots, texts, and a discount."""

    actions: ClassVar = {1: spec("arm.left", np.float32, (2,), -1, 1), 2: spec("say", str)}
    observations: ClassVar = {
        1: spec("arm.left", np.float32, (2,)),
        2: spec("arm.right.count", np.int64, (), 0, 9),
        3: spec("said", str),
        4: spec("discount", np.float32),
    }

    def __init__(self, settings: dict[str, Any]) -> None:
        assert not settings, settings

    def reset(self, settings: dict[str, Any]) -> dict[str, Any]:
        return {"arm.left": np.zeros(2, np.float32), "arm.right.count": 0, "said": "", "discount": np.float32(1)}

    def step(self, action: dict[str, Any]) -> tuple[dict[str, Any], int]:
        if action["say"] == "sleep":
            time.sleep(2)
        if action["say"] == "raise":
            raise ValueError("it does not like that")
        said = {"arm.left": action["arm.left"], "said": action["say"], "discount": np.float32(0.5)}
        return {**said, "arm.right.count": 9}, STATE.RUNNING


@dataclass
class Servicer(dm_env_rpc_pb2_grpc.EnvironmentServicer):
    """One that makes worlds of a kind.

    Attributes:
        world: Makes one of the settings of its creation.
        worlds: Those that there are.
        change: Called with each answer before it is sent.
        asked: Kinds of requests that came.
    """

    world: Any
    worlds: dict[str, Any] = field(default_factory=dict)
    change: Callable[[Any], None] = lambda answer: None
    asked: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def Process(self, requests: Any, context: Any) -> Iterator[Any]:  # noqa: N802 - gRPC's name for it
        """Answer a stream's requests."""
        joined: list[Any] = []
        for request in requests:
            kind = request.WhichOneof("payload")
            self.asked.append(kind)
            answer = dm.EnvironmentResponse()
            try:
                getattr(self, f"_{kind}")(getattr(request, kind), getattr(answer, kind), joined)
                getattr(answer, kind).SetInParent()
            except Exception as error:  # noqa: BLE001 - the client is told
                answer.Clear()
                answer.error.code, answer.error.message = code_pb2.INVALID_ARGUMENT, f"{error}"
            self.change(answer)
            yield answer

    def _create_world(self, request: Any, answer: Any, joined: list[Any]) -> None:
        world = self.world(_unpacked(request.settings))
        with self.lock:
            answer.world_name = f"world-{len(self.worlds)}"
            self.worlds[answer.world_name] = world

    def _join_world(self, request: Any, answer: Any, joined: list[Any]) -> None:
        if request.world_name not in self.worlds:
            raise KeyError(f"no world {request.world_name!r}")
        joined[:] = [self.worlds[request.world_name], STATE.TERMINATED]
        self._describe(answer.specs)

    def _reset(self, request: Any, answer: Any, joined: list[Any]) -> None:
        joined[1:] = [STATE.TERMINATED, joined[0].reset(_unpacked(request.settings))]
        self._describe(answer.specs)

    def _step(self, request: Any, answer: Any, joined: list[Any]) -> None:
        world, state, *first = joined
        if state == STATE.RUNNING:
            observation, state = world.step(spec_manager.SpecManager(world.actions).unpack(request.actions))
        else:
            observation, state = first[0] if first else world.reset({}), STATE.RUNNING
        joined[1:] = [state]
        answer.state = state
        packed = spec_manager.SpecManager(world.observations).pack(observation)
        for uid in request.requested_observations:
            answer.observations[uid].CopyFrom(packed[uid])

    def _leave_world(self, request: Any, answer: Any, joined: list[Any]) -> None:
        joined.clear()

    def _destroy_world(self, request: Any, answer: Any, joined: list[Any]) -> None:
        del self.worlds[request.world_name]

    def _describe(self, specs: Any) -> None:
        for uid, each in self.world.actions.items():
            specs.actions[uid].CopyFrom(each)
        for uid, each in self.world.observations.items():
            specs.observations[uid].CopyFrom(each)


def _unpacked(settings: Any) -> dict[str, Any]:
    return {name: tensor_utils.unpack_tensor(tensor) for name, tensor in settings.items()}


@contextlib.contextmanager
def serving(world: Any, port: int = 0) -> Iterator[tuple[str, Servicer]]:
    """Serve worlds until the block ends; gives the address, and what serves them."""
    servicer = Servicer(world)
    server = grpc.server(ThreadPoolExecutor(8))
    dm_env_rpc_pb2_grpc.add_EnvironmentServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}", servicer
    finally:
        server.stop(None).wait(30)
