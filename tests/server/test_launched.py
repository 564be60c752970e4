"""The process of a launched server, without the server."""

from __future__ import annotations

import pytest

from remote_gym.server import launched


def test_a_long_log_loses_its_beginning_and_goes_on(tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launched, "LOG_BYTES", 100)
    monkeypatch.setattr(launched, "LOG_BYTES_KEPT", 10)
    path = tmp_path / "server.log"
    with path.open("ab", buffering=0) as log:
        log.write(b"x" * 100)
        launched.shorten(path)
        assert path.stat().st_size == 100
        log.write(b"0123456789")
        launched.shorten(path)
        log.write(b"more")
    assert path.read_bytes() == b"0123456789more"
