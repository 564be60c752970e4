"""An open session, whoever waits for its answers: what it knows, how it is opened, taken over and closed."""

from __future__ import annotations

import contextlib
import functools
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from remote_gym.address import Place
from remote_gym.client import dropped
from remote_gym.client.carrier import Carrier, Line
from remote_gym.client.connect.choose import DIRECT_TIMEOUT
from remote_gym.client.connect.opening import finding_session, opening_session
from remote_gym.client.connect.rpc_errors import what_struck
from remote_gym.client.rules.connection import Connection
from remote_gym.client.rules.operations import Operations
from remote_gym.config import ClientOptions
from remote_gym.errors import ConnectError, ConnectReason, RemoteGymError, SessionError
from remote_gym.logs import get_logger
from remote_gym.protocol.exchange import Answer, Exchange
from remote_gym.protocol.ticket import SessionTicket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.splice import parse_response

logger = get_logger(__name__)

Opened = TypeVar("Opened", bound="OpenSession")


class OpenSession(ABC):
    """An open session, and the connection that it uses alone.

    Whatever raises in the midst of a request leaves a session that can be used: the next request first waits for the
    answer to the one that was interrupted.

    `opening` and `finding` make one. The constructor does no input or output.

    Args:
        connection: To the server; closed with the session.
        session: As the server opened it.
        options: The client's.
        first: What answered the request that the opening brought along, if it did.
        sleep: For a `Carrier`, as `patience` is.

    Raises:
        ConnectError: If there is no direct connection, and ``connection="direct"`` asks for one.
    """

    def __init__(
        self,
        connection: Connection,
        session: pb.Session,
        options: ClientOptions,
        first: Answer | None = None,
        *,
        sleep: Callable[[float], object] | None = None,
        patience: float = DIRECT_TIMEOUT,
    ) -> None:
        if options.connection == "direct" and not session.HasField("direct"):
            text = f"connection='direct', and {connection.address} offers no direct connections"
            raise ConnectError(text, reason=ConnectReason.NOT_DIRECT)
        self._connection = connection
        self._session = session
        self._options = options
        self._process = os.getpid()
        self._closed = False
        self.first = first
        self._exchange = Exchange(session.id, options.message_limits, answered=0 if first is None else 1)
        line = Line()
        self._carrier = Carrier(connection, session, options, self._exchange, line, sleep, patience)
        # What is dropped, or left by a script that ends, must not keep the server's place for a lease.
        self._forget = dropped.see_to(self, self._closer(line), options.close_timeout)

    @classmethod
    def opening(
        cls: type[Opened], connection: Connection, request: pb.OpenRequest, options: ClientOptions
    ) -> Operations[Opened]:
        """Have the server open a session.

        Args:
            connection: Closed with the session, or if there is none.
            request: What to open.
            options: The client's.

        Raises:
            TransportError: If the server could not be reached, the connection broke, or opening took too long.
            RemoteGymError: If the server did not open it, as the server says.
        """
        opened: pb.Session | None = None
        try:
            opened = yield from opening_session(connection, request, options)
            first = parse_response(opened.first, options.message_limits) if request.HasField("first") else None
            return cls(connection, opened, options, first)
        except GeneratorExit:
            connection.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised again
            struck = what_struck(error)
            yield from _abandoning(connection, struck, opened, options.close_timeout)
            raise struck from struck.__cause__

    @classmethod
    def finding(
        cls: type[Opened], connection: Connection, ticket: SessionTicket, options: ClientOptions
    ) -> Operations[Opened]:
        """Find the session that another process has opened, which `taking_over` then gets hold of.

        Raises:
            TransportError: If the server could not be reached, or the connection broke.
            RemoteGymError: If it has no such session, or not for this client.
        """
        try:
            found = yield from finding_session(connection, ticket, options)
            return cls(connection, found, options)
        except GeneratorExit:
            connection.close()
            raise
        except BaseException as error:  # noqa: BLE001 - it is raised again
            struck = what_struck(error)
            yield from _abandoning(connection, struck, None, options.close_timeout)  # it is not this client's to close
            raise struck from struck.__cause__

    @property
    def id(self) -> str:
        """Names the session in logs and errors; no secret."""
        return self._session.id

    @property
    def identity(self) -> str:
        """Identity by which the server knows this client, such as ``"DNS:alice"``; empty without an identity."""
        return self._session.identity

    @property
    def environments(self) -> tuple[str, ...]:
        """Names of what this client may open there; empty from a server that does not tell."""
        return tuple(self._session.environments)

    @property
    def place(self) -> Place:
        """Where the server is."""
        return self._connection.place

    @property
    def connected_over(self) -> Literal["direct", "grpc"] | None:
        """Way that requests and answers take now; None if there is none, or the session has ended."""
        stream = self._carrier.stream
        if stream is None or self.lost:
            return None
        return "direct" if stream.is_direct else "grpc"

    @property
    def ticket(self) -> SessionTicket:
        """Ticket by which another process goes on from here."""
        url, port = self.place
        answered = self._exchange.answered
        return SessionTicket(url=url, port=port, session=self.id, token=self._session.token, answered=answered)

    @property
    def description(self) -> pb.Description:
        """The server's description of the environment."""
        return self._session.description

    @property
    def lost(self) -> bool:
        """Whether it has ended, or is of no more use."""
        return self._exchange.is_over

    @property
    def is_behind(self) -> bool:
        """Whether the last request has not been answered: its deadline passed, or something interrupted it."""
        return self._exchange.pending is not None

    @property
    def deadline(self) -> float:
        """When the last request has to be answered, on `time.monotonic`."""
        return self._carrier.deadline

    @abstractmethod
    def _closer(self, line: Line) -> dropped.Close:
        """Function that closes the session once nobody has it any more. It must not lead to this object."""

    @abstractmethod
    def before_fork(self, deadline: float) -> None:
        """Leave what no fork may see; see `remote_gym.client.connect.forking`."""

    @abstractmethod
    def close_at_exit(self, timeout: float) -> None:
        """Close it within so many seconds. Says nothing if that fails: the server may have gone before the script."""

    @abstractmethod
    def improve(self) -> Any:
        """Let the next request try for a direct connection, if that failed some time ago: worth it between episodes."""

    @abstractmethod
    def ask(self, request: pb.Request, timeout: float) -> Any:
        """Number a request, send it, and return what answers it, an `Answer`.

        A broken connection is made again, and the request asked again under the same number, so that it runs once.

        Args:
            request: Without a sequence.
            timeout: Seconds.

        Raises:
            SessionLost: If the session has ended.
            ConnectionLost: If the connection broke and could not be made again within ``reconnect_timeout``. The
                session is given up.
            DeadlineExceeded: If no answer came in time. The next request waits for it first.
            RemoteGymError: As the answer says.
        """

    @abstractmethod
    def catch_up(self, timeout: float) -> Any:
        """Wait for the answer that was missed, and drop it.

        Raises:
            DeadlineExceeded: If it does not come in time.
            RemoteGymError: As for `ask`.
        """

    @abstractmethod
    def take_over(self, timeout: float) -> Any:
        """Cut off the process that opened the session, and have the answer to what it asked last once more.

        Returns:
            The answer, an error's included; None if nothing was ever asked.

        Raises:
            OutOfSequence: If yet another process has taken the session over.
            RemoteGymError: As for `ask`; but not what the answer says.
        """

    @abstractmethod
    def let_go(self) -> Any:
        """End the connection and not the session, which lives on for its lease. What is asked here then is lost."""

    @abstractmethod
    def close(self) -> Any:
        """Close the environment and the connection. In a forked child it does nothing."""

    # ----------------------------------------------------------------------------------------------------------
    # Rules, for whoever has the turn

    def _asking(self, request: pb.Request, deadline: float) -> Operations[Answer]:
        yield from self._carrier.beginning(request, deadline)
        return (yield from self._carrier.finishing())

    def _catching_up(self, deadline: float) -> Operations[None]:
        self._carrier.deadline = deadline
        if self.is_behind:
            yield from self._carrier.finishing()

    def _taking_over(self, deadline: float) -> Operations[Answer | None]:
        self._carrier.deadline = deadline
        exchange = self._exchange
        exchange.probe()
        refusal, _ = yield from self._carrier.finishing()
        if exchange.replay(refusal) is None:
            return None
        return (yield from self._carrier.finishing())

    def _closing(self, timeout: float, level: int) -> Operations[None]:
        if self._closed or self._process != os.getpid():
            return
        exchange = self._exchange
        try:
            # First, so that a signal's handler that closes it as well finds it closed; undone below if this is struck.
            self._closed = True
            exchange.end(" (it was closed)", is_open=exchange.is_open)
            self._carrier.detach()
            if exchange.is_open:
                try:
                    yield lambda: self._connection.close_session(self.id, self._session.token, timeout)
                except RemoteGymError as error:
                    logger.log(level, "session %s: closing: %s", self.id, error)
                exchange.end(is_open=False)
            self._forget()
            self._connection.close()
        except BaseException as error:  # noqa: BLE001 - it is raised again
            self._connection.renew()  # it may have struck within gRPC, and left a lock that nobody releases
            self._closed = False  # for another `close`, or the one at exit
            struck = what_struck(error)
            raise struck from struck.__cause__

    def _in_a_fork(self) -> SessionError:
        return SessionError(
            f"this environment was opened by process {self._process} and this is process {os.getpid()}, a fork of "
            "it; a connection cannot be shared, so create the environment after the fork, or pickle it"
        )


def _abandoning(
    connection: Connection, error: BaseException, opened: pb.Session | None, close_timeout: float
) -> Operations[None]:
    """Leave nothing behind of a session that could not be made.

    Args:
        connection: To the server.
        error: Why.
        opened: What the server has opened for this, and nobody would close; None if there is nothing.
        close_timeout: Seconds that closing may take.
    """
    if not isinstance(error, RemoteGymError):
        with contextlib.suppress(RuntimeError):  # where no thread can be started, as little as `error` may say
            connection.renew()
    try:
        if opened is not None:
            yield functools.partial(connection.close_session, opened.id, opened.token, close_timeout)
    except RemoteGymError as failure:
        logger.debug("session %s: closing what could not be used: %s", opened and opened.id, failure)
    finally:
        connection.close()
