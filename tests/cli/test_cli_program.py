"""The command as a program: how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from waiting import scaled

PROGRAM = """
import atexit, itertools, sys
from remote_gym import cli
cli.LAST_RESORT = {seconds}
if "{how}" == "spins":
    atexit.register(sum, itertools.repeat(0))  # in C, which lets no Python code run
sys.argv = ["remote-gym", "--version"]
cli.program()
"""


def test_a_program_that_ends_by_itself_is_let_end():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(how="ends", seconds=1000)],
        capture_output=True,
        text=True,
        timeout=scaled(60),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "version" in done.stdout


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="this system keeps no time for a process")
def test_a_program_that_spins_when_its_work_is_done_is_ended_by_the_system():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(how="spins", seconds=1)], stdout=subprocess.DEVNULL, timeout=scaled(60)
    )
    assert done.returncode == -signal.SIGALRM
