"""An entrypoint for tests: environments that observe, reward and end in arrays of other libraries."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

OBSERVATION = spaces.Dict({"n": spaces.Discrete(5), "x": spaces.Box(-9.0, 9.0, (2,), np.float32)})
ACTION = spaces.Box(-1.0, 1.0, (2,), np.float32)


class Array:
    """An array of a library that NumPy knows by its ``__array__`` only."""

    def __init__(self, content: Any, dtype: str) -> None:
        self._content = np.array(content, dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._content.astype(dtype or self._content.dtype)


class Dlpack:
    """An array that speaks DLPack and nothing else; on the CPU unless told otherwise."""

    def __init__(self, content: Any, dtype: str, device: tuple[int, int] = (1, 0)) -> None:
        self._content = np.array(content, "uint8" if dtype == "bool" else dtype)  # NumPy 1 exports no bools
        self._device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device

    def __dlpack__(self, **options: Any) -> Any:
        return self._content.__dlpack__(**options)


def maker(library: str) -> Callable[[Any, str], Any]:
    """What makes an array of a library, of a content and a dtype."""
    if library == "array":
        return Array
    if library == "dlpack":
        return Dlpack
    if library == "torch":
        torch = importlib.import_module("torch")
        return lambda content, dtype: torch.tensor(
            content, dtype=getattr(torch, dtype), requires_grad=dtype.startswith(("float", "bfloat"))
        )
    numpy_of_jax = importlib.import_module("jax.numpy")
    return lambda content, dtype: numpy_of_jax.asarray(content, dtype=dtype)


class Foreign(gym.Env[Any, Any]):
    """Counts its steps, in arrays of the library."""

    observation_space = OBSERVATION
    action_space = ACTION
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 - as Gymnasium has it

    def __init__(self, library: str, render_mode: str | None = None) -> None:
        self._make = maker(library)
        self.render_mode = render_mode
        self._count = 0

    def _observe(self) -> dict[str, Any]:
        return {"n": self._make(self._count % 5, "int32"), "x": self._make([self._count, 0.5], "float32")}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._count = 0
        return self._observe(), {"array": self._make([1, 2], "int32")}

    def step(self, action: Any) -> Any:
        self._count += 1
        info = {"nested": [{"array": self._make([[self._count]], "uint8")}], "action": np.array(action)}
        ends = self._make(self._count == 4, "bool")
        return self._observe(), self._make(self._count / 2, "float32"), self._make(False, "bool"), ends, info

    def render(self) -> Any:
        return self._make(np.full((2, 3, 3), self._count).tolist(), "uint8")


class ForeignVector(VectorEnv):
    """Several in arrays of the library, as one on a GPU is."""

    def __init__(self, library: str, num_envs: int) -> None:
        self._make = maker(library)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = ACTION, ACTION
        self.observation_space = self.action_space = batch_space(ACTION, num_envs)

    def _all(self, value: Any, dtype: str) -> Any:
        return self._make([value] * self.num_envs, dtype)

    def close(self, **_: Any) -> None:
        """Nothing: Gymnasium's own before 1.0 wants what its constructor sets, which takes other arguments."""

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        return self._all([0.0, 1.0], "float32"), {"lives": self._all(3, "int32")}

    def step(self, actions: Any) -> Any:
        flags = self._all(False, "bool"), self._all(True, "bool")
        return self._make(actions.tolist(), "float32"), self._all(0.5, "float32"), *flags, {"a": self._all(1, "int32")}


def create_environment(library: str, render_mode: str | None = None) -> gym.Env[Any, Any]:
    return Foreign(library, render_mode)


def create_vector_environment(library: str, num_envs: int, own: bool = True) -> VectorEnv:
    if own:
        return ForeignVector(library, num_envs)
    return gym.make_vec("phys2d/CartPole-v1", num_envs=num_envs, vectorization_mode="vector_entry_point")
