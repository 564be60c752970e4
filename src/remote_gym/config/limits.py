"""Bounds on what one end accepts from the other."""

from __future__ import annotations

from dataclasses import dataclass

from remote_gym.config.names import check_fields, names_checked
from remote_gym.errors import ConfigError
from remote_gym.validation import check_integer


@names_checked
@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what a peer may send. Both ends apply their own. In parentheses: the default and its unit.

    Attributes:
        message_bytes (256 MiB): Size of one encoded message.
        depth (32): How deep spaces and values may nest; at most 40.
        items (1,048,576): Values in one message, each list member, dict entry and array counting as one.
        array_bytes (256 MiB): Size of one decoded array, a space's bounds included.
        text_length (16,777,216): Characters in one text, and a Text space's ``max_length``.
    """

    message_bytes: int = 256 * 2**20
    depth: int = 32
    items: int = 2**20
    array_bytes: int = 256 * 2**20
    text_length: int = 16 * 2**20

    def __post_init__(self) -> None:
        # gRPC counts message sizes in 32 bits.
        check_fields(check_integer, self, *vars(self), lowest=1, highest=2**31 - 1)
        if self.depth > 40:
            raise ConfigError(
                f"is {self.depth}; protobuf parsers stop at 100 levels, so use at most 40",
                field="depth",
                where="Limits.depth",
            )
