"""What a client may choose, and what only the server says."""

from __future__ import annotations

import pytest

from remote_gym import ConfigError, NotPermitted
from remote_gym.testing import loopback_server


def choosing(id_: str) -> dict:
    return {"entrypoint_kwargs": {"id": id_}}


@pytest.mark.parametrize("use_thread", [False, True])
def test_a_client_may_not_change_the_id_that_the_server_names(use_thread):
    with loopback_server("CartPole-v1", use_thread=use_thread) as server:
        with pytest.raises(NotPermitted, match=r"'Acrobot-v1' is not what the server offers.*'CartPole-v1'"):
            server.environment(remote_args=choosing("Acrobot-v1"))
        assert server.environment(remote_args=choosing("CartPole-v1")).observation_space.shape == (4,)


def test_a_client_chooses_the_id_that_the_server_leaves_open():
    with loopback_server({}, use_thread=True) as server:
        assert server.environment(remote_args=choosing("Acrobot-v1")).observation_space.shape == (6,)
        with pytest.raises(ConfigError, match="no id"):
            server.environment()
        with pytest.raises(NotPermitted, match="antigravity"):
            server.environment(remote_args=choosing("antigravity:CartPole-v1"))
        with pytest.raises(NotPermitted, match="neither Gymnasium itself"):
            server.environment(remote_args=choosing("remote_gym/Remote-v0"))


def test_the_id_of_a_named_environment_is_the_servers_too():
    with loopback_server(None, use_thread=True, environments={"pole": choosing("CartPole-v1")}) as server:
        with pytest.raises(NotPermitted, match="Acrobot"):
            server.environment(remote_args={"environment": "pole", **choosing("Acrobot-v1")})


THEIRS = """
import gymnasium
EXPOSED = ("seen",)
def create_environment(**kwargs):
    environment = gymnasium.make("CartPole-v1")
    environment.unwrapped.seen = sorted(kwargs)
    return environment
"""


def test_the_servers_keyword_arguments_do_not_reach_an_entrypoint_that_a_client_chose(tmp_path):
    (tmp_path / "theirs.py").write_text(THEIRS)
    secret = {"entrypoint_kwargs": {"id": "CartPole-v1", "password": "secret"}}
    with loopback_server(secret, client_entrypoints=tmp_path) as server:
        arguments = {"entrypoint": "theirs.py", "entrypoint_kwargs": {"mine": 1}}
        assert server.environment(remote_args=arguments).seen == ["mine"]


@pytest.mark.parametrize("use_thread", [False, True])
def test_a_server_may_offer_nothing_but_a_folder_for_its_clients_entrypoints(tmp_path, use_thread):
    (tmp_path / "theirs.py").write_text(THEIRS)
    with loopback_server(None, client_entrypoints=tmp_path, use_thread=use_thread) as server:
        environment = server.environment(remote_args={"entrypoint": "theirs.py"})
        environment.reset()
        environment.step(0)
        with pytest.raises(ConfigError, match="no default environment"):
            server.environment()


def test_an_env_id_is_not_the_clients_to_choose(obedient):
    with loopback_server(obedient) as server:
        environment = server.environment(remote_args={"entrypoint_kwargs": {"env_id": 77}})
        assert environment.reset()[1]["env_id"] == 0
