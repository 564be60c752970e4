"""An environment host as AgentGPT's is, with its messages, for tests that need none of its packages."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import msgpack
import numpy as np
from gymnasium import spaces
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from waiting import scaled


class Host:
    """Dials in, and answers until the connection ends.

    Args:
        port: Of the trainer.
        key: The training key.
        index: Its ``env_idx``.
        make: Makes the environment of an id.
        change: Called with the method and what would be sent; returns what is, or None for nothing.
        settings: Of the connection.
    """

    def __init__(
        self,
        port: int,
        key: str,
        index: int = 0,
        make: Callable[..., Any] = gym.make,
        change: Callable[[str, Any], Any] = lambda method, text: text,
        scheme: str = "ws",
        **settings: Any,
    ) -> None:
        self._make = make
        self.change = change
        self.environments: dict[str, Any] = {}
        self.asked: list[str] = []
        self.messages: list[Any] = []
        # As websocket-client sends it, which theirs uses.
        settings.setdefault("origin", f"{scheme}://localhost:{port}".replace("ws", "http"))
        with contextlib.suppress(ValueError):
            import websockets

            if int(websockets.__version__.partition(".")[0]) >= 15:
                settings["proxy"] = None
        manager = connect(f"{scheme}://localhost:{port}", compression=None, max_size=None, **settings)
        self.connection = manager.__enter__()
        self.event("init", training_key=key, data={"env_idx": index, "num_agents": 1}, type="info")
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def event(self, action: str, **more: Any) -> None:
        self.connection.send(json.dumps({"action": action, **more}))

    def close(self) -> None:
        self.connection.close()
        self.thread.join(scaled(20.0))

    def _serve(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for text in self.connection:
                data = msgpack.unpackb(base64.b64decode(text), raw=False)["data"]
                self.asked.append(data["method"])
                self.messages.append(data)
                try:
                    result = getattr(self, f"_answer_{data.pop('method')}")(**data)
                    answer = base64.b64encode(msgpack.packb(result, use_bin_type=True)).decode()
                except Exception as error:  # noqa: BLE001 - as theirs
                    event = {"action": "event", "message": f"Internal server error: {error}", "type": "error"}
                    answer = json.dumps(event)
                if (answer := self.change(self.asked[-1], answer)) is not None:
                    self.connection.send(answer)

    def _answer_make(self, env_key: str, env_id: str, render_mode: str | None) -> Any:
        self.environments[env_key] = self._make(env_id)
        return {"message": f"Environment {env_id} created.", "env_key": env_key}

    def _answer_reset(self, env_key: str, seed: int | None, options: Any) -> Any:
        observation, info = self.environments[env_key].reset(seed=seed, options=options)
        return {"observation": listed(observation), "info": listed(info)}

    def _answer_step(self, env_key: str, action: Any) -> Any:
        taken = np.array(action, np.float32) if isinstance(action, list) else action
        names = ("observation", "reward", "terminated", "truncated", "info")
        return dict(zip(names, map(listed, self.environments[env_key].step(taken)), strict=True))

    def _answer_action_space(self, env_key: str) -> Any:
        return described(self.environments[env_key].action_space)

    def _answer_observation_space(self, env_key: str) -> Any:
        return described(self.environments[env_key].observation_space)

    def _answer_close(self, env_key: str) -> Any:
        self.environments.pop(env_key).close()
        return {"message": f"Environment {env_key} closed."}


def listed(value: Any) -> Any:
    """As theirs converts what environments return."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: listed(each) for key, each in value.items()}
    return tuple(listed(each) for each in value) if isinstance(value, tuple) else value


def described(space: gym.Space) -> Any:
    """As theirs describes spaces."""
    if isinstance(space, spaces.Box):
        low, high = (worded(bound.tolist()) for bound in (space.low, space.high))
        return {"type": "Box", "low": low, "high": high, "shape": space.shape, "dtype": str(space.dtype)}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": space.n}  # of NumPy's, which msgpack does not know
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {key: described(each) for key, each in space.spaces.items()}}
    raise NotImplementedError(f"Cannot serialize space type: {type(space)}")


def worded(value: Any) -> Any:
    if isinstance(value, list):
        return [worded(each) for each in value]
    if isinstance(value, float) and not np.isfinite(value):
        return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


@contextlib.contextmanager
def hosting(port: int, key: str, index: int = 0, **arguments: Any) -> Iterator[Host]:
    """A host until the block ends."""
    host = Host(port, key, index, **arguments)
    try:
        yield host
    finally:
        host.close()
