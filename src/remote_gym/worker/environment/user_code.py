"""Calls into code that is not ours."""

from __future__ import annotations

from traceback import format_exception
from types import TracebackType

from remote_gym.errors import RemoteEnvironmentError, RemoteGymError
from remote_gym.logs import get_logger
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.worker.environment.forked_children import forked

logger = get_logger(__name__)

LINES = 3
"""Errors of one kind of one environment that are logged in a minute; further ones are counted."""


class FromGuest:
    """Marks errors of ours that say what became of an environment in another process, or of what stands in for one.

    They are raised on purpose, so they travel as what they are.
    """


class UserCode:
    """Around calls into an environment or its entrypoint: an error of ours that it raises is not this session's.

    It may well use `remote_gym` itself, and its lost session is not the one that is answered here. And what comes out
    of it as a forked child is no worker. A class, since this surrounds every step, and `contextlib.contextmanager`
    costs five times as much.
    """

    __slots__ = ()

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if forked.thread:
            forked.leave(error)
        if isinstance(error, RemoteGymError) and not isinstance(error, FromGuest):
            raise of_user_code(error) from error


def of_user_code(error: RemoteGymError) -> RemoteEnvironmentError:
    """The error to raise in place of one of ours that code which is not ours has raised."""
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    return RemoteEnvironmentError(name, str(error), "".join(format_exception(error)))


def log_raised(detail: pb.ErrorDetail, operation: str | None) -> None:
    """Let the server's log have what an environment raised, a few times a minute: the client may not keep it."""
    if detail.kind == pb.ErrorDetail.ENVIRONMENT:
        logger.warning(
            "the environment's %s raised %s",
            operation,
            detail.message,
            details=detail.remote_traceback,
            repeats=f"{operation} {detail.remote_type}",
            lines=LINES,
        )


user_code = UserCode()
"""``with user_code: environment.step(action)``"""
