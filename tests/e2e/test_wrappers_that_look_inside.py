"""Wrappers at the client that read more of an environment than its steps: its random numbers, and Atari's console."""

from __future__ import annotations

import contextlib
import copy
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from remote_gym import EncodingError, RemoteEnvironmentError
from remote_gym.testing import find_difference, loopback_server

ENTRYPOINT = """
import gymnasium as gym
import numpy as np

EXPOSED = {exposed}


class Gambler(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (), np.float64)
    action_space = gym.spaces.Discrete(2)
    kind = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.kind is not None and seed is not None:
            self.np_random = np.random.Generator(getattr(np.random, self.kind)(seed))
        return np.asarray(self.np_random.random()), {{}}

    def step(self, action):
        return np.asarray(self.np_random.random()), 0.0, False, False, {{}}


def create_environment(kind=None):
    environment = Gambler()
    environment.kind = kind
    return environment
"""


@pytest.fixture(params=["direct", "grpc"])
def gamble(request, servers, own_folder):
    """Makes a local `Gambler` and a remote one."""
    with contextlib.ExitStack() as stack:

        def make(exposed: tuple[str, ...] = ("np_random",), kind: str | None = None) -> tuple[gym.Env, gym.Env]:
            code = ENTRYPOINT.format(exposed=exposed)
            file = own_folder / f"gambler_who_shows_{'_'.join(exposed) or 'nothing'}.py"
            file.write_text(code)
            namespace: dict[str, Any] = {}
            exec(code, namespace)
            server = stack.enter_context(servers.lend({"entrypoint": file.name}))
            arguments = {"entrypoint_kwargs": {"kind": kind}}
            remote = server.environment(connection=request.param, remote_args=arguments)
            return namespace["create_environment"](kind), remote

        yield make


class Drawing(gym.Wrapper):
    """Draws of the environment's random numbers, as the wrappers of Atari and sticky actions do."""

    def reset(self, **arguments: Any) -> Any:
        observation, info = self.env.reset(**arguments)
        for _ in range(self.unwrapped.np_random.integers(1, 30)):
            observation, *_ = self.env.step(0)
        return observation, info

    def step(self, action: Any) -> Any:
        chances = np.arange(4)
        self.np_random.shuffle(chances)
        drawn = [self.np_random.random(), self.unwrapped.np_random.normal(), chances.tolist()]
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return observation, reward, terminated, truncated, {"drawn": drawn}


def play(environment: gym.Env) -> list[Any]:
    return [environment.reset(seed=3), *(environment.step(0) for _ in range(10)), environment.reset()]


@pytest.mark.parametrize("kind", [None, "MT19937", "Philox", "SFC64", "PCG64DXSM"])
def test_wrappers_draw_of_the_environments_own_random_numbers(kind, gamble):
    local, remote = gamble(kind=kind)
    assert find_difference(play(Drawing(local)), play(Drawing(remote))) is None
    assert find_difference(local.unwrapped.np_random.random(), remote.np_random.random()) is None


def test_an_environment_served_by_id_shares_its_random_numbers():
    with loopback_server("FrozenLake-v1", use_thread=True) as server:
        local, remote = gym.make("FrozenLake-v1"), server.environment()
        for environment in (local, remote):
            environment.reset(seed=1)
        assert local.unwrapped.np_random.random() == remote.np_random.random()
        assert find_difference(local.step(2), remote.step(2)) is None
        assert local.unwrapped.np_random.random() == remote.np_random.random()


def test_a_generator_that_is_set_is_the_environments(gamble):
    local, remote = gamble()
    for environment in (local, remote):
        environment.reset(seed=1)
        environment.np_random = np.random.Generator(np.random.MT19937(5))
        assert environment.np_random.random() is not None
    assert find_difference(local.step(0), remote.step(0)) is None
    assert local.np_random.random() == remote.np_random.random()


def test_what_was_drawn_counts_for_whoever_resumes(gamble):
    local, remote = gamble()
    for environment in (local, remote):
        environment.reset(seed=1)
        environment.np_random.random()
    other = type(remote)(remote.url, remote.port, None, remote.client_credentials_paths, resume=remote.detach())
    assert find_difference(local.step(0), other.step(0)) is None
    other.close()


def test_without_it_exposed_there_is_a_generator_of_the_clients_own(gamble):
    _, remote = gamble(exposed=())
    remote.reset(seed=1)
    first = remote.step(0)[0]
    remote.reset(seed=1)
    remote.np_random.random(100)
    assert remote.step(0)[0] == first
    with pytest.raises(AttributeError, match="not exposed"):
        remote.call("np_random")


def test_a_copy_and_a_closed_one_have_generators_of_their_own(gamble):
    _, remote = gamble()
    remote.reset(seed=1)
    remote.np_random.random()
    copied = pickle.loads(pickle.dumps(remote))
    remote.close()
    for each in (copied, remote):
        assert isinstance(each.np_random, np.random.Generator)
        each.reset(seed=1)
        each.close()


@pytest.mark.parametrize("state", [None, {}, {"bit_generator": "os.system"}, {"bit_generator": "PCG64", "state": 3}])
def test_a_state_that_is_none_is_refused(state, gamble):
    _, remote = gamble()
    remote.reset(seed=1)
    with pytest.raises((EncodingError, RemoteEnvironmentError), match="is no state of"):
        remote._assign("np_random", state)
    remote.step(0)


# --------------------------------------------------------------------------------------------------------------
# Atari


@pytest.fixture(scope="module")
def atari():
    ale_py = pytest.importorskip("ale_py")
    pytest.importorskip("cv2", reason="AtariPreprocessing and AtariWrapper need OpenCV")
    gym.register_envs(ale_py) if hasattr(gym, "register_envs") else None
    with loopback_server("ALE/Breakout-v5", imports=("ale_py",)) as server:
        yield server


def compare(wrap: Any, server: Any, **options: Any) -> None:
    options = {"frameskip": 1, **options}
    local = wrap(gym.make("ALE/Breakout-v5", **options))
    remote = wrap(server.environment(remote_args={"entrypoint_kwargs": options}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert find_difference(local.reset(seed=3), remote.reset(seed=3)) is None
        for number in range(40):
            step = copy.deepcopy(local.step(number % 4))
            assert find_difference(step, remote.step(number % 4)) is None, number
        assert find_difference(local.reset(), remote.reset()) is None


@pytest.mark.parametrize("grayscale", [True, False])
def test_gymnasiums_atari_preprocessing_works_at_the_client(grayscale, atari):
    wrapper = gym.wrappers.AtariPreprocessing
    compare(lambda env: wrapper(env, terminal_on_life_loss=True, grayscale_obs=grayscale), atari)


def test_sb3s_atari_wrapper_works_at_the_client(atari):
    wrappers = pytest.importorskip("stable_baselines3.common.atari_wrappers", reason="in no lock")
    compare(wrappers.AtariWrapper, atari)


def test_what_such_a_wrapper_needs_and_is_not_exposed_is_named(gamble):
    _, remote = gamble(exposed=())
    with pytest.raises(
        AttributeError, match=r"no 'ale': .*list 'ale' in .* EXPOSED, or wrap the environment at the server"
    ):
        _ = remote.unwrapped.ale
