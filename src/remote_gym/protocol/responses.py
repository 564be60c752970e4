"""Reading of a session's answers into what `gymnasium.Env` returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym

from remote_gym.config import Limits
from remote_gym.errors import ConnectionLost, EncodingError, RemoteGymError, SessionLost
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import decode_error
from remote_gym.wire.frames import decode_frame
from remote_gym.wire.spaces.elements import decode_observation
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.wire.values import decode_value

Step = tuple[Any, Any, Any, Any, dict[str, Any]]


class Reader:
    """Reads the answers of one session, and remembers what shall outlive it.

    Args:
        space: Of observations.
        limits: Bounds on what is decoded.
        keeps_last: Whether the newest observation is kept, as it came, to end the episode with if the session is lost.
        on_observation: Called after each observation.

    Attributes:
        frame: That of the newest observation; None if it has not come.
        rendered: The newest that was asked for.
    """

    def __init__(
        self,
        space: gym.Space[Any],
        limits: Limits,
        *,
        keeps_last: bool,
        on_observation: Callable[[], None] | None = None,
    ) -> None:
        self.frame: Any = None
        self.rendered: Any = None
        self._layout = compile_layout(space)
        self._limits = limits
        self._keeps_last = keeps_last
        self._on_observation = on_observation
        self._last: tuple[pb.Transition, bytes | None] | None = None

    def reset(
        self, transition: pb.Transition, packed: memoryview | None, loss: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Read the answer of a reset into what `reset` returns.

        Args:
            transition: As it came.
            packed: The observation that it lacks, if that is large.
            loss: What the info tells of the environment that was there before, from `loss`.
        """
        observation, info = self._observation(transition, packed), self._info(transition)
        if loss:  # which has to be said even beside an info that is no dict, which then is not
            info = {**info, **loss} if isinstance(info, dict) else loss
        return observation, info

    def step(self, transition: pb.Transition, packed: memoryview | None) -> Step:
        """Read a transition into what `step` returns, each of the value and the kind that the environment returned."""
        has = transition.HasField
        observation = self._observation(transition, packed)
        # What another field of the same `oneof` holds reads as 0 or False here, so only then is it looked for.
        reward: Any = transition.reward_float
        if not reward and has("reward_value"):
            reward = decode_value(transition.reward_value, self._limits)
        terminated: Any = transition.terminated_bool
        if not terminated and has("terminated_value"):
            terminated = decode_value(transition.terminated_value, self._limits)
        truncated: Any = transition.truncated_bool
        if not truncated and has("truncated_value"):
            truncated = decode_value(transition.truncated_value, self._limits)
        return observation, reward, terminated, truncated, self._info(transition)

    def steps(self, answer: pb.StepManyResponse, most: int | None = None) -> list[Step]:
        """Read an answer into what `step_many` returns, or raise what it raises.

        Args:
            answer: As it came.
            most: How many actions there were, where that is known; each transition may decompress to a lot.
        """
        if most is not None and (count := len(answer.transitions)) > most:
            raise EncodingError(f"{count} transitions came for {most} actions")
        transitions = [self.step(transition, None) for transition in answer.transitions]
        if answer.HasField("error"):
            # The steps before it were taken and cannot be again, so the error brings what they returned.
            error = decode_error(answer.error)
            if isinstance(error, RemoteGymError):
                error.transitions = transitions
            raise error
        return transitions

    def anything(self, answer: pb.Response, packed: memoryview | None) -> Any:
        """Return value of the method answered so, or the exception that it raised; None of a render or call."""
        kind = answer.WhichOneof("result")
        if kind == "error":
            return decode_error(answer.error)
        if kind == "reset":
            return self.reset(answer.reset, packed)
        if kind == "step":
            return self.step(answer.step, packed)
        if kind == "step_many":
            try:
                return self.steps(answer.step_many)
            except Exception as error:  # noqa: BLE001 - whatever the environment raised
                return error
        return None

    def loss(self, error: SessionLost | ConnectionLost) -> dict[str, Any]:
        """Info for the next environment's reset, in place of raising that this one's session is lost.

        Raises:
            SessionLost: `error`, if nothing is kept.
            ConnectionLost: Likewise.
        """
        if not self._keeps_last:
            raise error
        return _told(error)

    def truncation(self, error: SessionLost | ConnectionLost) -> Step:
        """Truncation that a step returns in place of raising that the session is lost; once.

        Raises:
            SessionLost: `error`, if nothing is kept, or there was no observation, or the episode has ended so already.
            ConnectionLost: Likewise.
        """
        last, self._last = self._last, None  # once: another step after the end of an episode is the caller's mistake
        if last is None:
            raise error
        transition, packed = last
        view = None if packed is None else memoryview(packed)
        observation = None if _is_none(transition) else decode_observation(self._layout, transition, self._limits, view)
        return observation, 0.0, False, True, _told(error)

    def frame_again(self, error: SessionLost | ConnectionLost) -> Any:
        """Last frame, for `render` in place of raising that the session is lost; None if nothing was rendered yet.

        Raises:
            SessionLost: `error`, if nothing is kept.
            ConnectionLost: Likewise.
        """
        if not self._keeps_last:
            raise error
        return self.rendered

    def _observation(self, transition: pb.Transition, packed: memoryview | None) -> Any:
        if self._keeps_last:
            # What came by itself becomes the caller's array, who may write to it.
            self._last = transition, None if packed is None else bytes(packed)
        try:
            observation = decode_observation(self._layout, transition, self._limits, packed)
        except EncodingError:
            if not _is_none(transition):
                raise
            observation = None
        self.frame = decode_frame(transition.frame, self._limits) if transition.HasField("frame") else None
        if self._on_observation is not None:
            self._on_observation()
        return observation

    def _info(self, transition: pb.Transition) -> Any:
        return decode_value(transition.info, self._limits) if transition.HasField("info") else {}


def _is_none(transition: pb.Transition) -> bool:
    """Whether it is an observation of None, by which an environment may end an episode though no space has it."""
    return transition.WhichOneof("observation") == "value" and transition.value.HasField("none")


def _told(error: Exception) -> dict[str, Any]:
    """Info of a session that was lost."""
    return {"remote_gym": {"session_lost": str(error)}}
