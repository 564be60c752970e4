"""The end of a worker is noticed by its client although others hold what the worker held."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from dying_environment import DEATHS, HOLDERS
from environments import ACTION
from remote_gym import LossReason, RemoteEnvironment, RemoteEnvironmentError, SessionLost
from remote_gym.testing import LoopbackServer, loopback_server
from waiting import scaled

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# A client that is not told waits for its step_timeout, and raises something else.
PATIENCE = 30.0


@pytest.fixture(scope="module", params=["direct", "grpc"])
def server(request: pytest.FixtureRequest) -> Iterator[LoopbackServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120
        with loopback_server(
            {"entrypoint": "dying_environment.py"}, step_timeout=scaled(0.5), close_timeout=scaled(0.5)
        ) as running:
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
    with server.environment(step_timeout=scaled(PATIENCE)) as environment, held(environment, holder):
        with pytest.raises(SessionLost) as caught:
            environment.step(DEATHS.index(death))
        text, reason = {
            "segfault": ("SIGSEGV", LossReason.CRASHED),
            "kill": ("SIGKILL", LossReason.KILLED),
            "hang": ("step_timeout", LossReason.HUNG),
        }[death]
        assert text in str(caught.value)
        assert caught.value.reason is reason
        assert caught.value.output.startswith("last words")
        if death == "segfault":
            assert "Fatal Python error: Segmentation fault" in caught.value.output
            assert "in _die" in caught.value.output


@pytest.mark.parametrize("holder", HOLDERS)
def test_an_episode_is_truncated_by_its_workers_end(server, holder):
    with (
        server.environment(step_timeout=scaled(PATIENCE), on_session_lost="truncate") as environment,
        held(environment, holder),
    ):
        *_, truncated, info = environment.step(DEATHS.index("segfault"))
        assert truncated
        assert "SIGSEGV" in info["remote_gym"]["session_lost"]


def test_what_an_environment_starts_inherits_nothing_of_its_workers(server):
    with server.environment() as environment:
        _, info = environment.reset()
        assert info["inheritable"] == []


def test_the_log_has_what_a_worker_that_crashed_printed_last(server, caplog):
    with server.environment(step_timeout=scaled(PATIENCE)) as environment:
        environment.reset()
        with pytest.raises(SessionLost):
            environment.step(DEATHS.index("segfault"))
    (record,) = [record for record in caplog.records if "was ended by SIGSEGV" in record.getMessage()]
    assert record.levelno == logging.WARNING
    first, *lines = record.getMessage().split("\n")
    assert "last words" not in first
    assert "  | last words" in lines
    assert any(line.startswith("  | Fatal Python error") for line in lines)


def test_a_worker_that_ends_as_it_creates_its_environment_is_reported_with_its_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "import os\nprint('\\x1b[31mno licence', flush=True)\nos._exit(3)"
    (tmp_path / "entrypoint.py").write_text(text)
    with loopback_server({"entrypoint": "entrypoint.py"}) as running, pytest.raises(SessionLost) as caught:
        running.environment()
    assert "ended with status 3, amid creating the environment" in str(caught.value)
    assert caught.value.output == r"\x1b[31mno licence"
    assert caught.value.reason is LossReason.CRASHED


def test_the_log_has_what_environments_raise_with_tracebacks_and_counts_what_repeats(process_server, caplog):
    caplog.set_level(logging.INFO)
    with process_server.environment() as environment:
        environment.reset()
        for _ in range(20):
            with pytest.raises(RemoteEnvironmentError):
                environment.step(ACTION["raise_local"])
    log = "\n".join(record.getMessage() for record in caplog.records)
    assert 1 <= log.count("the environment's step raised environments.Obedient._raise_local.<locals>.LocalError") < 20
    assert "in _raise_local" in log


def test_the_log_has_what_is_raised_where_an_environment_is_created(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "entrypoint.py").write_text("def create_environment():\n    return {}['here']\n")
    arguments = {"entrypoint": "entrypoint.py"}
    with loopback_server(arguments, use_thread=True) as running, pytest.raises(RemoteEnvironmentError):
        running.environment()
    (message,) = [text for text in caplog.messages if "could not be created" in text]
    assert "return {}['here']" in message
