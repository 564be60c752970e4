"""An entrypoint for tests: an environment whose infos and rewards hold something of each kind."""

from __future__ import annotations

import dataclasses
import enum
from collections import OrderedDict, defaultdict, deque
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class Phase(enum.Enum):
    RUN = "run"
    STOP = ("stop", 2)


class Level(enum.IntEnum):
    LOW = 1


class Pose(NamedTuple):
    x: float
    y: list[int]


@dataclasses.dataclass
class Cell:
    row: int
    items: set[str]


class Assorted(gym.Env[Any, Any]):
    """Rewards are of a kind that the action chooses; some episodes end by an observation of None."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        observation = self.np_random.random(2, np.float32)
        wanted = (options or {}).get("info", "dict")
        if wanted == "old":
            return observation
        return observation, {"dict": self.info(), "none": None, "list": [1, 2]}[wanted]

    def step(self, action: Any) -> Any:
        number = self.np_random.random()
        reward = [number, np.longdouble(number), Decimal(str(number)), Fraction(1, 3)][int(action)]
        if number < 0.1:
            return None, reward, True, False, self.info()
        return self.np_random.random(2, np.float32), reward, False, bool(number > 0.9), self.info()

    def info(self) -> dict[str, Any]:
        number = int(self.np_random.integers(1, 100))
        zone = timezone(timedelta(hours=number % 12))
        return {
            "times": [datetime(2026, 1, 2, 3, number % 60, tzinfo=zone, fold=1), date(2026, 1, 2), time(number % 24)],
            "spans": [timedelta(number), np.timedelta64(number, "25s"), np.datetime64(number, "D")],
            "days": np.array([number, 0], "M8[ns]"),
            "sets": [{number, "a"}, frozenset({(number, "b")})],
            "deque": deque([number], maxlen=4),
            "numbers": [Decimal(number), Fraction(number, 7), complex(number, -0.0), np.longdouble(number) / 3],
            "bytes": bytearray([number]),
            "path": Path("a", str(number)),
            "named": [Phase.RUN, Phase.STOP, Level.LOW, Pose(float(number), [1]), Cell(number, {"key"})],
            "dicts": [OrderedDict(b=1, a=number), defaultdict(list, a=[number]), MappingProxyType({"a": number})],
            "masked": [np.ma.array([number, 2], mask=[True, False]), np.ma.masked],
            "structured": np.array([(number, 0.5)], [("a", "i1"), ("b", "f8")]),
            "keys": {(number, "a"): 2, date(2026, 1, 1): 3},
        }


class OldSteps(Assorted):
    """Steps as Gym did before 0.26."""

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


class Nothing(Assorted):
    """Observes None in the midst of an episode."""

    def step(self, action: Any) -> Any:
        return None, 1.0, False, False, {}


def create_environment(kind: str = "Assorted") -> gym.Env[Any, Any]:
    return {"Assorted": Assorted, "OldSteps": OldSteps, "Nothing": Nothing}[kind]()
