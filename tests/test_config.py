"""Options that cannot work are refused at once, by name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from remote_gym import ConfigError, RemoteEnvironment, RemoteVectorEnv, create_remote_environment_server
from remote_gym.config import ClientOptions, Limits, RetryPolicy, ServerOptions

CARTPOLE = {"entrypoint_kwargs": {"id": "CartPole-v1"}}
NO_SECONDS = (0, -1.0, 1e-6, math.inf, -math.inf, math.nan, 1e9, "5", None, True)
NO_SECONDS_OR_NONE = tuple(value for value in NO_SECONDS if value is not None)
NO_PORTS = (-1, 65536, 1.0, "5", None, True)
NO_COUNTS = (0, -1, 1.5, "5", None, True, 10**9)


def refusal(cls, name, value) -> str:
    """What `ConfigError` says of an option; not raised, so that one test shows all values that pass."""
    try:
        cls(**{name: value})
    except ConfigError as error:
        return str(error)
    return "not refused"


WRONG = {
    ServerOptions: {
        **dict.fromkeys(("open_timeout", "close_timeout"), NO_SECONDS),
        "lease": (*NO_SECONDS, 0.01),
        **dict.fromkeys(("step_timeout", "reset_timeout"), (*NO_SECONDS_OR_NONE, 0.001)),
        "memory_limit": (0, -1, 1.5, "2GiB", True, 1024, 10**7),
        "worker_limits": (
            *({"files": 3}, {3: 3}, {"nofile": -1}, {"nofile": "3"}, {"nofile": True}, {"as": 1024}, ["nofile"], None),
        ),
        "idle_timeout": NO_SECONDS_OR_NONE,
        **dict.fromkeys(("admit_timeout", "drain"), NO_SECONDS[1:]),
        "max_sessions": NO_COUNTS,
        "max_num_envs": NO_COUNTS,
        "max_sessions_per_identity": tuple(value for value in NO_COUNTS if value is not None),
        "max_opens_per_second": (0, -1.0, math.inf, math.nan, 1e-9, 1e9, "5", True),
        "max_connections": tuple(value for value in NO_COUNTS if value is not None),
        "max_pending": NO_COUNTS,
        "receive_bytes": (0, 1024, 1.5, "1GiB", None, True),
        "allow": ("DNS:alice", (1,), None, {"DNS:alice"}),
        "policy": ("/no/such/file", ".", 3),
        "direct_port": NO_PORTS,
        "poll_us": (-1, 0.5, "5", None, True, 10**9),
        "output_rate": (-1, 1.5, "1", None, True, 10**10),
        "imports": ("json", (1,), None, 3),
        "ids": ("CartPole-v1", ("",), (1,), None),
        "environments": (["CartPole-v1"], None, "CartPole-v1", {"": {}}, {"a,b": {}}, {3: {}}, {None: {}}),
        "client_entrypoints": ("/no/such/folder", __file__, 3),
        "interpreter": ("/no/such/python", "", __file__, 3),
        "use_thread": ("no", 1, None),
        "check_actions": ("no", None),
        "check": ("no", None, 1),
        "allow_insecure": ("no", None),
        "reflection": ("no", None),
        "direct": ("no", None),
        "common_names": ("no", None),
        "token_file": (3, True),
        "certificate_lifetime": (*NO_SECONDS_OR_NONE, 0.01),
        "limits": ({"depth": 3}, None),
    },
    ClientOptions: {
        **dict.fromkeys(
            ("connect_timeout", "open_timeout", "reset_timeout", "step_timeout", "close_timeout"), NO_SECONDS
        ),
        "reconnect_timeout": (-1, "5", True, float("nan")),
        "recover_timeout": (-1, "5", None, True, float("nan"), 5.0),
        "poll_us": (-1, 0.5, "5", None, True, 10**9),
        "connection": ("fast", None, 1, ""),
        "frame_encoding": ("png", None, 1, "", ["raw"]),
        "observation_encoding": ("jpeg", None, 1, "", ["raw"]),
        "retry": ({"attempts": 3}, None, 5),
        "on_session_lost": ("reset", None, 1, ""),
        "allow_insecure": ("no", None),
        "token": ("", "with space", "line\n", "ä", b"bytes", 3),
        "limits": ({"depth": 3}, None),
    },
    RetryPolicy: {
        **dict.fromkeys(("first_pause", "steady_after"), NO_SECONDS),
        "longest_pause": (*NO_SECONDS, 0.01),
        "multiplier": (0.5, math.nan, math.inf, "5", None, True),
        "jitter": ("no", 1, None),
        "attempts": (*NO_COUNTS[:-1], 10**7),
    },
    Limits: {
        "message_bytes": (*NO_COUNTS[:-1], 2**31),
        "depth": (*NO_COUNTS, 41),
        "items": (0, -1, 1.5, "5", None, 2**31),
        "array_bytes": (0, "5", 2**31),
        "text_length": (0, "5", 2**31),
    },
}


@pytest.mark.parametrize("cls", WRONG, ids=lambda cls: cls.__name__)
def test_options_that_cannot_work_are_refused_by_name(cls):
    found = [(name, value, refusal(cls, name, value)) for name, values in WRONG[cls].items() for value in values]
    assert [case for case in found if f"{cls.__name__}.{case[0]} is " not in case[2]] == []


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (ServerOptions, {"direct": False, "direct_port": 5000}, "direct_port is 5000, but with direct=False"),
        (
            ServerOptions,
            {"use_thread": True, "interpreter": "python3"},
            "interpreter is 'python3', but with use_thread",
        ),
        (
            RetryPolicy,
            {"first_pause": 2.0, "longest_pause": 1.0},
            "longest_pause is 1.0; use at least first_pause, 2.0",
        ),
    ],
)
def test_options_that_contradict_each_other(cls, options, message):
    with pytest.raises(ConfigError, match=message):
        cls(**options)


@pytest.mark.parametrize(("name", "value"), [("memory_limit", 2**30), ("worker_limits", {"nofile": 256})])
def test_threads_of_the_server_cannot_be_limited_one_by_one(name, value):
    with pytest.raises(ConfigError, match=rf"ServerOptions\.{name} is .* use_thread=True"):
        ServerOptions(**{name: value}, use_thread=True)


def test_a_limit_above_the_servers_own_is_refused():
    resource = pytest.importorskip("resource", reason="the system keeps no such limits")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most == resource.RLIM_INFINITY:
        pytest.skip("nothing is above infinity")
    assert ServerOptions(worker_limits={"nofile": most}).worker_limits
    with pytest.raises(ConfigError, match=rf"worker_limits is {most + 1} for 'nofile'; .* hard limit is {most}"):
        ServerOptions(worker_limits={"nofile": most + 1})


def test_every_option_is_in_the_table():
    for cls, fields in WRONG.items():
        assert set(fields) == set(cls.__dataclass_fields__)


def test_defaults_are_those_that_the_documentation_names():
    server, client = ServerOptions(), ClientOptions()
    assert (server.max_sessions, server.lease, server.open_timeout, server.close_timeout) == (1024, 60.0, 120.0, 5.0)
    assert (server.direct, server.direct_port, server.use_thread, server.allow_insecure) == (True, 0, False, False)
    assert (server.step_timeout, server.reset_timeout, server.memory_limit, server.worker_limits) == (*[None] * 3, {})
    assert (client.connect_timeout, client.step_timeout, client.reset_timeout) == (10.0, 300.0, 300.0)
    assert (client.open_timeout, client.close_timeout) == (150.0, 10.0)
    # A client waits longer than the server does, to hear the reason.
    assert client.open_timeout > server.open_timeout
    assert client.close_timeout > server.close_timeout
    assert (client.connection, client.allow_insecure) == ("auto", False)
    assert (client.frame_encoding, client.observation_encoding) == ("auto", "auto")
    assert (client.limits.message_bytes, server.limits.depth) == (256 * 2**20, 32)


@pytest.mark.parametrize("port", [*NO_PORTS, "56789"])
def test_a_port_that_is_none(port):
    with pytest.raises(ConfigError, match="port is"):
        create_remote_environment_server(CARTPOLE, "localhost", port)
    with pytest.raises(ConfigError, match="port is"):
        RemoteEnvironment("localhost", port)


def test_port_0_is_for_servers():
    with pytest.raises(ConfigError, match="port is 0"):
        RemoteEnvironment("localhost", 0)


@pytest.mark.parametrize("url", ["", "http://localhost", "localhost:1", "a/b", None, 5])
def test_a_url_that_is_none(url):
    with pytest.raises(ConfigError, match="url is"):
        create_remote_environment_server(CARTPOLE, url, 0, allow_insecure=True)
    with pytest.raises(ConfigError, match="url is"):
        RemoteEnvironment(url, 1, allow_insecure=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"remote_args": "CartPole-v1"}, "remote_args is 'CartPole-v1'"),
        ({"remote_args": [("environment", "x")]}, "remote_args is"),
        ({"remote_args": {"entrypoint_kwargs": "x"}}, r"remote_args\['entrypoint_kwargs'\] is 'x'"),
        ({"remote_args": {"environment": 3}}, r"remote_args\['environment'\] is 3"),
        ({"remote_args": {"id": "CartPole-v1"}}, "remote_args has no 'id'"),
        ({"render_mode": 3}, "render_mode is 3"),
        ({"frames": None}, "frames is None"),
        ({"frames": "always"}, "frames is 'always'"),
        ({"client_credentials_paths": "ca.pem"}, "client_credentials_paths has the form .*; found 'ca.pem'"),
        ({"addresses": "localhost:1"}, r"addresses is 'localhost:1'; use a list of them"),
        ({"addresses": 3}, r"addresses is 3; use a list of them"),
        ({"addresses": []}, "addresses is empty"),
        ({"addresses": ["localhost:1"]}, "url is 'localhost' and port 1 beside addresses"),
    ],
)
@pytest.mark.parametrize("cls", [RemoteEnvironment, RemoteVectorEnv])
def test_a_clients_argument_that_cannot_work(cls, arguments, message):
    port = {"port": 1} if "addresses" not in arguments or "beside" in message else {}
    with pytest.raises(ConfigError, match=message):
        cls(**port, **arguments)


@pytest.mark.parametrize("resume", ["a secret", 3, {"url": "localhost"}, ()])
def test_only_a_ticket_can_be_resumed(resume):
    with pytest.raises(ConfigError, match=f"resume is of type {type(resume).__name__}; use a SessionTicket"):
        RemoteEnvironment("localhost", 1, resume=resume)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(({"num_envs": value}, f"num_envs is {value!r}; use an integer") for value in (0, -1, 1.5, "8", None, True)),
        *(({"workers": value, "num_envs": 2}, f"workers is {value!r}; use an integer") for value in (0, -1, 1.5, "2")),
        ({"num_envs": 2, "workers": 3}, "2 environments for 3 workers"),
        *(({"autoreset_mode": value}, "autoreset_mode is") for value in ("Never", 3, [], {})),
        ({"render_mode": "human"}, "render_mode 'human' is for one environment"),
    ],
)
def test_a_vector_clients_argument_that_cannot_work(arguments, message):
    with pytest.raises(ConfigError, match=message):
        RemoteVectorEnv("localhost", 1, **arguments)


@pytest.mark.parametrize("grace", [-1, "5", math.nan, True])
def test_a_grace_that_is_none(grace):
    with create_remote_environment_server(CARTPOLE, "localhost", 0) as server:
        with pytest.raises(ConfigError, match="grace is"):
            server.stop(grace)
        RemoteEnvironment("localhost", server.port).close()  # it has not stopped


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("CartPole-v1", "default_args is 'CartPole-v1'"),
        ({"entry": "x.py"}, "no argument 'entry'"),
        ({"environment": "x"}, "no argument 'environment'"),
        ({"entrypoint": 3}, "default_args: entrypoint is 3"),
        ({"repo": 3}, "default_args: repo is 3"),
        ({"reference": 3}, "default_args: reference is 3"),
        ({"entrypoint_kwargs": "id"}, "default_args: entrypoint_kwargs is 'id'"),
        ({"entrypoint_kwargs": {3: "id"}}, "default_args: entrypoint_kwargs is"),
        (None, "default_args is None"),
    ],
)
def test_a_servers_argument_that_cannot_work(arguments, message):
    with pytest.raises(ConfigError, match=message):
        create_remote_environment_server(arguments, "localhost", 0)


def test_named_environments_are_checked_too():
    with pytest.raises(ConfigError, match=r"environments\['pole'\]: there is no argument 'entry'"):
        create_remote_environment_server(None, "localhost", 0, environments={"pole": {"entry": "x"}})


def test_paths_are_paths_or_texts(tmp_path):
    assert ServerOptions(client_entrypoints=str(tmp_path)).client_entrypoints
    assert ServerOptions(client_entrypoints=Path(tmp_path), interpreter="python3").interpreter
