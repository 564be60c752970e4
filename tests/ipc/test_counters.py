"""The page that a worker and its server share."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from environments import ACTION, Obedient
from remote_gym.config import Limits
from remote_gym.ipc import counters as counters_module
from remote_gym.ipc.counters import STEPS, Counters, Page, count_ended, map_page
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.worker.host import Host
from waiting import scaled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="worker processes need fork")


OTHER = """
import sys
from remote_gym.ipc.counters import *
words = map_page(int(sys.argv[1]))
words[SINCE], words[OPERATION], words[STEPS], words[BUSY] = 2**63, OPERATIONS["reset"], 5, 1_500_000_000
"""


@pytest.fixture(params=["memory", "file"])
def page(request, monkeypatch) -> Iterator[Page]:
    """One in memory, and one where the system has files only."""
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with contextlib.closing(Page()) as opened:
        yield opened


def test_what_another_process_stores_is_read(page):
    assert page.read() == Counters()
    command = [sys.executable, "-c", OTHER, str(page.fileno())]
    subprocess.run(command, pass_fds=[page.fileno()], check=True, timeout=scaled(60))
    assert page.read() == Counters(operation="reset", since=2**63, steps=5, busy_seconds=1.5)


def test_what_is_written_behind_it_is_read_and_leaves_the_counters(page):
    words = map_page(page.fileno())
    words[STEPS] = 3
    assert page.read_stacks() == ""
    os.write(page.fileno(), b"here\xff\n")
    os.write(page.fileno(), b"and there\n")
    assert page.read_stacks() == "here\N{REPLACEMENT CHARACTER}\nand there\n"
    assert page.read().steps == 3


def test_a_worker_that_cuts_the_file_short_or_fills_it_harms_nobody_who_reads(page):
    os.ftruncate(page.fileno(), 3)
    assert page.read() == Counters()
    assert page.read_stacks() == ""
    os.ftruncate(page.fileno(), 2**40)
    os.pwrite(page.fileno(), b"\xff" * mmap.PAGESIZE, 0)
    assert page.read().operation is None
    assert len(page.read_stacks()) == counters_module.STACKS_BYTES


def test_a_closed_page_remembers_what_was_done(page):
    map_page(page.fileno())[STEPS] = 4
    page.close()
    page.close()
    assert page.read().steps == 4
    assert page.read_stacks() == ""


class Looking(Obedient):
    """Notes what its worker tells of itself during each call."""

    def __init__(self, words: memoryview) -> None:
        super().__init__("rgb_array")
        self.words, self.seen = words, []

    def look(self) -> None:
        self.seen.append(Counters.decode(self.words.tobytes()))

    def reset(self, **kwargs):
        self.look()
        return super().reset(**kwargs)

    def step(self, action):
        self.look()
        return super().step(action)

    def render(self):
        self.look()
        return super().render()

    def close(self):
        self.look()


def test_a_host_tells_what_it_does_and_has_done():
    words = counters_module.new_page()
    environment = Looking(words)
    host = Host(environment, limits=Limits(), page=words)

    def step(behaviour: str = "step") -> pb.StepRequest:
        return pb.StepRequest(packed=np.int64(ACTION[behaviour]).tobytes())

    many = pb.StepManyRequest(steps=[step(), step(), step("raise")])
    requests = [
        pb.Request(sequence=1, reset=pb.ResetRequest()),
        pb.Request(sequence=2, step=step()),
        pb.Request(sequence=3, step_many=many),
        pb.Request(sequence=4, render=pb.RenderRequest()),
        pb.Request(sequence=5, step=step("truncate")),
        pb.Request(sequence=6, step=step("raise")),
        pb.Request(sequence=7, close=pb.CloseRequest()),
    ]
    received = sent = 0
    sinces = [0]
    for request in requests:
        data = request.SerializeToString()
        answer = host.answer(data)
        received, sent = received + len(data), sent + len(answer)
        done = Counters.decode(words.tobytes())
        assert (done.operation, done.sequence) == (None, request.sequence)
        assert (done.bytes_received, done.bytes_sent) == (received, sent)
        assert host.answer(data) == answer
        assert Counters.decode(words.tobytes()) == done, "a repeated request is not run"
    seen = environment.seen
    operations = ["reset", "step", "step", "step", "step", "render", "step", "step", "close"]
    assert [counters.operation for counters in seen] == operations
    sinces = [counters.since for counters in seen]
    assert sinces == sorted(set(sinces)), "each step, those of one request too, begins at a time of its own"
    # Four that returned; the others raised.
    assert (done.steps, done.episodes) == (4, 1)
    assert 0 < done.busy_seconds < 60


@pytest.mark.parametrize(
    ("terminated", "truncated", "ended"),
    [
        (np.True_, False, 1),
        (np.False_, np.False_, 0),
        (np.array([True, False, True]), np.array([True, True, False]), 3),
        (np.array([False, False]), np.array([False, False]), 0),
        ("yes", None, 0),
        (np.array([True, False]), False, 0),
    ],
)
def test_which_flags_end_an_episode(terminated, truncated, ended):
    assert count_ended(terminated, truncated) == ended
