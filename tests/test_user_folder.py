"""The folder whose names no other user can take."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from remote_gym import ConfigError, launch
from remote_gym.user_folder import make_folder, user_folder

pytestmark = pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs users by number")


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_what_is_made_is_this_users_alone_and_its_parent_stays(temporary):
    folder = make_folder("a-")
    assert folder.parent == user_folder() == temporary / f"remote_gym-{os.getuid()}"
    assert folder.name.startswith("a-")
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, folder.parent)] == [0o700, 0o700]
    folder.rmdir()
    assert make_folder().parent.is_dir()


def test_the_name_of_a_launched_server_is_nobody_elses_when_it_has_ended(temporary):
    with launch("CartPole-v1") as server:
        address = Path(server.url.removeprefix("unix:"))
        assert address.is_socket()
    assert not address.parent.exists()
    # In the temporary folder anybody may make it again; there nobody else may.
    assert address.parents[1] == user_folder()
    assert stat.S_IMODE(user_folder().stat().st_mode) == 0o700


@pytest.mark.parametrize("theirs", ["a file", "open to others"])
def test_nothing_is_launched_where_others_may_have_been_before(temporary, theirs):
    if theirs == "a file":
        user_folder().write_text("")
        fault = "cannot be made: File exists"
    else:
        user_folder().mkdir()
        user_folder().chmod(0o755)
        fault = "is open to others, of mode 0755, so sockets in it would not be safe"
    with pytest.raises(ConfigError, match=re.escape(f"{user_folder()} {fault}; let TMPDIR name a folder")):
        launch("CartPole-v1")
