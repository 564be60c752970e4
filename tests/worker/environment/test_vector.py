"""Several environments in one worker step as Gymnasium's `SyncVectorEnv` does."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from remote_gym.testing import find_difference
from remote_gym.wire.autoreset import AutoresetMode
from remote_gym.worker.environment.vector import Together

pytestmark = pytest.mark.skipif(AutoresetMode is None, reason="Gymnasium < 1.1 has one mode only, and its own step")


class Odd(gym.Env[Any, Any]):
    """Returns numbers of every kind, and an info now and then."""

    observation_space = spaces.Dict({"a": spaces.Box(-9, 9, (2,), np.float32), "b": spaces.Discrete(5)})
    action_space = spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, length: int, reward: Any) -> None:
        self._length, self._reward, self._count = length, reward, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._count = 0
        return self._observation(), {"begun": self._length}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._count += 1
        ended = self._count >= self._length
        info = {"at": self._count, "action": float(action.sum())} if self._count % 2 else {}
        return self._observation(), self._reward, np.bool_(ended and self._length % 2), ended, info

    def _observation(self) -> dict[str, Any]:
        return {"a": self.np_random.uniform(-9, 9, 2).astype(np.float32), "b": np.int64(self._count % 5)}


REWARDS = [1.5, np.float32(0.1), 3, True, np.array(2.5)]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_steps_are_gymnasiums_own(mode):
    def make(kind: type[SyncVectorEnv], **options: Any) -> SyncVectorEnv:
        return kind(
            [lambda n=n: Odd(3 + n, REWARDS[n]) for n in range(5)], autoreset_mode=AutoresetMode(mode), **options
        )

    expected, found = make(SyncVectorEnv), make(Together, copy=False)
    try:
        assert not find_difference(expected.reset(seed=1), found.reset(seed=1))
        expected.action_space.seed(2)
        for number in range(40):
            if number == 20:  # in the middle of episodes, some of which have just ended
                mask = np.array([True, False, True, False, True])
                both = [each.reset(seed=3, options={"reset_mask": mask.copy()}) for each in (expected, found)]
                assert not find_difference(*both)
            action = expected.action_space.sample()
            one, other = expected.step(action), found.step(action)
            assert not find_difference(one[:4], other[:4])
            assert not find_difference(
                {key: list(value) for key, value in one[4].items()},
                {key: list(value) for key, value in other[4].items()},
            )
    finally:
        expected.close()
        found.close()
