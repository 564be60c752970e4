"""Messages between a worker and its guest about environments, and the worker's end of them.

The messages, each after its length in four bytes, little-endian. A request is one byte that names the operation, the
environment's number in two bytes, little-endian, and:

- ``c``, create: a ``Value``, a dict as `creation_order` makes it. Answered by a ``Value`` that describes the
  environment, or the vector environment that the entrypoint makes by itself.
- ``p``, step: the action in its space's packed form. ``v``, step: the action as a ``Value``.
- ``r``, reset: a ``Value``, the pair of seed and options.
- ``f``, render: nothing.
- ``g``, get an attribute: its name, a ``Value``. ``m``, call a method: name, positional and keyword arguments.
  ``a``, assign: name and value.
- ``q``, close: nothing.
- ``i``, unpack files: repeated fields of number 1, each a message of path, content, and whether it can be run.
- ``n``, several: requests of one vector step, in order, each after `ENTRY`, which holds its operation, its environment
  and its length. In place of the number of an environment is 1 if each that a step ends is to be reset at once.
  ``o``: the rest of their answers.

An answer is one byte, and:

- ``p``, of a step: the reward as a float64, a byte of flags (`remote_gym.guest.program.TERMINATED` and so on, which
  also tell which of the three are NumPy's), the observation in its space's packed form, and the info as a ``Value``,
  which is left out where it is empty.
- ``v``: what was returned, a ``Value``; of a step that could not be packed, all that it returned.
- ``b``, of a vector environment's step: observations in their space's packed form, and a ``Value``, the tuple of
  rewards, terminations, truncations and infos.
- ``n``: a byte that is 1 if more of the answers are to be asked for, since they would not fit into one message, and the
  answers of several, each after `ENTRY`: one for each request, and after a step one for the reset that followed it.
  After one that is an error there are none.
- ``a``, of a render: the length of an ``Array`` without data, in four bytes, the ``Array``, and its elements.
- ``e``: a ``Value``, of kind, type, message and traceback of an exception.

``Value``, ``Array`` and ``Space`` are the protocol's messages, so that what a guest sends passes the checks that what a
client sends passes. The guest is not asked before it has answered, and sends nothing unasked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from gymnasium.error import ResetNeeded

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, RemoteEnvironmentError
from remote_gym.guest.program import (
    CLOSE,
    CONFIG,
    CREATE,
    ENCODING,
    ENTRY,
    FIRST,
    HEAD,
    IS_ERROR,
    IS_SEVERAL,
    IS_VALUE,
    N3,
    REQUEST,
    RESET,
    RESETS_ENDED,
    REST,
    SECOND,
    SEVERAL,
    UNPACK,
    count,
    part,
)
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.values import decode_array, decode_value, encode_value
from remote_gym.worker.environment.guests.included import Included
from remote_gym.worker.environment.guests.process import GuestProcess
from remote_gym.worker.environment.user_code import FromGuest

FILES_BYTES = 2**20
"""Bytes from which on a message of files is sent: few messages there and back, and none that is large."""


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

    def fileno(self) -> int:
        """Descriptor that can be read, while nothing is asked, only once it has ended."""
        return self._process.answers

    def forget_output(self) -> None:
        """Let no error repeat what has been printed until now."""
        self._process.printed.forget()

    def ask(self, operation: int, index: int, body: bytes = b"") -> memoryview:
        """Send a request, and return its answer, which is no error.

        Raises:
            GuestLost: If the guest is gone.
            BaseException: What the environment raised, as `_raised` has it.
        """
        return self.checked(self._process.ask(REQUEST.pack(operation, index) + body))

    def checked(self, answer: memoryview) -> memoryview:
        """An answer, if it is no error.

        Raises:
            BaseException: What the environment raised, as `_raised` has it.
        """
        if answer[0] == IS_ERROR:
            raise self._raised(answer)
        return answer

    def ask_several(
        self, requests: Sequence[tuple[int, int, bytes]], *, resets_ended: bool
    ) -> Iterator[tuple[int, int, memoryview]]:
        """Send requests of operations, environments and bodies by one message.

        Returns:
            Operation, environment and answer of each, and of resets that followed steps. The last may be an error.

        Raises:
            GuestLost: If the guest is gone, or answered anything else: it is given up.
        """
        entries = [ENTRY.pack(operation, index, len(body)) + body for operation, index, body in requests]
        asked = iter(requests)
        may_reset, failed, more = -1, False, True
        operation, head, body = SEVERAL, RESETS_ENDED if resets_ended else 0, b"".join(entries)
        while more:
            answer = self.ask(operation, head, body)
            operation, head, body = REST, 0, b""
            more = len(answer) > 2 and answer[0] == IS_SEVERAL and answer[1] == 1
            if more and len(answer) < 2 + ENTRY.size:
                raise self.lose("announced more answers, and sent none")
            for kind, index, content in self._entries(answer):
                if kind == RESET and index == may_reset:
                    may_reset = -1
                else:
                    expected = next(asked, None)
                    if expected is None or expected[:2] != (kind, index):
                        raise self.lose("answered something else than it was asked")
                    may_reset = index if resets_ended and kind != RESET else -1
                if failed:
                    raise self.lose("answered more after an error")
                failed = content[0] == IS_ERROR
                yield kind, index, content
        if not failed and next(asked, None) is not None:
            raise self.lose("did not answer all that it was asked")

    def _entries(self, answer: memoryview) -> Iterator[tuple[int, int, memoryview]]:
        at, end = 2, len(answer)
        if end < at or answer[0] != IS_SEVERAL:
            raise self.lose(f"answered several requests by a message of kind {answer[0]}")
        while at < end:
            if end - at < ENTRY.size:
                raise self.lose("cut an answer off")
            kind, index, size = ENTRY.unpack_from(answer, at)
            at += ENTRY.size
            if size < 1 or size > end - at:
                raise self.lose(f"announced an answer of {size:,} bytes in {end - at:,}")
            yield kind, index, answer[at : at + size]
            at += size

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

    def send_files(self, files: Iterable[Included]) -> None:
        """Send files that are to lie there beside the entrypoint, several by one message.

        Raises:
            ConfigError: If they cannot be written there.
        """
        pieces: list[bytes] = []
        size = 0
        for file in files:
            path = file.path.encode("utf-8", "surrogateescape")
            content = part(FIRST, path) + part(SECOND, file.content) + count(N3, file.executable)
            pieces.append(part(FIRST, content))
            size += len(pieces[-1])
            if size >= FILES_BYTES:
                self.read(self.ask(UNPACK, 0, b"".join(pieces)))
                pieces, size = [], 0
        if pieces:
            self.read(self.ask(UNPACK, 0, b"".join(pieces)))

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
