"""How gRPC tells what came of a call, and our errors for it."""

from __future__ import annotations

from typing import Any

import grpc

from remote_gym.errors import (
    ConnectError,
    ConnectionLost,
    ConnectReason,
    DeadlineExceeded,
    EncodingError,
    RemoteGymError,
    TransportError,
)
from remote_gym.protocol.constants import TAKEN_KEY


def from_rpc_error(error: grpc.RpcError, what: str) -> TransportError | EncodingError:
    """Our error for one of gRPC's."""
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{what} took too long")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return EncodingError(f"{what}: {details}; raise Limits.message_bytes at both ends")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        text = f"{what}: what listens there is no remote_gym server ({details})"
        return ConnectError(text, reason=ConnectReason.NO_SERVER)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return EncodingError(f"{what}: {details}")
    return ConnectionLost(f"{what} broke: {code.name}: {details}")


def was_dropped(error: Any) -> bool:
    """Whether a server's gRPC has dropped a call to open a session before it had begun, as when too many wait.

    Args:
        error: The `grpc.RpcError` by which it has ended.
    """
    if error.code() is not grpc.StatusCode.CANCELLED or str(error.details()).startswith("Channel closed"):
        return False
    return all(key != TAKEN_KEY for key, _ in error.initial_metadata() or ())


def answered(answer: bytes | None, what: str) -> bytes:
    """The answer to a unary call that gRPC says went well.

    gRPC gives None where the status arrived and no message did: from a server that sent none, or because the deadline
    fell between the two.

    Raises:
        ConnectionLost: If there is none.
    """
    if answer is None:
        raise ConnectionLost(f"{what}: the call ended without an answer")
    return answer


def what_struck(error: BaseException) -> BaseException:
    """The exception itself, or the one that it hides.

    What strikes amid gRPC's code, such as Ctrl-C or a time limit, can have it clean up what is not there: release a
    lock that it has not got yet, say. The error of that then takes the other's place.
    """
    while (hidden := error.__context__) is not None and not isinstance(error, RemoteGymError | grpc.RpcError):
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
        if where.partition(".")[0] not in ("grpc", "threading"):  # such as the signal's handler
            break
        error = hidden
    return error
