"""Plays by a subclass of the `HTTPEnvClient` of openenv-core 0.1: runs where that is installed, and prints JSON."""

from __future__ import annotations

import json
import sys
from typing import Any

from openenv_core.client_types import StepResult
from openenv_core.http_env_client import HTTPEnvClient
from starting import Started


class Client(HTTPEnvClient):
    """As their environments write one."""

    def _step_payload(self, action: Any) -> dict[str, Any]:
        return {"action": action}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult:
        return StepResult(observation=payload["observation"], reward=payload.get("reward"), done=payload["done"])

    def _parse_state(self, payload: dict[str, Any]) -> Any:
        return payload


def play(client: Client, actions: list[Any]) -> list[Any]:
    results = [client.reset(), *(client.step(action) for action in actions)]
    return [[[each.observation, each.reward, each.done] for each in results], client.state()["step_count"]]


def two(url: str, actions: list[Any], others: list[Any]) -> list[Any]:
    """Two clients in turn: each has a session of its own, though their own server has one for all."""
    first, second = Client(url), Client(url)
    first.reset(), second.reset()
    found: list[Any] = [[], []]
    for action, other in zip(actions, others, strict=True):
        found[0].append(first.step(action).observation)
        found[1].append(second.step(other).observation)
    return found


def start_and_play(python: str, image: str, actions: list[Any]) -> list[Any]:
    client = Client.from_docker_image(image, provider=Started(python))
    try:
        return play(client, actions)
    finally:
        client.close()


if __name__ == "__main__":
    kind, *arguments = json.loads(sys.argv[1])
    functions = {
        "play": lambda url, headers, actions: play(Client(url, default_headers=headers), actions),
        "two": two,
        "start_and_play": start_and_play,
    }
    print(json.dumps(functions[kind](*arguments)))
