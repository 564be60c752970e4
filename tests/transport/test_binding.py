"""What a server cannot listen on it names with the system's own reason, and with a mend that is one there."""

from __future__ import annotations

import socket

import pytest

from remote_gym import create_remote_environment_server
from remote_gym.errors import ConfigError
from remote_gym.transport.binding import address_in_use, claim_path


def test_a_unix_socket_that_cannot_be_made_is_told_with_the_systems_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="Not a directory; choose another path") as caught:
        create_remote_environment_server(
            {"entrypoint_kwargs": {"id": "CartPole-v1"}}, f"unix:{tmp_path}/file/s", check=False
        )
    assert "port" not in str(caught.value)


def test_a_path_that_is_too_long_for_a_socket_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"path too long"):
        claim_path(str(tmp_path / ("x" * 120)))


def test_no_port_is_advised_for_a_path():
    assert "port" not in address_in_use("unix:s")
    assert "port 0" in address_in_use("localhost:1")


def test_a_path_that_was_claimed_is_free(tmp_path):
    path = tmp_path / "s"
    for _ in range(2):
        claim_path(str(path))
        assert not path.exists()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    claim_path(str(path))
    assert not path.exists()
