"""render_mode="human": a window that shows each frame, and a clear word where there is no screen."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from environments import ACTION
from remote_gym import ConfigError
from waiting import scaled

pygame = pytest.importorskip("pygame")


@pytest.fixture
def _no_screen_needed(monkeypatch):
    # Environments of other tests in this process may have begun it, by what they found.
    pygame.display.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    yield
    pygame.display.quit()


def shown() -> np.ndarray:
    """What the window shows, of shape (height, width, 3)."""
    return pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)


@pytest.mark.usefixtures("_no_screen_needed")
@pytest.mark.parametrize("frames", ["step", "on_demand"])
def test_the_window_shows_the_frame_of_each_reset_and_step_and_follows_its_shape(server, frames):
    environment = server.environment(render_mode="human", frames=frames)
    assert pygame.display.get_surface() is None
    environment.reset()
    assert shown().shape == (4, 6, 3)
    assert (shown() == 0).all()
    for count in (1, 2):
        environment.step(ACTION["step"])
        assert shown().shape == (4 + count, 6, 3)
        assert (shown() == count).all()
    assert environment.render() is None
    environment.reset()
    assert shown().shape == (4, 6, 3)
    environment.close()
    assert pygame.display.get_surface() is None


@pytest.mark.usefixtures("_no_screen_needed")
def test_a_window_shows_frames_as_fast_as_the_environment_says(server):
    environment = server.environment(render_mode="human")
    assert environment._rendering.window.fps == environment.metadata["render_fps"] == 12


@pytest.mark.usefixtures("_no_screen_needed")
def test_a_display_that_others_have_begun_is_left_to_them(server, monkeypatch):
    pygame.display.init()
    monkeypatch.delenv("SDL_VIDEODRIVER")
    with pytest.raises(ConfigError, match="needs a screen"):
        server.environment(render_mode="human")
    assert pygame.display.get_init()


HEADLESS = """
import os, sys
from remote_gym import ConfigError, RemoteEnvironment
try:
    RemoteEnvironment("localhost", int(sys.argv[1]), render_mode="human")
except ConfigError as error:
    print(error)
"""


def test_a_machine_without_a_screen_is_told_at_construction(server):
    bare = {name: value for name, value in os.environ.items() if name not in ("SDL_VIDEODRIVER", "DISPLAY")}
    bare.pop("WAYLAND_DISPLAY", None)
    # Its own port does not matter: it is told before anything is connected.
    found = subprocess.run(
        [sys.executable, "-c", HEADLESS, str(server.server.port)],
        env=bare,
        stdout=subprocess.PIPE,
        text=True,
        timeout=scaled(60),
    )
    assert "needs a screen, and this machine has none" in found.stdout
    assert "SDL_VIDEODRIVER=dummy" in found.stdout
    assert server.server.session_count == 0
