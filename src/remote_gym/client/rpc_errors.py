"""How gRPC tells what came of a call, and our errors for it."""

from __future__ import annotations

import grpc

from remote_gym.errors import ConnectError, ConnectionLost, DeadlineExceeded, EncodingError, TransportError


def from_rpc_error(error: grpc.RpcError, what: str) -> TransportError | EncodingError:
    """Our error for one of gRPC's."""
    code, details = error.code(), error.details()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DeadlineExceeded(f"{what} took too long")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return EncodingError(f"{what}: {details}; raise Limits.message_bytes at both ends")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ConnectError(f"{what}: what listens there is no remote_gym server ({details})")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return EncodingError(f"{what}: {details}")
    return ConnectionLost(f"{what} broke: {code.name}: {details}")


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
