"""What goes wrong in an environment reaches its client, and no further."""

from __future__ import annotations

import os
import signal
import time

import pytest
from gymnasium.error import ResetNeeded

from environments import ACTION
from raw_client import RawSession, channel_to, method
from remote_gym import (
    EncodingError,
    InvalidAction,
    InvalidObservation,
    RemoteEnvironmentError,
    SessionLost,
    Unencodable,
)
from remote_gym.testing import loopback_server
from remote_gym.v1 import remote_gym_pb2 as pb
from waiting import scaled, wait_until

RAISING = {
    "raise": ("builtins.KeyError", "'a key'"),
    "raise_local": ("environments.Obedient._raise_local.<locals>.LocalError", "lock"),
    "raise_unprintable": ("environments.UnprintableError", "<RuntimeError in str() of the exception>"),
    "system_exit": ("builtins.SystemExit", "3"),
    "keyboard_interrupt": ("builtins.KeyboardInterrupt", "enough of it"),
    "long_message": ("builtins.ValueError", "x" * 2**20),
    "raise_ours": ("remote_gym.errors.SessionLost", "another environment"),
    "surrogates": ("builtins.ValueError", "surrogate"),
}


def test_exceptions_in_step_arrive_and_the_session_lives_on(server):
    environment = server.environment()
    environment.reset(seed=1)
    for count, (behaviour, (kind, text)) in enumerate(RAISING.items(), 1):
        with pytest.raises(RemoteEnvironmentError) as caught:
            environment.step(ACTION[behaviour])
        assert kind in caught.value.remote_type
        assert text in caught.value.remote_message
        assert f"in _{behaviour}" in caught.value.remote_traceback
        observation, *_ = environment.step(ACTION["step"])
        assert observation["count"] == 2 * count


OURS_FAILING = """
import gymnasium
from remote_gym import {error}

class Failing(gymnasium.Wrapper):
    def close(self):
        if {in_close}:
            raise {error}("in close")

def create_environment():
    if not {in_close}:
        raise {error}("in create_environment")
    return Failing(gymnasium.make("CartPole-v1"))
"""


@pytest.mark.parametrize("use_thread", [False, True])
def test_an_error_of_ours_that_creating_an_environment_raises_is_the_environments(tmp_path, use_thread):
    with loopback_server(None, client_entrypoints=tmp_path, use_thread=use_thread) as server:
        for error in ("ConfigError", "SessionLost", "ServerFull", "ConnectionLost", "EncodingError"):
            (tmp_path / f"creating_{error}.py").write_text(OURS_FAILING.format(error=error, in_close=False))
            with pytest.raises(RemoteEnvironmentError) as caught:
                server.environment(remote_args={"entrypoint": f"creating_{error}.py"})
            assert caught.value.remote_type == f"remote_gym.errors.{error}"
            assert caught.value.remote_message == "in create_environment"
            assert "in create_environment" in caught.value.remote_traceback
            assert server.server.session_count == 0


@pytest.mark.parametrize("use_thread", [False, True])
def test_an_error_of_ours_that_closing_an_environment_raises_is_the_environments(tmp_path, use_thread):
    (tmp_path / "closing.py").write_text(OURS_FAILING.format(error="SessionLost", in_close=True))
    with loopback_server(None, client_entrypoints=tmp_path, use_thread=use_thread, secure=False) as server:
        with channel_to(server) as channel:
            session = RawSession.open(channel, entrypoint="closing.py")
            interact = channel.stream_stream(method("Interact"))
            close = pb.Request(sequence=1, close=pb.CloseRequest()).SerializeToString()
            call = interact(iter([close]), metadata=session.metadata, timeout=scaled(20.0))
            answer = pb.Response.FromString(next(call))
        assert answer.sequence == 1
        assert answer.error.kind == pb.ErrorDetail.ENVIRONMENT
        assert (answer.error.remote_type, answer.error.remote_message) == ("remote_gym.errors.SessionLost", "in close")
        wait_until(lambda: server.server.session_count == 0)


def test_an_exception_in_reset_arrives_and_the_session_lives_on(server):
    environment = server.environment()
    for behaviour in ("raise", "system_exit"):
        with pytest.raises(RemoteEnvironmentError, match=RAISING[behaviour][1]):
            environment.reset(options={"do": behaviour})
        environment.reset()
        environment.step(ACTION["step"])


@pytest.mark.parametrize("behaviour", ["exit", "kill"])
def test_a_dead_worker_is_noticed_within_a_second_and_others_live_on(process_server, behaviour):
    victim, other = process_server.environment(), process_server.environment()
    victim.reset()
    other.reset()
    took, second = [], scaled(1.0)
    for _ in range(3):  # of which the quickest counts, on a machine with much else to do
        before = time.monotonic()
        with pytest.raises(SessionLost, match="status 7" if behaviour == "exit" else "SIGKILL"):
            victim.step(ACTION[behaviour])
        took.append(time.monotonic() - before)
        other.step(ACTION["step"])
        if took[-1] < second:
            break
        victim.reset()
    assert min(took) < second
    with pytest.raises(SessionLost):
        victim.step(ACTION["step"])
    victim.reset()
    victim.step(ACTION["step"])
    assert process_server.server.session_count == 2


def test_a_worker_killed_between_steps_is_told_at_the_next(process_server):
    environment = process_server.environment()
    _, info = environment.reset()
    os.kill(info["pid"], signal.SIGKILL)
    with pytest.raises(SessionLost, match="SIGKILL"):
        environment.step(ACTION["step"])


def test_a_reset_that_finds_its_session_lost_says_so_and_the_next_opens_another(process_server):
    environment = process_server.environment()
    _, info = environment.reset()
    os.kill(info["pid"], signal.SIGKILL)
    with pytest.raises(SessionLost):
        environment.reset()
    assert environment.reset()[1]["pid"] != info["pid"]


def test_a_step_before_the_first_reset_is_refused_as_gymnasium_does(server):
    with pytest.raises(ResetNeeded):
        server.environment().step(ACTION["step"])


def test_a_step_after_the_end_is_answered_by_the_environment(server):
    environment = server.environment()
    environment.reset()
    assert environment.step(ACTION["truncate"])[2:4] == (False, True)
    assert environment.step(ACTION["step"])[0]["count"] == 2


def test_an_observation_that_does_not_fit_its_space_is_named(server):
    environment = server.environment()
    environment.reset()
    wrong = {"wrong_shape": r"(?s)position.*\(2,\).*\(3,\)", "wrong_keys": "count", "wrong_kind": "(?s)count.*three"}
    for behaviour, message in wrong.items():
        with pytest.raises(InvalidObservation, match=message):
            environment.step(ACTION[behaviour])
        environment.step(ACTION["step"])


def test_an_action_that_does_not_fit_is_refused_before_anything_is_sent(server):
    environment = server.environment()
    environment.reset()
    for action in (0.5, "step", [1, 2], None, {"a": 1}):
        with pytest.raises(InvalidAction):
            environment.step(action)
    assert environment.step(ACTION["step"])[0]["count"] == 1


def test_an_action_outside_the_bounds_is_the_environments_to_answer(server):
    environment = server.environment()
    environment.reset()
    with pytest.raises(RemoteEnvironmentError, match="IndexError"):
        environment.step(10_000)


def test_a_server_that_checks_actions_refuses_those_outside_the_bounds(obedient):
    with loopback_server(obedient, check_actions=True) as checking:
        environment = checking.environment()
        environment.reset()
        with pytest.raises(InvalidAction, match="10000"):
            environment.step(10_000)
        assert environment.step(ACTION["step"])[0]["count"] == 1


def test_an_info_value_without_a_wire_form_does_not_kill_the_step(server):
    environment = server.environment()
    environment.reset()
    info = environment.step(ACTION["odd_info"])[4]
    assert info["fine"] == 1
    assert isinstance(info["lock"], Unencodable)
    assert info["lock"].type == "_thread.lock"


def test_options_without_a_wire_form_are_refused_before_anything_is_sent(server):
    environment = server.environment()
    with pytest.raises(EncodingError, match=r"options\['bad'\]"):
        environment.reset(options={"bad": object()})
    environment.reset()


def test_a_reward_without_a_wire_form_is_named(server):
    environment = server.environment()
    environment.reset()
    with pytest.raises(EncodingError, match="reward"):
        environment.step(ACTION["odd_reward"])
    environment.step(ACTION["step"])


def test_an_exception_in_render_arrives_with_the_step_taken(server):
    environment = server.environment(render_mode="rgb_array", frames="step")
    environment.reset()
    with pytest.raises(RemoteEnvironmentError, match="painter"):
        environment.step(ACTION["raise_in_render"])
