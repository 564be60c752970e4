"""A window that shows frames, by pygame, as Gymnasium's own environments do."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from remote_gym.errors import ConfigError


class Window:
    """Shows one frame after another. It opens with the first.

    Attributes:
        fps: Frames a second to show at most; None for no such bound.

    Raises:
        ConfigError: If pygame is not installed, or the machine has no screen.
    """

    def __init__(self) -> None:
        try:
            import pygame
        except ImportError as error:
            raise ConfigError(
                "render_mode='human' needs pygame: pip install 'remote-gym[human]'", field="render_mode"
            ) from error
        was_there = pygame.display.get_init()
        try:
            pygame.display.init()
            # Without a screen SDL may settle for a driver that shows nothing, and say nothing.
            driver = pygame.display.get_driver()
            if driver in ("dummy", "offscreen") and driver not in os.environ.get("SDL_VIDEODRIVER", ""):
                if not was_there:  # else it is another's, such as a local environment's
                    pygame.display.quit()
                raise pygame.error(f"SDL found only its {driver!r} driver")
        except pygame.error as error:
            raise ConfigError(
                f"render_mode='human' needs a screen, and this machine has none ({error}); use render_mode="
                "'rgb_array', or set SDL_VIDEODRIVER=dummy to show nothing",
                field="render_mode",
            ) from error
        self.fps: float | None = None
        self._pygame: Any = pygame
        self._screen: Any = None
        self._clock: Any = None

    def show(self, frame: Any) -> None:
        """Show a frame.

        Args:
            frame: uint8 of shape (height, width, 3). The window follows its size.
        """
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] not in (3, 4):
            raise ConfigError(
                f"render_mode='human' shows images of shape (height, width, 3); render() gave {frame!r:.80}",
                field="render_mode",
            )
        pygame = self._pygame
        size = (frame.shape[1], frame.shape[0])
        if self._screen is None or self._screen.get_size() != size:
            pygame.display.init()
            self._screen = pygame.display.set_mode(size)
            pygame.display.set_caption("remote_gym")
            self._clock = pygame.time.Clock()
        pygame.surfarray.blit_array(self._screen, frame[:, :, :3].swapaxes(0, 1))
        pygame.event.pump()
        pygame.display.flip()
        if self.fps:
            self._clock.tick(self.fps)

    def close(self) -> None:
        """Close the window; a later `show` opens it again."""
        if self._screen is not None:
            self._screen = None
            self._pygame.display.quit()
