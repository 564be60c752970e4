"""openenv: JSON over a WebSocket to a FastAPI server, as its template has it; it leaves TLS to others."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import uvicorn
from openenv.core import GenericEnvClient
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

from case import Case, Figures, NotHere
from measuring import Stopwatch, measure_steps, sampled_actions
from peer import main
from serving import HOST, Servers, way_to
from workloads import create, renders


class Chosen(Action):
    """An action of a Gymnasium environment."""

    action: int | list[float]


class Observed(Observation):
    """An observation of one, as JSON knows it."""

    values: list[Any]


class Adapted(Environment):
    """A Gymnasium environment behind openenv's interface."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        super().__init__()
        self._environment: Any = None
        self._state = State(episode_id=str(uuid4()), step_count=0)

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, *, workload: str = "zero", **kwargs: Any
    ) -> Observed:
        """Begin an episode, of the environment that the first reset names."""
        if self._environment is None:
            self._environment = create(workload)
        observation, _ = self._environment.reset(seed=seed)
        self._state = State(episode_id=episode_id or str(uuid4()), step_count=0)
        return Observed(values=observation.tolist(), done=False, reward=0.0)

    def step(self, action: Chosen, timeout_s: float | None = None, **kwargs: Any) -> Observed:
        """Take an action."""
        observation, reward, terminated, truncated, _ = self._environment.step(
            np.asarray(action.action) if isinstance(action.action, list) else action.action
        )
        self._state.step_count += 1
        return Observed(values=observation.tolist(), done=bool(terminated or truncated), reward=float(reward))

    @property
    def state(self) -> State:
        """Number of the episode and the step."""
        return self._state


@contextlib.contextmanager
def serve(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Serve until the block ends."""
    application = create_fastapi_app(Adapted, Chosen, Observed, max_concurrent_envs=8)
    server = uvicorn.Server(uvicorn.Config(application, log_level="error", access_log=False))
    with socket.create_server((HOST, 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield {"port": listening.getsockname()[1]}
        server.should_exit = True
        thread.join(5)


def measure(case: Case, servers: Servers) -> Figures:
    """Measure a single environment, by openenv's synchronous client."""
    if case.num_envs:
        raise NotHere("openenv has no vector environments")
    if renders(case.workload):
        raise NotHere("openenv sends no frames")
    told = servers.start({})
    with way_to(case, told["port"]) as way:
        make: Any = lambda: GenericEnvClient(base_url=f"http://{way.host}:{told['port']}").sync()  # noqa: E731
        with make() as first:
            first.reset(workload=case.workload)
        with Stopwatch() as opening:
            client = make()
            client.__enter__()
            client.reset(seed=1, workload=case.workload)
        with contextlib.closing(client):
            actions = [{"action": np.asarray(action).tolist()} for action in sampled_actions(create(case.workload))]
            # An observation that is a list is not an observation yet.
            image = case.workload in ("pixels", "vga")
            dtype = np.uint8 if image else np.float32

            def step(number: int) -> bool:
                result = client.step(actions[number % len(actions)])
                np.asarray(result.observation["values"], dtype)
                return bool(result.done)

            figures = measure_steps(case, step, reset=client.reset, way=way)

    return {"open_ms": opening.milliseconds, **figures}


if __name__ == "__main__":
    main(measure, serve)
