"""A space of images of any size, which Gymnasium's Box cannot be: all of its elements have one shape."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

CHANNELS = (1, 3, 4)
"""Numbers of channels that an image of three dimensions may have: gray, RGB, RGBA."""

_LARGEST_SAMPLE = 16


class ImageSpace(gym.Space[NDArray[np.uint8]]):
    """Images of any size: uint8 arrays of shape (height, width), or (height, width, channels) with 1, 3 or 4 channels.

    For observations whose images change their size, alone or in a `gymnasium.spaces.Sequence`. Where all have the same,
    a `gymnasium.spaces.Box` travels in less time.

    Args:
        seed: Of the samples, which are small RGB images.
    """

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(None, np.uint8, seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Whether elements can be flattened to one length, which they cannot."""
        return False

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[np.uint8]:
        """Draw a small RGB image. There are no masks."""
        height, width = self.np_random.integers(1, _LARGEST_SAMPLE + 1, 2)
        return self.np_random.integers(0, 256, (height, width, 3), np.uint8)

    def contains(self, x: Any) -> bool:
        """Whether an element is such an image."""
        if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or not x.size:
            return False
        return x.ndim == 2 or (x.ndim == 3 and x.shape[2] in CHANNELS)

    def __eq__(self, other: object) -> bool:
        """Whether the other is of images of any size, too."""
        return isinstance(other, ImageSpace)

    def __hash__(self) -> int:
        """Hash, the same for all of these."""
        return hash(ImageSpace)

    def __repr__(self) -> str:
        """Describe the space."""
        return "ImageSpace()"
