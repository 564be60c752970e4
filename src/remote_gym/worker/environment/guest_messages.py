"""Messages between a worker and its guest about environments, and the worker's end of them.

The messages, each after its length in four bytes, little-endian. A request is one byte that names the operation, the
environment's number in two bytes, little-endian, and:

- ``c``, create: a ``Value``, a dict as `_order` makes it. Answered by a ``Value`` that describes the environment.
- ``p``, step: the action in its space's packed form. ``v``, step: the action as a ``Value``.
- ``r``, reset: a ``Value``, the pair of seed and options.
- ``f``, render: nothing.
- ``g``, get an attribute: its name, a ``Value``. ``m``, call a method: name, positional and keyword arguments.
  ``a``, assign: name and value.
- ``q``, close: nothing.

An answer is one byte, and:

- ``p``, of a step: the reward as a float64, a byte of flags (`remote_gym.guest.program.TERMINATED` and so on, which
  also tell which of the three are NumPy's), the observation in its space's packed form, and the info as a ``Value``,
  which is left out where it is empty.
- ``v``: what was returned, a ``Value``; of a step that could not be packed, all that it returned.
- ``a``, of a render: the length of an ``Array`` without data, in four bytes, the ``Array``, and its elements.
- ``e``: a ``Value``, of kind, type, message and traceback of an exception.

``Value``, ``Array`` and ``Space`` are the protocol's messages, so that what a guest sends passes the checks that what a
client sends passes. The guest is not asked before it has answered, and sends nothing unasked.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from gymnasium.error import ResetNeeded

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, RemoteEnvironmentError
from remote_gym.guest.program import (
    CLOSE,
    CONFIG,
    CREATE,
    ENCODING,
    HEAD,
    IS_ERROR,
    IS_VALUE,
    REQUEST,
)
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.values import decode_array, decode_value, encode_value
from remote_gym.worker.environment.guest_process import GuestProcess
from remote_gym.worker.environment.user_code import FromGuest


class GuestRaised(FromGuest, RemoteEnvironmentError):
    """An exception that an environment in a guest raised."""


class GuestConfigError(FromGuest, ConfigError):
    """A fault of the server's configuration that a guest has found."""


class GuestEncodingError(FromGuest, EncodingError):
    """A value that an environment in a guest returned, and that cannot travel."""


class Guest:
    """A process that hosts environments, until the last of them is closed.

    Args:
        process: Runs `remote_gym.guest.program`.
        limits: Bounds on what it sends, and is sent.

    Raises:
        ConfigError: If it cannot host any, as it says itself.
    """

    def __init__(self, process: GuestProcess, limits: Limits) -> None:
        self._process = process
        self.limits = limits
        self._open: set[int] = set()
        try:
            self.read(process.first)
        except BaseException:
            process.close(0.0)
            raise

    def ask(self, operation: int, index: int, body: bytes = b"") -> memoryview:
        """Send a request, and return its answer, which is no error.

        Raises:
            GuestLost: If the guest is gone.
            BaseException: What the environment raised, as `_raised` has it.
        """
        answer = self._process.ask(REQUEST.pack(operation, index) + body)
        if answer[0] == IS_ERROR:
            raise self._raised(answer)
        return answer

    def ask_value(self, operation: int, index: int, value: Any, path: str) -> Any:
        """As `ask`, with a value to send and one to return.

        Raises:
            EncodingError: If the value has no wire form.
        """
        return self.read(self.ask(operation, index, self.encode(value, path)))

    def encode(self, value: Any, path: str) -> bytes:
        """A value as a guest reads it.

        Raises:
            EncodingError: If it has no wire form.
        """
        message = pb.Value()
        try:
            encode_value(value, message, strict=True, limits=self.limits, path=path)
        except EncodingError as error:
            raise GuestEncodingError(str(error)) from error
        return message.SerializeToString()

    def read(self, answer: memoryview) -> Any:
        """The value that an answer holds.

        Raises:
            GuestLost: If it holds none, or one over the limits: the guest is given up.
            BaseException: What the environment raised.
        """
        if answer[0] == IS_VALUE:
            return self.decode(answer[1:])
        if answer[0] == IS_ERROR:
            raise self._raised(answer)
        raise self._process.lose(f"answered by a message of kind {answer[0]}, which is unknown or out of place")

    def decode(self, data: memoryview) -> Any:
        """A value that the guest sent.

        Raises:
            GuestLost: If it is none, or is over the limits.
        """
        try:
            return decode_value(parse(pb.Value, data, self.limits), self.limits)
        except EncodingError as error:
            raise self._process.lose(f"sent what is no value: {error}") from error

    def decode_array(self, answer: memoryview) -> Any:
        """The array of an answer to a render.

        Raises:
            GuestLost: If it is none, or is over the limits.
        """
        try:
            (size,) = HEAD.unpack_from(answer, 1)
            begin = 1 + HEAD.size + size
            message = parse(pb.Array, answer[1 + HEAD.size : begin], self.limits)
            return decode_array(message, self.limits, answer[begin:])
        except (EncodingError, struct.error) as error:
            raise self._process.lose(f"sent what is no array: {error}") from error

    def lose(self, why: str) -> Exception:
        """Give the guest up, and return the error that says so."""
        return self._process.lose(why)

    def create(self, index: int, order: Mapping[str, Any]) -> Any:
        """Create an environment, and return its description, which may be anything.

        Raises:
            ConfigError: If it cannot be created as configured.
            BaseException: Whatever its constructor raises.
        """
        description = self.ask_value(CREATE, index, order, "entrypoint_kwargs")
        self._open.add(index)
        return description

    def close(self, index: int) -> None:
        """Close one environment, and the process with the last.

        Raises:
            BaseException: What the environment raised.
        """
        try:
            if index in self._open:
                self._open.discard(index)
                if not self._process.is_lost:  # which was told when it was noticed
                    self.ask(CLOSE, index)
        finally:
            if not self._open:
                self.end()

    def end(self) -> None:
        """End the process."""
        self._process.close()

    def _raised(self, answer: memoryview) -> BaseException:
        content = self.decode(answer[1:])
        is_four = type(content) is tuple and list(map(type, content)) == [int, str, str, str]
        if not is_four:
            return self._process.lose("sent an error that is none")
        kind, name, message, trace = content
        if kind == CONFIG:
            return GuestConfigError(message)
        if kind == ENCODING:
            return GuestEncodingError(message)
        if name in ("gymnasium.error.ResetNeeded", "gym.error.ResetNeeded"):
            return ResetNeeded(message)
        return GuestRaised(name, message, trace)
