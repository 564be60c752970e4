"""Ctrl-C while workers of a vector environment are opened, waited for or sent to: it ends that, and leaves nothing."""

from __future__ import annotations

import logging
import signal
import threading
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded

from environments import ACTION
from remote_gym import RemoteVectorEnv, create_remote_environment_server
from remote_gym.client.vector.gather import THREAD_NAME
from remote_gym.testing import loopback_server
from waiting import wait_until

SLOW = """
import pathlib, time
import gymnasium as gym

def create_environment(folder):
    folder = pathlib.Path(folder)
    (folder / str(time.monotonic_ns())).touch()
    deadline = time.monotonic() + 60
    while not (folder / "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return gym.make("CartPole-v1")
"""


def interrupt_once(condition) -> None:
    """Send Ctrl-C to the main thread as soon as that holds."""

    def watch() -> None:
        wait_until(condition)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


def are_working() -> bool:
    return any(thread.name == THREAD_NAME for thread in threading.enumerate())


@pytest.mark.skipif(not hasattr(gym.vector, "AutoresetMode"), reason="Gymnasium < 1.1 has no mode that truncates")
def test_ctrl_c_ends_what_waits_for_a_server_that_is_away(caplog):
    caplog.set_level(logging.INFO, "remote_gym")
    with create_remote_environment_server({"entrypoint_kwargs": {"id": "CartPole-v1"}}, port=0) as server:
        recovering = {"on_session_lost": "truncate", "recover_timeout": 3600.0, "connect_timeout": 1.0}
        vector = RemoteVectorEnv(port=server.port, num_envs=2, workers=2, **recovering)
        vector.reset(seed=1)
    interrupt_once(lambda: "no session in place of the lost one yet" in caplog.text)
    with pytest.raises(KeyboardInterrupt):
        vector.reset()
    wait_until(lambda: not are_working())
    vector.close()


def test_what_is_opened_after_ctrl_c_is_closed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "slow.py").write_text(SLOW)
    folder = tmp_path / "begun"
    folder.mkdir()
    args = {"entrypoint": "slow.py", "entrypoint_kwargs": {"folder": str(folder)}}
    with loopback_server(args, check=False) as running:
        interrupt_once(lambda: len(list(folder.iterdir())) == 2)
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            running.vector_environment(num_envs=2, workers=2)
        assert time.monotonic() - begun < 50  # and not when they are open
        (folder / "go").touch()
        wait_until(lambda: not are_working() and running.server.session_count == 0)
        vector = running.vector_environment(num_envs=2, workers=2)
        vector.reset(seed=1)
        vector.close()


@pytest.fixture
def interrupted_amid_sending(process_server):
    """A vector environment, and a function that has Ctrl-C come between what its first and second worker are sent."""
    vector = process_server.vector_environment(num_envs=3, workers=3)
    vector.reset(seed=1)
    second = vector._shards[1]

    def interrupt(send):
        original = second.send
        second.send = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            send()
        second.send = original

    yield vector, interrupt
    vector.close()


def test_those_that_were_not_sent_an_action_can_be_sent_it(interrupted_amid_sending):
    vector, interrupt = interrupted_amid_sending
    actions = np.full(3, ACTION["step"])
    interrupt(lambda: vector.send(actions))
    vector.send(actions[1:], [1, 2])
    observations = vector.recv(3)[0]
    assert observations["count"].tolist() == [1, 1, 1]


def test_workers_that_stand_at_different_steps_are_not_stepped_on(interrupted_amid_sending):
    vector, interrupt = interrupted_amid_sending
    actions = np.full(3, ACTION["step"])
    interrupt(lambda: vector.step(actions))
    with pytest.raises(ResetNeeded):
        vector.step(actions)
    vector.reset()
    assert vector.step(actions)[0]["count"].tolist() == [1, 1, 1]
