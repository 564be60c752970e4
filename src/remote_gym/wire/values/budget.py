"""Budget of one encoding of a value, and the reason why a part of it cannot travel."""

from __future__ import annotations

from remote_gym.config import Limits
from remote_gym.wire.values.unencodable import type_name


class NoWireForm(Exception):
    """Why the value at `path`, innermost part first, has no wire form."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


class Budget:
    """Count of what one call of `encode_value` has come across so far.

    Attributes:
        strict: Whether what has no wire form is an error.
        limits: Bounds.
        items: How many values may still be written.
    """

    __slots__ = ("_entered", "items", "limits", "strict")

    def __init__(self, strict: bool, limits: Limits) -> None:
        self.strict = strict
        self.limits = limits
        self.items = limits.items - 1
        self._entered: set[int] = set()

    def enter(self, container: object, size: int) -> None:
        """Go a level deeper, into so many items.

        Raises:
            NoWireForm: If the container is entered already, or depth or items are used up.
        """
        if id(container) in self._entered:
            raise NoWireForm(f"this {type_name(container)} contains itself")
        if len(self._entered) >= self.limits.depth:
            raise NoWireForm(f"nested deeper than {self.limits.depth} levels (Limits.depth)")
        if size > self.items:
            raise NoWireForm(f"more than {self.limits.items} values in one message (Limits.items)")
        self.items -= size
        self._entered.add(id(container))

    def leave(self, container: object) -> None:
        """Come back from a container."""
        self._entered.remove(id(container))

    def check_length(self, what: str, length: int, unit: str) -> None:
        """Refuse a text that is too long.

        Raises:
            NoWireForm: Naming the limit.
        """
        limit = self.limits.text_length
        if length > limit:
            raise NoWireForm(f"{what} of {length} {unit} is over the limit of {limit} (Limits.text_length)")

    def check_bytes(self, length: int) -> None:
        """Refuse bytes that are too many.

        Raises:
            NoWireForm: Naming the limit.
        """
        limit = self.limits.array_bytes
        if length > limit:
            raise NoWireForm(f"{length} bytes are over the limit of {limit} (Limits.array_bytes)")
