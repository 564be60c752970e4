"""An entrypoint works wherever it lies, and so does what its environments spawn; clients stay in their folder."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest

from remote_gym import ConfigError
from remote_gym.testing import loopback_server

# Spawns a process that gets an instance of a class of the file, which it can only unpickle if it finds the file.
SPAWNS = """
import multiprocessing

import gymnasium as gym


class Work:
    def __init__(self, size):
        self.size = size

    def run(self, results):
        results.put((type(self).__name__, self.size))


class Spawning(gym.Env):
    observation_space = action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        spawning = multiprocessing.get_context("spawn")
        results = spawning.Queue()
        process = spawning.Process(target=Work(3).run, args=(results,))
        process.start()
        try:
            return 0, {"result": results.get(timeout=60), "beside": BESIDE}
        finally:
            process.join(60)

    def step(self, action):
        return 0, 0.0, False, False, {}


def create_environment():
    return Spawning()


if __name__ == "__main__":
    raise RuntimeError("it is no script")
"""
PLACES = {
    "entry.py": "BESIDE = None",
    "envs/entry.py": "from beside import NAME as BESIDE",
    "my-env.py": "from beside import NAME as BESIDE",
    "class.py": "from beside import NAME as BESIDE",
    "sub/random.py": "from beside import NAME as BESIDE",
    "sub/env.v2.py": "from beside import NAME as BESIDE",
    "package/entry.py": "from .beside import NAME as BESIDE",
    "src/packaged/inner/entry.py": "from ..beside import NAME as BESIDE",
}


@pytest.fixture(scope="module")
def places(own_folder):
    """Serves an environment of each place, under the name of its number."""
    for place, text in PLACES.items():
        file = own_folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + SPAWNS)
        for folder in file.parents[: len(Path(place).parents) - 1]:
            if any(part.startswith("package") for part in folder.parts[len(own_folder.parts) :]):
                (folder / "__init__.py").touch()
            (folder / "beside.py").write_text("NAME = 'beside'")
        (file.parent / "beside.py").write_text("NAME = 'beside'")
    environments = {f"place-{number}": {"entrypoint": place} for number, place in enumerate(PLACES)}
    with loopback_server(None, environments=environments) as server:
        yield server


@pytest.mark.parametrize("place", PLACES)
def test_a_process_that_an_environment_spawns_finds_its_classes(place, places):
    _, info = places.environment(remote_args={"environment": f"place-{list(PLACES).index(place)}"}).reset()
    assert info["result"] == ("Work", 3)
    assert info["beside"] == (None if place == "entry.py" else "beside")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A file outside of the server's working directory, and a link to it in there."""
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
    (there / "beside_elsewhere.py").write_text("NAME = 'there'")
    file = there / "elsewhere.py"
    file.write_text("from beside_elsewhere import NAME as BESIDE\nimport gymnasium\nimport os\nEXPOSED = ('place',)\n")
    with file.open("a") as code:
        code.write("def create_environment():\n    environment = gymnasium.make('CartPole-v1')\n")
        code.write("    environment.place = [BESIDE, os.getcwd()]\n    return environment\n")
    (here / "link.py").symlink_to(file)
    monkeypatch.chdir(here)
    return file


@pytest.mark.parametrize("entrypoint", ["{file}", "link.py", "../there/elsewhere.py"])
@pytest.mark.parametrize("use_thread", [False, True])
def test_the_server_may_name_a_file_that_is_elsewhere(entrypoint, use_thread, elsewhere):
    entrypoint = entrypoint.format(file=elsewhere)
    own = {"entrypoint": entrypoint}
    with loopback_server(own, environments={"one": own}, use_thread=use_thread) as server:
        assert server.environment().place == ["there", str(Path.cwd())]
        assert server.environment(remote_args={"environment": "one"}).place[0] == "there"


def test_a_client_may_not_leave_the_folder_that_the_server_names_whatever_else_that_serves(elsewhere):
    own = {"entrypoint": str(elsewhere)}
    with loopback_server(own, environments={"one": own}, client_entrypoints=Path.cwd(), use_thread=True) as server:
        for chosen, name in itertools.product(
            (str(elsewhere), "link.py", "../there/elsewhere.py"), ({}, {"environment": "one"})
        ):
            with pytest.raises(ConfigError, match="outside its root"):
                server.environment(remote_args={"entrypoint": chosen, **name})
        (Path.cwd() / "theirs.py").write_text(
            "import gymnasium\ncreate_environment = lambda: gymnasium.make('Acrobot-v1')"
        )
        for chosen in ("theirs.py", str(Path.cwd() / "theirs.py")):
            assert server.environment(remote_args={"entrypoint": chosen}).action_space.n == 3


def test_what_a_repository_holds_stays_in_it(elsewhere, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for arguments in (["init", "-q"], ["add", "link.py"], [*identity, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *arguments], check=True)
    with loopback_server({"entrypoint": "link.py", "repo": str(Path.cwd())}, use_thread=True) as server:
        with pytest.raises(ConfigError, match="outside its root"):
            server.environment()
