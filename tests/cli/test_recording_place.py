"""Where nothing can be recorded, the command says so in one line, before it plays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from remote_gym.errors import ConfigError
from remote_gym.play import Recording
from waiting import scaled


@pytest.fixture
def unwritable(tmp_path):
    """A folder that is none: not even the administrator may write into a file as if it were one."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file"


@pytest.mark.parametrize("ending", ["gif", "mp4"])
@pytest.mark.parametrize("command", [["play", "localhost:1"], ["demo"]])
def test_a_place_that_cannot_be_written_is_told_before_anything_is_played(command, ending, unwritable):
    called = [sys.executable, "-m", "remote_gym", *command, "--record", str(unwritable / f"v.{ending}")]
    ended = subprocess.run(called, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr.startswith("Error: --record: cannot record to ")
    assert "Not a directory" in ended.stderr
    assert ended.stderr.count("\n") == 1


# imageio-ffmpeg closes the pipe to an ffmpeg that lives, and leaves that to one that has ended to the collector.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_a_file_that_cannot_be_written_any_more_is_told_without_a_traceback(ending, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    if not Path("/dev/full").exists():
        pytest.skip("needs a device that is full")
    path = tmp_path / f"v.{ending}"
    path.symlink_to("/dev/full")

    def record():
        with Recording(path, 30.0) as recording:
            for number in range(300):
                recording.add(np.full((128, 128, 3), number % 256, np.uint8))

    with pytest.raises(ConfigError, match="cannot record to"):
        record()


def test_a_place_is_left_as_it_was_found(tmp_path):
    pytest.importorskip("imageio")
    path = tmp_path / "v.gif"
    with Recording(path, 30.0):
        assert not path.exists()
    assert not path.exists()
