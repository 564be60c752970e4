"""An entrypoint for tests of vector environments: what tells of each environment apart, and fails when told to."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from environments import make_spaces

EXPOSED = ("level", "pid", "describe", "missing")


class Telling(gym.Env[Any, Any]):
    """Has infos of every kind, which not every environment has at every step, and episodes that end at random.

    Actions from 1 on do as `_DEEDS` names them.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 7}
    _DEEDS = ("nothing", "raise", "exit", "disagree")

    def __init__(self, env_id: int = -1, render_mode: str | None = None) -> None:
        self.observation_space = spaces.Dict(
            {"place": spaces.Box(-1.0, 1.0, (2,), np.float32), "id": spaces.Discrete(1000), "on": spaces.MultiBinary(3)}
        )
        self.action_space = spaces.Discrete(len(self._DEEDS))
        self.env_id = env_id
        self.render_mode = render_mode
        self.level = 1
        self._count = 0

    def _observation(self) -> dict[str, Any]:
        place = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"place": place, "id": np.int64(self.env_id), "on": self.np_random.integers(0, 2, 3, dtype=np.int8)}

    def _info(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "int": self._count,
            "float": self._count / 3,
            "bool": self._count % 2 == 0,
            "float32": np.float32(self._count / 7),
            "array": np.arange(3, dtype=np.int16) * self._count,
            "text": f"step {self._count}",
            "none": None,
            "list": [self._count, None],
            "nested": {"depth": {"of": self._count}, "text": "deep"},
        }
        if self.np_random.random() < 0.3:
            found["sometimes"] = {"seen": 1.5, "name": f"{self.env_id}"}
            found["rarely"] = np.float64(self.np_random.random())
        return found

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._count = 0
        return self._observation(), {**self._info(), "options": str(options)}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._count += 1
        info = self._info()
        getattr(self, "_" + self._DEEDS[action])(info)
        ends = self.np_random.random(2) < 0.15
        return self._observation(), float(self.np_random.random()), bool(ends[0]), bool(ends[1]), info

    def render(self) -> Any:
        return np.full((4, 5, 3), self._count, np.uint8)

    def describe(self, prefix: str, *, suffix: str = "") -> str:
        return f"{prefix}{self.level}{suffix}"

    @property
    def pid(self) -> int:
        return os.getpid()

    def _nothing(self, info: dict[str, Any]) -> None: ...

    def _raise(self, info: dict[str, Any]) -> None:
        raise LookupError(f"environment {self.env_id} lost its way")

    def _exit(self, info: dict[str, Any]) -> None:
        os._exit(7)

    def _disagree(self, info: dict[str, Any]) -> None:
        info["int"] = {"not": "an int"}


class Sampling(gym.Env[Any, Any]):
    """Observes samples of a space, and tells in its info which actions it got."""

    def __init__(self, name: str) -> None:
        self.observation_space = make_spaces()[name]
        self.action_space = make_spaces()[name]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        done = bool(self.np_random.random() < 0.1)
        return self.observation_space.sample(), float(self.np_random.random()), done, False, {"action": repr(action)}


class Uneven(gym.Env[Any, Any]):
    """Steps at once, or waits for a file to appear."""

    observation_space = spaces.Discrete(1000)
    action_space = spaces.Discrete(2)

    def __init__(self, env_id: int, gate: str) -> None:
        self._env_id = env_id
        self._gate = gate
        self._count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.int64(0), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        while action and not os.path.exists(self._gate):  # noqa: PTH110
            time.sleep(0.005)
        self._count += 1
        return np.int64(self._count), float(self._env_id), False, False, {}


def create_environment(
    env_id: int, space: str | None = None, gate: str | None = None, fails_at: int = -1, render_mode: str | None = None
) -> gym.Env[Any, Any]:
    """One of the above."""
    if env_id == fails_at:
        raise ValueError(f"no environment {env_id}")
    if gate is not None:
        return Uneven(env_id, gate)
    return Telling(env_id, render_mode) if space is None else Sampling(space)
