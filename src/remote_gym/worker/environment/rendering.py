"""Frames of an environment, with its observations or by themselves."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.logs import get_logger
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.compression import FrameCompressor
from remote_gym.wire.frame_parts import FrameParts
from remote_gym.wire.frames import encode_frame
from remote_gym.worker.environment.forked_children import ForkedChild
from remote_gym.worker.environment.user_code import user_code

logger = get_logger(__name__)

_ENVELOPE = 1024
"""Bytes of a response beside its frames, at most."""


class Renderer:
    """Renders an environment and writes what it returns.

    Args:
        environment: What to render.
        compressor: Of images; None to leave them as they are.
        limits: Bounds on what is written.
    """

    def __init__(
        self, environment: gym.Env[Any, Any] | VectorEnv, compressor: FrameCompressor | None, limits: Limits
    ) -> None:
        self._environment = environment
        self._compressor = compressor
        self._limits = limits
        self.rest: FrameParts | None = None
        """Rest of a list whose first parts were sent, until a request comes for anything but the next one."""

    def answer(self, request: pb.RenderRequest, response: pb.RenderResponse) -> None:
        """Render and write the frame, or its next part.

        Raises:
            EncodingError: If it has no wire form, or that part is not the next.
            BaseException: Whatever the environment raises.
        """
        rest, self.rest = self.rest, None
        if request.part == 0:
            rendered = self._render()
            rest = FrameParts(rendered) if request.part_bytes and FrameParts.can_be_divided(rendered) else None
        elif rest is None or request.part != rest.next:
            found = "nothing remains" if rest is None else f"part {rest.next} is next"
            raise EncodingError(f"part {request.part} of what was rendered was asked for, and {found}")
        if rest is not None:
            rendered = rest.take(min(request.part_bytes, self._limits.message_bytes - _ENVELOPE), self._limits)
            if left := len(rest):
                response.rest, self.rest = left, rest
        encode_frame(rendered, response.frame, self._limits, self._compressor)

    def write(self, into: pb.Frame) -> None:
        """Render, and write the frame.

        Raises:
            EncodingError: If it has no wire form.
            BaseException: Whatever the environment raises.
        """
        encode_frame(self._render(), into, self._limits, self._compressor)

    def add(self, transition: pb.Transition) -> None:
        """Add a frame to a transition, if it can be had.

        Nobody may ever look at it, so its failure must not cost the observation: who renders meets the error then.
        """
        try:
            self.write(transition.frame)
        except ForkedChild:
            raise
        except BaseException as error:  # noqa: BLE001 - an environment may raise whatever it likes
            logger.debug("a frame was left out: %r", error)
            transition.ClearField("frame")

    def _render(self) -> Any:
        with user_code:
            return self._environment.render()


def drop_frame(response: pb.Response) -> bool:
    """Remove the frame that came along with an observation; False if there was none."""
    kind = response.WhichOneof("result")
    transitions = response.step_many.transitions[-1:] if kind == "step_many" else [getattr(response, kind or "step")]
    for transition in transitions:
        if transition.HasField("frame"):
            transition.ClearField("frame")
            return True
    return False
