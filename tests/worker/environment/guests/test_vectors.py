"""Several environments in one guest beside the same ones in a worker, and beside a run inside of their own Python."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interpreters import OLD, Interpreter, python_of
from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, RemoteEnvironmentError, SessionLost
from remote_gym.guest import program
from remote_gym.testing import find_difference
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.autoreset import AutoresetMode
from remote_gym.worker.environment.entrypoint import Created, create_environment
from remote_gym.worker.environment.vector import mode_of
from waiting import scaled

TESTS = Path(__file__).parents[3]
STEPS = 200
COUNT = 3
needs_gymnasium_1 = pytest.mark.skipif(
    AutoresetMode is None,
    reason="in Gymnasium < 1.1 elements of Dict spaces are OrderedDicts, samples of Text depend on the process, too "
    "many actions are taken, and AsyncVectorEnv does not say that it resets in the same step",
)
"""For what differs from a worker, or cannot be compared with one, where the two run in an older Gymnasium."""
MODES = ["NextStep", "SameStep", "Disabled"] if AutoresetMode is not None else [None]
CODES = {None: pb.AUTORESET_UNSPECIFIED, "NextStep": pb.NEXT_STEP, "SameStep": pb.SAME_STEP, "Disabled": pb.DISABLED}


Create = Callable[..., Created]


@pytest.fixture
def create() -> Iterator[Create]:
    """What a launch makes: in a guest of that command, or in this process where there is none."""
    with contextlib.ExitStack() as closing:

        def create(command: list[str], entrypoint: str, root: Path = TESTS, **fields: Any) -> Created:
            limits = fields.pop("limits", Limits())
            kwargs = fields.pop("kwargs", {})
            launch = worker_pb2.Launch(
                root=str(root), entrypoint=entrypoint, limits=asdict(limits), anywhere=True, **fields
            )
            launch.guest.command.extend(command)
            if not command:
                launch.ClearField("guest")
            made = create_environment(launch, kwargs, own_process=False)
            closing.callback(made.environment.close)
            return made

        yield create


def noting_messages(environment: Any) -> list[int]:
    """The operations of all requests that are sent to a guest from now on."""
    guest = (environment.envs[0] if hasattr(environment, "envs") else environment)._guest
    asked: list[int] = []
    ask = guest._process.ask

    def note(request: bytes) -> memoryview:
        asked.append(request[0])
        return ask(request)  # type: ignore[no-any-return]

    guest._process.ask = note
    return asked


@pytest.mark.parametrize(
    "space", [None, "box_uint8", "graph", *(pytest.param(name, marks=needs_gymnasium_1) for name in ("dict", "mixed"))]
)
@pytest.mark.parametrize("mode", MODES)
def test_a_batch_in_a_guest_steps_by_one_message_as_one_in_a_worker_does(create, mode, space):
    fields: dict[str, Any] = {"num_envs": COUNT, "autoreset_mode": CODES[mode], "env_id": 5}
    kwargs = {} if space is None else {"space": space}
    there: Any = create([sys.executable], "vector_entrypoint.py", kwargs=kwargs, **fields).environment
    here: Any = create([], "vector_entrypoint.py", kwargs=kwargs, **fields).environment
    assert (there.observation_space, there.action_space) == (here.observation_space, here.action_space)
    asked = noting_messages(there)
    assert not find_difference(here.reset(seed=3), there.reset(seed=3))
    here.action_space.seed(1)
    resets = 0
    for number in range(STEPS):
        actions = here.action_space.sample() if space is not None else np.zeros(COUNT, np.int64)
        expected = here.step(actions)
        del asked[:]
        found = there.step(actions)
        assert not find_difference(expected, found), number
        assert asked == [program.SEVERAL]
        ended = np.logical_or(expected[2], expected[3])
        resets += int(ended.sum())
        if mode == "Disabled" and ended.any():
            expected, found = (each.reset(options={"reset_mask": ended.copy()}) for each in (here, there))
            assert not find_difference(expected, found), number
        if number == STEPS // 2:
            assert not find_difference(here.reset(seed=[7, None, 9]), there.reset(seed=[7, None, 9]))
    assert resets > 10


COUNTING = """
import gymnasium as gym
import numpy as np

EXPOSED = ("count",)

class Counting(gym.Env):
    observation_space = gym.spaces.Box(-np.inf, np.inf, (SIZE,), np.float64)
    action_space = gym.spaces.Discrete(4)

    def __init__(self):
        self.count = 0

    def reset(self, *, seed=None, options=None):
        self.count += 100
        return np.full(SIZE, self.count, np.float64), {}

    def step(self, action):
        self.count += 1
        if action == 1:
            raise ValueError("no way")
        if action == 2:
            import os
            os._exit(3)
        return np.full(SIZE, self.count, np.float64), self.count, action == 3, False, {"count": self.count}

def create_environment():
    return Counting()
"""


@pytest.fixture
def counting(tmp_path: Path) -> str:
    file = tmp_path / "counting.py"
    file.write_text(COUNTING.replace("SIZE", "3"))
    return str(file)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "Disabled"])
def test_one_that_raises_stops_the_step_where_it_stops_in_a_worker(create, counting, mode):
    fields: dict[str, Any] = {"num_envs": COUNT, "autoreset_mode": CODES[mode]}
    there: Any = create([sys.executable], counting, **fields).environment
    here: Any = create([], counting, **fields).environment
    for environment in (there, here):
        environment.reset()
        environment.step(np.array([0, 3, 0]))
        environment.step(np.array([3, 0, 3]))
        with pytest.raises((ValueError, RemoteEnvironmentError), match="no way"):
            environment.step(np.array([0, 1, 0]))
    assert [each.get("count") for each in there.envs] == [each.count for each in here.envs]
    assert not find_difference(here.step(np.zeros(3, np.int64)), there.step(np.zeros(3, np.int64)))
    with pytest.raises(SessionLost, match="ended with status 3"):
        there.step(np.array([0, 2, 0]))
    with pytest.raises(SessionLost):
        there.step(np.zeros(3, np.int64))


@needs_gymnasium_1
@pytest.mark.parametrize("actions", [np.zeros(2, np.int64), np.zeros(4, np.int64), None])
def test_actions_that_cannot_be_sent_are_refused_as_in_a_worker_by_the_environment_that_they_are_for(
    create, counting, actions
):
    there: Any = create([sys.executable], counting, num_envs=COUNT).environment
    here: Any = create([], counting, num_envs=COUNT).environment
    for environment in (there, here):
        environment.reset()
        with pytest.raises(Exception):  # noqa: B017, PT011 - of whatever kind Gymnasium's are
            environment.step(actions)
    there.reset()
    there.step(np.zeros(3, np.int64))


def test_an_action_without_a_wire_form_is_refused_after_those_before_it_have_stepped(create, counting):
    there: Any = create([sys.executable], counting, num_envs=COUNT).environment
    there.reset()
    with pytest.raises(EncodingError, match="action"):
        there.step([0, object(), 0])
    assert [each.get("count") for each in there.envs] == [101, 100, 100]
    there.step(np.zeros(3, np.int64))


@pytest.mark.skipif(AutoresetMode is None, reason="Gymnasium < 1.1 does not refuse them")
def test_a_step_without_a_reset_that_was_due_steps_as_many_as_in_a_worker(create, counting):
    fields: dict[str, Any] = {"num_envs": COUNT, "autoreset_mode": pb.DISABLED}
    there: Any = create([sys.executable], counting, **fields).environment
    here: Any = create([], counting, **fields).environment
    for environment in (there, here):
        environment.reset()
        environment.step(np.array([0, 0, 3]))
        with pytest.raises(AssertionError):
            environment.step(np.zeros(3, np.int64))
    assert [each.get("count") for each in there.envs] == [each.count for each in here.envs] == [102, 102, 101]


def test_answers_that_do_not_fit_into_one_message_come_in_several(create, tmp_path):
    file = tmp_path / "large.py"
    file.write_text(COUNTING.replace("SIZE", "20_000"))
    limits = Limits(message_bytes=400_000)
    there: Any = create([sys.executable], str(file), num_envs=5, limits=limits).environment
    there.reset()
    asked = noting_messages(there)
    observations, *_ = there.step(np.zeros(5, np.int64))
    assert asked == [program.SEVERAL, program.REST, program.REST]
    assert observations.shape == (5, 20_000)
    assert (observations == 101).all()
    larger = tmp_path / "larger.py"  # a name of its own: of one that changes within a second Python may run what it was
    larger.write_text(COUNTING.replace("SIZE", "60_000"))
    there = create([sys.executable], str(larger), num_envs=2, limits=limits).environment
    with pytest.raises(EncodingError, match=r"takes .* bytes, and the server's limit is 400,000"):
        there.reset()


# --------------------------------------------------------------------------------------------------------------
# Vector environments of an entrypoint's own

OWN = """
import gymnasium as gym
from vector_entrypoint import Telling

EXPOSED = ("num_envs", "closed")

def create_vector_environment(num_envs, env_id, kind="SyncVectorEnv", autoreset_mode=None):
    makers = [lambda number=number: Telling(env_id + number) for number in range(num_envs)]
    options = {} if autoreset_mode is None else {"autoreset_mode": autoreset_mode}
    return getattr(gym.vector, kind)(makers, **options)
"""


@pytest.mark.parametrize("kind", ["SyncVectorEnv", pytest.param("AsyncVectorEnv", marks=needs_gymnasium_1)])
@pytest.mark.parametrize("mode", MODES)
def test_an_entrypoints_own_vector_environment_is_as_in_a_worker(create, tmp_path, kind, mode):
    file = tmp_path / "own.py"
    file.write_text(OWN)
    fields: dict[str, Any] = {"num_envs": COUNT, "autoreset_mode": CODES[mode], "env_id": 5}
    made = create([sys.executable], str(file), kwargs={"kind": kind}, **fields)
    there: Any = made.environment
    here: Any = create([], str(file), kwargs={"kind": kind}, **fields).environment
    assert made.exposed == ("num_envs", "closed")
    assert there.get("num_envs") == COUNT
    assert mode_of(there) == mode_of(here)
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(there, name) == getattr(here, name)
    asked = noting_messages(there)
    assert not find_difference(here.reset(seed=3), there.reset(seed=3))
    for number in range(STEPS):
        expected = here.step(np.zeros(COUNT, np.int64))
        assert not find_difference(expected, there.step(np.zeros(COUNT, np.int64))), number
        ended = np.logical_or(expected[2], expected[3])
        if mode == "Disabled" and ended.any():
            expected, found = (each.reset(options={"reset_mask": ended.copy()}) for each in (here, there))
            assert not find_difference(expected, found), number
    assert asked.count(program.STEP_PACKED) == STEPS


BROKEN = [
    ("3", "returned the type builtins.int; return a VectorEnv of Gymnasium's or Gym's"),
    ("gym.make_vec('CartPole-v1', num_envs + 1)", "returned 4 environments; 3 were asked for"),
    ("gym.make_vec('CartPole-v1', num_envs)", "returned an environment of autoreset_mode"),
    ("gym.make_vec('CartPole-v1', num_envs) if wrong else 0", "was to be called with num_envs"),
]


@pytest.mark.skipif(AutoresetMode is None, reason="Gymnasium < 1.1 has one mode only")
@pytest.mark.parametrize(("code", "text"), BROKEN)
def test_a_vector_environment_that_is_not_what_was_asked_for_is_refused(create, tmp_path, code, text):
    file = tmp_path / "broken.py"
    parameters = "num_envs, wrong" if "wrong" in code else "num_envs"
    file.write_text(f"import gymnasium as gym\ndef create_vector_environment({parameters}):\n    return {code}\n")
    with pytest.raises(ConfigError, match="create_vector_environment") as caught:
        create([sys.executable], str(file), num_envs=COUNT, autoreset_mode=pb.SAME_STEP)
    assert text in str(caught.value)


# --------------------------------------------------------------------------------------------------------------
# Old Gyms

OLD_VECTORS = """
import gym
try:
    import gymnasium as gym
except ImportError:
    pass

class Short(gym.Wrapper):
    def __init__(self, env, number):
        super().__init__(env)
        self.number = number

    def step(self, action):
        returned = self.env.step(action)
        info = dict(returned[-1])
        info["position"] = float(returned[0][0])
        if self.number == 1:
            info["word"] = "one"
            info["whole"] = 3
        return tuple(returned[:-1]) + (info,)

def create_vector_environment(num_envs, kind):
    makers = [lambda number=number: Short(gym.make("CartPole-v1"), number) for number in range(num_envs)]
    return getattr(gym.vector, kind)(makers)
"""
INSIDE = """
import json, random, sys
sys.path.insert(0, sys.argv[2])
import old_vectors
import numpy as np
environment = old_vectors.create_vector_environment(3, sys.argv[3])
gym = old_vectors.gym
version = tuple(map(int, gym.__version__.split(".")[:2]))
new = gym.__name__ == "gymnasium" or version >= (0, 26)
if new:
    observations = environment.reset(seed=7)[0]
else:
    try:
        observations = environment.reset(seed=7)
    except TypeError:
        environment.seed(7)
        observations = environment.reset()
lines = [[observations.tobytes().hex(), str(observations.dtype), None, None, None, None]]
chooser = random.Random(3)

def named(value):
    return None if value is None else np.asarray(value).tolist()

def one(infos, index):
    if isinstance(infos, dict):
        return {
            key: named(infos[key][index])
            for key in infos
            if not key.startswith("_") and "_" + key in infos and infos["_" + key][index] and "final" not in key
        }
    return {key: named(value) for key, value in infos[index].items()}

def final(infos, index, name):
    found = infos.get(name) if isinstance(infos, dict) else None
    return None if found is None else found[index]

for _ in range(STEPS):
    step = environment.step(np.array([chooser.randrange(2) for _ in range(3)]))
    ended = step[2] if len(step) == 4 else np.logical_or(step[2], step[3])
    infos = step[-1]
    told = []
    for index in range(3):
        if not ended[index]:
            told.append([one(infos, index), None, None])
        elif new:
            kept = final(infos, index, "final_info")
            told.append([one(infos, index), {key: named(value) for key, value in kept.items()},
                         named(final(infos, index, "final_observation"))])
        else:  # the reset has no info, so that of the last step is what there is
            last = one(infos, index)
            if isinstance(infos, dict) and "TimeLimit.truncated" in infos:
                last["TimeLimit.truncated"] = bool(infos["TimeLimit.truncated"][index])
            told.append([{}, last, named(final(infos, index, "final_observation"))])
    lines.append([step[0].tobytes().hex(), str(step[0].dtype), step[1].tolist(), step[2].tolist(), ended.tolist()])
    lines[-1].append(told)
json.dump(lines, open(sys.argv[1], "w"))
"""


def of_one(infos: dict[Any, Any], index: int) -> dict[str, Any]:
    """What one environment has in merged infos, but for what ended its episode."""
    return {
        key: np.asarray(values[index]).tolist()
        for key, values in infos.items()
        if not key.startswith(("_", "final")) and infos[f"_{key}"][index]
    }


@pytest.mark.skipif(AutoresetMode is None, reason="Gymnasium < 1.1 merges the last infos otherwise")
@pytest.mark.parametrize("kind", ["SyncVectorEnv", "AsyncVectorEnv"])
@pytest.mark.parametrize("interpreter", OLD[1:], ids=str)
def test_vector_environments_of_old_gyms_look_like_this_releases(create, interpreter: Interpreter, kind, tmp_path):
    import random

    python = python_of(interpreter)
    (tmp_path / "old_vectors.py").write_text(OLD_VECTORS.replace("import gym\n", "", 1).replace("pass", "import gym"))
    inside, file = tmp_path / "inside.py", tmp_path / "inside.json"
    inside.write_text(f"STEPS = {STEPS}\n{INSIDE}")
    command = [python, "-W", "ignore", str(inside), str(file), str(tmp_path), kind]
    subprocess.run(command, check=True, timeout=scaled(60), cwd=tmp_path)
    made = create(
        [python, "-W", "ignore"], str(tmp_path / "old_vectors.py"), tmp_path, num_envs=COUNT, kwargs={"kind": kind}
    )
    environment: Any = made.environment
    assert mode_of(environment) == pb.SAME_STEP
    chooser = random.Random(3)
    observations, infos = environment.reset(seed=7)
    assert infos == {}
    assert observations in environment.observation_space
    lines: list[Any] = [[observations.tobytes().hex(), str(observations.dtype), None, None, None, None]]
    for _ in range(STEPS):
        step = environment.step(np.array([chooser.randrange(2) for _ in range(COUNT)]))
        observations, rewards, terminated, truncated, infos = step
        ended = np.logical_or(terminated, truncated)
        assert [each.dtype for each in step[1:4]] == [np.float64, np.bool_, np.bool_]
        told = []
        for index in range(COUNT):
            last = of_one(infos["final_info"], index) if ended[index] else None
            seen = infos["final_obs"][index] if ended[index] and "final_obs" in infos else None
            told.append([of_one(infos, index), last, None if seen is None else seen.tolist()])
        old = interpreter.library in ("gym 0.21", "gym 0.25")
        first = ended if old else terminated
        lines.append(
            [
                observations.tobytes().hex(),
                str(observations.dtype),
                rewards.tolist(),
                first.tolist(),
                ended.tolist(),
                told,
            ]
        )
    expected = json.loads(file.read_text())
    assert len(lines) == len(expected)
    for found, wanted in zip(lines, expected, strict=True):
        assert json.loads(json.dumps(found)) == wanted
    assert sum(map(sum, (line[4] for line in expected[1:]))) > 5
