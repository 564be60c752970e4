"""What is not exposed raises AttributeError, of one environment and of many, and says what would expose it there."""

from __future__ import annotations

import contextlib
import logging
import textwrap

import pytest

from remote_gym import RemoteEnvironment, RemoteVectorEnv, create_remote_environment_server

ENTRYPOINT = """
import gymnasium
EXPOSED = ("gravity", "reset", "no_such", "unwrapped.nor_this")
def create_environment():
    return gymnasium.make("CartPole-v1")
"""
LACKING = "EXPOSED lists '{}', but this environment has no such method or attribute"
LIST_IT = "list '{}' in the entrypoint's EXPOSED"
ENTRYPOINT_FILE = "served by its id: serve it by an entrypoint file instead, .* whose EXPOSED lists '{}'"


@pytest.fixture(scope="module")
def of_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("entrypoint") / "ours.py"
    file.write_text(textwrap.dedent(ENTRYPOINT))
    with create_remote_environment_server({"entrypoint": str(file)}, port=0) as server:
        yield server.port


@pytest.fixture(scope="module")
def of_id():
    with create_remote_environment_server({"entrypoint_kwargs": {"id": "CartPole-v1"}}, port=0) as server:
        yield server.port


def attempts(environment, name):
    """Everything that can be done with a name that an environment does not have."""
    yield lambda: environment.call(name)
    if isinstance(environment, RemoteVectorEnv):
        yield lambda: environment.get_attr(name)
        yield lambda: environment.set_attr(name, 1)
    else:
        yield lambda: getattr(environment, name)
        yield lambda: setattr(environment, name, 1)


@pytest.mark.parametrize("make", [RemoteEnvironment, lambda *a: RemoteVectorEnv(*a, num_envs=2, workers=2)])
@pytest.mark.parametrize(
    ("served", "name", "advice"),
    [
        ("of_file", "length", LIST_IT),
        ("of_file", "no_such", LACKING),
        ("of_file", "unwrapped.nor_this", LACKING),
        ("of_id", "gravity", ENTRYPOINT_FILE),
    ],
)
def test_what_is_not_exposed_raises_attribute_error_with_the_way_out(make, served, name, advice, request):
    with contextlib.closing(make("localhost", request.getfixturevalue(served))) as environment:
        environment.reset()
        for attempt in attempts(environment, name):
            with pytest.raises(AttributeError, match=advice.format(name)) as caught:
                attempt()
            assert "Traceback" not in str(caught.value)
        environment.step(environment.action_space.sample())


def test_a_method_cannot_be_set_in_many_as_in_one(of_file):
    with contextlib.closing(RemoteVectorEnv("localhost", of_file, num_envs=2)) as environment:
        with pytest.raises(AttributeError, match="is a method of the remote environment"):
            environment.set_attr("reset", 1)
        assert len(environment.get_attr("gravity")) == 2


def test_a_server_warns_at_its_start_of_what_its_entrypoint_lists_and_lacks(tmp_path, caplog):
    (tmp_path / "ours.py").write_text(textwrap.dedent(ENTRYPOINT))
    with (
        caplog.at_level(logging.WARNING, "remote_gym"),
        create_remote_environment_server({"entrypoint": str(tmp_path / "ours.py")}, port=0),
    ):
        assert "lists 'no_such', 'unwrapped.nor_this', which the environment does not have" in caplog.text
