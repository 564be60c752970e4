"""Several environments in one guest: stepped by one message, or a vector environment of the guest's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.vector.utils import batch_space

from remote_gym.errors import EncodingError
from remote_gym.guest.program import AUTORESET, IS_BATCH, RESET, STEP, STEP_PACKED
from remote_gym.wire.infos import Infos, add_info
from remote_gym.worker.environment import vector
from remote_gym.worker.environment.guests.environment import GuestEnvironment, InGuest
from remote_gym.worker.environment.guests.messages import Guest

_IS_0 = gym.__version__.startswith("0.")
_FINAL = "final_observation" if _IS_0 else "final_obs"
_IN_GUEST = "final_observation"
"""Name that an observation that ended an episode has in what comes of a guest, whatever its Gym."""


class AskedAhead(vector.Ahead):
    """Gets the answers to all of a vector step's requests by one message.

    Args:
        guest: Hosts the environments.
        environments: In the order of their numbers.
    """

    def __init__(self, guest: Guest, environments: Sequence[GuestEnvironment]) -> None:
        self._guest = guest
        self._environments = environments

    def prepare(self, operations: Iterable[tuple[int, Any]], *, resets_ended: bool) -> None:
        """Let the guest run them, up to the first that raises.

        Raises:
            GuestLost: If the guest is gone.
        """
        requests = []
        for index, action in operations:
            try:
                is_reset = action is vector.RESET
                requests.append((RESET, index, AUTORESET) if is_reset else self._environments[index].request(action))
            except EncodingError:  # which that environment's own step raises, after those before it
                break
        if len(requests) > 1:
            for kind, index, answer in self._guest.ask_several(requests, resets_ended=resets_ended):
                self._environments[index].prepare(kind, answer)

    def forget(self) -> None:
        """Drop answers that were not asked for."""
        for environment in self._environments:
            environment.prepare(RESET, None)


class GuestVectorEnvironment(InGuest, gym.vector.VectorEnv):
    """A vector environment that an entrypoint in a guest has made by itself.

    Args:
        guest: Hosts it.
        index: Its number there.
        description: What the guest says of it.

    Raises:
        ConfigError: If it has a space that cannot travel.
        GuestLost: If it is described as nothing that can be read.
    """

    def __init__(self, guest: Guest, index: int, description: Any) -> None:
        super().__init__(guest, index, description)
        mode = description.get("autoreset_mode")
        self.metadata = {**self.metadata, "autoreset_mode": mode if isinstance(mode, str) else None}

    def _describe(self, description: Any) -> None:
        count = description["num_envs"]
        if not isinstance(count, int) or not 0 < count < 2**16:
            raise ValueError(f"{count!r} environments")
        self.num_envs = count
        for name in ("observation_space", "action_space"):
            single = self._space(f"single_{name}", description[f"single_{name}"])
            data = description[name]
            # Gyms before Gymnasium 1.0 batch them otherwise, or not at all.
            batched = batch_space(single, count) if data is None else self._space(name, data)
            setattr(self, f"single_{name}", single)
            setattr(self, name, batched)
        self._observations = self._layout("observation_space", self.observation_space, description["observation_size"])
        self._actions = self._layout("action_space", self.action_space, description["action_size"])

    def step(self, actions: Any) -> Any:
        """Step every environment once."""
        packed = self._actions.pack(actions)
        if packed is not None:
            answer = self._guest.ask(STEP_PACKED, self._index, packed)
        else:
            answer = self._guest.ask(STEP, self._index, self._guest.encode(actions, "actions"))
        if answer[0] == IS_BATCH:
            end = 1 + (self._observations.size or 0)
            observations = self._observation(self._observations, answer, 1, end)
            returned = self._guest.decode(answer[end:])
            if type(returned) is not tuple or len(returned) != 4:
                raise self._guest.lose("sent a step of a vector environment that has not four values more")
            return (observations, *returned[:3], self._merged(returned[3]))
        returned = self._guest.read(answer)
        if type(returned) is tuple and len(returned) == 5:
            return (*returned[:4], self._merged(returned[4]))
        return returned

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> Any:
        """Reset all, or, in Gymnasium from 1.1 on, those of a mask."""
        returned = self._guest.ask_value(RESET, self._index, (seed, options), "options")
        if type(returned) is tuple and len(returned) == 2:
            return returned[0], self._merged(returned[1])
        return returned

    def close(self, **_options: Any) -> None:
        """Close the environments there, and their process."""
        self.closed = True
        self._guest.close(self._index)

    def _merged(self, infos: Any) -> Any:
        """Infos of each environment as this Gymnasium merges them, under its names."""
        if type(infos) is not list:
            return _renamed(infos)
        merged: Infos = {}
        for index, info in enumerate(infos[: self.num_envs]):
            if isinstance(info, dict):
                named = _renamed(info)
                # Gymnasium before 1.0 has a way of its own, on which scripts for it rely.
                merged = (
                    self._add_info(merged, named, index) if _IS_0 else add_info(merged, named, index, self.num_envs)
                )
        return merged


def _renamed(info: Any) -> Any:
    if type(info) is not dict or _FINAL == _IN_GUEST or _IN_GUEST not in info:
        return info
    names = {_IN_GUEST: _FINAL, f"_{_IN_GUEST}": f"_{_FINAL}"}
    return {names.get(key, key) if isinstance(key, str) else key: value for key, value in info.items()}
