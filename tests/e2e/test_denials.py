"""What a server does not allow, it says by a reason that code can branch on."""

from __future__ import annotations

from remote_gym import DenialReason, NotPermitted
from remote_gym.auth.tokens import add_token
from remote_gym.testing import loopback_server
from tenants import tenant

POLICY = """
[allow."DNS:alice"]
environments = ["default"]
arguments = ["max_episode_steps"]
"""


def denial(make, *args, **kwargs) -> DenialReason:
    try:
        made = make(*args, **kwargs)
    except NotPermitted as error:
        return error.reason
    made.close()
    raise AssertionError("it was allowed")


def test_each_denial_says_what_is_not_allowed(tmp_path):
    (tmp_path / "policy.toml").write_text(POLICY)
    add_token(tmp_path / "tokens", "carol")
    options = {"policy": tmp_path / "policy.toml", "token_file": tmp_path / "tokens", "use_thread": True}
    with loopback_server("CartPole-v1", environments={"easy": "CartPole-v1"}, **options) as server:
        alice, bob = (tenant(server, name) for name in ("alice", "bob"))

        def asked(credentials=alice, **arguments):
            return denial(server.environment, client_credentials_paths=credentials, **arguments)

        assert asked(remote_args={"environment": "easy"}) is DenialReason.ENVIRONMENT
        assert asked(bob) is DenialReason.ENVIRONMENT
        assert asked(remote_args={"entrypoint_kwargs": {"sutton_barto_reward": True}}) is DenialReason.ARGUMENTS
        assert asked(token="of-nobody-at-all") is DenialReason.IDENTITY
        opened = server.environment(client_credentials_paths=alice)
        for connection in ("direct", "grpc"):
            assert asked(bob, resume=opened.ticket, connection=connection) is DenialReason.SESSION


def test_which_code_runs_is_the_servers_to_say():
    with loopback_server("CartPole-v1", secure=False, use_thread=True) as server:
        assert denial(server.environment, remote_args="theirs.py") is DenialReason.CODE
        assert denial(server.environment, remote_args={"id": "Acrobot-v1"}) is DenialReason.ENVIRONMENT
    with loopback_server({"entrypoint_kwargs": {}}, secure=False, use_thread=True, ids=("CartPole*",)) as server:
        assert denial(server.environment, remote_args="os:CartPole-v1") is DenialReason.CODE
        assert denial(server.environment, remote_args="Acrobot-v1") is DenialReason.ENVIRONMENT
