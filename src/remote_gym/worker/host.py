"""One environment, or a vector of them, and the rule by which requests to it are answered.

Does no input or output of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Any

import gymnasium as gym
import numpy as np
from google.protobuf.message import EncodeError
from gymnasium.error import ResetNeeded
from gymnasium.vector import SyncVectorEnv, VectorEnv

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, InvalidAction, OutOfSequence, RemoteGymError, SessionLost
from remote_gym.ipc.counters import (
    BUSY,
    BYTES_RECEIVED,
    BYTES_SENT,
    EPISODES,
    IDLE,
    OPERATION,
    OPERATIONS,
    SEQUENCE,
    SINCE,
    STEPS,
    count_ended,
    new_page,
)
from remote_gym.protocol.constants import package_versions
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.compression import frame_compressor, observation_compressor
from remote_gym.wire.errors import encode_error, error_response
from remote_gym.wire.parse import parse
from remote_gym.wire.spaces.elements import decode_action, encode_observation
from remote_gym.wire.spaces.encoding import encode_space
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.wire.splice import splice
from remote_gym.wire.values import decode_value, encode_value
from remote_gym.worker.description import encode_metadata, encode_spec
from remote_gym.worker.environment.exposure import Exposure
from remote_gym.worker.environment.forked_children import ForkedChild, forked
from remote_gym.worker.environment.pools import Pool
from remote_gym.worker.environment.rendering import Renderer, drop_frame
from remote_gym.worker.environment.returned import encode_flags, local_flag, unpack_reset, unpackable_step
from remote_gym.worker.environment.user_code import FromGuest, log_raised, of_user_code, user_code
from remote_gym.worker.environment.vector import mode_of


class Host:
    """Answers encoded requests from one environment, each exactly once.

    Args:
        environment: Belongs to the host from now on, which closes it. Several in one answer as one: a vector
            environment's spaces, rewards and infos are batched.
        exposed: Names of methods and attributes that `CallRequest` may use, where the environment has them.
        made_by_id: Whether there is no entrypoint that could name more.
        send_frames: Render after each reset and step, and send the frame along.
        check_actions: Refuse actions that are not in ``environment.action_space``.
        frame_encoding: How images may be compressed, as in an `OpenRequest`.
        observation_encoding: How packed observations may be.
        limits: Bounds on received values and on responses.
        page: Where to keep count, as `remote_gym.ipc.counters` has it; None for nowhere that others see.

    Raises:
        ConfigError: If frames are asked of an environment without a render mode, or an encoding that is not to be had.
    """

    def __init__(
        self,
        environment: gym.Env[Any, Any] | VectorEnv,
        *,
        exposed: tuple[str, ...] = (),
        made_by_id: bool = False,
        send_frames: bool = False,
        check_actions: bool = False,
        frame_encoding: pb.Encoding = pb.ENCODING_RAW,
        observation_encoding: pb.Encoding = pb.ENCODING_RAW,
        limits: Limits,
        page: memoryview | None = None,
    ) -> None:
        if send_frames and environment.render_mode is None:
            raise ConfigError(
                "frames were asked for, but the environment was created with render_mode=None; let create_environment "
                "take `render_mode` (or `enable_rendering`) and pass it on, or connect with render_mode=None"
            )
        self._environment = environment
        self._answers_for_each = isinstance(environment, SyncVectorEnv)
        mode = mode_of(environment) if isinstance(environment, VectorEnv) else pb.DISABLED
        self._resets_itself = mode in (pb.NEXT_STEP, pb.SAME_STEP)
        self._exposure = Exposure(
            environment.envs if isinstance(environment, SyncVectorEnv) else [environment],
            exposed,
            made_by_id=made_by_id,
        )
        self._made_by_id = made_by_id
        self._send_frames = send_frames
        self._check_actions = check_actions
        self._renderer = Renderer(environment, frame_compressor(frame_encoding), limits)
        self._observation_compressor = observation_compressor(observation_encoding)
        self._limits = limits
        self._observation_layout = compile_layout(environment.observation_space)
        self._action_layout = compile_layout(environment.action_space)
        self._was_reset = False
        self._page = new_page() if page is None else page
        self._flags: tuple[Any, Any] = (False, False)  # terminated and truncated, as the last step had them
        self._sequence = 0
        self._request = b""
        self._response: tuple[bytes, ...] = ()
        self._large: bytes | None = None  # an observation that is left out of its message, to be spliced in
        self.closed = False
        self._operations: dict[str | None, Callable[[pb.Request, pb.Response], None]] = {
            "step": self._step,
            "reset": self._reset,
            "step_many": self._step_many,
            "render": self._render,
            "call": self._call,
            "close": self._close,
        }

    def describe(self) -> pb.Description:
        """Describe the environment for a client that stands in for it.

        Raises:
            ConfigError: If a space has no wire form.
        """
        environment = self._environment
        description = pb.Description(
            observation_space=encode_space(environment.observation_space, self._limits),
            action_space=encode_space(environment.action_space, self._limits),
            render_mode=environment.render_mode or "",
            exposed=self._exposure.describe(),
            lacking=self._exposure.lacking,
            made_by_id=self._made_by_id,
            versions=package_versions(),
        )
        encode_metadata(environment.metadata, description.metadata, self._limits)
        if isinstance(environment, VectorEnv):
            description.num_envs = environment.num_envs
            description.single_observation_space.CopyFrom(
                encode_space(environment.single_observation_space, self._limits)
            )
            description.single_action_space.CopyFrom(encode_space(environment.single_action_space, self._limits))
            description.autoreset_mode = mode_of(environment)
            description.numbers_environments = isinstance(environment, Pool) and environment.numbers_environments
        # A vector's environments are all of one spec; its own is `gymnasium.make_vec`'s, where that made it.
        spec = environment.spec
        if spec is None and isinstance(environment, SyncVectorEnv) and environment.envs:
            spec = environment.envs[0].spec
        if spec is not None:
            encode_spec(spec, description.spec)
        return description

    def answer(self, data: bytes) -> bytes:
        """Answer one encoded `Request` with one encoded `Response`; never raises."""
        return b"".join(self.answer_in_parts(data))

    def answer_in_parts(self, data: bytes | memoryview) -> tuple[bytes, ...]:
        """As `answer`, with a large observation as a part of its own, which then need not be copied."""
        try:
            request = parse(pb.Request, data, self._limits)
        except EncodingError as error:
            return (error_response(error),)
        if request.sequence == self._sequence != 0 and self._is_again(request, data):
            return self._response
        if request.sequence != self._sequence + 1:
            refusal = OutOfSequence(
                f"request {request.sequence} came after {self._sequence}; only {self._sequence} again, the same "
                f"request, or {self._sequence + 1} can be answered"
            )
            refusal.answered = self._sequence
            return (error_response(refusal, request.sequence),)
        self._request = bytes(data)  # which may be in a buffer that the next one overwrites
        page = self._page
        page[SINCE] = began = monotonic_ns()
        self._response = self._run(request)
        self._sequence = page[SEQUENCE] = request.sequence
        page[OPERATION] = IDLE
        page[BUSY] += monotonic_ns() - began
        page[BYTES_RECEIVED] += len(data)
        return self._response

    def _is_again(self, request: pb.Request, data: bytes | memoryview) -> bool:
        """Whether a request is the one that was answered last, or asks for that answer, whatever it was.

        Another one under the same number comes of a client that does not know that its session was taken over: the
        answer would not be its own.
        """
        return data == self._request or request.WhichOneof("operation") is None

    @property
    def between_episodes(self) -> bool:
        """Whether no episode runs: none was begun, or the last step ended it, or all where there are several."""
        try:
            return not self._was_reset or bool(np.all(np.logical_or(*self._flags)))
        except (TypeError, ValueError):  # flags of an odd kind, which end nothing
            return False

    def begins_episode(self, data: bytes | memoryview) -> bool:
        """Whether a request that has not been answered yet is a reset, or a step that resets all there are by itself.

        A reset by ``reset_mask``, of some, is none; nor is a step that begins an episode while others run.
        """
        try:
            request = parse(pb.Request, data, self._limits)
        except EncodingError:
            return False
        if request.sequence != self._sequence + 1:
            return False
        operation = request.WhichOneof("operation")
        if operation == "step":
            return self._resets_itself and self._was_reset and self.between_episodes
        return operation == "reset" and "reset_mask" not in request.reset.options.dict.names

    def close(self) -> None:
        """Close the environment, once. A forked child has none of its own to close."""
        if not self.closed and not forked.thread:
            self.closed = True
            with user_code:
                self._environment.close()

    def _run(self, request: pb.Request) -> tuple[bytes, ...]:
        self._large = None
        response = pb.Response(sequence=request.sequence)
        operation = request.WhichOneof("operation")
        try:
            if operation is None:
                raise EncodingError(f"request {request.sequence} holds no operation; set reset, step, render, ...")
            if self._renderer.rest is not None and operation != "render":
                self._renderer.rest = None
            self._page[OPERATION] = OPERATIONS[operation]
            self._operations[operation](request, response)
            if forked.thread:
                forked.leave()
            return self._within_limit(response, request)
        except ForkedChild:
            raise
        # An environment may raise whatever it likes, SystemExit included; the session outlives it, and the client
        # is who wants to know.
        except BaseException as error:  # noqa: BLE001
            if forked.thread:
                forked.leave(error)
            detail = encode_error(error, limits=self._limits)
            log_raised(detail, operation)
            response = pb.Response(sequence=request.sequence, error=detail)
            if isinstance(error, SessionLost):  # of a guest, with which all of the session is gone
                response.sequence = 0
                self.close()
            failure = response.SerializeToString()
            self._page[BYTES_SENT] += len(failure)
            return (failure,)

    def _within_limit(self, response: pb.Response, request: pb.Request) -> tuple[bytes, ...]:
        parts: tuple[bytes, ...]
        try:
            parts = (response.SerializeToString(),) if self._large is None else splice(response, self._large)
        except (ValueError, EncodeError) as error:
            raise EncodingError(f"the response cannot be encoded: {error}") from error
        size = len(parts[0]) if len(parts) == 1 else sum(map(len, parts))
        if size > self._limits.message_bytes:
            if request.frame and not self._send_frames and drop_frame(response):
                return self._within_limit(response, request)
            raise EncodingError(
                f"the response has {size:,} bytes and the server's limit is {self._limits.message_bytes:,}; "
                "raise Limits.message_bytes at both ends"
            )
        self._page[BYTES_SENT] += size
        return parts

    def _reset(self, request: pb.Request, response: pb.Response) -> None:
        message = request.reset
        seed = decode_value(message.seed, self._limits) if message.HasField("seed") else None
        options = decode_value(message.options, self._limits) if message.HasField("options") else None
        with user_code:
            returned = self._environment.reset(seed=seed, options=options)
        observation, info = unpack_reset(returned)
        self._was_reset = True
        self._flags = (False, False)
        response.reset.SetInParent()
        self._large = encode_observation(
            self._observation_layout, observation, response.reset, self._limits, self._observation_compressor
        )
        self._finish(info, response.reset, request.frame)

    def _step(self, request: pb.Request, response: pb.Response) -> None:
        self._large, _, _ = self._step_once(request.step, response.step, request.frame)

    def _step_many(self, request: pb.Request, response: pb.Response) -> None:
        response.step_many.SetInParent()
        for step in request.step_many.steps:
            transition = pb.Transition()
            self._page[SINCE] = monotonic_ns()  # each may take as long as one that comes by itself
            try:
                large, terminated, truncated = self._step_once(step, transition, False)
            except ForkedChild:
                raise
            except BaseException as error:  # noqa: BLE001 - as in `_run`; the steps before it have been taken
                if forked.thread:
                    forked.leave(error)
                response.step_many.error.CopyFrom(encode_error(error, limits=self._limits))
                log_raised(response.step_many.error, "step")
                return
            if large is not None:
                transition.packed = large
            response.step_many.transitions.append(transition)
            if np.any(terminated) or np.any(truncated):
                break
        if request.frame and not self._send_frames and response.step_many.transitions:
            self._renderer.add(response.step_many.transitions[-1])

    def _step_once(
        self, step: pb.StepRequest, transition: pb.Transition, wants_frame: bool
    ) -> tuple[bytes | None, Any, Any]:
        """Step, and write what it returned.

        Returns:
            The observation, where it is large and was left out; and the flags terminated and truncated.
        """
        if not self._was_reset:
            raise ResetNeeded("Cannot call step before the first reset")
        action = decode_action(self._action_layout, step, self._limits)
        if self._check_actions and not self._environment.action_space.contains(action):
            raise InvalidAction(f"action {action!r} is not in {self._environment.action_space}, and this server checks")
        try:
            returned = self._environment.step(action)
        except RemoteGymError as error:  # as `user_code` does, without its cost where nothing is raised
            if forked.thread:
                forked.leave(error)
            if isinstance(error, FromGuest):
                raise
            raise of_user_code(error) from error
        if forked.thread:
            forked.leave()
        try:
            observation, reward, terminated, truncated, info = returned
        except (TypeError, ValueError) as error:
            raise unpackable_step(returned) from error
        has_plain_flags = type(terminated) is bool and type(truncated) is bool
        if not has_plain_flags:
            terminated, truncated = local_flag("terminated", terminated), local_flag("truncated", truncated)
        self._page[STEPS] += 1
        self._flags = (terminated, truncated)
        if observation is None and self.between_episodes:
            large = None
            transition.value.none.SetInParent()  # as it ends no worse than locally
        else:
            large = encode_observation(
                self._observation_layout, observation, transition, self._limits, self._observation_compressor
            )
        if type(reward) is float:
            transition.reward_float = reward
        else:
            encode_value(reward, transition.reward_value, strict=True, limits=self._limits, path="reward")
        if has_plain_flags:
            transition.terminated_bool = terminated
            transition.truncated_bool = truncated
            if terminated or truncated:
                self._page[EPISODES] += 1
        else:
            encode_flags(terminated, truncated, transition, self._limits)
            self._page[EPISODES] += count_ended(terminated, truncated)
        self._finish(info, transition, wants_frame)
        return large, terminated, truncated

    def _finish(self, info: object, transition: pb.Transition, wants_frame: bool) -> None:
        if info or type(info) is not dict:
            encode_value(info, transition.info, strict=False, limits=self._limits, path="info")
        if self._send_frames:
            self._renderer.write(transition.frame)
        elif wants_frame:
            self._renderer.add(transition)

    def _render(self, request: pb.Request, response: pb.Response) -> None:
        self._renderer.answer(request.render, response.render)

    def _call(self, request: pb.Request, response: pb.Response) -> None:
        message = request.call
        exposure, is_each = self._exposure, self._answers_for_each
        args = decode_value(message.args, self._limits) if message.HasField("args") else ()
        kwargs = decode_value(message.kwargs, self._limits) if message.HasField("kwargs") else {}
        value: Any = None
        with user_code:
            if message.HasField("assign"):
                values = decode_value(message.assign, self._limits)
                exposure.assign(message.name, values if is_each else [values])
            else:
                answers = exposure.call(message.name, args, kwargs)
                value = tuple(answers) if is_each else answers[0]
        encode_value(value, response.call.value, strict=True, limits=self._limits, path=message.name)

    def _close(self, request: pb.Request, response: pb.Response) -> None:
        response.close.SetInParent()
        self.close()
