"""The end of a worker is noticed by its client although others hold what the worker held."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from dying_environment import DEATHS, HOLDERS
from remote_gym import RemoteEnvironment, SessionLost
from remote_gym.testing import LoopbackServer, loopback_server

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# A client that is not told waits for its step_timeout, and raises something else.
PATIENCE = 30.0


@pytest.fixture(scope="module", params=["direct", "grpc"])
def server(request: pytest.FixtureRequest) -> Iterator[LoopbackServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120
        with loopback_server({"entrypoint": "dying_environment.py"}, step_timeout=1.0, close_timeout=1.0) as running:
            running.client_arguments["connection"] = request.param
            yield running


@contextlib.contextmanager
def held(environment: RemoteEnvironment, holder: str) -> Iterator[None]:
    """Reset, which starts what lives on until the block ends."""
    _, info = environment.reset(options={"holder": holder})
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # the server may have ended it
            os.kill(info["holder"], signal.SIGKILL)


@pytest.mark.parametrize("death", DEATHS)
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_client_is_told_of_its_workers_end(server, holder, death):
    with server.environment(step_timeout=PATIENCE) as environment, held(environment, holder):
        with pytest.raises(SessionLost) as caught:
            environment.step(DEATHS.index(death))
        expected = {"segfault": "SIGSEGV", "kill": "SIGKILL", "hang": "step_timeout"}
        assert expected[death] in str(caught.value)


@pytest.mark.parametrize("holder", HOLDERS)
def test_an_episode_is_truncated_by_its_workers_end(server, holder):
    with (
        server.environment(step_timeout=PATIENCE, on_session_lost="truncate") as environment,
        held(environment, holder),
    ):
        *_, truncated, info = environment.step(DEATHS.index("segfault"))
        assert truncated
        assert "SIGSEGV" in info["remote_gym"]["session_lost"]


def test_what_an_environment_starts_inherits_nothing_of_its_workers(server):
    with server.environment() as environment:
        _, info = environment.reset()
        assert info["inheritable"] == []
