"""Play episodes in an environment, local or remote, and measure and record them."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from remote_gym.config import Limits
from remote_gym.errors import ConfigError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.frames import encode_frame
from remote_gym.wire.spaces.elements import encode_action, encode_observation
from remote_gym.wire.spaces.layout import compile_layout
from remote_gym.wire.values import encode_value

Policy = Callable[[Any], Any]
"""Chooses an action for an observation."""

GIF_SIDE = 320
"""Pixels that neither side of a GIF much exceeds: its format knows little compression."""


class Step(NamedTuple):
    """One `step`: its action, and what it returned."""

    action: Any
    observation: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode, from `reset` to its end.

    Attributes:
        total_reward: Sum of the rewards.
        step_seconds: Time that each `step` took; float64 of shape (steps,).
        seconds: Time spent in `reset` and `step` together.
    """

    total_reward: float
    step_seconds: NDArray[np.float64]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Several episodes in numbers; times in seconds."""

    episodes: int
    steps: int
    mean_return: float
    steps_per_second: float
    """Steps by the time spent in `reset` and `step`."""
    latency_p50: float
    latency_p99: float


def play_episodes(
    environment: gym.Env[Any, Any],
    count: int,
    *,
    policy: Policy | None = None,
    seed: int | None = None,
    watch: Callable[[Step | None], None] | None = None,
) -> Iterator[Episode]:
    """Play one episode after another.

    Args:
        environment: Stays open.
        count: How many.
        policy: None for random actions.
        seed: Of the first reset, and of the random actions.
        watch: Called after each step, and with None after each reset; its time is not measured.
    """
    environment.action_space.seed(seed)
    for number in range(count):
        start = time.perf_counter()
        observation, _ = environment.reset(seed=seed if number == 0 else None)
        seconds = time.perf_counter() - start
        if watch is not None:
            watch(None)
        total_reward, step_seconds, ended = 0.0, [], False
        while not ended:
            action = environment.action_space.sample() if policy is None else policy(observation)
            start = time.perf_counter()
            step = Step(action, *environment.step(action))
            step_seconds.append(time.perf_counter() - start)
            if watch is not None:
                watch(step)
            observation, ended = step.observation, bool(step.terminated or step.truncated)
            total_reward += float(step.reward)
        yield Episode(
            total_reward=total_reward, step_seconds=np.asarray(step_seconds), seconds=seconds + sum(step_seconds)
        )


def summarise(episodes: Sequence[Episode]) -> Summary:
    """Put at least one episode into numbers."""
    step_seconds = np.concatenate([episode.step_seconds for episode in episodes])
    return Summary(
        episodes=len(episodes),
        steps=len(step_seconds),
        mean_return=float(np.mean([episode.total_reward for episode in episodes])),
        steps_per_second=len(step_seconds) / sum(episode.seconds for episode in episodes),
        latency_p50=float(np.percentile(step_seconds, 50)),
        latency_p99=float(np.percentile(step_seconds, 99)),
    )


def load_policy(name: str) -> Policy:
    """Import a policy by its name, ``module:callable``; modules of the working directory are found too.

    Returns:
        The policy, but that what it raises comes as a `ConfigError` that names it and the line.

    Raises:
        ConfigError: If there is none of that name.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"policy is {name!r}; use MODULE:CALLABLE, such as my_agent:choose_action", field="policy")
    # A console script, unlike `python -m`, does not look there by itself.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        policy = getattr(importlib.import_module(module_name), attribute)
    except Exception as error:  # a module may raise whatever it likes
        raise ConfigError(f"policy {name!r} cannot be imported: {_describe(error)}", field="policy") from error
    if not callable(policy):
        raise ConfigError(f"policy {name!r} is {policy!r}; name a callable that takes an observation", field="policy")

    def choose(observation: Any) -> Any:
        try:
            return policy(observation)
        except Exception as error:
            raise ConfigError(f"policy {name!r} raised {_describe(error)}", field="policy") from error

    return choose


def _describe(error: Exception) -> str:
    """An exception as one line, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"


class MessageSizes:
    """Tells how large the messages of a step are: request and response as encoded, without gRPC's and TLS's framing.

    Args:
        environment: Whose spaces decide how they are encoded.
    """

    def __init__(self, environment: gym.Env[Any, Any]) -> None:
        self._action_layout = compile_layout(environment.action_space)
        self._observation_layout = compile_layout(environment.observation_space)
        self._limits = Limits()

    def measure(self, step: Step, frame: Any = None) -> int:
        """Bytes of both messages together.

        Args:
            step: To be sent again, as it were.
            frame: That comes with the observation; None where none does.
        """
        request, response = pb.Request(sequence=1), pb.Response(sequence=1)
        transition = response.step
        encode_action(self._action_layout, step.action, request.step, self._limits)
        encode_observation(self._observation_layout, step.observation, transition, self._limits)
        for name in ("reward", "terminated", "truncated"):
            value, kind = getattr(step, name), float if name == "reward" else bool
            if type(value) is kind:
                setattr(transition, f"{name}_{kind.__name__}", value)
            else:
                encode_value(value, getattr(transition, f"{name}_value"), strict=True, limits=self._limits, path=name)
        if step.info:
            encode_value(step.info, transition.info, strict=False, limits=self._limits, path="info")
        if frame is not None:
            encode_frame(frame, transition.frame, self._limits)
        return request.ByteSize() + response.ByteSize()


def check_recordable(path: Path) -> None:
    """See, before anything is played, that a file can be written.

    Raises:
        ConfigError: If the file's kind is none that is recorded, or the system does not let it be written there.
    """
    if path.suffix.lower() not in (".gif", ".mp4"):
        raise ConfigError(f"cannot record to {str(path)!r}; use a file that ends in .gif or .mp4", field="record")
    try:
        existed = path.is_symlink() or path.exists()
        # Tried rather than asked of the system, which says yes to its administrator, whatever holds the folder.
        with path.open("ab"):
            pass
        if not existed:
            path.unlink()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
            raise ConfigError(
                f"cannot record to {str(path)!r}: there is no folder {str(path.parent)!r}", field="record"
            ) from None
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot record to {str(path)!r}: {error.strerror or error}; choose another file", field="record"
    )


class Recording:
    """Writes frames to a ``.gif`` or ``.mp4`` file; a context manager, after which the file is complete.

    Without a single frame there is no file, rather than one that nothing can open.

    Args:
        path: Replaced where it exists.
        fps: Frames a second.

    Raises:
        ConfigError: As `check_recordable`, or if imageio is not installed.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self._is_empty = True
        self._is_gif = path.suffix.lower() == ".gif"
        check_recordable(path)
        try:
            import imageio.v2 as imageio
        except ImportError as error:
            raise ConfigError("recording needs imageio: pip install 'remote-gym[record]'", field="record") from error
        # For an MP4, imageio would stretch frames to sides of a multiple of 16.
        options: dict[str, Any] = (
            {"duration": 1000 / fps, "loop": 0} if self._is_gif else {"fps": fps, "macro_block_size": 2}
        )
        # Not into the file: Pillow, which could not write it, would try once more when it is collected, and complain.
        self._gif = io.BytesIO()
        self._writer: Any = (
            imageio.get_writer(self._gif, format="gif", **options)
            if self._is_gif
            else imageio.get_writer(path, **options)
        )

    def add(self, frame: Any) -> None:
        """Append a frame.

        Args:
            frame: uint8 of shape (height, width, 3).

        Raises:
            ConfigError: If it is something else, or the file cannot be written.
        """
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise ConfigError(f"can record uint8 images of shape (height, width, 3); render() gave {frame!r:.80}")
        if self._is_gif:
            every = max(1, round(max(frame.shape[:2]) / GIF_SIDE))
            frame = frame[::every, ::every]
        else:
            height, width = frame.shape[:2]
            frame = frame[: height // 2 * 2, : width // 2 * 2]
        with contextlib.ExitStack() as stack:
            if self._is_empty and not self._is_gif:
                stack.enter_context(_starting_ffmpeg())
            try:
                self._writer.append_data(frame)
            except OSError as error:
                raise _unwritable(self.path, error) from error
        self._is_empty = False

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._writer.close()
            if self._is_gif and not self._is_empty:
                self.path.write_bytes(self._gif.getbuffer())
        except OSError as failure:
            if error is None:  # else it was told already
                raise _unwritable(self.path, failure) from failure
        if self._is_empty:
            self.path.unlink(missing_ok=True)


@contextlib.contextmanager
def _starting_ffmpeg() -> Iterator[None]:
    """Have imageio start a process that goes on after Ctrl-C, and not by Python code that runs in a fork of this one.

    imageio asks for such code, which puts ffmpeg into a process group of its own. Where gRPC has threads, a fork may
    end before it has become ffmpeg. A blocked signal is inherited without it.
    """
    if sys.platform == "win32":
        yield
        return
    variable = "IMAGEIO_FFMPEG_NO_PREVENT_SIGINT"
    before, blocked = os.environ.get(variable), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
