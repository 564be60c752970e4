"""A text environment for language-model agents: find the treasure on a map that is shown as a text and an image.

``remote-gym serve text_environment.py --http`` serves it, and ``python text_environment.py`` plays an episode in a
server of its own, with a few lines in place of a language model.
"""

from __future__ import annotations

import random
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

import remote_gym

EXPOSED = ("distance",)
MOVES = {"north": (-1, 0), "south": (1, 0), "west": (0, -1), "east": (0, 1)}
CELL = 12  # pixels

Observation = dict[str, Any]


class Treasure:
    """An agent on a square map looks for a treasure.

    Args:
        size: Cells of the map's side.
        most_steps: After which the episode is cut off.
    """

    def __init__(self, size: int = 6, most_steps: int = 30) -> None:
        self._size = size
        self._most_steps = most_steps

    async def system_prompt(self) -> Observation:
        """Say what an agent has to know before it starts."""
        return {"obs_str": f"You look for a treasure. Answer with one word: {', '.join(MOVES)}."}

    async def reset(self, seed: int | None) -> tuple[Observation, dict[str, Any]]:
        """Hide the treasure, and put the agent somewhere else."""
        cells = [(row, column) for row in range(self._size) for column in range(self._size)]
        self._agent, self._treasure = random.Random(seed).sample(cells, 2)
        self._steps = 0
        return self._see("You stand on the map."), {}

    async def step(self, text: str) -> tuple[Observation, float, bool, dict[str, Any]]:
        """Walk where the last word of the text that is a direction says."""
        self._steps += 1
        words = [word for word in re.findall(r"\w+", text.lower()) if word in MOVES]
        if words:
            row, column = (a + b for a, b in zip(self._agent, MOVES[words[-1]], strict=True))
            self._agent = min(max(row, 0), self._size - 1), min(max(column, 0), self._size - 1)
        is_found = self._agent == self._treasure
        is_late = not is_found and self._steps >= self._most_steps
        said = (
            "You have found it!" if is_found else f"You walk {words[-1]}." if words else "You did not name a direction."
        )
        info = {"success": is_found, **({"truncated": True} if is_late else {})}
        return self._see(said), float(is_found), is_found or is_late, info

    async def close(self) -> None:
        """Let go of what the environment holds, such as a browser; this one holds nothing."""

    def distance(self, axis: str) -> int:
        """Count the steps to the treasure along an axis, to the south or the east.

        Args:
            axis: Either "south" or "east".
        """
        index = ("south", "east").index(axis)
        return self._treasure[index] - self._agent[index]

    def _see(self, said: str) -> Observation:
        text = f"{said} You are at row {self._agent[0]}, column {self._agent[1]}. The map: <image>"
        return {"obs_str": text, "multi_modal_input": {"<image>": [self._draw()]}}

    def _draw(self) -> NDArray[np.uint8]:
        cells = np.full((self._size, self._size, 3), 230, np.uint8)
        cells[self._treasure] = (220, 170, 30)
        cells[self._agent] = (40, 90, 200)
        return cells.repeat(CELL, axis=0).repeat(CELL, axis=1)


def create_environment(**env_config: Any) -> Treasure:
    """Create an environment for a session; what is hosted needs no more than these methods."""
    return Treasure(**env_config)


def main() -> None:
    """Play an episode."""
    with remote_gym.launch(__file__, entrypoint_kwargs={"size": 5}) as server:
        environment = server.environment()
        observation, _ = environment.reset(seed=1)
        print(environment.call("system_prompt")["obs_str"])
        is_over = False
        while not is_over:
            south, east = environment.call("distance", "south"), environment.call("distance", axis="east")
            answer = ("south" if south > 0 else "north") if south else ("east" if east > 0 else "west")
            observation, reward, terminated, truncated, _ = environment.step(f"I go {answer}.")
            is_over = terminated or truncated
            (image,) = observation["multi_modal_input"]["<image>"]
            print(observation["obs_str"], image.shape, reward)


if __name__ == "__main__":
    main()
