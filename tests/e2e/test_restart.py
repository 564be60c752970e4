"""A server that was killed comes back at the same address at once, and its clients go on with a reset."""

from __future__ import annotations

import sys

import pytest

from environments import ACTION
from processes import descendants, is_alive
from remote_gym import RemoteEnvironment, SessionLost
from served import served
from waiting import scaled, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_killed_server_comes_back_at_once_and_its_clients_go_on_with_a_reset(kind, tmp_path):
    url = "localhost" if kind == "tcp" else f"unix:{tmp_path / 'socket'}"
    arguments = ["--entrypoint", "environments.py", "--url", url]
    with served(*arguments, "--port", 0) as first:
        clients = [RemoteEnvironment(url, first.port, connection=connection) for connection in ("direct", "grpc")]
        for client in clients:
            client.reset()
            client.step(ACTION["step"])
        workers = descendants(first.process.pid)
        first.process.kill()
        with served(*arguments, "--port", first.port) as second:
            assert second.port == first.port
            for client in clients:
                with pytest.raises(SessionLost, match="may have restarted"):
                    client.step(ACTION["step"])
                client.reset()
                assert client.step(ACTION["step"])[0]["count"] == 1
                client.close()
        wait_until(lambda: not any(map(is_alive, workers)))


def test_a_server_comes_back_at_once_while_a_worker_of_the_old_one_hangs(tmp_path):
    """Whose direct connection still has the port."""
    arguments = ["--entrypoint", "environments.py"]
    with served(*arguments, "--port", 0) as first:
        client = RemoteEnvironment(
            "localhost", first.port, connection="direct", step_timeout=scaled(0.3), close_timeout=scaled(0.1)
        )
        client.reset()
        with pytest.raises(TimeoutError):
            client.step(ACTION["hang"])
        first.process.kill()
        with served(*arguments, "--port", first.port) as second:
            another = RemoteEnvironment("localhost", second.port, connection="direct")
            another.reset()
            another.close()
            with pytest.raises(SessionLost, match="may have restarted"):
                client.reset()  # which first waits for the answer that is overdue
            client.reset()
            client.close()
