"""Every exception that remote_gym raises.

RemoteGymError
├ ConfigError(ValueError)          which file or field, what was found, what would be right
├ EncodingError(TypeError)         a value with no wire form, or bytes that do not fit
├ TransportError(ConnectionError)
│ ├ ConnectError                   could not reach or authenticate, with what to check
│ ├ ConnectionLost
│ └ DeadlineExceeded(TimeoutError)
├ SessionError
│ ├ SessionLost                    the environment is gone: crashed, hung, expired, server restarted
│ ├ ServerFull                     which limit, how many are open
│ ├ NotPermitted                   identity known, right missing
│ └ OutOfSequence
├ InvalidAction(ValueError)        does not fit the space's structure; the environment never saw it
├ InvalidObservation(ValueError)   the environment returned what does not fit its own space
├ RemoteEnvironmentError           the environment raised
└ ProtocolMismatch                 version or feature, both sides named

A step before the first reset raises ``gymnasium.error.ResetNeeded``, as it does locally.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RemoteGymError(Exception):
    """Base of every error that this package raises.

    Attributes:
        transitions: What `RemoteEnvironment.step_many` had done before it was raised; else empty.
        environments: Of a `RemoteVectorEnv`: indices of the environments whose worker failed.
    """

    transitions: Sequence[tuple[Any, Any, Any, Any, dict[str, Any]]] = ()
    environments: tuple[int, ...] = ()


class ConfigError(RemoteGymError, ValueError):
    """An argument, a file or a field that cannot work as given."""


class EncodingError(RemoteGymError, TypeError):
    """A value that has no wire form, or received bytes that do not fit what they should hold."""


class TransportError(RemoteGymError, ConnectionError):
    """The network, rather than the environment, stood in the way."""


class ConnectError(TransportError):
    """The server could not be reached, or one end did not accept the other's certificate."""


class ConnectionLost(TransportError):
    """An established connection broke."""


class DeadlineExceeded(TransportError, TimeoutError):
    """No answer came in time."""


class SessionError(RemoteGymError):
    """The server answered that it will not, or cannot, serve this session."""


class SessionLost(SessionError):
    """The environment is gone: it crashed, hung, expired, or its server restarted. `reset` opens a new one."""


class ServerFull(SessionError):
    """The server has no place for another session."""


class NotPermitted(SessionError):
    """The server knows who asks, and does not allow it."""


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
