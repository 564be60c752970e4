"""Orders: what travels to a launched server's process arrives as what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from remote_gym import ConfigError, Limits, ServerOptions
from remote_gym.launched import order
from remote_gym.launched.order import read_order, write_order


def carried(environment: dict[str, Any], options: ServerOptions, folder: Path, *, sends: bool) -> Any:
    return read_order(json.loads(json.dumps(write_order(environment, options, sends=sends))), folder)


def test_environments_and_options_arrive_as_what_they_are(tmp_path):
    kwargs = {"task": (1, 2), "array": np.arange(3), 3: b"x"}
    options = ServerOptions(lease=5.0, imports=("ale_py",), message_limits=Limits(depth=16), environments={"a": "B-v1"})
    environment, arrived = carried({"entrypoint": "a.py", "entrypoint_kwargs": kwargs}, options, tmp_path, sends=False)
    assert environment["entrypoint"] == "a.py"
    assert np.array_equal(environment["entrypoint_kwargs"].pop("array"), np.arange(3))
    assert environment["entrypoint_kwargs"] == {"task": (1, 2), 3: b"x"}
    assert (arrived.lease, arrived.imports, arrived.message_limits.depth) == (5.0, ("ale_py",), 16)
    assert arrived.environments["a"]["entrypoint_kwargs"] == {"id": "B-v1"}
    assert not [*tmp_path.iterdir()]


def test_the_file_of_an_entrypoint_travels_where_it_is_asked_to(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "a.py").write_bytes(b"# \xff, any bytes\n")
    monkeypatch.chdir(here)
    options = ServerOptions(environments={"same": Path("a.py"), "id": "B-v1"})
    environment, arrived = carried({"entrypoint": "a.py"}, options, there, sends=True)
    for each in (environment, arrived.environments["same"]):
        sent = Path(each["entrypoint"])
        assert sent.is_relative_to(there)
        assert sent.name == "a.py"
        assert sent.read_bytes() == b"# \xff, any bytes\n"
        assert set(each) == {"entrypoint", "entrypoint_kwargs"}
    assert environment["entrypoint"] != arrived.environments["same"]["entrypoint"]


@pytest.mark.parametrize("key", [{"repo": "r"}, {"there": True}, {"include": ["b"]}])
def test_beside_other_files_it_is_the_hosts(tmp_path, key):
    file = tmp_path / "a.py"
    file.write_text("")
    environment, _ = carried({"entrypoint": str(file), **key}, ServerOptions(), tmp_path / "there", sends=True)
    assert environment["entrypoint"] == str(file)
    assert not (tmp_path / "there").exists()


def test_a_file_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(order, "_LARGEST_FILE", 3)
    file = tmp_path / "a.py"
    file.write_text("pass")
    with pytest.raises(ConfigError, match="is larger than the 3 bytes that are sent"):
        write_order({"entrypoint": str(file)}, ServerOptions(), sends=True)
