"""Who owns what outlives a process: told from its label, and dead only where that can be known."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

from remote_gym.ipc.owner import Owner, find_owner, this_process

PRINT = "from remote_gym.ipc.owner import this_process; print(this_process(), flush=True); input()"


def test_an_owner_is_found_in_what_engines_print_of_labels():
    own = this_process()
    assert find_owner(f"remote_gym.owner={own},other=1") == own
    assert find_owner(f"map[other:1 remote_gym.owner:{own}]") == own
    assert find_owner("map[remote_gym.owner:me]") is None


def test_it_is_dead_once_its_process_is_and_not_before():
    with subprocess.Popen([sys.executable, "-c", PRINT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        owner = find_owner(process.stdout.readline().decode())
        assert owner is not None
        assert owner.pid == process.pid
        assert not owner.is_dead()
        process.stdin.close()
        process.wait(60)
    assert owner.is_dead()
    for field, value in {"user": owner.user + 1, "boot": "0" * 12, "namespace": 1}.items():
        assert not dataclasses.replace(owner, **{field: value}).is_dead()


def test_another_process_of_the_same_id_is_not_the_owner():
    own = this_process()
    assert not own.is_dead()
    assert Owner(own.user, own.pid, own.start + 1, own.boot, own.namespace).is_dead()
