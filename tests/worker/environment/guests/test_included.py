"""Files that are sent along with an entrypoint: which, where they lie, and that nothing is left of them."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

from interpreters import OLD, python_of
from remote_gym.config import Limits
from remote_gym.errors import ConfigError, SessionLost
from remote_gym.guest import program
from remote_gym.v1 import worker_pb2
from remote_gym.worker.environment.entrypoint import Created, create_environment
from remote_gym.worker.environment.guests import included
from remote_gym.worker.environment.guests.included import Inclusion
from waiting import wait_until

ENTRYPOINT = """
import os
import time
try:
    import gymnasium as gym
except ImportError:
    import gym
    import gym.spaces
from .parts import NAME
from beside import BESIDE

EXPOSED = ("told", "hang")

class Simulator(gym.Env):
    observation_space = action_space = gym.spaces.Discrete(2)

    def __init__(self):
        folder = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(folder, "assets", "map.txt")) as stream:
            text = stream.read()
        self.told = {"name": NAME, "beside": BESIDE, "text": text, "file": __file__, "module": __name__,
                     "here": os.getcwd(), "pid": os.getpid(), "tool": os.access(os.path.join(folder, "tool"), os.X_OK)}

    def reset(self, **_):
        return 0, {}

    def hang(self):
        time.sleep(1000)

def create_environment():
    return Simulator()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A simulator of several files."""
    package = tmp_path / "root" / "sims"
    (package / "assets").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "entry.py").write_text(ENTRYPOINT)
    (package / "parts.py").write_text("NAME = 'of the package'\n")
    (package / "tool").write_text("#!/bin/sh\n")
    (package / "tool").chmod(0o755)
    (package / "assets" / "map.txt").write_text("a map")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "old.pyc").touch()
    (package / ".secret").write_text("a password")
    (package.parent / "beside.py").write_text("BESIDE = 3\n")
    return package.parent


Create = Callable[..., Any]


@pytest.fixture
def create(root: Path) -> Iterator[Create]:
    """An environment whose entrypoint is sent with some files to a command that runs in another folder."""
    made: list[Created] = []

    def create(include: list[str], entrypoint: str = "sims/entry.py", python: str = sys.executable) -> Any:
        launch = worker_pb2.Launch(root=str(root), entrypoint=entrypoint, limits=asdict(Limits()), anywhere=True)
        # As on another machine: the server's files are not in its way.
        launch.guest.command.extend(["sh", "-c", f'cd /; exec {python} "$@"', "python"])
        launch.guest.include.extend(include)
        made.append(create_environment(launch, {}, own_process=False))
        return made[-1].environment

    yield create
    for each in made:
        each.environment.close()


@pytest.mark.parametrize("include", [["sims", "beside.py"], ["."], ["sims/../sims", "./beside.py", "sims/parts.py"]])
def test_an_entrypoint_imports_and_reads_what_was_sent_with_it(create, root, include):
    environment = create(include)
    told = environment.get("told")
    folder = Path(told["here"])
    assert told == {
        "name": "of the package",
        "beside": 3,
        "text": "a map",
        "file": str(folder / "sims" / "entry.py"),
        "module": "sims.entry",
        "here": str(folder),
        "pid": told["pid"],
        "tool": True,
    }
    assert not folder.is_relative_to(root)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    sent = {
        "beside.py",
        *(f"sims/{name}" for name in ("__init__.py", "entry.py", "parts.py", "tool", "assets/map.txt")),
    }
    assert {name for name in names if "__pycache__" not in name} == sent
    environment.close()
    assert not folder.exists()


def test_an_old_python_has_them_too(create):
    [interpreter] = [each for each in OLD if each.library == "gym 0.10"]
    environment = create(["."], python=python_of(interpreter))
    folder = Path(environment.get("told")["here"])
    assert folder.is_dir()
    environment.close()
    assert not folder.exists()


def test_nothing_is_left_of_them_when_the_guest_is_killed(create):
    environment = create(["."])
    told = environment.get("told")
    os.kill(told["pid"], signal.SIGKILL)
    with pytest.raises(SessionLost):
        environment.step(0)
    wait_until(lambda: not Path(told["here"]).exists())


def test_nothing_is_left_of_them_when_a_guest_that_hangs_has_nobody_to_answer(create):
    environment = create(["."])
    told = environment.get("told")
    guest = psutil.Process(told["pid"])
    process = environment._guest._process
    process._write_some(request_that_hangs(environment))
    process._process.stdin.close()
    wait_until(lambda: not Path(told["here"]).exists())
    wait_until(lambda: not guest.is_running() or guest.status() == psutil.STATUS_ZOMBIE)
    process.lose("is gone")


def request_that_hangs(environment: Any) -> bytes:
    """A call that never returns."""
    body = program.REQUEST.pack(program.CALL, 0) + environment._guest.encode(("hang", (), {}), "hang")
    return program.HEAD.pack(len(body)) + body  # type: ignore[no-any-return]


# --------------------------------------------------------------------------------------------------------------
# What is sent


def places(root: Path, *names: str, anywhere: bool = True) -> dict[str, bytes]:
    return {each.path: each.content for each in Inclusion(root, names, anywhere=anywhere).read()}


def test_what_is_outside_of_the_root_goes_to_the_top(root, tmp_path):
    outside = tmp_path / "other" / "assets"
    outside.mkdir(parents=True)
    (outside / "a.txt").write_text("a")
    assert places(root / "sims", str(outside), "../beside.py") == {"assets/a.txt": b"a", "beside.py": b"BESIDE = 3\n"}
    inclusion = Inclusion(root, ["sims"], anywhere=True)
    assert inclusion.add_entrypoint(root / "sims" / "entry.py") == "sims/entry.py"
    assert inclusion.add_entrypoint(outside / "a.txt") == "a.txt"
    (outside / "beside.py").touch()
    with pytest.raises(ConfigError, match=r"'beside\.py'; rename one"):
        Inclusion(root, ["beside.py", str(outside / "beside.py")], anywhere=True)


def test_a_repository_includes_nothing_from_outside_of_it(root, tmp_path):
    (tmp_path / "secret.txt").touch()
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    for name in ("..", "../secret.txt", str(tmp_path), "link.txt", "sims/../.."):
        with pytest.raises(ConfigError, match="is outside the root"):
            places(root, name, anywhere=False)


def test_a_link_is_sent_as_the_file_that_it_leads_to_unless_it_leads_out(root, tmp_path):
    (root / "sims" / "linked.py").symlink_to("parts.py")
    assert places(root, "sims")["sims/linked.py"] == b"NAME = 'of the package'\n"
    (tmp_path / "secret.txt").touch()
    (root / "sims" / "out.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(ConfigError, match="is a link out of"):
        places(root, "sims")
    (root / "sims" / "out.txt").unlink()
    (root / "sims" / "round").symlink_to(root / "sims")
    with pytest.raises(ConfigError, match="is a link to a folder"):
        places(root, "sims")


def test_what_is_no_file_is_refused(root):
    os.mkfifo(root / "sims" / "pipe")
    with pytest.raises(ConfigError, match="pipe, which is included, is neither a file nor a folder"):
        places(root, "sims")
    with pytest.raises(ConfigError, match="include 'nothing' does not exist in"):
        places(root, "nothing")


@pytest.mark.parametrize(
    ("bound", "most", "text"),
    [
        ("MOST_FILES", 3, r"holds 5 files of [\d,]+ bytes, and at most 3 files of"),
        ("MOST_BYTES", 10, r"holds 5 files of [\d,]+ bytes, and at most [\d,]+ files of 10 bytes"),
    ],
)
def test_too_much_is_refused_with_what_was_found_and_what_is_allowed(root, monkeypatch, bound, most, text):
    monkeypatch.setattr(included, bound, most)
    with pytest.raises(ConfigError, match=text):
        places(root, "sims")


def test_files_that_grow_while_they_are_read_are_refused(root, monkeypatch):
    inclusion = Inclusion(root, ["beside.py"], anywhere=True)
    monkeypatch.setattr(included, "MOST_BYTES", 5)
    with pytest.raises(ConfigError, match="have grown over 5 bytes"):
        list(inclusion.read())


def test_many_files_are_sent_by_few_messages(create, root):
    (root / "many").mkdir()
    for number in range(50):
        (root / "many" / str(number)).write_bytes(bytes(100_000))
    environment = create(["."])
    folder = Path(environment.get("told")["here"])
    assert sum(path.stat().st_size for path in (folder / "many").iterdir()) == 5_000_000


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/etc/a", "", "a//b", "./a", "a/.", "a\0b"])
def test_a_guest_writes_nothing_outside_of_its_folder(path):
    sent = program.Sent()
    message = program.part(program.FIRST, path.encode()) + program.part(program.SECOND, b"x")
    with pytest.raises(program.ConfigError, match="is no path"):
        sent.unpack(program.part(program.FIRST, message))
    assert sent.folder == ""
