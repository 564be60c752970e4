"""An environment of texts and images, asynchronous, as VAGEN has them: seed and actions say all that it does."""

import asyncio
import random
import time

from PIL import Image

EXPOSED = ("count_words", "beats", "note")


class Agents:
    """Shows a text with as many images as it has taken steps, each of another size."""

    def __init__(self, limit=4, slow_close=False):
        self.limit, self.slow_close = limit, slow_close
        self.beats, self.note = 0, "none"
        self.lock = asyncio.Lock()
        self.heart = None

    async def reset(self, seed):
        async with self.lock:
            if self.heart is None:
                self.heart = asyncio.create_task(self.beat())
            self.random, self.count = random.Random(seed), 0
            return self.see(f"seed {seed}"), {"n": 1}

    async def step(self, text):
        await asyncio.sleep(0)
        self.count += 1
        if text == "raise":
            raise KeyError("a key")
        if text == "exit":
            raise SystemExit(3)
        if text == "block":
            time.sleep(0.5)
        if text == "video":
            return {"obs_str": "", "multi_modal_input": {"<video>": [1]}}, 0.0, False, {}
        if text == "nothing":
            return None
        ends = self.count >= self.limit or text == "cut"
        info = {"truncated": True, "picture": self.draw(2, 3)} if text == "cut" else {"nested": {"n": self.count}}
        return self.see(f"{self.count} {text}"), self.random.random(), ends, info

    async def system_prompt(self):
        return {"obs_str": "You see <image>.", "multi_modal_input": {"<image>": [self.draw(5, 4)]}}

    async def close(self):
        if self.slow_close:
            await asyncio.sleep(3600)
        if self.heart is not None:
            self.heart.cancel()

    async def count_words(self, text: str) -> int:
        """Count the words of a text."""
        return len(text.split())

    async def beat(self):
        while True:
            self.beats += 1
            await asyncio.sleep(0.005)

    def see(self, text):
        images = [self.draw(3 + i, 2 + i) for i in range(self.count)]
        marked = text + "<image>" * len(images)
        return {"obs_str": marked, **({"multi_modal_input": {"<image>": images}} if images else {})}

    def draw(self, width, height):
        mode, channels = random.Random(width).choice([("L", 1), ("RGB", 3), ("RGBA", 4)])
        return Image.frombytes(mode, (width, height), bytes(range(width * height * channels)))


def create_environment(**kwargs):
    return Agents(**kwargs)
