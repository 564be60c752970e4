"""An environment outlives the process that opened it: another goes on by its ticket, and no step is lost or doubled."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gymnasium.error import ResetNeeded

from environments import ACTION
from remote_gym import (
    ConfigError,
    NotPermitted,
    OutOfSequence,
    RemoteEnvironment,
    RemoteEnvironmentError,
    SessionLost,
    SessionTicket,
)
from remote_gym.testing import LoopbackServer, find_difference
from waiting import scaled, wait_until

# Opens an environment, steps it twice, hands its ticket out, and then does what it is told.
CLIENT = """
import pickle, sys
from remote_gym import RemoteEnvironment
port, paths, connection, arguments, then = eval(sys.argv[1])
environment = RemoteEnvironment("localhost", port, arguments, paths, connection=connection)
environment.reset(seed=1)
environment.step({step})
environment.step({step})
print(pickle.dumps(environment.detach() if then == "detach" else environment.ticket).hex(), flush=True)
if then == "die in a step":
    environment.step({slow})
""".format(step=ACTION["step"], slow=ACTION["slow"])


@pytest.fixture
def environment(process_server: LoopbackServer) -> RemoteEnvironment:
    return process_server.environment()


def resume(server: LoopbackServer, ticket: SessionTicket, **arguments: Any) -> RemoteEnvironment:
    return server.environment(resume=pickle.loads(pickle.dumps(ticket)), **arguments)


def test_another_client_goes_on_where_the_first_one_stands_and_cuts_it_off(process_server, environment):
    environment.reset(seed=1)
    last = environment.step(ACTION["step"])
    other = resume(process_server, environment.ticket)
    assert other.resumed.executed == 0
    assert find_difference(last, other.resumed.returned) is None
    assert other.step(ACTION["step"])[0]["count"] == 2
    with pytest.raises(OutOfSequence, match="taken it over"):
        environment.step(ACTION["step"])
    environment.close()  # which is not its to end any more
    assert other.step(ACTION["step"])[0]["count"] == 3
    assert process_server.server.session_count == 1


def test_requests_since_the_ticket_are_counted_and_the_last_of_them_answered_again(process_server, environment):
    environment.reset()
    ticket = environment.ticket
    for _ in range(3):
        last = environment.step(ACTION["step"])
    other = resume(process_server, ticket)
    assert other.resumed.executed == 3
    assert find_difference(last, other.resumed.returned) is None


def test_whatever_was_asked_last_is_told(process_server, environment):
    asked = environment.reset(seed=3)
    other = resume(process_server, environment.ticket)
    assert find_difference(asked, other.resumed.returned) is None
    chunk = other.step_many([ACTION["step"], ACTION["truncate"]])
    environment = resume(process_server, other.ticket)
    assert find_difference(chunk, environment.resumed.returned) is None
    with pytest.raises(RemoteEnvironmentError):
        environment.step(ACTION["raise"])
    other = resume(process_server, environment.ticket)
    assert isinstance(other.resumed.returned, RemoteEnvironmentError)
    with pytest.raises(RemoteEnvironmentError):
        other.step_many([ACTION["step"], ACTION["raise"]])
    environment = resume(process_server, other.ticket)
    assert len(environment.resumed.returned.transitions) == 1
    environment.call("add", 1)
    other = resume(process_server, environment.ticket)
    assert other.resumed.returned is None
    assert other.step(ACTION["step"])[0]["count"] == 6


def test_an_environment_that_was_asked_nothing_yet_is_resumed_as_new(process_server, environment):
    other = resume(process_server, environment.ticket)
    assert (other.resumed.executed, other.resumed.returned) == (0, None)
    with pytest.raises(ResetNeeded):
        other.step(ACTION["step"])
    other.reset()
    assert process_server.server.session_count == 1


@pytest.mark.parametrize("frames", ["auto", "step"])
def test_frames_go_on_too_and_a_lost_one_ends_by_what_was_observed_before(frames, process_server):
    arguments = {"render_mode": "rgb_array", "on_session_lost": "truncate", "frames": frames}
    environment = process_server.environment(**arguments)
    environment.reset()
    environment.render()
    last = environment.step(ACTION["step"])
    frame = environment.render()
    with pytest.raises(ConfigError, match=r"render_mode is None.*'rgb_array'"):
        resume(process_server, environment.ticket)
    other = resume(process_server, environment.ticket, **arguments)
    assert find_difference(frame, other.render()) is None
    found = other.step(ACTION["exit"])
    assert find_difference(last[0], found[0]) is None
    assert found[3]


@pytest.fixture
def client(process_server: LoopbackServer, tmp_path: Path) -> Iterator[Any]:
    """Starts a client as a process; gives it, its ticket and the log of its environment."""
    started: list[subprocess.Popen[str]] = []

    def start(then: str) -> tuple[subprocess.Popen[str], SessionTicket, Path]:
        log = tmp_path / "log"
        paths = tuple(map(str, process_server.client_credentials_paths))
        connection = process_server.client_arguments["connection"]
        arguments = {"entrypoint_kwargs": {"log": str(log)}}
        argument = repr((process_server.server.port, paths, connection, arguments, then))
        process = subprocess.Popen([sys.executable, "-c", CLIENT, argument], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, pickle.loads(bytes.fromhex(process.stdout.readline())), log

    yield start
    for process in started:
        process.kill()
        with process:
            process.wait(scaled(10.0))


def steps(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("step")]


def test_a_client_killed_in_a_step_is_resumed_and_told_that_the_step_was_taken(client, process_server):
    process, ticket, log = client("die in a step")
    wait_until(lambda: len(steps(log)) == 3)
    process.kill()
    other = resume(process_server, ticket)
    assert other.resumed.executed == 1
    assert other.resumed.returned[0]["count"] == 3
    assert other.step(ACTION["step"])[0]["count"] == 4
    assert steps(log) == [f"step {ACTION[name]}" for name in ("step", "step", "slow", "step")]


@pytest.mark.parametrize("then", ["detach", "end"])
def test_a_client_that_ends_leaves_its_environment_only_if_it_has_detached(then, client, process_server):
    process, ticket, log = client(then)
    assert process.wait(scaled(30.0)) == 0
    if then == "end":
        with pytest.raises(SessionLost, match="closed it"):
            resume(process_server, ticket)
        return
    other = resume(process_server, ticket)
    assert other.resumed.executed == 0
    assert other.step(ACTION["step"])[0]["count"] == 3
    assert len(steps(log)) == 3


def test_detaching_closes_the_connection_and_the_next_reset_opens_another_environment(process_server, environment):
    environment.reset()
    ticket = environment.detach()
    for ask in (lambda: environment.step(ACTION["step"]), environment.detach, lambda: environment.ticket):
        with pytest.raises(ResetNeeded):
            ask()
    environment.reset()
    assert process_server.server.session_count == 2
    assert resume(process_server, ticket).resumed.executed == 0


def test_a_ticket_is_a_secret_that_is_not_shown_and_no_use_without_it(process_server, environment):
    environment.reset()
    ticket = environment.ticket
    assert ticket.token not in repr(ticket)
    with pytest.raises(NotPermitted, match="token"):
        resume(process_server, dataclasses.replace(ticket, token=ticket.token.swapcase()))
    environment.step(ACTION["step"])  # which was not disturbed


def test_a_ticket_of_a_vector_environment_is_refused(process_server):
    environments = process_server.vector_environment(2)
    with pytest.raises(ConfigError, match="worker with 2 environments"):
        resume(process_server, environments._shards[0].session.ticket)
    environments.reset()
