"""Errors to messages and back."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from gymnasium.error import ResetNeeded

from remote_gym import errors
from remote_gym.config import Limits
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values.unencodable import printable, type_name

TEXT_LENGTH = 4 * 2**20
"""Characters that remain of an environment's message or traceback, at most."""

OWN_LENGTH = 2_000
"""Characters that remain of the message of one of our own errors, which may quote what a peer sent, however long."""

_KINDS: dict[type[Exception], pb.ErrorDetail.Kind] = {
    errors.ConfigError: pb.ErrorDetail.CONFIG,
    errors.EncodingError: pb.ErrorDetail.ENCODING,
    errors.SessionLost: pb.ErrorDetail.SESSION_LOST,
    errors.ServerFull: pb.ErrorDetail.SERVER_FULL,
    errors.NotPermitted: pb.ErrorDetail.NOT_PERMITTED,
    errors.OutOfSequence: pb.ErrorDetail.OUT_OF_SEQUENCE,
    errors.InvalidAction: pb.ErrorDetail.INVALID_ACTION,
    errors.InvalidObservation: pb.ErrorDetail.INVALID_OBSERVATION,
    errors.ProtocolMismatch: pb.ErrorDetail.PROTOCOL_MISMATCH,
    ResetNeeded: pb.ErrorDetail.RESET_NEEDED,
}
_TYPES: dict[int, Callable[[str], Exception]] = {kind: error_type for error_type, kind in _KINDS.items()}
_LOSS_REASONS = {reason: getattr(pb.ErrorDetail, reason.name) for reason in errors.LossReason}
_FULL_REASONS = {
    reason: pb.ErrorDetail.UNKNOWN_LIMIT
    if reason is errors.FullReason.UNKNOWN
    else getattr(pb.ErrorDetail, reason.name)
    for reason in errors.FullReason
}
_DENIAL_REASONS = {reason: getattr(pb.ErrorDetail, f"DENIED_{reason.name}") for reason in errors.DenialReason}
_LOSSES: dict[int, errors.LossReason] = {number: reason for reason, number in _LOSS_REASONS.items()}
_LIMITS: dict[int, errors.FullReason] = {number: reason for reason, number in _FULL_REASONS.items()}
_DENIALS: dict[int, errors.DenialReason] = {number: reason for reason, number in _DENIAL_REASONS.items()}


def encode_error(error: BaseException, *, limits: Limits | None = None) -> pb.ErrorDetail:
    """Write an exception, shortened so that its message stays within the limits.

    One of our own, or Gymnasium's `ResetNeeded`, travels as what it is. Any other, `SystemExit` among them, is the
    environment's: it travels as its type's name, its message and its traceback.
    """
    # A character may take four bytes, and an error holds four texts.
    length = TEXT_LENGTH if limits is None else min(TEXT_LENGTH, limits.message_bytes // 32)
    if isinstance(error, errors.RemoteEnvironmentError):
        return _environment_error(error.remote_type, error.remote_message, error.remote_traceback, length)
    kind = next((_KINDS[cls] for cls in type(error).__mro__ if cls in _KINDS), None)
    if kind is None:
        return _environment_error(type_name(error), _message_of(error), _traceback_of(error), length)
    detail = pb.ErrorDetail(kind=kind, message=_text(_message_of(error), min(length, OWN_LENGTH)))
    if isinstance(error, errors.OutOfSequence) and error.answered is not None:
        detail.answered = error.answered
    if isinstance(error, errors.ServerFull):
        detail.full_reason = _FULL_REASONS[error.reason]
    if isinstance(error, errors.NotPermitted):
        detail.denial_reason = _DENIAL_REASONS[error.reason]
    if isinstance(error, errors.SessionLost):
        detail.loss_reason = _LOSS_REASONS[error.reason]
        detail.output = _text(error.output, length)
    return detail


def error_response(error: BaseException, sequence: int = 0) -> bytes:
    """An encoded `Response` that brings an error.

    Args:
        error: What went wrong.
        sequence: The number of the request that it answers; 0 where it concerns the session as a whole.
    """
    return pb.Response(sequence=sequence, error=encode_error(error)).SerializeToString()


def decode_error(detail: pb.ErrorDetail) -> Exception:
    """Read an exception, to be raised."""
    if detail.kind == pb.ErrorDetail.ENVIRONMENT:
        return errors.RemoteEnvironmentError(detail.remote_type, detail.remote_message, detail.remote_traceback)
    if detail.kind == pb.ErrorDetail.SESSION_LOST:
        reason = _LOSSES.get(detail.loss_reason, errors.LossReason.UNKNOWN)
        return errors.SessionLost(detail.message, reason=reason, output=detail.output)
    if detail.kind == pb.ErrorDetail.SERVER_FULL:
        full = _LIMITS.get(detail.full_reason, errors.FullReason.UNKNOWN)
        return errors.ServerFull(detail.message, reason=full)
    if detail.kind == pb.ErrorDetail.NOT_PERMITTED:
        denial = _DENIALS.get(detail.denial_reason, errors.DenialReason.UNKNOWN)
        return errors.NotPermitted(detail.message, reason=denial)
    error_type = _TYPES.get(detail.kind)
    if error_type is None:
        return errors.RemoteGymError(
            f"an error of kind {detail.kind}, which this version does not know: {detail.message}"
        )
    error = error_type(detail.message)
    if isinstance(error, errors.OutOfSequence) and detail.HasField("answered"):
        error.answered = detail.answered
    return error


def _environment_error(name: str, message: str, trace: str, length: int) -> pb.ErrorDetail:
    return pb.ErrorDetail(
        kind=pb.ErrorDetail.ENVIRONMENT,
        message=_text(f"{name}: {message}", length),
        remote_type=_text(name, length),
        remote_message=_text(message, length),
        remote_traceback=_text(trace, length),
    )


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    # A stranger's __str__ may raise anything, and what escaped here would end the worker.
    except BaseException as failure:  # noqa: BLE001
        return f"<{type(failure).__name__} in str() of the exception>"


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except BaseException as failure:  # noqa: BLE001 - it asks the exception for its notes and causes
        return f"<{type(failure).__name__} while the traceback was formatted>"


def _text(text: str, length: int) -> str:
    if len(text) > length:
        text = f"{text[:length]}... ({len(text)} characters)"
    return printable(text)
