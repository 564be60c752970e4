"""A server's process that belongs to this program."""

from __future__ import annotations

import sys
import time

import pytest

from remote_gym.launched.process import LaunchedProcess

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets in Python")


def test_a_process_that_does_not_end_has_its_time_from_when_it_was_asked(tmp_path, monkeypatch):
    (tmp_path / "hanging.py").write_text("def main():\n    import time\n    time.sleep(1000)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    process = LaunchedProcess({}, module="hanging", end_timeout=60.0)
    begun = time.monotonic()
    process.stop(begun - 100.0)
    assert time.monotonic() - begun < 60.0
    assert not process.is_running
    assert not process.folder.exists()
