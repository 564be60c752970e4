"""A space of any texts, which Gymnasium's Text cannot be: it lists its characters, of which there are too many."""

from __future__ import annotations

import string
from typing import Any

import numpy as np
from gymnasium import spaces

LONGEST_SAMPLE = 4096


class AnyText(spaces.Text):
    """All texts, of any characters and any length.

    Args:
        seed: Of the samples, which are of up to 4,096 printable ASCII characters.
    """

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(LONGEST_SAMPLE, min_length=0, charset=string.printable, seed=seed)

    def contains(self, x: Any) -> bool:
        """Whether an element is a text."""
        return isinstance(x, str)

    def __eq__(self, other: object) -> bool:
        """Whether the other contains any texts, too."""
        return isinstance(other, AnyText)

    def __hash__(self) -> int:
        """Hash, the same for all of these."""
        return hash(AnyText)

    def __repr__(self) -> str:
        """Describe the space."""
        return "AnyText()"
