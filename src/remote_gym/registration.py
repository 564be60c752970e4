"""Registers ``gym.make("remote_gym/Remote-v0", url=..., port=...)``, and ``gym.make_vec`` likewise."""

from __future__ import annotations

import gymnasium as gym

ENVIRONMENT_ID = "remote_gym/Remote-v0"


def register() -> None:
    """Register the environment with Gymnasium; `import remote_gym` does it."""
    gym.register(
        id=ENVIRONMENT_ID,
        entry_point="remote_gym:RemoteEnvironment",  # as `remote_gym.client.spec` knows it
        vector_entry_point="remote_gym:RemoteVectorEnv",
        # The client checks the order of calls itself, and the server's environment its own conduct.
        order_enforce=False,
        disable_env_checker=True,
    )
