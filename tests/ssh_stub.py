"""A program ``ssh`` without any SSH: it runs the command here, and forwards a socket by a link to it.

What it is to do wrong is code of a test, which it runs first. That may use `FOLDER`, `forwards`, `say` and `greet`.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from leftovers import left_in

_PROGRAM = """#!{python} -SE
import json, os, re, sys, time
from pathlib import Path
FOLDER = Path({folder!r})
words = sys.argv[1:]
forwards = "-O" in words
if not forwards:
    with (FOLDER / "pids").open("a") as pids:
        print(os.getpid(), file=pids)

def say(content):
    os.write(1, json.dumps(content).encode() + b"\\n")

def greet():
    "Begin as the program at the far end does."
    os.write(1, re.findall("(?<![0-9a-f])[0-9a-f]{{32}}(?![0-9a-f])", words[-1])[-1].encode() + b"\\n")

{code}
if forwards:
    here, _, there = words[words.index("-L") + 1].partition(":")
    os.symlink(there, here)
else:
    os.execv("/bin/sh", ["sh", "-c", words[-1]])
"""


class StubSsh:
    """The program, in a folder for ``PATH``.

    Attributes:
        folder: Holds it, and what its code leaves there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.does()

    @property
    def program(self) -> Path:
        """Its file."""
        return self.folder / "ssh"

    def does(self, code: str = "") -> None:
        """Let it do something before, or instead."""
        made = self.folder / "new"
        made.write_text(_PROGRAM.format(python=sys.executable, folder=str(self.folder), code=code))
        made.chmod(0o755)
        made.rename(self.program)

    def pids(self) -> list[int]:
        """Processes of its connections, also of those that have ended."""
        file = self.folder / "pids"
        return [int(pid) for pid in file.read_text().split()] if file.exists() else []


@contextlib.contextmanager
def stub_ssh(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubSsh]:
    """Let there be no other ssh, and a temporary folder that has to be empty in the end."""
    with tempfile.TemporaryDirectory(prefix="stub-") as folder, tempfile.TemporaryDirectory(prefix="ssh-") as temporary:
        monkeypatch.setenv("PATH", folder)
        monkeypatch.setenv("TMPDIR", temporary)
        monkeypatch.setattr(tempfile, "tempdir", temporary)
        yield StubSsh(Path(folder))
        assert left_in(Path(temporary)) == []
