"""Lists of frames in parts: what ``"rgb_array_list"`` collects may be larger than any one message.

An environment gives such a list away when it renders, so what does not fit must not be refused then. One request
renders, and is answered by the first frames; each further one fetches some of what remains.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.frames import decode_frame
from remote_gym.wire.values import encode_value

PART_BYTES = 32 * 2**20
"""About how large a part is to be, where the limits allow it."""

_OVERHEAD = 64  # bytes of an array beside its elements, at most


class FrameParts:
    """Rest of a rendered list, or of a tuple of lists, as vector environments render.

    Args:
        rendered: What `can_be_divided`.
    """

    def __init__(self, rendered: Any) -> None:
        self._is_tuple = isinstance(rendered, tuple)
        self._lists = [deque(each) for each in (rendered if self._is_tuple else [rendered])]
        self.next = 0
        """The number of the part that `take` returns."""

    @staticmethod
    def can_be_divided(rendered: object) -> bool:
        """Whether it is a list, or a tuple of nothing but lists."""
        return type(rendered) is list or (
            type(rendered) is tuple and bool(rendered) and all(type(each) is list for each in rendered)
        )

    def __len__(self) -> int:
        """How many frames remain."""
        return sum(map(len, self._lists))

    def take(self, most: int, limits: Limits) -> Any:
        """Remove a part, of the form that the whole has.

        Args:
            most: Bytes that its frames may have together; one goes by itself if it has more.
            limits: Bounds on how many there may be.
        """
        self.next += 1
        taken: list[list[Any]] = [[] for _ in self._lists]
        size = count = 0
        for remaining, part in zip(self._lists, taken, strict=True):
            while remaining:
                size += _size(remaining[0], limits)
                count += 1
                if count > 1 and (size > most or count > limits.items // 2):
                    return tuple(taken) if self._is_tuple else taken[0]
                part.append(remaining.popleft())
        return tuple(taken) if self._is_tuple else taken[0]


class FrameJoiner:
    """Puts the parts of what was rendered together again.

    Args:
        limits: Bounds on each part, and on how many frames there may be in all.

    Attributes:
        rendered: All that has come.
    """

    def __init__(self, limits: Limits) -> None:
        self.rendered: Any = None
        self._limits = limits
        self._next = 0
        self._rest = limits.items

    def request(self) -> pb.Request:
        """A request for the next part, without a number."""
        part_bytes = min(PART_BYTES, self._limits.message_bytes // 2)
        return pb.Request(render=pb.RenderRequest(part_bytes=part_bytes, part=self._next))

    def add(self, answer: pb.RenderResponse) -> bool:
        """Add what answers it.

        Returns:
            Whether there are further parts.

        Raises:
            EncodingError: If it does not fit what came before, or is over the limits.
        """
        part = decode_frame(answer.frame, self._limits)
        if self._next == 0:
            self.rendered = part
        elif not _extend(self.rendered, part):
            raise EncodingError(f"part {self._next} of what was rendered does not fit those before it")
        if answer.rest >= self._rest:
            most = self._rest - 1
            raise EncodingError(f"{answer.rest:,} frames are to come after part {self._next}; at most {most:,} can be")
        self._next, self._rest = self._next + 1, answer.rest
        return answer.rest > 0


def _extend(whole: Any, part: Any) -> bool:
    """Append the frames of a part, if both have the same form."""
    if not FrameParts.can_be_divided(whole) or type(part) is not type(whole) or not FrameParts.can_be_divided(part):
        return False
    if isinstance(whole, list):
        whole.extend(part)
        return True
    if len(whole) != len(part):
        return False
    for frames, more in zip(whole, part, strict=True):
        frames.extend(more)
    return True


def _size(frame: object, limits: Limits) -> int:
    """About how many bytes it takes in a message, and not less."""
    if isinstance(frame, np.ndarray):
        return frame.nbytes + _OVERHEAD
    if isinstance(frame, str):
        return 4 * len(frame) + _OVERHEAD
    message = pb.Value()
    encode_value(frame, message, strict=True, limits=limits, path="frame")
    return message.ByteSize() + _OVERHEAD
