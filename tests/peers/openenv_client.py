"""Plays by OpenEnv's own client, unmodified: runs where that is installed, and prints what it got as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from openenv.core import GenericEnvClient
from starting import Started


def play(url: str, seed: int, actions: list[Any], headers: dict[str, str]) -> list[Any]:
    """By the synchronous client."""
    with GenericEnvClient(base_url=url, headers=headers or None).sync() as client:
        results = [client.reset(seed=seed), *(client.step(action) for action in actions)]
        state = client.state()
    return [[[each.observation, each.reward, each.done] for each in results], state["step_count"]]


async def play_many(url: str, seeds: list[int], actions: list[Any]) -> list[Any]:
    """By asynchronous clients, all at once."""

    async def one(seed: int) -> list[Any]:
        async with GenericEnvClient(base_url=url) as client:
            results = [await client.reset(seed=seed)]
            for action in actions:
                results.append(await client.step(action))
            return [[each.observation, each.reward, each.done] for each in results]

    return await asyncio.gather(*(one(seed) for seed in seeds))


async def give_up(url: str, slow: Any, quick: Any) -> list[Any]:
    """Give up waiting for a step, and go on."""
    headers = {"X-Episode-Id": "mine"}
    client = GenericEnvClient(base_url=url, message_timeout_s=0.3, headers=headers)
    async with client:
        await client.reset(seed=1)
        try:
            await client.step(slow)
            raised = ""
        except (TimeoutError, asyncio.TimeoutError) as error:
            raised = type(error).__name__
        client._message_timeout = 20.0
        result = await client.step(quick)
        return [raised, result.observation, (await client.state())["step_count"]]


def start_and_play(python: str, image: str, seed: int, actions: list[Any]) -> list[Any]:
    """Have their bootstrap start a server of ours, by a provider."""
    client = GenericEnvClient.from_docker_image(image, provider=Started(python)).sync()
    try:
        results = [client.reset(seed=seed), *(client.step(action) for action in actions)]
        return [[each.observation, each.reward, each.done] for each in results]
    finally:
        client.close()


if __name__ == "__main__":
    kind, *arguments = json.loads(sys.argv[1])
    functions = {"play": play, "play_many": play_many, "give_up": give_up, "start_and_play": start_and_play}
    found = functions[kind](*arguments)
    print(json.dumps(asyncio.run(found) if asyncio.iscoroutine(found) else found))
