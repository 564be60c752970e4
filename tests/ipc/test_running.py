"""Records of the servers that run: private, whole, and gone with their processes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from remote_gym.cli import main
from remote_gym.ipc.owner import Owner, this_process
from remote_gym.ipc.running import recorded, running_servers, unbelieved_folders

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are known again by /proc")

RECORD = """
from remote_gym.ipc.running import recorded
with recorded("serve", "localhost:1", ["CartPole-v1"]):
    print("ready", flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where records lie: no other test's are among them."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path / f"remote_gym-{os.getuid()}"


def test_a_server_is_listed_while_it_runs_and_no_longer(folder):
    with recorded("serve", "localhost:1", ["CartPole-v1", "b.py"]):
        [server] = running_servers()
        assert server.owner == this_process()
        assert (server.command, server.address) == ("serve", "localhost:1")
        assert server.environments == ("CartPole-v1", "b.py")
        assert folder.stat().st_mode & 0o777 == 0o700
    assert running_servers() == []
    assert not [*folder.iterdir()]


def test_the_folder_of_the_login_comes_first_and_both_are_looked_at(folder, tmp_path, monkeypatch):
    with recorded("serve", "localhost:1", []):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        before = running_servers()
        assert len(before) == 1
        with recorded("launch", "unix:/a", []):
            # Of one process, so in both folders by the same name.
            assert [each.command for each in running_servers()] == ["serve", "launch"]
            assert [*(tmp_path / "remote_gym").iterdir()]


def test_records_of_killed_servers_are_removed_by_who_looks(folder):
    with subprocess.Popen([sys.executable, "-c", RECORD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        [server] = running_servers()
        assert server.owner.pid == process.pid
        process.kill()
    assert [*folder.iterdir()]
    assert running_servers() == []
    assert not [*folder.iterdir()]


@pytest.mark.parametrize("stranger", ["open to others", "a link", "a file"])
def test_a_folder_that_others_may_have_put_there_is_not_believed(folder, stranger, caplog):
    if stranger == "open to others":
        folder.mkdir()
        folder.chmod(0o777)
    elif stranger == "a link":
        (folder.parent / "theirs").mkdir(mode=0o700)
        folder.symlink_to(folder.parent / "theirs")
    else:
        folder.write_text("")
    with recorded("serve", "localhost:1", []):  # it serves all the same
        assert running_servers() == []
    fault = {"open to others": "is open to others, of mode 0777", "a link": "is a link", "a file": "is no folder"}
    assert unbelieved_folders() == [f"{folder} {fault[stranger]}"]
    assert f"will not list this server, as no record can be kept: {folder} {fault[stranger]}" in caplog.text
    noted = f"Note: servers may run that are not listed: {folder} {fault[stranger]}."
    assert noted in CliRunner().invoke(main, ["servers"]).output
    if stranger == "open to others":
        content = {"command": "serve", "address": "a:1", "environments": [], "log": None, "since": 0}
        (folder / f"{this_process()}.json").write_text(json.dumps(content))
        assert running_servers() == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_users_is_not_believed(folder, caplog):
    folder.mkdir(mode=0o700)
    os.chown(folder, 12345, 12345)
    with recorded("serve", "localhost:1", []):
        assert not [*folder.iterdir()]
    assert f"{folder} is another user's, of number 12345" in caplog.text


def test_a_folder_that_is_not_believed_is_no_fault_where_another_holds_the_record(
    folder, tmp_path, monkeypatch, caplog
):
    folder.write_text("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with recorded("serve", "localhost:1", []):
        assert len(running_servers()) == 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("changed", "stays"),
    [({"boot": "0" * 12}, False), ({"boot": "0" * 12, "namespace": 1}, False), ({"namespace": 1}, True)],
    ids=["another boot", "another boot and namespace", "another namespace"],
)
def test_records_of_before_this_boot_are_removed_and_those_of_another_namespace_are_not_listed(folder, changed, stays):
    with recorded("serve", "localhost:1", []):
        [own] = folder.iterdir()
        other = own.with_name(f"{dataclasses.replace(this_process(), **changed)}.json")
        other.write_text(own.read_text())
        assert [server.owner for server in running_servers()] == [this_process()]
        assert other.exists() is stays
        assert CliRunner().invoke(main, ["servers", "logs"]).output.count("say which") == 0


@pytest.mark.parametrize("content", ["", "[]", '{"command": "serve"}', "{" * 100_000, '{"since": "x"}'])
def test_a_record_that_cannot_be_read_is_none(folder, content):
    folder.mkdir(mode=0o700)
    (folder / f"{this_process()}.json").write_text(content)
    (folder / "other.json").write_text(content)
    assert running_servers() == []


def test_only_the_process_that_is_meant_is_signalled():
    with subprocess.Popen([sys.executable, "-c", RECORD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        [server] = running_servers()
        own = server.owner
        later = Owner(own.user, own.pid, own.start + 1, own.boot, own.namespace)
        elsewhere = Owner(own.user, own.pid, own.start, "0" * 12, own.namespace)
        inside = Owner(own.user, own.pid, own.start, own.boot, own.namespace + 1)
        assert not any(each.signal(signal.SIGKILL) for each in (later, elsewhere, inside))
        assert process.poll() is None
        assert own.signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
        assert not own.signal(signal.SIGTERM)
