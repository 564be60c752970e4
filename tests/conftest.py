"""Fixtures that several test folders share."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from clocks import Clock
from remote_gym.certs import create_all
from remote_gym.logs.repeats import REPEATS
from remote_gym.tls import reloading
from sharing import SharedServers
from waiting import scaled

# A shell without job control starts what runs in its background with Ctrl-C ignored, which all processes inherit that
# the tests start, and some of them are to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """PEM files of one authority, and of a server and a client under it."""

    ca: Path
    ca_key: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Spare the garbage collector what lives as long as the run, which takes it half a second each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Give each test longer on a slow machine, before pytest-timeout looks how long it may take."""
    if item.config.pluginmanager.hasplugin("timeout"):
        marker = item.get_closest_marker("timeout")
        seconds = marker.args[0] if marker else item.config.getoption("timeout") or item.config.getini("timeout")
        item.add_marker(pytest.mark.timeout(scaled(float(seconds))), append=False)
    return (yield)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Commands, which tests run in this process, set the level of our logger."""
    REPEATS.forget()  # what one test has logged often is not to be counted only in another
    logger = logging.getLogger("remote_gym")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture(scope="module")
def servers() -> Iterator[SharedServers]:
    """Lends servers, which the tests of a module share."""
    shared = SharedServers()
    with contextlib.closing(shared):
        yield shared


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates for a server on this machine, made once per run; do not change the files."""
    files = create_all(tmp_path_factory.mktemp("certificates"), ["localhost", "127.0.0.1", "::1"])
    return Certificates(
        ca=files.ca.certificate,
        ca_key=files.ca.private_key,
        server=files.server.certificate,
        server_key=files.server.private_key,
        client=files.client.certificate,
        client_key=files.client.private_key,
    )


@pytest.fixture
def reload_clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Tells, by `now`, for how many seconds whoever reads files again has known them."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(reloading, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock
