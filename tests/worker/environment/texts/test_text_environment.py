"""Text environments by themselves: each request once, closing within bounds, and what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import threading
import time

import numpy as np
import pytest

from remote_gym.config import Limits
from remote_gym.errors import InvalidObservation
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import encode_value
from remote_gym.worker.environment.texts import events
from remote_gym.worker.environment.texts.environment import TextEnvironment
from remote_gym.worker.environment.texts.hosting import hosted, is_text_environment
from remote_gym.worker.environment.texts.observations import observation_of, without_pillow
from remote_gym.worker.environment.texts.waiting import new_poll, this_thread
from remote_gym.worker.host import Host
from scripts import run_script
from waiting import scaled

LIMITS = Limits()


class Agents:
    def __init__(self):
        self.steps, self.closed, self.ticks = [], 0, 0

    async def reset(self, seed):
        return {"obs_str": f"{seed}"}, {}

    async def step(self, text):
        self.steps.append(text)
        await asyncio.sleep(0)
        return {"obs_str": text}, 1.0, False, {}

    async def close(self):
        self.closed += 1

    async def tick(self):
        while True:
            self.ticks += 1
            await asyncio.sleep(0)


@pytest.fixture
def environment():
    made = TextEnvironment(Agents())
    yield made
    made.close()
    assert this_thread.events is None


def step(sequence, text):
    request = pb.Request(sequence=sequence)
    encode_value(text, request.step.value, strict=True, limits=LIMITS)
    return request.SerializeToString()


def test_each_request_is_run_once(environment):
    host = Host(environment, exposed=environment.exposed, limits=LIMITS)
    host.answer(pb.Request(sequence=1, reset=pb.ResetRequest()).SerializeToString())
    first = host.answer(step(2, "go"))
    assert host.answer(step(2, "go")) == first
    assert environment._environment.steps == ["go"]
    host.answer(step(3, "on"))
    assert pb.Response.FromString(host.answer(step(2, "go"))).error.kind == pb.ErrorDetail.OUT_OF_SEQUENCE
    assert environment._environment.steps == ["go", "on"]


def test_closing_is_done_once(environment):
    environment.close()
    environment.close()
    assert environment._environment.closed == 1


def test_a_close_that_does_not_end_is_given_up(monkeypatch, caplog):
    monkeypatch.setattr(events, "GRACE", 0.05)

    class Stuck(Agents):
        async def close(self):
            while True:
                with contextlib.suppress(asyncio.CancelledError):  # nor is it to be cancelled
                    await asyncio.sleep(3600)

    environment = TextEnvironment(Stuck(), close_timeout=0.05)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"close\(\) has not ended after 0.05 s"):
        environment.close()
    assert time.monotonic() - began < scaled(5.0)
    assert "did not end" in caplog.text
    assert this_thread.events is None


def test_what_a_task_leaves_is_cancelled_with_the_last_environment():
    first, second = TextEnvironment(Agents()), TextEnvironment(Agents())
    ended, tasks = [], []

    async def leave(text):
        async def work():
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append(text)

        tasks.append(asyncio.ensure_future(work()))
        await asyncio.sleep(0)
        return {"obs_str": text}, 0.0, False, {}

    first._environment.step = leave
    first.step("left")
    first.close()
    assert not ended
    second.close()
    assert ended == ["left"]


def test_aclose_is_awaited_where_there_is_no_close():
    class Closing:
        closed = False

        async def reset(self, seed):
            return {}, {}

        async def step(self, text):
            return {}, 0.0, False, {}

        async def aclose(self):
            self.closed = True

    inner = Closing()
    TextEnvironment(inner).close()
    assert inner.closed


def test_waiting_lets_tasks_run_and_ends_with_what_comes(environment):
    environment._events.call(
        lambda: setattr(environment, "task", asyncio.ensure_future(environment._environment.tick()))
    )
    poll, (ours, theirs) = new_poll(), socket.socketpair()
    with ours, theirs:
        poll.register(ours, select.POLLIN)
        began = time.monotonic()
        assert poll.poll(20) == []
        assert time.monotonic() - began >= 0.02
        assert environment._environment.ticks > 2
        ticks = environment._environment.ticks
        assert poll.poll(0) == []
        assert environment._environment.ticks == ticks
        timer = threading.Timer(0.02, theirs.send, (b"x",))
        timer.start()
        assert poll.poll(scaled(20_000)) == [(ours.fileno(), select.POLLIN)]
        poll.register(ours, select.POLLOUT)
        assert poll.poll(scaled(20_000)) == [(ours.fileno(), select.POLLOUT)]
        poll.unregister(ours)
        assert poll.poll(1) == []
        timer.join()


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="cannot fork")
def test_a_forked_child_leaves_the_parents_loop_alone():
    script = """
import asyncio, os, select, socket
from remote_gym.worker.environment.texts.environment import TextEnvironment
from remote_gym.worker.environment.texts.waiting import new_poll

class Agents:
    async def reset(self, seed):
        return {}, {}
    async def step(self, text):
        return {"obs_str": text}, 0.0, False, {}
    async def close(self):
        pass

environment = TextEnvironment(Agents())
poll, (ours, theirs) = new_poll(), socket.socketpair()
poll.register(ours, select.POLLIN)
poll.poll(10)
pid = os.fork()
if pid == 0:
    environment.close()  # which may do nothing to what both share
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print(environment.step("on")[0]["obs_str"])
theirs.send(b"x")
print(len(poll.poll(20_000)))
environment.close()
"""
    done = run_script(script)
    assert done.stdout.split() == ["on", "1"], done.stderr


def test_five_values_are_gymnasiums():
    class Five(Agents):
        def step(self, text):
            return {"obs_str": text}, 1.0, False, True, {}

    environment = TextEnvironment(Five())
    assert environment.step("x")[2:4] == (False, True)
    environment.close()


@pytest.mark.parametrize(
    ("info", "flags"),
    [
        ({}, (True, False)),
        ({"truncated": True}, (False, True)),
        ({"TimeLimit.truncated": np.bool_(True)}, (False, True)),
        ({"truncated": False}, (True, False)),
        ({"truncated": "no"}, (True, False)),
        (None, (True, False)),
    ],
)
def test_an_info_says_that_an_episode_was_cut_off(info, flags):
    class Ending(Agents):
        async def step(self, text):
            return {"obs_str": ""}, 0, 1, info

    environment = TextEnvironment(Ending())
    assert environment.step("x")[2:4] == flags
    environment.close()


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ("text", "return a dict"),
        (None, "return a dict"),
        ({"obs_str": 1}, "return a text"),
        ({"multi_modal_input": [1]}, "multi_modal_input"),
        ({"multi_modal_input": {"<image>": 5}}, "return a list"),
        ({"multi_modal_input": {"<image>": [5]}}, "builtins.int as an image|int as an image"),
        ({"multi_modal_input": {"<image>": [np.zeros((2, 2))]}}, "float64 array"),
        ({"multi_modal_input": {"<image>": [np.zeros((2, 2, 2), np.uint8)]}}, r"\(2, 2, 2\)"),
        ({"multi_modal_input": {"<video>": [1]}}, "<video>"),
    ],
)
def test_what_is_no_observation_is_refused(observation, message):
    with pytest.raises(InvalidObservation, match=message):
        observation_of(observation, "step()")


def test_observations_are_always_of_one_form():
    assert observation_of({}, "reset()") == {"obs_str": "", "multi_modal_input": {"<image>": ()}}
    assert observation_of({"obs_str": "x", "multi_modal_input": None, "more": 1}, "reset()")["obs_str"] == "x"
    image = np.zeros((2, 3), np.uint8)
    assert observation_of({"multi_modal_input": {"<image>": [image]}}, "")["multi_modal_input"]["<image>"][0] is image


@pytest.mark.parametrize(
    ("mode", "shape"),
    [("1", (3, 2, 3)), ("L", (3, 2)), ("P", (3, 2, 3)), ("RGB", (3, 2, 3)), ("RGBA", (3, 2, 4)), ("LA", (3, 2, 4))],
)
def test_pillows_images_keep_their_channels(mode, shape):
    pillow = pytest.importorskip("PIL.Image", reason="the extra jpeg is not installed")
    image = pillow.new(mode, (2, 3))
    found = without_pillow({"a": [image, (1, image)]})["a"][1][1]
    assert (found.dtype, found.shape) == (np.uint8, shape)
    assert np.array_equal(np.asarray(pillow.fromarray(found).convert("RGBA")), np.asarray(image.convert("RGBA")))


def test_other_objects_are_left_to_be_refused():
    class OfGym:
        observation_space = None

        def reset(self):
            return 1

        def step(self, action):
            return 1

        def system_prompt(self):
            return ""

    assert not any(map(is_text_environment, (OfGym(), OfGym, Agents, object(), 5)))
    assert hosted(5) == 5
