"""What is set arrives at the environment, whichever way it is set; what cannot is refused instead of kept here."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit

from remote_gym import EncodingError, RemoteEnvironment
from remote_gym.testing import find_difference

ENTRYPOINT = """
import gymnasium as gym

EXPOSED = ("gravity", "length", "state", "fixed", "mass", "double")


class Tuned(gym.Wrapper):
    mass = 1

    @property
    def fixed(self):
        return 3

    def double(self, x):
        return 2 * x


def create_environment(render_mode=None):
    return Tuned(gym.make("CartPole-v1", render_mode=render_mode))
"""


@pytest.fixture(params=["direct", "grpc"])
def server(request, servers, own_folder):
    (own_folder / "tuned.py").write_text(ENTRYPOINT)
    with servers.lend({"entrypoint": "tuned.py"}) as lent:
        lent.client_arguments["connection"] = request.param
        yield lent


def play(environment: gym.Env[Any, Any]) -> list[Any]:
    return [environment.reset(seed=3), *(environment.step(np.int64(number % 2)) for number in range(20))]


def set_by_name(environment: gym.Env[Any, Any]) -> None:
    environment.unwrapped.gravity = 5.5


def set_through_wrappers(environment: gym.Env[Any, Any]) -> None:
    environment.set_wrapper_attr("gravity", 5.5)


WAYS = [set_by_name, set_through_wrappers] if hasattr(gym.Wrapper, "set_wrapper_attr") else [set_by_name]


@pytest.mark.parametrize("wrap", [lambda env: env, lambda env: RecordEpisodeStatistics(TimeLimit(env, 100))])
@pytest.mark.parametrize("way", WAYS)
def test_an_environment_behaves_as_one_that_was_set_locally(way, wrap, server):
    # Of the statistics the time that an episode took differs, but none ends here.
    local, remote = wrap(gym.make("CartPole-v1")), wrap(server.environment())
    untouched = play(local)
    assert find_difference(untouched, play(remote)) is None
    for environment in (local, remote):
        way(environment)
    found = play(remote)
    assert find_difference(play(local), found) is None
    assert find_difference(untouched, found) is not None
    assert remote.unwrapped.gravity == 5.5
    assert "gravity" not in vars(remote.unwrapped)


def test_an_attribute_of_a_wrapper_there_is_set_where_it_is(server):
    environment = server.environment()
    assert environment.set_wrapper_attr("mass", {"of": (1, np.float32(2.5))}) is True
    assert environment.mass == {"of": (1, np.float32(2.5))}
    assert type(environment.mass["of"][1]) is np.float32


@pytest.mark.parametrize("name", ["gravitation", "env", "close_timeout"])
def test_what_is_not_exposed_is_refused(name, server):
    environment = server.environment()
    wrapped = TimeLimit(environment, 100)
    environment.reset()
    setters = [lambda: setattr(environment, name, 1), lambda: environment.set_wrapper_attr(name, 1)]
    if hasattr(gym.Wrapper, "set_wrapper_attr") and name != "env":  # a wrapper has that itself
        setters.append(lambda: wrapped.set_wrapper_attr(name, 1))
    for setter in setters:
        with pytest.raises(AttributeError, match=f"'{name}' in the entrypoint's EXPOSED"):
            setter()
        assert name not in vars(environment)
    environment.step(0)


def test_what_is_exposed_and_cannot_be_set_is_refused_as_it_would_be_locally(server):
    environment = server.environment()
    with pytest.raises(AttributeError, match="'double' is a method"):
        environment.double = 7
    with pytest.raises(AttributeError, match=r"setter|set attribute"):
        environment.fixed = 7
    with pytest.raises(EncodingError, match="gravity"):
        environment.gravity = object()
    assert (environment.double(4), environment.fixed, environment.gravity) == (8, 3, 9.8)


def test_what_gymnasium_gives_every_environment_stays_the_clients(server):
    environment = server.environment()
    spec, generator = environment.spec, np.random.default_rng(3)
    for name in ("render_mode", "spec", "np_random", "metadata", "action_space", "observation_space", "_mine"):
        value = {"spec": spec, "np_random": generator}.get(name, getattr(environment, name, None))
        setattr(environment, name, value)
        assert getattr(environment, name) is value


class Counting(RemoteEnvironment):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.before = 0
        super().__init__(*arguments, **options)
        self.steps = 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        return super().step(action)


def test_a_subclass_keeps_what_it_likes_and_still_sets_what_is_exposed(server):
    place = server.server.url, server.server.port, None, server.client_credentials_paths
    environment = Counting(*place, **server.client_arguments)
    environment.reset()
    environment.step(0)
    environment.length = 0.25
    assert (environment.steps, environment.before, environment.call("length")) == (1, 0, 0.25)
    environment.close()


def test_nothing_is_set_where_there_is_no_session(server):
    environment = server.environment()
    copied = pickle.loads(pickle.dumps(environment))
    environment.close()
    for each in (environment, copied):
        with pytest.raises(ResetNeeded, match="'gravity'"):
            each.gravity = 1.0
        each.reset()
        each.gravity = 1.0
        assert each.gravity == 1.0
        each.close()


def test_a_vector_environment_has_its_autoreset_mode_as_gymnasiums_own_has(server):
    modes = getattr(gym.vector, "AutoresetMode", None)
    chosen = ["NextStep", "SameStep", "Disabled"] if modes else [None]
    for mode in chosen:
        environment = server.vector_environment(2, autoreset_mode=mode)
        assert environment.autoreset_mode is environment.metadata["autoreset_mode"]
        assert modes is None or environment.autoreset_mode is modes(mode)
        assert pickle.loads(pickle.dumps(environment)).autoreset_mode == environment.autoreset_mode
