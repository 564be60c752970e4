"""Parsing of received bytes."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from remote_gym.errors import EncodingError

M = TypeVar("M", bound=Message)


def parse(message_class: type[M], data: bytes | memoryview) -> M:
    """Parse a message that a peer sent.

    Raises:
        EncodingError: If the bytes are no such message.
    """
    message = message_class()
    try:
        message.ParseFromString(data)  # type: ignore[arg-type]
    except DecodeError as error:
        raise EncodingError(f"{len(data)} bytes are no {message_class.__name__} message: {error}") from error
    return message
