"""Serves environments by OpenEnv's own server: runs where that is installed, prints its port, and serves."""

from __future__ import annotations

import socket
import sys
import time
from typing import Any, Literal

import gymnasium as gym
import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State
from pydantic import BaseModel, Field


class Push(Action):
    direction: int = Field(ge=0, le=1)


class Pole(Observation):
    state: list[float] = Field(min_length=4, max_length=4)


class CartPole(Environment):
    """Gymnasium's."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._environment = gym.make("CartPole-v1")

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> Pole:
        observation, _ = self._environment.reset(seed=seed)
        return Pole(state=observation.tolist(), metadata={"episode": episode_id, "more": sorted(kwargs)})

    def step(self, action: Push, timeout_s: float | None = None, **kwargs: Any) -> Pole:
        observation, reward, terminated, truncated, _ = self._environment.step(action.direction)
        return Pole(state=observation.tolist(), reward=reward, done=terminated or truncated)

    @property
    def state(self) -> State:
        return State()

    def close(self) -> None:
        self._environment.close()


class Place(BaseModel):
    row: int = Field(ge=0, le=7)
    name: str


class Say(Action):
    text: str = Field(max_length=50)
    kind: Literal[0, 1, 2]
    tone: str = "plain"


class Said(Observation):
    text: str
    numbers: list[int]
    place: Place
    is_last: bool


class Talk(Environment):
    """Says what it was told. Waits where that is a number of seconds, and raises where it is ``raise``."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> Said:
        return self._said(f"{seed} {kwargs}", 0)

    def step(self, action: Say, timeout_s: float | None = None, **kwargs: Any) -> Said:
        if action.text == "raise":
            raise ValueError("it does not like that")
        if action.text.replace(".", "").isdecimal():
            time.sleep(float(action.text))
        return self._said(action.text, action.kind)

    @property
    def state(self) -> State:
        return State()

    @staticmethod
    def _said(text: str, kind: int) -> Said:
        return Said(text=text, numbers=list(range(kind)), place=Place(row=kind, name=text), is_last=kind == 2)


if __name__ == "__main__":
    KINDS: dict[str, Any] = {"CartPole": (CartPole, Push, Pole), "Talk": (Talk, Say, Said)}
    app = create_fastapi_app(*KINDS[sys.argv[1]], max_concurrent_envs=int(sys.argv[2]))
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
