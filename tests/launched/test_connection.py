"""One connection to a host, by a program that is called ``ssh``."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_gym.launched.connection import Broken, Connection
from ssh_stub import StubSsh, stub_ssh
from waiting import scaled

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no Unix sockets in Python")


@pytest.fixture
def ssh(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubSsh]:
    with stub_ssh(monkeypatch) as stub:
        yield stub


@pytest.fixture
def folder(ssh: StubSsh) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """As of a trainer with more than a thousand connections."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kept = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    yield
    for each in kept:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(ssh: StubSsh, folder: Path, code: str) -> Connection:
    """A connection whose far end greets, and then does something."""
    ssh.does(f"greet(); {code}; sys.stdin.read(); sys.exit()")
    connection = Connection("box", ["program"], folder)
    connection.wait_for_marker()
    return connection


def test_a_program_with_many_descriptors_connects(ssh, folder, many_descriptors):
    connection = connect(ssh, folder, "say(json.loads(sys.stdin.readline()))")
    assert connection.process.stdout is not None
    assert connection.process.stdout.fileno() > 1024
    connection.send({"number": 3})
    assert connection.receive(scaled(30.0)) == {"number": 3}
    connection.end()
    connection.end()  # once more does nothing


def test_what_the_far_end_says_commands_no_terminal(ssh, folder):
    connection = connect(ssh, folder, r"""say({"error": ["\x1b]0;title\x07", {"two\nlines": "a\nb\x9b"}]})""")
    assert connection.receive(scaled(30.0)) == {"error": [r"\x1b]0;title\x07", {"two\nlines": "a\nb\\x9b"}]}
    connection.end()


@pytest.mark.parametrize("line", ["no JSON", "[1]", "3", '"text"', "[" * 100_000, "\\xff", "NaN"])
def test_what_is_no_line_of_the_program_is_a_broken_connection(ssh, folder, line):
    connection = connect(ssh, folder, f"os.write(1, b'{line}' + bytes([10]))")
    with pytest.raises(Broken):
        connection.receive(scaled(30.0))
    connection.end()


def test_a_connection_that_this_process_has_closed_is_broken(ssh, folder):
    connection = connect(ssh, folder, "pass")
    connection.forget()
    with pytest.raises(Broken):
        connection.receive(scaled(30.0))
    with pytest.raises(Broken):
        connection.send({})
    connection.end()


def test_what_cannot_be_forwarded_is_a_broken_connection(ssh, folder):
    connection = connect(ssh, folder, "pass")
    with pytest.raises(Broken):
        connection.forward(folder / ("x" * 300), "/there")
    ssh.does("sys.exit('cannot')")
    with pytest.raises(Broken):
        connection.forward(folder / "here", "/there")
    assert connection.said() == "cannot"
    ssh.program.unlink()
    with pytest.raises(Broken):
        connection.forward(folder / "here", "/there")
    connection.leave(scaled(30.0))
    assert connection.process.returncode == 0
