"""What Linux tells of processes, asked about real ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from remote_gym.server.launch.processes import CAN_MEASURE, STOPPED, Processes, why_no_signal
from waiting import wait_until

pytestmark = pytest.mark.skipif(not CAN_MEASURE, reason="the system tells nothing in /proc")

MIB = 2**20
# Holds 64 MiB, shared with two that it started: one that has left its group and holds 32 MiB of its own, and one that
# has lost its parent and holds 16.
FAMILY = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
shared = b"x" * 2**26
def hold(size):
    own = b"y" * size
    os.write(1, f"{os.getpid()}\\n".encode())
    while True:
        signal.pause()
if os.fork() == 0:
    os.setpgid(0, 0)
    hold(2**25)
if os.fork() == 0:
    if os.fork() == 0:
        hold(2**24)
    os._exit(0)
os.wait()
while True:
    signal.pause()
"""


@pytest.fixture
def family() -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    children = [int(process.stdout.readline()) for _ in range(2)]
    yield process.pid
    for pid in (process.pid, *children):
        os.kill(pid, signal.SIGKILL)
    process.communicate()


def test_memory_is_that_of_a_process_and_of_those_it_started_and_nothing_counts_twice(family):
    held = Processes().memory(family, enough=0)
    assert 112 * MIB < held < 112 * MIB + 48 * MIB
    # An upper bound, where it is enough, counts the shared ones with each.
    assert Processes().memory(family, enough=2**40) > held + 120 * MIB


def test_a_process_that_is_not_there_holds_nothing(family):
    found = Processes()
    assert found.memory(2**22 + 1, enough=0) == 0
    assert not found.is_stopped(2**22 + 1)


def test_who_is_stopped_and_who_blocks_a_signal(family):
    assert not Processes().is_stopped(family)
    assert "blocks the signal" in why_no_signal(family, signal.SIGUSR2)
    assert "in the state" in why_no_signal(family, signal.SIGUSR1)
    os.kill(family, signal.SIGSTOP)
    wait_until(lambda: Processes().is_stopped(family))
    assert why_no_signal(family, signal.SIGUSR2) == STOPPED
    assert why_no_signal(2**22 + 1, signal.SIGUSR2) == "it did not answer"
