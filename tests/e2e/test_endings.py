"""A worker ends as a script does: what its environment left open is written, finalised and removed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from remote_gym.testing import loopback_server
from waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /dev/shm")

ENVIRONMENT = '''
import atexit, csv, gymnasium, json, logging.handlers, multiprocessing, os, threading
from concurrent.futures import ThreadPoolExecutor
from gymnasium.envs.classic_control import CartPoleEnv
from multiprocessing import shared_memory
from pathlib import Path

KEPT = []


class Careless(CartPoleEnv):
    """Closes nothing of what it has opened."""

    def __init__(self, folder):
        super().__init__()
        self.folder = Path(folder)
        self.file = open(self.folder / "steps.csv", "w")
        self.rows = csv.writer(self.file)
        target = logging.FileHandler(self.folder / "log")
        logging.getLogger("careless").addHandler(logging.handlers.MemoryHandler(1000, target=target))
        logging.getLogger("careless").setLevel("INFO")
        self.shared = shared_memory.SharedMemory(create=True, size=64)
        (self.folder / "shared").write_text(self.shared.name)
        self.itself = self  # found by the collector alone
        atexit.register(self.note, "exit handler")
        atexit.register((self.folder / "status").write_text, "ended")
        threading.Thread(target=self.end_late).start()
        self.pool = ThreadPoolExecutor(1)
        KEPT.append(Finalised(self.folder))

    def note(self, text):
        with open(self.folder / "notes", "a") as file:
            file.write(text + "\\n")

    def end_late(self):
        threading.main_thread().join()
        self.note("thread")

    def step(self, action):
        self.rows.writerow([action])
        logging.getLogger("careless").info("step %s", action)
        self.pool.submit(self.note, f"step {action}").result()
        return super().step(action)


class Finalised:
    def __init__(self, folder):
        self.path = str(folder / "finalised")
        self.itself = self
        self.open = os.open

    def __del__(self):
        os.close(self.open(self.path, os.O_CREAT | os.O_WRONLY))


def create_environment(folder):
    return Careless(folder)
'''
LOCALLY = """
import careless, sys
environment = careless.create_environment(sys.argv[1])
environment.reset()
environment.step(0)
environment.step(1)
environment.close()
"""


def found(folder: Path) -> dict[str, object]:
    """What an environment has left behind."""
    files = {path.name: path.read_text() for path in folder.iterdir() if path.name != "shared"}
    return files | {"shared memory": Path("/dev/shm", (folder / "shared").read_text()).exists()}


@pytest.fixture
def folders(tmp_path) -> list[Path]:
    (tmp_path / "careless.py").write_text(ENVIRONMENT)
    made = [tmp_path / "local", tmp_path / "remote"]
    for folder in made:
        folder.mkdir()
    return made


@pytest.mark.parametrize("how", ["closed", "left", "stopped"])
def test_what_is_left_open_ends_as_in_a_script(how, folders, monkeypatch):
    local, remote = folders
    monkeypatch.chdir(local.parent)
    command = [sys.executable, "-c", LOCALLY, str(local)]
    subprocess.run(command, check=True, timeout=60.0, stderr=subprocess.PIPE)
    wait_until(lambda: not found(local)["shared memory"])
    expected = found(local)
    assert expected["steps.csv"] == "0\n1\n"
    assert expected["log"] == "step 0\nstep 1\n"
    assert expected["finalised"] == ""
    with loopback_server({"entrypoint": "careless.py"}, lease=1.0) as server:
        environment = server.environment(remote_args={"entrypoint_kwargs": {"folder": str(remote)}})
        environment.reset()
        environment.step(0)
        environment.step(1)
        if how == "left":
            environment.detach()
        elif how == "closed":
            environment.close()
        if how != "stopped":
            wait_until(lambda: found(remote) == expected)
    wait_until(lambda: found(remote) == expected)
