"""When a client's frames travel, and the newest of them."""

from __future__ import annotations

from typing import Any, Literal

from remote_gym.client.recovery import LOSSES
from remote_gym.client.rules.operations import Operations
from remote_gym.client.rules.session import OpenSession
from remote_gym.client.viewer import Window
from remote_gym.config import ClientOptions
from remote_gym.errors import ConfigError
from remote_gym.protocol.open_request import mode_to_open
from remote_gym.protocol.responses import Reader
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.frame_parts import FrameJoiner

FrameTiming = Literal["auto", "step", "on_demand"]

PATIENCE = 8
"""Frames that may come along with observations without anybody looking at one, until no more are asked for."""


class Rendering:
    """Decides whether frames come with observations or are fetched, and shows them in a window.

    With ``"auto"`` an episode begins without frames. The first that is asked for is fetched, and from then on they come
    along, so that rendering each step costs one round trip a step and not two.

    Args:
        render_mode: The client's.
        when: The argument ``frames`` of `RemoteEnvironment`.
        options: The client's.

    Attributes:
        streams: Whether the session is opened so that each observation brings its frame.
        wanted: Whether the next request is to ask for one.
        window: What shows frames in the mode ``"human"``; else None.

    Raises:
        ConfigError: If a window is needed and there can be none.
    """

    def __init__(self, render_mode: str | None, when: FrameTiming, options: ClientOptions) -> None:
        self._mode = mode_to_open(render_mode)
        self._options = options
        is_human, is_image = render_mode == "human", self._mode == "rgb_array"
        # In a window every frame is looked at.
        self.streams = is_image and (when == "step" or (when == "auto" and is_human))
        self._is_auto = is_image and when == "auto" and not is_human
        self.wanted = False
        self._unasked = 0
        self.window = Window() if is_human else None

    def check(self, description: pb.Description) -> None:
        """Refuse an environment that was to render and does not.

        Raises:
            ConfigError: With what would be right.
        """
        if self._is_auto and not description.render_mode:
            raise ConfigError(
                f"{self._mode!r} was asked for, but the environment was created with render_mode=None; let "
                "create_environment take `render_mode` (or `enable_rendering`) and pass it on, or connect with "
                "render_mode=None",
                field="render_mode",
                where="render_mode",
            )

    def begin_episode(self, reader: Reader | None) -> None:
        """Stop asking for frames until somebody looks at one."""
        self.wanted = False
        self.outdate(reader)

    def ask(self, request: pb.Request, reader: Reader, steps: int = 1) -> None:
        """Have a request bring a frame along, unless too many came in vain. Needed only where one is `wanted`."""
        reader.frame = None  # where the request fails, the environment may look otherwise even so
        if self._unasked >= PATIENCE:
            self.wanted = False
        else:
            request.frame = True
            self._unasked += steps

    def rendering(self, session: OpenSession | None, reader: Reader | None) -> Operations[Any]:
        """The frame of the newest observation; None for the mode ``"human"``, whose window shows it."""
        if self._mode is None or self.window is not None or reader is None:
            return None
        if self.streams:
            return reader.frame
        return (yield from (self._newest(session, reader) if self._is_auto else self._fetching(session, reader)))

    def latest(self, session: OpenSession | None, reader: Reader | None) -> Operations[Any]:
        """The newest frame that came with an observation; with ``"auto"`` that of the newest observation."""
        if reader is None:
            return None
        return (yield from self._newest(session, reader)) if self._is_auto else reader.frame

    def outdate(self, reader: Reader | None) -> None:
        """Have the frame fetched where `render` is called next: the environment may soon look otherwise."""
        if self._is_auto and reader is not None:
            reader.frame = None

    def showing(self, session: OpenSession | None, reader: Reader) -> Operations[None]:
        """Show the newest observation in the window."""
        assert self.window is not None
        self.window.show(reader.frame if self.streams else (yield from self._fetching(session, reader)))

    def close(self) -> None:
        """Close the window, if there is one; a later `show` opens it again."""
        if self.window is not None:
            self.window.close()

    def _newest(self, session: OpenSession | None, reader: Reader) -> Operations[Any]:
        self.wanted, self._unasked = True, 0
        if reader.frame is None:
            reader.frame = yield from self._fetching(session, reader)
        reader.rendered = reader.frame
        return reader.frame

    def _fetching(self, session: OpenSession | None, reader: Reader) -> Operations[Any]:
        assert session is not None
        joiner = FrameJoiner(self._options.message_limits)
        timeout = self._options.step_timeout

        def ask() -> Any:
            return session.ask(joiner.request(), timeout)

        try:
            while joiner.add((yield ask)[0].render):
                pass
        except LOSSES as error:
            return reader.frame_again(error)
        reader.rendered = joiner.rendered
        return joiner.rendered

    def __getstate__(self) -> dict[str, Any]:
        # A window belongs to a process; whether there is one is kept.
        return {**self.__dict__, "window": self.window is not None, "wanted": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.window = Window() if state["window"] else None
