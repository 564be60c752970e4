"""Every exception that remote_gym raises.

RemoteGymError
├ ConfigError(ValueError)          .field; which file or field, what was found, what would be right
├ EncodingError(TypeError)         a value with no wire form, or bytes that do not fit
├ TransportError(ConnectionError)
│ ├ ConnectError                   .reason; could not reach or authenticate, with what to check
│ ├ ConnectionLost
│ └ DeadlineExceeded(TimeoutError)
├ SessionError
│ ├ SessionLost                    the environment is gone: .reason, and .output, the last that its worker printed
│ ├ ServerFull                     .reason; which limit, how many are open
│ ├ NotPermitted                   .reason; who asks, for what, and what would be allowed
│ └ OutOfSequence
├ InvalidAction(ValueError)        does not fit the space's structure; the environment never saw it
├ InvalidObservation(ValueError)   the environment returned what does not fit its own space
├ RemoteEnvironmentError           the environment raised
└ ProtocolMismatch                 version or feature, both sides named

A step before the first reset raises ``gymnasium.error.ResetNeeded``, as it does locally.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from typing import Any, TypeVar

Error = TypeVar("Error", bound="RemoteGymError")


class RemoteGymError(Exception):
    """Base of every error that this package raises.

    Attributes:
        transitions: What `RemoteEnvironment.step_many` had done before it was raised; else empty.
        environments: Of a `RemoteVectorEnv`: indices of the environments whose worker failed.
    """

    transitions: Sequence[tuple[Any, Any, Any, Any, dict[str, Any]]] = ()
    environments: tuple[int, ...] = ()


class ConfigError(RemoteGymError, ValueError):
    """An argument, a file or a field that cannot work as given.

    Attributes:
        field: Name of the argument or option that is at fault, such as ``"lease"``; None where that is a file's
            content, or what the other end said.
        where: How the text names it, such as ``"ServerOptions.lease"`` or ``"environments['easy']"``; the text then
            is this and `problem`. None where the text names it in its midst, or not at all.
        problem: What was found, and what would be right; all of the text where `where` is None.
    """

    def __init__(self, problem: str = "", *, field: str | None = None, where: str | None = None) -> None:
        super().__init__(problem if where is None else f"{where} {problem}")
        self.field = field
        self.where = where
        self.problem = problem


class EncodingError(RemoteGymError, TypeError):
    """A value that has no wire form, or received bytes that do not fit what they should hold."""


class TransportError(RemoteGymError, ConnectionError):
    """The network, rather than the environment, stood in the way."""


class ConnectReason(enum.Enum):
    """Why a server could not be connected to."""

    UNKNOWN = "unknown"
    """Each step of a connection works by itself: the server may be starting, or be too busy."""
    UNREACHABLE = "unreachable"
    """The name has no address, nobody listens there, or no network leads there."""
    UNANSWERED = "unanswered"
    """A process listens there, but does not answer."""
    TLS = "tls"
    """One end does not accept the other's certificate, or only one of them speaks TLS."""
    NO_SERVER = "no_server"
    """A process listens there, but it is no remote_gym server."""
    NOT_DIRECT = "not_direct"
    """The server can be reached, and the environment's worker cannot."""


class ConnectError(TransportError):
    """The server could not be reached, or one end did not accept the other's certificate.

    Attributes:
        reason: What kind of reason it is; the text says more, and what to check.
    """

    def __init__(self, message: str = "", *, reason: ConnectReason = ConnectReason.UNKNOWN) -> None:
        super().__init__(message)
        self.reason = reason


class ConnectionLost(TransportError):
    """An established connection broke."""


class DeadlineExceeded(TransportError, TimeoutError):
    """No answer came in time."""


class SessionError(RemoteGymError):
    """The server answered that it will not, or cannot, serve this session."""


class LossReason(enum.Enum):
    """Why a session was lost."""

    UNKNOWN = "unknown"
    """The server does not say, or is not asked any more: it may have restarted."""
    CRASHED = "crashed"
    """The environment's process ended by itself, by a fault such as SIGSEGV, or broke its connection to the server."""
    KILLED = "killed"
    """Somebody else ended it, such as the system where it was out of memory, or over a limit of its own."""
    HUNG = "hung"
    """It took longer than the server allows, which then ended it."""
    OUT_OF_MEMORY = "out_of_memory"
    """It held more than the server's ``memory_limit``."""
    EXPIRED = "expired"
    """Nobody was attached for the session's lease."""
    IDLE = "idle"
    """Its client asked nothing for longer than the server's ``idle_timeout``."""
    CLOSED = "closed"
    """Its client, or another one that has its token, closed it."""
    DRAINED = "drained"
    """The server is about to stop, and begins no more episodes."""
    SERVER_STOPPED = "server_stopped"
    """The server stopped."""
    FORBIDDEN = "forbidden"
    """The server's policy has changed, and would not let its client open it any more."""
    OPERATOR = "operator"
    """An operator of the server ended it."""


class SessionLost(SessionError):
    """The environment is gone: it crashed, hung, expired, or its server restarted. `reset` opens a new one.

    From Python 3.11 on a traceback shows `output` as well, as a note.

    Attributes:
        reason: What kind of reason it is; the text says more.
        output: The last lines that the environment's process printed, a crash's stack among them: 4 KiB at most, with
            control characters escaped. Empty where the server has none, such as of environments in its own threads.
    """

    def __init__(self, message: str = "", *, reason: LossReason = LossReason.UNKNOWN, output: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.output = output
        if output and sys.version_info >= (3, 11):
            self.add_note(f"The last that its worker printed:\n{output}")


class FullReason(enum.Enum):
    """Why a server had no place."""

    UNKNOWN = "unknown"
    """The server does not say."""
    SESSIONS = "sessions"
    """As many sessions are open as its ``max_sessions``."""
    IDENTITY = "identity"
    """This client has as many as the server lets one identity have."""
    RATE = "rate"
    """This client has opened as many as it may for now; the text says when to try again."""
    UNREAD = "unread"
    """This client has not read what its earlier calls answered."""
    STOPPING = "stopping"
    """The server is about to stop: another one is to be asked."""
    MACHINE = "machine"
    """The server's system gives no more processes or descriptors."""
    SAME_ENVIRONMENT = "same_environment"
    """As many sessions of this environment are open as its ``max_sessions``; another one may have room."""


class ServerFull(SessionError):
    """The server has no place for another session.

    Attributes:
        reason: Which limit has been reached; the text says more.
    """

    def __init__(self, message: str = "", *, reason: FullReason = FullReason.UNKNOWN) -> None:
        super().__init__(message)
        self.reason = reason


class DenialReason(enum.Enum):
    """Reason why a server does not permit something."""

    UNKNOWN = "unknown"
    """The server does not say."""
    IDENTITY = "identity"
    """The client shows no certificate or token that the server knows it by, or not any more."""
    SESSION = "session"
    """The session is another client's."""
    ENVIRONMENT = "environment"
    """This client may not open that environment."""
    ARGUMENTS = "arguments"
    """This client may not set those keyword arguments, or not to these values."""
    CODE = "code"
    """Which code runs is the server's to say."""


class NotPermitted(SessionError):
    """The server does not allow what a client asks for.

    Attributes:
        reason: What it does not allow; the text says more.
    """

    def __init__(self, message: str = "", *, reason: DenialReason = DenialReason.UNKNOWN) -> None:
        super().__init__(message)
        self.reason = reason


class OutOfSequence(SessionError):
    """A request's number was neither the last answered nor the next one.

    Attributes:
        answered: The last number that was answered, where that is what was wrong; None where a newer connection has
            taken the session over.
    """

    answered: int | None = None


class InvalidAction(RemoteGymError, ValueError):
    """An action that does not fit the action space's structure, shape or kind. The environment never saw it."""


class InvalidObservation(RemoteGymError, ValueError):
    """The environment returned an observation that does not fit its own observation space."""


class RemoteEnvironmentError(RemoteGymError):
    """The environment, or its entrypoint, raised an exception. The session lives on where it can.

    Attributes:
        remote_type: Qualified name of the exception's class, such as ``"builtins.KeyError"``.
        remote_message: ``str()`` of the exception.
        remote_traceback: The traceback as Python prints it, from the worker.
    """

    def __init__(self, remote_type: str, remote_message: str, remote_traceback: str = "") -> None:
        super().__init__(remote_type, remote_message, remote_traceback)
        self.remote_type = remote_type
        self.remote_message = remote_message
        self.remote_traceback = remote_traceback

    def __str__(self) -> str:
        text = f"{self.remote_type}: {self.remote_message}"
        if self.remote_traceback:
            text += f"\n\nRemote traceback:\n{self.remote_traceback.rstrip()}"
        return text


class ProtocolMismatch(RemoteGymError):
    """Client and server do not speak the same version of the protocol."""


def reworded(error: Error, text: str) -> Error:
    """Make the same error anew, with its attributes and another text."""
    changed = type(error)(text)
    changed.__dict__.update(vars(error))
    return changed
