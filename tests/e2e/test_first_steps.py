"""What somebody new does first: modes that there are not, calls in the wrong order, and a look at what one has."""

from __future__ import annotations

import pytest

from remote_gym import ConfigError, RemoteEnvironment, RemoteVectorEnv, create_remote_environment_server


@pytest.fixture(scope="module")
def server():
    with create_remote_environment_server("CartPole-v1", port=0, check=False) as server:
        yield server


@pytest.mark.parametrize("cls", [RemoteEnvironment, RemoteVectorEnv])
@pytest.mark.parametrize("mode", ["rgb", "ansi"])
def test_a_render_mode_that_the_environment_does_not_know_is_refused_at_once(server, cls, mode):
    with pytest.raises(ConfigError, match=f"^render_mode is '{mode}', .*; use human or rgb_array$") as caught:
        cls(port=server.port, render_mode=mode)
    assert caught.value.field == "render_mode"
    assert server.session_count == 0


@pytest.mark.parametrize("mode", ["rgb_array", "rgb_array_list"])
def test_a_render_mode_that_gymnasium_makes_of_another_is_known(server, mode):
    RemoteEnvironment(port=server.port, render_mode=mode).close()
