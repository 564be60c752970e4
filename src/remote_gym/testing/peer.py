"""A client that does as it is told, right or wrong: any number, any token, any bytes, over any connection."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.client.connect.opening import connect, opening_session
from remote_gym.client.rules.operations import perform
from remote_gym.config import ClientOptions, TlsFiles
from remote_gym.protocol.open_request import open_request
from remote_gym.transport.framing import write_length
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.spaces.elements import decode_observation, encode_action
from remote_gym.wire.spaces.encoding import decode_space
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.wire.values import decode_value, encode_value

Kind = Literal["unary", "interact", "direct"]
"""How a request travels."""

Ask = Callable[[bytes], bytes]
"""Sends an encoded request, and returns the encoded response."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """The server to be checked, and what to open there.

    Attributes:
        url: Host name, address, or ``unix:path``.
        port: TCP port.
        tls: As `RemoteEnvironment` takes them.
        remote_args: As `RemoteEnvironment` takes them.
        changed_options: Fields of `ClientOptions`; ``step_timeout`` is how long any answer may take.
    """

    url: str
    port: int
    tls: TlsFiles | None = None
    remote_args: Mapping[str, Any] = field(default_factory=dict)
    changed_options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def options(self) -> ClientOptions:
        """The client's."""
        return ClientOptions(**self.changed_options)

    def opening(self, render_mode: str | None = None, *, frames: bool = False) -> pb.OpenRequest:
        """The request to open."""
        return open_request(self.remote_args, self.options, render_mode=render_mode, streams_frames=frames)

    def try_to_open(self, request: pb.OpenRequest) -> pb.OpenResponse:
        """Ask the server to open a session, and return its answer. An opened session lives on for its lease."""
        connection = self._connection()
        try:
            options = self.options
            return connection.open(request, connect_timeout=options.connect_timeout, open_timeout=options.open_timeout)
        finally:
            connection.close()

    @contextlib.contextmanager
    def session(self, request: pb.OpenRequest | None = None) -> Iterator[Peer]:
        """An open session, closed at the end.

        Raises:
            RemoteGymError: If the server does not open it.
        """
        connection = self._connection()
        try:
            opened = perform(opening_session(connection, request or self.opening(), self.options))
            peer = Peer(connection, opened, self.options)
            try:
                yield peer
            finally:
                peer.leave()
        finally:
            connection.close()

    def _connection(self) -> GrpcConnection:
        return connect(self.url, self.port, self.tls, self.options)


class Peer:
    """One session, and connections to it of every kind.

    Args:
        connection: To the server.
        session: What `Open` answered.
        options: The client's.

    Attributes:
        session: The same.
        sequence: The number of the newest request that `ask` made.
    """

    def __init__(self, connection: GrpcConnection, session: pb.Session, options: ClientOptions) -> None:
        self._connection = connection
        self._options = options
        self._connections: list[Any] = []
        self._address: pb.DirectAddress | None = session.direct
        self.session = session
        self.sequence = 0
        self.observation_space = decode_space(session.description.observation_space, options.message_limits)
        self.action_space = decode_space(session.description.action_space, options.message_limits)
        self._observations = compile_layout(self.observation_space)
        self._actions = compile_layout(self.action_space)

    def address(self) -> pb.DirectAddress:
        """Where to connect to directly, once: as the opening told, and from then on as the server tells when asked."""
        address, self._address = self._address, None
        if address is None:
            reached = self._connection.reach(self.session.id, self.session.token, self._options.connect_timeout)
            address = reached.direct
        return address

    def connect(self, kind: Kind, token: str | None = None, address: pb.DirectAddress | None = None) -> Ask:
        """A new connection of that kind, by which requests can be asked.

        Args:
            kind: Of the connection.
            token: The session's own if None.
            address: Where to connect to directly; one that is good if None.

        Raises:
            RemoteGymError: If the server refuses.
        """
        token = self.session.token if token is None else token
        session_id, timeout = self.session.id, self._options.step_timeout
        if kind == "unary":
            return lambda data: self._connection.call("Step", session_id, token, data, timeout)
        if kind == "interact":
            connection: Any = self._connection.attach(session_id, token)
        else:
            connect_timeout = self._options.connect_timeout
            connection = self._connection.attach_directly(address or self.address(), token, connect_timeout)
        self._connections.append(connection)

        def ask(data: bytes) -> bytes:
            deadline = time.monotonic() + timeout
            connection.send(data, deadline)
            return bytes(connection.receive(deadline))

        return ask

    def call(self, method: str, data: bytes = b"", *, session_id: str | None = None, token: str | None = None) -> bytes:
        """One call by itself, of this session unless another is named."""
        session_id = self.session.id if session_id is None else session_id
        token = self.session.token if token is None else token
        return self._connection.call(method, session_id, token, data, self._options.step_timeout)

    def next(self, **operation: Any) -> bytes:
        """The next request, encoded."""
        self.sequence += 1
        return pb.Request(sequence=self.sequence, **operation).SerializeToString()

    def reset(self, seed: int | None, options: Any = None) -> bytes:
        """The next request, a reset."""
        message = pb.ResetRequest()
        for name, value in (("seed", seed), ("options", options)):
            if value is not None:
                encode_value(value, getattr(message, name), strict=True, limits=self._options.message_limits)
        return self.next(reset=message)

    def step_request(self, action: Any) -> pb.StepRequest:
        """A step, without a number."""
        message = pb.StepRequest()
        encode_action(self._actions, action, message, self._options.message_limits)
        return message

    def step(self, action: Any) -> bytes:
        """The next request, a step."""
        return self.next(step=self.step_request(action))

    def meaning(self, data: bytes) -> Any:
        """Content of a response, so that it can be compared: infos aside, which may hold anything."""
        response = parse(pb.Response, data)
        result = response.WhichOneof("result")
        if result == "error":
            return ("error", pb.ErrorDetail.Kind.Name(response.error.kind), response.error.remote_type)
        if result in ("reset", "step"):
            return (result, *self.transition(getattr(response, result)))
        return (result,)

    def transition(self, message: pb.Transition) -> tuple[Any, ...]:
        """Observation, reward, terminated and truncated, as they are."""
        found = [decode_observation(self._observations, message, self._options.message_limits)]
        for name in ("reward", "terminated", "truncated"):
            form = message.WhichOneof(name)
            value = getattr(message, form) if form else None
            found.append(decode_value(value, self._options.message_limits) if isinstance(value, pb.Value) else value)
        return tuple(found)

    def announce(self, size: int) -> None:
        """Send the length of a message and nothing more, on the newest connection, which is direct.

        Raises:
            ConnectionLost: If the other end closes the connection then, as it should where that is over its limit.
            DeadlineExceeded: If it waits for the message.
        """
        connection, deadline = self._connections[-1], time.monotonic() + self._options.connect_timeout
        connection._socket._send_all(write_length(size), deadline)
        connection.receive(deadline)

    def drop(self) -> None:
        """End the connections, without a word to the session."""
        while self._connections:
            self._connections.pop().close()

    def leave(self) -> None:
        """Close the connections, and the session if it is still there."""
        self.drop()
        self._connection.close_session(self.session.id, self.session.token, self._options.close_timeout, anyones=True)
