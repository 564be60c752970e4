"""Environments in other Pythons beside runs inside of these, and as a host has them."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from interpreters import NEW, OLD, Interpreter, python_of
from remote_gym.config import Limits
from remote_gym.errors import ConfigError, NotPermitted, RemoteEnvironmentError, SessionLost
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.worker.environment.entrypoint import Created, create_environment
from remote_gym.worker.environment.guests.creation import create_environment as create_there
from remote_gym.worker.environment.guests.creation import creation_order, start_guest
from remote_gym.worker.host import Host
from waiting import scaled

LIMITS = Limits()


def launch(command: list[str], root: Path, entrypoint: str = "", **fields: Any) -> worker_pb2.Launch:
    there = fields.pop("there", False)
    message = worker_pb2.Launch(root=str(root), entrypoint=entrypoint, limits=asdict(LIMITS), anywhere=True, **fields)
    message.guest.command.extend(command)
    message.guest.there = there
    return message


def create(
    command: list[str], root: Path, kwargs: dict[str, Any], client: dict[str, Any] | None = None, **fields: Any
) -> Created:
    return create_environment(launch(command, root, **fields), kwargs, client, own_process=False)


OWN = """
import numpy as np
try:
    import gymnasium as gym
except ImportError:
    import gym
    import gym.spaces

EXPOSED = ("speed", "honk", "fail", "absent", "engine.power")

class Engine(object):
    power = 7

class Car(gym.Env):
    metadata = {"render.modes": ["rgb_array"], "render_modes": ["rgb_array"]}

    def __init__(self, speed, render_mode):
        self.observation_space = gym.spaces.Dict(
            {"a": gym.spaces.Box(-1, 1, (2,), np.float32), "n": gym.spaces.Discrete(9)}
        )
        self.action_space = gym.spaces.Tuple([gym.spaces.Discrete(2), gym.spaces.Box(-1, 1, (3,), np.float32)])
        self.speed = speed
        self.engine = Engine()
        self.render_mode = render_mode
        self.seeds = []

    def seed(self, seed=None):
        self.seeds.append(seed)

    def honk(self, times, loud=False):
        return ["honk"] * times + [loud]

    def fail(self):
        raise KeyError("no fuel")

    def observation(self):
        return {"a": np.ones(2, np.float32), "n": 3}

    def reset(self, **arguments):
        if arguments.get("seed") is not None:
            self.seeds.append(arguments["seed"])
        return (self.observation(), {"seeds": self.seeds}) if arguments else self.observation()

    def step(self, action):
        number, array = action
        info = {"action": (number, array), "TimeLimit.truncated": True}
        rest = (False, True, info) if NEW else (True, info)
        return (self.observation(), np.float64(self.speed)) + rest

    def render(self, mode=None):
        return np.full((4, 5, 3), self.speed, np.uint8)

version = tuple(int(word) for word in gym.__version__.split(".")[:2])
NEW = gym.__name__ == "gymnasium" or version >= (0, 26)

def create_environment(speed, render_mode=None):
    print("made")
    return Car(speed, render_mode)
"""


@pytest.fixture
def car(tmp_path: Path) -> str:
    file = tmp_path / "car.py"
    file.write_text(OWN)
    return str(file)


@pytest.mark.parametrize("interpreter", [*OLD, *NEW], ids=str)
def test_an_entrypoint_in_another_python_is_as_one_in_ours(interpreter: Interpreter, tmp_path, car):
    made = create(
        [python_of(interpreter)], tmp_path, {"speed": 3}, {"speed": 4}, entrypoint=car, render_mode="rgb_array"
    )
    environment: Any = made.environment
    assert made.exposed == ("speed", "honk", "fail", "absent", "engine.power")
    assert environment.render_mode == "rgb_array"
    assert environment.metadata["render_modes"] == ["rgb_array"]
    observation, info = environment.reset(seed=5)
    assert list(observation) == ["a", "n"]
    assert (observation["a"].tolist(), observation["n"], info) in (([1.0, 1.0], 3, {"seeds": [5]}), ([1.0, 1.0], 3, {}))
    action = (np.int64(1), np.array([0.5, 0, -0.5], np.float32))
    observation, reward, terminated, truncated, info = environment.step(action)
    assert (reward, type(reward), terminated, truncated) == (4.0, np.float64, False, True)
    assert info["action"][0] == 1
    assert info["action"][1].tolist() == [0.5, 0, -0.5]
    assert environment.render().tolist() == np.full((4, 5, 3), 4).tolist()
    host = Host(environment, exposed=made.exposed, limits=LIMITS)
    assert [(each.name, each.callable) for each in host.describe().exposed] == [
        ("speed", False),
        ("honk", True),
        ("fail", True),
        ("engine.power", False),
    ]
    assert environment.get("engine.power") == 7
    assert environment.call("honk", (2,), {"loud": True}) == ["honk", "honk", True]
    environment.assign("speed", 9)
    assert environment.step(action)[1] == 9
    with pytest.raises(RemoteEnvironmentError) as caught:
        environment.call("fail", (), {})
    assert caught.value.remote_type == "builtins.KeyError"
    assert caught.value.remote_message == "'no fuel'"
    assert 'raise KeyError("no fuel")' in caught.value.remote_traceback
    host.close()


def test_several_environments_share_one_guest_and_end_with_the_last(tmp_path):
    made = create([sys.executable], tmp_path, {"id": "CartPole-v1"}, num_envs=3)
    environment: Any = made.environment
    observations, _ = environment.reset(seed=3)
    assert observations.shape == (3, 4)
    assert environment.step(np.array([0, 1, 0]))[1].tolist() == [1.0, 1.0, 1.0]
    [process] = {each._guest._process for each in environment.envs}
    environment.envs[0].close()
    assert process._process.poll() is None
    environment.close()
    assert process._process.poll() == 0


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        ("", ConfigError, "does not define create_environment"),
        ("def create_environment(): return 3", ConfigError, "returned the type builtins.int"),
        (
            "class Agents:\n def reset(self): ...\n def step(self): ...\ndef create_environment(): return Agents()",
            ConfigError,
            "those of texts, with asynchronous methods, are hosted in the server's own Python alone",
        ),
        ("def create_environment(colour): pass", ConfigError, "was to be called with no arguments"),
        (
            "EXPOSED = 3\ndef create_environment():\n import gymnasium\n return gymnasium.make('CartPole-v1')",
            ConfigError,
            "EXPOSED is 3",
        ),
        ("import nothing_of_this_name", RemoteEnvironmentError, "ModuleNotFoundError"),
        ("def create_environment(): return 1 / 0", RemoteEnvironmentError, "ZeroDivisionError"),
        ("import os\ndef create_environment(): print('last words'); os._exit(3)", SessionLost, "ended with status 3"),
    ],
)
def test_an_entrypoint_that_cannot_work_says_why_and_leaves_no_guest(tmp_path, code, error, text):
    file = tmp_path / "broken.py"
    file.write_text(textwrap.dedent(code))
    with pytest.raises(error, match=text) as caught:
        create([sys.executable], tmp_path, {}, entrypoint=str(file))
    if isinstance(caught.value, SessionLost):
        assert "last words" in caught.value.output


def test_an_entrypoint_that_is_there_is_not_sent(tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    (there / "entry.py").write_text(OWN)
    command = ["sh", "-c", f'cd {there}; exec {sys.executable} "$@"', "python"]
    made = create(command, tmp_path / "", {"speed": 1}, entrypoint=str(there / "entry.py"), there=True)
    made.environment.close()
    with pytest.raises(ConfigError, match=r"entrypoint '.*absent.py' does not exist where its Python runs"):
        create(command, tmp_path, {"speed": 1}, entrypoint=str(there / "absent.py"), there=True)


def test_a_client_chooses_no_id_in_another_python(tmp_path):
    with pytest.raises(NotPermitted, match="leave out the id"):
        create([sys.executable], tmp_path, {"id": "CartPole-v1"}, {"id": "Acrobot-v1"})


def test_a_host_whose_guest_dies_amid_a_step_tells_and_is_closed(tmp_path):
    file = tmp_path / "dying.py"
    file.write_text(
        textwrap.dedent(
            """
            import os, sys
            import gymnasium

            class Environment(gymnasium.Env):
                observation_space = action_space = gymnasium.spaces.Discrete(2)

                def reset(self, **_):
                    return 0, {}

                def step(self, action):
                    sys.stderr.write("out of fuel\\n")
                    os.abort()

            def create_environment():
                return Environment()
            """
        )
    )
    made = create([sys.executable], tmp_path, {}, entrypoint=str(file))
    host = Host(made.environment, exposed=made.exposed, limits=LIMITS)
    reset = pb.Request(sequence=1)
    reset.reset.SetInParent()
    assert not pb.Response.FromString(host.answer(reset.SerializeToString())).HasField("error")
    step = pb.Request(sequence=2)
    step.step.packed = np.int64(1).tobytes()
    error = pb.Response.FromString(host.answer(step.SerializeToString())).error
    assert error.kind == pb.ErrorDetail.SESSION_LOST
    assert error.loss_reason == pb.ErrorDetail.CRASHED
    assert "was ended by SIGABRT" in error.message
    assert error.output.startswith("out of fuel")
    assert host.closed


PACKAGED = """
import multiprocessing
import gymnasium as gym
{imports}

class Environment(gym.Env):
    observation_space = action_space = gym.spaces.Discrete(2)

    def reset(self, **_):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            [name] = pool.map(name_of, [self])
        return 0, {{"found": FOUND, "name": __name__, "spawned": name}}

    def step(self, action):
        raise ValueError("here")

def name_of(environment):
    return type(environment).__module__

def create_environment():
    return Environment()
"""


def test_an_entrypoint_imports_what_lies_beside_it_and_is_found_by_what_it_spawns(tmp_path):
    package = tmp_path / "sims" / "cars"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").touch()
    (package / "found.py").write_text("FOUND = 'in the package'")
    (package / "entry.py").write_text(PACKAGED.format(imports="from .found import FOUND"))
    (tmp_path / "beside.py").write_text("FOUND = 'beside'")
    (tmp_path / "single.py").write_text(PACKAGED.format(imports="from beside import FOUND"))
    for file, there, expected in (
        ("sims/cars/entry.py", False, {"found": "in the package", "name": "sims.cars.entry"}),
        ("single.py", False, {"found": "beside", "name": "single"}),
        ("single.py", True, {"found": "beside", "name": "single"}),
    ):
        made = create([sys.executable], tmp_path, {}, entrypoint=file, there=there)
        assert made.environment.reset()[1] == {**expected, "spawned": expected["name"]}
        made.environment.close()


def test_an_entrypoint_that_was_sent_need_not_be_there_and_shows_its_lines(tmp_path):
    source = PACKAGED.format(imports="FOUND = 3").encode()
    order = creation_order(
        env_id=0,
        entrypoint="/nowhere/entry.py",
        source=source,
        root=Path("/nowhere"),
        imports=("a_module_that_only_the_server_has",),
        kwargs={},
        render_mode=None,
        limits=LIMITS,
    )
    environment = create_there(start_guest([sys.executable], tmp_path, LIMITS), 0, order)
    with pytest.raises(RemoteEnvironmentError) as caught:
        environment.step(0)
    environment.close()
    assert caught.value.remote_traceback.startswith('Traceback (most recent call last):\n  File "/nowhere/entry.py"')
    assert 'raise ValueError("here")' in caught.value.remote_traceback


def test_a_module_of_the_roots_does_not_take_the_place_of_one_that_the_program_imports(tmp_path):
    (tmp_path / "fractions.py").write_text("raise SystemExit('not this one')")
    environment = create([sys.executable], tmp_path, {"id": "CartPole-v1"}).environment
    environment.reset()
    environment.close()


SUBCLASSED = """
import numpy as np
try:
    import gymnasium as gym
except ImportError:
    import gym
    import gym.spaces

class Fine(gym.spaces.Discrete):
    pass

class Shifted(gym.spaces.Box):
    def sample(self):
        return super().sample() + np.float32(10)

class Words(gym.Space):
    def sample(self):
        self.count = getattr(self, "count", 0) + 1
        return ["left", "right", "stra\u00dfe"][self.count % 3]

    def contains(self, x):
        return isinstance(x, str)

class Environment(gym.Env):
    action_space = Fine(1000)

    def __init__(self, kind):
        made = {"fine": Fine(5), "shifted": Shifted(-1, 1, (2,), np.float32), "words": Words()}
        inner = made["shifted" if kind == "nested" else kind]
        self.observation_space = gym.spaces.Dict({"a": inner}) if kind == "nested" else inner
        gym.spaces.np_random.seed(3) if hasattr(gym.spaces, "np_random") else self.action_space.seed(3)

    def reset(self, **_):
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {"sample": int(self.action_space.sample())}

EXPOSED = ("drawn",)

def create_environment(kind):
    environment = Environment(kind)
    environment.drawn = lambda: int(environment.action_space.sample())
    return environment
"""


@pytest.mark.parametrize("interpreter", [None, *OLD[:2]], ids=str)
def test_a_subclass_of_a_space_travels_as_it_if_its_samples_do(interpreter: Interpreter | None, tmp_path):
    file = tmp_path / "subclassed.py"
    file.write_text(SUBCLASSED)
    python = sys.executable if interpreter is None else python_of(interpreter)
    fine: Any = create([python], tmp_path, {"kind": "fine"}, entrypoint=str(file)).environment
    assert (fine.observation_space, fine.action_space) == (spaces.Discrete(5), spaces.Discrete(1000))
    assert [fine.call("drawn", (), {}) for _ in range(3)] == drawn_inside(python, file)
    fine.close()
    words: Any = create([python], tmp_path, {"kind": "words"}, entrypoint=str(file)).environment
    assert isinstance(words.observation_space, spaces.Text)
    assert words.observation_space.contains("stra\u00dfe left")
    words.close()
    for kind in ("shifted", "nested"):
        with pytest.raises(ConfigError, match=r"a space of type .*Shifted cannot travel as Box.*its sample .* is no"):
            create([python], tmp_path, {"kind": kind}, entrypoint=str(file))


def drawn_inside(python: str, file: Path) -> list[int]:
    """What that Python itself draws, by whose generator nothing else has been drawn."""
    code = (
        f"import sys; sys.path.insert(0, {str(file.parent)!r}); import subclassed\n"
        "environment = subclassed.create_environment('fine')\n"
        "print([environment.drawn() for _ in range(3)])"
    )
    done = subprocess.run([python, "-W", "ignore", "-c", code], capture_output=True, check=True, timeout=scaled(60))
    found: list[int] = json.loads(done.stdout)
    return found
