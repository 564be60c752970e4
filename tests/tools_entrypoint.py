"""An environment whose methods are tools, and the description of one of them."""

import gymnasium as gym

EXPOSED = ("add", "tell", "fail", "total", "reset", "missing")
ADD = {
    "name": "add",
    "description": "Add a number to the total.",
    "input_schema": {
        "type": "object",
        "properties": {"number": {"type": "integer"}, "times": {"type": "integer", "default": 1}},
        "required": ["number"],
        "additionalProperties": False,
    },
}


class Tools(gym.Wrapper):
    total = 0

    def add(self, number: int, times: int = 1) -> int:
        """Add a number to the total."""
        self.total += number * times
        return self.total

    def tell(self) -> dict:
        return {"total": self.total, "words": ("a", "b")}

    def fail(self):
        raise KeyError("a key")


def create_environment():
    return Tools(gym.make("CartPole-v1"))
