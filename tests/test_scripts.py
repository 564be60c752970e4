"""Of a script that forks and hangs nothing is left."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from processes import is_alive
from scripts import run_script
from waiting import wait_until

FORKS_AND_HANGS = """
import os, time
from pathlib import Path
child = os.fork()
if child:
    Path({file!r}).write_text(str(child))
{leaves}
time.sleep(600)
"""


@pytest.mark.parametrize("leaves", ["", "if child: os._exit(3)"])
def test_a_script_that_hangs_is_ended_with_what_it_forked(tmp_path: Path, leaves: str) -> None:
    file = tmp_path / "child"
    with pytest.raises(subprocess.TimeoutExpired):
        run_script(FORKS_AND_HANGS.format(file=str(file), leaves=leaves), timeout=1.0)
    wait_until(lambda: not is_alive(int(file.read_text())))
