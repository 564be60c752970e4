"""Parsing of received bytes."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.wire.bounds import check_items

M = TypeVar("M", bound=Message)

DEFAULT = Limits()


def parse(message_class: type[M], data: bytes | memoryview, limits: Limits = DEFAULT, fields: int | None = None) -> M:
    """Parse a message that a peer sent.

    Args:
        message_class: What it is to be.
        data: The encoded message.
        limits: Bounds on its values.
        fields: How many fields of any kind it may have; None for any number.

    Raises:
        EncodingError: If the bytes are no such message, or hold more values, or fields, than allowed.
    """
    if len(data) // 2 > limits.items:  # no value is encoded in less than two bytes, so mostly there is nothing to count
        check_items(message_class, data, limits, fields)
    message = message_class()
    try:
        message.ParseFromString(data)  # type: ignore[arg-type]
    except DecodeError as error:
        raise EncodingError(f"{len(data)} bytes are no {message_class.__name__} message: {error}") from error
    return message
