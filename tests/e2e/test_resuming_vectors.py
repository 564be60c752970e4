"""A vector environment outlives the process that opened it: another goes on by the tickets of its workers."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError, ResetNeeded

from environments import ACTION
from remote_gym import (
    ConfigError,
    OutOfSequence,
    RemoteEnvironmentError,
    RemoteVectorEnv,
    SessionLost,
    SessionTicket,
)
from remote_gym.testing import LoopbackServer
from waiting import wait_until

COUNT, WORKERS = 4, 2
FIRST, SECOND = [0, 1], [2, 3]  # environments of each worker

# Opens environments, steps them, hands the tickets out, and is killed while one worker steps, or all do.
TRAINER = """
import pickle, sys
import numpy as np
from remote_gym import RemoteVectorEnv
port, paths, connection, arguments, stepping = eval(sys.argv[1])
environment = RemoteVectorEnv("localhost", port, arguments, paths, num_envs=4, workers=2, connection=connection)
environment.reset(seed=1)
environment.step(np.array([{step}] * 4))
print(pickle.dumps(environment.tickets).hex(), flush=True)
environment.send(np.array([{step}] * (len(stepping) - 1) + [{slow}]), stepping)
environment.recv(len(stepping))
""".format(step=ACTION["step"], slow=ACTION["slow"])

Tickets = tuple[SessionTicket, ...]


def acting(count: int = COUNT, **actions: str) -> Any:
    """Steps, but for some environments, as ``at_3="raise"``."""
    found = np.full(count, ACTION["step"])
    for name, action in actions.items():
        found[int(name.removeprefix("at_"))] = ACTION[action]
    return found


def make(server: LoopbackServer, **arguments: Any) -> RemoteVectorEnv:
    return server.vector_environment(COUNT, **{"workers": WORKERS, **arguments})


def resume(server: LoopbackServer, tickets: Tickets, **arguments: Any) -> RemoteVectorEnv:
    return make(server, resume=pickle.loads(pickle.dumps(tickets)), **arguments)


def counts(observations: Any) -> list[int]:
    found: list[int] = observations["count"].tolist()
    return found


@pytest.fixture
def killed(process_server: LoopbackServer, tmp_path: Path) -> Iterator[Any]:
    """Runs a trainer until the last of some environments steps, and kills it; gives its tickets and the log."""

    def run(stepping: list[int]) -> tuple[Tickets, Path]:
        log = tmp_path / "log"
        paths = tuple(map(str, process_server.client_credentials_paths))
        connection = process_server.client_arguments["connection"]
        arguments = {"entrypoint_kwargs": {"log": str(log)}}
        argument = repr((process_server.server.port, paths, connection, arguments, stepping))
        process = subprocess.Popen([sys.executable, "-c", TRAINER, argument], stdout=subprocess.PIPE, text=True)
        with process:
            try:
                tickets = pickle.loads(bytes.fromhex(process.stdout.readline()))
                wait_until(lambda: len(steps(log)) == COUNT + len(stepping))
            finally:
                process.kill()
        return tickets, log

    return run


def steps(log: Path) -> list[str]:
    return [line for line in log.read_text().splitlines() if line.startswith("step")]


def test_a_trainer_killed_in_a_step_of_all_is_resumed_and_told_what_each_worker_returned(killed, process_server):
    tickets, log = killed([*FIRST, *SECOND])
    environment = resume(process_server, tickets)
    assert [each.executed for each in environment.resumed] == [1, 1]
    for each in environment.resumed:
        observations, rewards, terminations, truncations, _ = each.returned
        assert counts(observations) == [2, 2]
        assert (rewards.tolist(), terminations.any(), truncations.any()) == ([1.0, 1.0], False, False)
    assert counts(environment.step(acting())[0]) == [3, 3, 3, 3]
    assert len(steps(log)) == 3 * COUNT


def test_a_trainer_killed_while_one_worker_stepped_is_told_which_and_lets_the_other_follow(killed, process_server):
    tickets, log = killed(FIRST)
    environment = resume(process_server, tickets)
    assert [each.executed for each in environment.resumed] == [1, 0]
    assert [counts(each.returned[0]) for each in environment.resumed] == [[2, 2], [1, 1]]
    environment.send(acting(2), SECOND)
    observations, *_, infos = environment.recv()
    assert (counts(observations), infos["env_id"].tolist()) == ([2, 2], SECOND)
    assert counts(environment.step(acting())[0]) == [3, 3, 3, 3]
    assert len(steps(log)) == 3 * COUNT


def test_another_client_goes_on_where_the_first_one_stands_and_cuts_it_off(process_server):
    environment = make(process_server)
    asked = environment.reset(seed=1)
    other = resume(process_server, environment.tickets)
    assert [each.executed for each in other.resumed] == [0, 0]
    for rows, each in zip((FIRST, SECOND), other.resumed, strict=True):
        for name in ("count", "position"):
            np.testing.assert_array_equal(each.returned[0][name], asked[0][name][rows])
        np.testing.assert_array_equal(each.returned[1]["pid"], asked[1]["pid"][rows])
    assert counts(other.step(acting())[0]) == [1, 1, 1, 1]
    with pytest.raises(OutOfSequence, match="taken it over"):
        environment.step(acting())
    environment.close()  # which is not its to end any more
    assert counts(other.step(acting())[0]) == [2, 2, 2, 2]
    assert process_server.server.session_count == WORKERS


def test_what_a_worker_raised_is_told_and_a_reset_of_it_goes_on(process_server):
    environment = make(process_server)
    environment.reset()
    with pytest.raises(RemoteEnvironmentError):
        environment.step(acting(at_3="raise"))
    other = resume(process_server, environment.detach())
    with pytest.raises(ClosedEnvironmentError):
        environment.step(acting())
    assert isinstance(other.resumed[1].returned, RemoteEnvironmentError)
    with pytest.raises(ResetNeeded, match="environments 2 to 3"):
        other.step(acting())
    assert counts(other.reset(options={"reset_mask": np.array([False, False, True, True])})[0]) == [1, 1, 0, 0]
    assert counts(other.step(acting())[0]) == [2, 2, 1, 1]


def test_after_a_call_they_step_on_though_nobody_knows_what_they_observed(process_server):
    environment = make(process_server)
    environment.reset()
    environment.step(acting())
    environment.call("difficulty")
    other = resume(process_server, environment.tickets)
    assert [each.returned for each in other.resumed] == [None, None]
    with pytest.raises(ResetNeeded):  # the observations of the others cannot be returned
        other.reset(options={"reset_mask": np.array([True, False, False, False])})
    assert counts(other.step(acting())[0]) == [2, 2, 2, 2]


def test_workers_that_were_asked_nothing_yet_are_resumed_as_new(process_server):
    other = resume(process_server, make(process_server).tickets)
    assert [(each.executed, each.returned) for each in other.resumed] == [(0, None)] * WORKERS
    with pytest.raises(ResetNeeded):
        other.step(acting())
    other.reset()
    assert counts(other.step(acting())[0]) == [1, 1, 1, 1]


def test_where_one_worker_is_gone_it_is_named_and_the_others_can_still_be_resumed(process_server):
    environment = make(process_server)
    environment.reset()
    tickets = environment.tickets
    with pytest.raises(SessionLost):
        environment.step(acting(at_2="exit"))
    with pytest.raises(ResetNeeded, match="environments 2 to 3"):
        _ = environment.tickets
    with pytest.raises(SessionLost, match="environments 2 to 3") as caught:
        resume(process_server, tickets)
    assert caught.value.environments == (2, 3)
    left = process_server.vector_environment(2, resume=tickets[:1])
    assert left.resumed[0].executed == 1
    assert counts(left.step(acting(2))[0]) == [2, 2]


def test_tickets_that_do_not_fit_are_refused_and_nothing_is_resumed(process_server):
    environment = make(process_server)
    environment.reset()
    tickets = environment.tickets
    single = process_server.environment()
    for wrong, message in (
        (tickets[0], "is a SessionTicket"),
        ((), "holds nothing"),
        (("secret", *tickets[1:]), "holds str, SessionTicket"),
        (tickets[:1], "1 tickets for 2 workers"),
        ((tickets[0], tickets[0]), "a ticket twice"),
        ((tickets[0], single.ticket), r"environments 2 to 3: .* a single environment"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            make(process_server, resume=wrong)
        assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="worker with 2 environments"):
        process_server.vector_environment(8, resume=tickets)
    with pytest.raises(ConfigError, match="render_mode is 'rgb_array'"):
        make(process_server, resume=tickets, render_mode="rgb_array")
    other = resume(process_server, tickets)
    assert counts(other.step(acting())[0]) == [1, 1, 1, 1]


@pytest.mark.skipif(not hasattr(gym.vector, "AutoresetMode"), reason="Gymnasium has had autoreset modes since 1.1")
def test_what_cannot_be_used_together_or_so_is_refused_and_left_to_be_resumed(process_server):
    environment = make(process_server, autoreset_mode="SameStep")
    environment.reset()
    tickets = environment.tickets
    other = make(process_server, autoreset_mode="NextStep")
    other.reset()
    for wrong, arguments, message in (
        ((tickets[0], other.tickets[1]), {}, "another autoreset mode"),
        (tickets, {"autoreset_mode": "NextStep"}, "SAME_STEP, and NEXT_STEP was asked for"),
        (tickets, {"on_session_lost": "truncate"}, "on_session_lost is 'truncate'"),
    ):
        with pytest.raises(ConfigError, match=message):
            resume(process_server, wrong, **arguments)
    for each in (tickets, other.tickets):
        resumed = resume(process_server, each)
        assert counts(resumed.step(acting())[0]) == [1, 1, 1, 1]


def test_a_closed_one_has_no_tickets_and_a_copy_was_not_resumed(process_server):
    environment = make(process_server)
    environment.reset()
    other = resume(process_server, environment.tickets)
    assert pickle.loads(pickle.dumps(other)).resumed is None
    other.close()
    with pytest.raises(ClosedEnvironmentError):
        _ = other.tickets
