"""Attributes that an entrypoint exposes, read, called and set in many environments; and where these are."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import gymnasium as gym

from remote_gym.address import Place
from remote_gym.client.connection_info import ConnectionInfo
from remote_gym.client.vector.pool import Pool, for_each
from remote_gym.client.vector.shard import Shard
from remote_gym.config import ClientOptions
from remote_gym.protocol.requests import assign_request, call_request
from remote_gym.wire.values import decode_value


class RemoteVectorAttributes(gym.vector.VectorEnv):
    """Environments some of whose attributes are those of others, elsewhere.

    Attributes:
        remote_args: What each is, as `RemoteArgs`.
    """

    remote_args: dict[str, Any]
    _pool: Pool
    _shards: list[Shard]
    _options: ClientOptions
    _places: list[Place]

    @abstractmethod
    def _check_idle(self, what: str) -> None:
        """Refuse a call while another is pending, or once the environment is closed."""

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Call a method of each environment, or read an attribute, that the entrypoint lists in ``EXPOSED``.

        Raises:
            AttributeError: If it is not exposed, saying what would expose it.
            RemoteEnvironmentError: If it raised, naming the environments concerned.
            EncodingError: If an argument or the result has no wire form.
        """
        self._check_idle("call")
        self._pool.check_exposed(name)
        request = call_request(name, args, kwargs, self._options.message_limits)
        answers = self._pool.ask([request] * len(self._shards), self._options.step_timeout)
        return for_each(self._shards, (decode_value(each.call.value, self._options.message_limits) for each in answers))

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Read an attribute of each environment, as `call` does."""
        return self.call(name)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of each environment that the entrypoint lists in ``EXPOSED``.

        Args:
            name: The attribute's.
            values: A list or tuple of a value for each; or one for all.

        Raises:
            ValueError: If there is another number of values.
            AttributeError: If it is not exposed, or is a method.
        """
        self._check_idle("set_attr")
        self._pool.check_exposed(name, to_set=True)
        if not isinstance(values, list | tuple):
            values = [values] * self.num_envs
        if len(values) != self.num_envs:
            raise ValueError(f"{len(values)} values for {self.num_envs} environments")
        limits = self._options.message_limits
        requests = [assign_request(name, tuple(values[each.rows]), limits) for each in self._shards]
        self._pool.ask(requests, self._options.step_timeout)

    @property
    def connection_info(self) -> tuple[ConnectionInfo, ...]:
        """Server, environment and session of each worker, and what they are connected over now."""
        share = len(self._places) / len(self._shards)  # as `Pool` shares them out
        return tuple(
            each.connection_info(self._places[int(number * share)], self.remote_args)
            for number, each in enumerate(self._shards)
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.num_envs}: {'; '.join(map(str, self.connection_info))}>"
