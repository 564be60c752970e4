"""Messages over one end's limits are refused, and cost no more than themselves."""

from __future__ import annotations

import time

import pytest

from environments import ACTION
from remote_gym import ConfigError, EncodingError, RemoteEnvironmentError
from remote_gym.config import Limits
from remote_gym.testing import loopback_server
from waiting import scaled, wait_until

SMALL = Limits(message_bytes=100_000)


def test_an_answer_over_the_clients_limit_is_told_once_and_reset_opens_a_new_session(server):
    environment = server.environment(message_limits=SMALL)
    environment.reset()
    with pytest.raises(EncodingError, match=r"(?i)limit.*100,?000|100,?000.*limit"):
        environment.step(ACTION["large_info"])
    assert environment.reset()[0]["count"] == 0
    assert environment.step(ACTION["step"])[0]["count"] == 1
    wait_until(lambda: server.server.session_count == 1)


def test_closing_after_an_answer_over_the_limit_is_quick_and_frees_the_place(server):
    environment = server.environment(message_limits=SMALL, close_timeout=scaled(60.0))
    environment.reset()
    with pytest.raises(EncodingError, match=r"(?i)limit.*100,?000|100,?000.*limit"):
        environment.step(ACTION["large_info"])
    before = time.monotonic()
    environment.close()
    assert time.monotonic() - before < scaled(20.0)
    assert server.server.session_count == 0


def test_a_request_over_the_clients_limit_is_refused_before_it_is_sent(server):
    environment = server.environment(message_limits=SMALL)
    environment.reset()
    with pytest.raises(EncodingError, match=r"100,000"):
        environment.reset(options={"large": bytes(200_000)})
    assert environment.step(ACTION["step"])[0]["count"] == 1


@pytest.mark.parametrize("use_thread", [False, True])
@pytest.mark.parametrize("connection", ["direct", "grpc"])
def test_what_is_over_the_servers_limit_is_shortened_or_refused_and_the_session_lives_on(
    obedient, use_thread, connection
):
    with loopback_server(obedient, use_thread=use_thread, message_limits=SMALL) as server:
        environment = server.environment(connection=connection)
        environment.reset()
        with pytest.raises(RemoteEnvironmentError) as caught:
            environment.step(ACTION["long_message"])
        assert 1_000 < len(caught.value.remote_message) < SMALL.message_bytes
        assert caught.value.remote_message.endswith(f"... ({2**20} characters)")
        with pytest.raises(EncodingError, match="100,000"):
            environment.step(ACTION["large_info"])
        assert environment.step(ACTION["step"])[0]["count"] == 3


def test_an_environment_whose_description_is_over_the_limit_cannot_be_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large.py").write_text(
        "import gymnasium, numpy\n"
        "def create_environment():\n"
        "    environment = gymnasium.make('CartPole-v1')\n"
        "    low = numpy.arange(100_000, dtype=numpy.float32)\n"
        "    environment.unwrapped.observation_space = gymnasium.spaces.Box(low, low + 1)\n"
        "    return environment\n"
    )
    with loopback_server({"entrypoint": "large.py"}, message_limits=SMALL) as server:
        with pytest.raises(ConfigError, match=r"description has [\d,]+ bytes; Limits.message_bytes allows 100,000"):
            server.environment()
        assert server.server.session_count == 0
