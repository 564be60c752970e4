"""Files that change while a program runs."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from remote_gym.errors import ConfigError
from remote_gym.tls import Reloaded
from waiting import scaled


class Loader:
    """Loads a file, counts how often it does, and refuses what is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.loads = 0

    def __call__(self) -> list[str]:
        self.loads += 1
        if not self.path.exists() or not (content := self.path.read_text()):
            raise ConfigError(f"{self.path} is empty")
        return [content]


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / "file").write_text("one")
    return tmp_path / "file"


@pytest.fixture
def load(path) -> Loader:
    return Loader(path)


@pytest.fixture
def reloaded(path, load) -> Reloaded[list[str]]:
    return Reloaded([path], load)


def test_what_does_not_change_is_loaded_once_and_stays_the_same_object(reloaded, load):
    assert reloaded.get() is reloaded.get()
    assert load.loads == 1


def write(path):
    path.write_text("other")


def replace(path):
    path.with_suffix(".new").write_text("two")
    # As old and as large as the one before, as copies can be.
    status = path.stat()
    os.utime(path.with_suffix(".new"), ns=(status.st_atime_ns, status.st_mtime_ns))
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("change", [write, replace])
def test_what_changes_is_loaded_again(reloaded, path, change):
    first = reloaded.get()
    change(path)
    assert reloaded.get() == [path.read_text()] != first


def test_what_a_link_leads_to_is_what_counts(tmp_path, path):
    """As Kubernetes renews the files of a secret."""
    (tmp_path / "later").write_text("two")
    link = tmp_path / "link"
    link.symlink_to(path)
    reloaded = Reloaded([link], Loader(link))
    assert reloaded.get() == ["one"]
    link.unlink()
    link.symlink_to(tmp_path / "later")
    assert reloaded.get() == ["two"]


@pytest.mark.parametrize("spoil", [lambda path: path.write_text(""), lambda path: path.unlink()])
def test_what_does_not_load_is_told_once_and_leaves_the_old(reloaded, load, path, spoil, caplog):
    first = reloaded.get()
    spoil(path)
    assert reloaded.get() is reloaded.get() is first
    assert load.loads == 2
    assert caplog.text.count("what was loaded before stays in use") == 1
    path.write_text("mended")
    assert reloaded.get() == ["mended"]


def test_what_never_loaded_is_an_error_until_it_does(reloaded, path):
    path.write_text("")
    for _ in range(2):
        with pytest.raises(ConfigError, match="is empty"):
            reloaded.get()
    path.write_text("mended")
    assert reloaded.get() == ["mended"]


def test_threads_that_come_at_once_load_it_once(path):
    load = Loader(path)
    reloaded, start, found = Reloaded([path], load), threading.Barrier(8), []

    def get() -> None:
        start.wait(scaled(10.0))
        found.append(reloaded.get())

    threads = [threading.Thread(target=get) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(10.0))
    assert load.loads == 1
    assert len(found) == 8


# What has to settle


SETTLE = 1.0


@pytest.fixture
def settling(path, load, reload_clock) -> Reloaded[list[str]]:
    return Reloaded([path], load, settle=SETTLE)


def test_what_is_being_written_counts_when_it_has_stayed_as_it_is(settling, path, reload_clock):
    first = settling.get()
    for content in ("t", "tw", "two"):
        path.write_text(content)
        assert settling.get() is first
        reload_clock.now += 0.9 * SETTLE
        assert settling.get() is first
    reload_clock.now += 0.2 * SETTLE
    assert settling.get() == ["two"]


def test_what_is_empty_for_a_moment_is_not_told_of(settling, path, reload_clock, caplog):
    first = settling.get()
    path.write_text("")
    assert settling.get() is first
    path.write_text("two")
    assert settling.get() is first
    reload_clock.now += SETTLE
    assert settling.get() == ["two"]
    assert "stays in use" not in caplog.text


def test_what_stays_broken_is_told_once_and_can_be_mended(settling, path, reload_clock, caplog):
    first = settling.get()
    path.unlink()
    for _ in range(4):
        assert settling.get() is first
        reload_clock.now += SETTLE
    assert caplog.text.count("what was loaded before stays in use") == 1
    path.write_text("mended")
    assert settling.get() is first
    reload_clock.now += SETTLE
    assert settling.get() == ["mended"]


@pytest.mark.parametrize("offset", [-1e6, -3.0, 1e6])
def test_a_file_settles_whatever_its_time(settling, path, reload_clock, offset):
    """As on a network's disk whose clock is another."""
    first = settling.get()
    path.write_text("two")
    os.utime(path, (time.time() + offset,) * 2)
    assert settling.get() is first
    reload_clock.now += SETTLE
    assert settling.get() == ["two"]


def test_what_changes_while_it_is_read_is_not_taken(path, reload_clock):
    truncates = [False]

    def load() -> list[str]:
        if truncates.pop():
            path.write_text("")
        truncates.append(False)
        return [path.read_text()]

    settling = Reloaded([path], load, settle=SETTLE)
    first = settling.get()
    path.write_text("two")
    settling.get()
    reload_clock.now += SETTLE
    truncates[:] = [True]
    assert settling.get() is first
    path.write_text("three")
    settling.get()
    reload_clock.now += SETTLE
    assert settling.get() == ["three"]
