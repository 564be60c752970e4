"""Options that cannot work are refused at once, by name."""

from __future__ import annotations

import math
import re
import sys
from functools import partial
from pathlib import Path

import pytest

from remote_gym import ConfigError, RemoteEnvironment, RemoteVectorEnv, create_remote_environment_server, launch
from remote_gym.config import ClientOptions, Limits, RetryPolicy, ServerOptions, TlsFiles

NO_SECONDS = (0, -1.0, 1e-6, math.inf, -math.inf, math.nan, 1e9, "5", None, True)
NO_SECONDS_OR_NONE = tuple(value for value in NO_SECONDS if value is not None)
NO_PORTS = (-1, 65536, 1.0, "5", None, True)
NO_COUNTS = (0, -1, 1.5, "5", None, True, 10**9)


def refusal(call, *arguments, **options) -> str:
    """What `ConfigError` says; not raised, so that one test shows all that pass."""
    try:
        call(*arguments, **options)
    except ConfigError as error:
        return str(error)
    return "not refused"


def unexpected(cases, call) -> list:
    """Pairs of keyword arguments and a pattern that are not refused as they should be.

    The pattern has to fit the error's text, and the error's field has to be one of the arguments.
    """
    found = []
    for arguments, pattern in cases:
        try:
            call(**arguments)
        except ConfigError as error:
            if not re.search(pattern, str(error)) or error.field not in arguments:
                found.append((arguments, pattern, str(error), error.field))
        else:
            found.append((arguments, pattern, "not refused", None))
    return found


WRONG = {
    ServerOptions: {
        **dict.fromkeys(("open_timeout", "close_timeout"), NO_SECONDS),
        "lease": (*NO_SECONDS, 0.01),
        **dict.fromkeys(("step_timeout", "reset_timeout"), (*NO_SECONDS_OR_NONE, 0.001)),
        "memory_limit": (0, -1, 1.5, "2GiB", True, 1024, 10**7),
        "rlimits": (
            *({"files": 3}, {3: 3}, {"nofile": -1}, {"nofile": "3"}, {"nofile": True}, {"as": 1024}, ["nofile"], None),
        ),
        "idle_timeout": NO_SECONDS_OR_NONE,
        **dict.fromkeys(("queue_timeout", "drain_timeout"), NO_SECONDS[1:]),
        "max_sessions": NO_COUNTS,
        "max_num_envs": NO_COUNTS,
        "max_sessions_per_identity": tuple(value for value in NO_COUNTS if value is not None),
        "max_opens_per_second": (0, -1.0, math.inf, math.nan, 1e-9, 1e9, "5", True),
        "max_connections": tuple(value for value in NO_COUNTS if value is not None),
        "max_pending": NO_COUNTS,
        "receive_bytes": (0, 1024, 1.5, "1GiB", None, True),
        "allow": ("DNS:alice", (1,), None, {"DNS:alice"}),
        "policy": ("/no/such/file", ".", 3),
        "grpc_port": tuple(value for value in NO_PORTS if value is not None),
        "hub": (3, "", True),
        "dm_env_rpc": ("no", None),
        "http": ("no", None),
        "http_port": tuple(value for value in NO_PORTS if value is not None),
        "http_root": ("other", 3, "", True),
        "http_hosts": ("lab.example", (1,), None, ("",)),
        "http_origins": ("https://lab.example", ("lab.example",), ("https://lab.example/path",), None),
        "http_url_tokens": ("no", None),
        "http_images": ("jpeg", None, 1),
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
        "message_limits": ({"depth": 3}, None),
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
        "server_name": ("", "Sim-Home", "sim home", "10.0.0.1", 3),
        "token": ("", "with space", "line\n", "ä", b"bytes", 3),
        "message_limits": ({"depth": 3}, None),
    },
    RetryPolicy: {
        "first_pause": NO_SECONDS,
        "longest_pause": (*NO_SECONDS, 0.01),
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


def test_options_that_cannot_work_are_refused_by_name():
    cases = [(cls, name, value) for cls, fields in WRONG.items() for name, values in fields.items() for value in values]
    found = [(cls.__name__, name, value, refusal(cls, **{name: value})) for cls, name, value in cases]
    assert [case for case in found if f"{case[0]}.{case[1]} is " not in case[3]] == []


def test_every_option_is_in_the_table():
    for cls, fields in WRONG.items():
        assert set(fields) == set(cls.__dataclass_fields__)


def test_an_error_of_an_option_has_its_name_as_the_field():
    for cls, fields in WRONG.items():
        for name, (value, *_) in fields.items():
            with pytest.raises(ConfigError) as caught:
                cls(**{name: value})
            assert caught.value.field == name


def test_options_that_contradict_each_other():
    threads = "but with use_thread=True all environments share one process"
    cases = {
        ServerOptions: [
            ({"use_thread": True, "interpreter": "python3"}, f"interpreter is 'python3', {threads}"),
            ({"use_thread": True, "memory_limit": 2**30}, f"memory_limit is 1073741824, {threads}"),
            ({"use_thread": True, "rlimits": {"nofile": 256}}, f"rlimits is {{'nofile': 256}}, {threads}"),
        ],
        RetryPolicy: [
            ({"first_pause": 2.0, "longest_pause": 1.0}, "longest_pause is 1.0; use at least first_pause, 2.0")
        ],
    }
    for cls, each in cases.items():
        assert unexpected(each, cls) == []


def test_a_limit_above_the_servers_own_is_refused():
    resource = pytest.importorskip("resource", reason="the system keeps no such limits")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if most == resource.RLIM_INFINITY:
        pytest.skip("nothing is above infinity")
    assert ServerOptions(rlimits={"nofile": most}).rlimits
    with pytest.raises(ConfigError, match=rf"rlimits is {most + 1} for 'nofile'; .* hard limit is {most}"):
        ServerOptions(rlimits={"nofile": most + 1})


def test_a_client_waits_longer_than_the_server_does_to_hear_the_reason():
    server, client = ServerOptions(), ClientOptions()
    assert client.open_timeout > server.open_timeout
    assert client.close_timeout > server.close_timeout


def test_ports_and_urls_that_are_none():
    ports, urls = [*NO_PORTS, "56789"], ["", "http://localhost", "localhost:1", "a/b", None, 5]
    cases = [*(({"port": port}, "^port is ") for port in ports), *(({"url": url}, "^url is ") for url in urls)]
    cases += [({"url": "/run/s.sock"}, "^url is '/run/s.sock'; write 'unix:/run/s.sock' for a Unix socket")]
    serve = partial(create_remote_environment_server, "CartPole-v1", allow_insecure=True)
    assert unexpected(cases, serve) == []
    of_clients = [(given, text) for given, text in cases if None not in given.values()]  # which means the usual ones
    assert unexpected([*of_clients, ({"port": 0}, "^port is 0")], partial(RemoteEnvironment, allow_insecure=True)) == []


POLE = {"entrypoint_kwargs": {"id": "CartPole-v1"}}


def test_a_clients_arguments_that_cannot_work():
    cases = [
        ({"remote_args": [("environment", "x")]}, r"^remote_args is \[\('environment', 'x'\)\]; use an id such as"),
        ({"remote_args": 3}, "^remote_args is 3; use an id such as"),
        ({"remote_args": ""}, "^remote_args is ''; use an id such as"),
        ({"remote_args": {"entrypoint_kwargs": "x"}}, r"^remote_args\['entrypoint_kwargs'\] is 'x'"),
        ({"remote_args": {"environment": 3}}, r"^remote_args\['environment'\] is 3"),
        ({"remote_args": {"python": "/bin/sh"}}, "^remote_args has 'python': in what an environment runs is the"),
        ({"remote_args": {"command": ["sh"]}}, "^remote_args has 'command'"),
        ({"remote_args": {"there": True}}, "^remote_args has 'there'"),
        ({"remote_args": {"enviroment": "x"}}, "^remote_args has no 'enviroment'; did you mean environment"),
        ({"remote_args": {"id": "x", "environment": "y"}}, "^remote_args has 'environment' beside 'id'"),
        ({"render_mode": 3}, "^render_mode is 3"),
        ({"frames": None}, "^frames is None"),
        ({"frames": "always"}, "^frames is 'always'"),
        ({"client_credentials_paths": "ca.pem"}, "^client_credentials_paths has the form .*; found 'ca.pem'"),
        ({"tls": "certs"}, r"^tls is 'certs'; use TlsFiles\(.*, or, .* TlsFiles.from_folder\('certs', 'client'\)"),
        ({"tls": TlsFiles(), "client_credentials_paths": ("a", None, None)}, "^tls and client_credentials_paths are"),
        ({"options": {"lease": 3}}, r"^options is \{'lease': 3\}; use ClientOptions\("),
        ({"step_timeot": 3}, "^Remote[A-Z].* has no 'step_timeot'; did you mean step_timeout"),
        ({"limits": 3}, "^Remote[A-Z].* has no 'limits'; did you mean message_limits"),
        ({"render_mod": "x"}, "has no 'render_mod'; did you mean render_mode"),
        ({"remote_arg": "x"}, "has no 'remote_arg'; did you mean remote_args"),
        ({"remote_arg": "x", "options": ClientOptions()}, "has no 'remote_arg'; did you mean remote_args"),
        ({"host": "x"}, "has no 'host'; use url"),
        ({"certs": "x"}, r"has no 'certs'; use tls=TlsFiles.from_folder\(FOLDER, 'client'\)"),
        ({"id": "x"}, "has no 'id'; use remote_args='CartPole-v1'"),
        ({"environment": "x"}, r"has no 'environment'; use remote_args=\{'environment': NAME\}"),
        ({"entrypoint": "x"}, "has no 'entrypoint'; use remote_args='FILE.py'"),
        ({"entrypoint_kwargs": {}}, r"has no 'entrypoint_kwargs'; use remote_args=\{'entrypoint_kwargs'"),
        ({"addresses": ["localhost:1"]}, "^url is 'localhost' and port 1 beside addresses"),
    ]
    without_port = [
        ({"addresses": "localhost:1"}, r"^addresses is 'localhost:1'; use a list of them"),
        ({"addresses": 3}, r"^addresses is 3; use a list of them"),
        ({"addresses": []}, "^addresses is empty"),
    ]
    for cls in (RemoteEnvironment, RemoteVectorEnv):
        assert unexpected(cases, partial(cls, port=1)) == []
        assert unexpected(without_port, cls) == []
    # By its type, since it may be a secret.
    tickets = [
        ({"resume": value}, f"^resume is of type {type(value).__name__}; use a SessionTicket")
        for value in ("a secret", 3, {"url": "localhost"}, ())
    ]
    assert unexpected(tickets, partial(RemoteEnvironment, port=1)) == []


def test_a_vector_clients_arguments_that_cannot_work():
    cases = [
        *(({"num_envs": value}, f"^num_envs is {value!r}; use an integer") for value in (0, -1, 1.5, "8", None, True)),
        *(({"workers": value, "num_envs": 2}, f"^workers is {value!r}; use an") for value in (0, -1, 1.5, "2")),
        ({"num_env": 2}, "^RemoteVectorEnv has no 'num_env'; did you mean num_envs"),
        ({"num_envs": 2, "workers": 3}, "^workers is 3, but num_envs only 2; use at least as many environments"),
        *(({"autoreset_mode": value}, "^autoreset_mode is") for value in ("Never", 3, [], {})),
        ({"render_mode": "human"}, "^render_mode 'human' is for one environment"),
    ]
    assert unexpected(cases, partial(RemoteVectorEnv, port=1)) == []


def test_a_grace_that_is_none():
    with create_remote_environment_server("CartPole-v1", "localhost", 0) as server:
        cases = [({"grace": value}, "^grace is") for value in (-1, "5", math.nan, True)]
        assert unexpected(cases, server.stop) == []
        RemoteEnvironment("localhost", server.port).close()  # it has not stopped


def test_a_servers_arguments_that_cannot_work():
    cases = [
        ({"default_args": 3}, "^default_args is 3; use an id such as 'CartPole-v1', the path of an entrypoint"),
        ({"default_args": ""}, "^default_args is ''; use an id"),
        ({"default_args": {"entry": "x.py"}}, "^default_args has no 'entry'; did you mean entrypoint"),
        ({"default_args": {"environment": "x"}}, "^default_args has no 'environment'"),
        ({"default_args": {"id": "x", "repo": "y"}}, "^default_args has 'repo' beside 'id'"),
        ({"default_args": {"entrypoint": 3}}, "^default_args has entrypoint 3"),
        ({"default_args": {"repo": 3}}, "^default_args has repo 3"),
        ({"default_args": {"reference": 3}}, "^default_args has reference 3"),
        ({"default_args": {"entrypoint_kwargs": "id"}}, "^default_args has entrypoint_kwargs 'id'"),
        ({"default_args": {"entrypoint_kwargs": {3: "id"}}}, "^default_args has entrypoint_kwargs"),
        ({"default_args": {**POLE, "python": 3}}, "^default_args has python 3; use the path of a Python"),
        (
            {"default_args": {**POLE, "python": "/no/python"}},
            "^default_args has python '/no/python'; there is no such file; use the path",
        ),
        ({"default_args": {**POLE, "command": "python"}}, "^default_args has command 'python'; use a list of words"),
        ({"default_args": {**POLE, "command": []}}, r"^default_args has command \[\]; use a list of words"),
        ({"default_args": {**POLE, "command": ["sh", 3]}}, r"^default_args has command \['sh', 3\]; use a list"),
        ({"default_args": {**POLE, "command": ["sh"], "python": sys.executable}}, "has both python and command"),
        ({"default_args": {**POLE, "there": True}}, "^default_args has there True; use True beside python or command"),
        ({"default_args": {**POLE, "there": "x", "command": ["sh"]}}, "^default_args has there 'x'; use True"),
        ({"default_args": {"id": "x", "python": "y"}}, "^default_args has 'python' beside 'id'"),
        ({"default_args": None}, "^default_args is None"),
        ({"default_args": None, "environments": {"pole": {"entry": "x"}}}, r"^environments\['pole'\] has no 'entry'"),
        ({"default_args": None, "environments": {"pole": 3}}, r"^environments\['pole'\] is 3; use an id"),
        ({"default_args": "CartPole-v1", "tls": ("a", "b", "c")}, r"^tls is \('a', 'b', 'c'\); use TlsFiles\("),
        ({"options": ClientOptions()}, r"^options is of type ClientOptions; use ServerOptions\("),
        ({"leese": 3}, "^create_remote_environment_server has no 'leese'; did you mean lease"),
        ({"prot": 3}, "^create_remote_environment_server has no 'prot'; did you mean port"),
        ({"host": "x"}, "has no 'host'; use url"),
        ({"certs": "x"}, r"has no 'certs'; use tls=TlsFiles.from_folder\(FOLDER, 'server'\)"),
        ({"id": "x"}, "has no 'id'; use the first argument, such as 'CartPole-v1'"),
        ({"environment": "x"}, "has no 'environment'; use the first argument"),
        ({"entrypoint_kwargs": {}}, "has no 'entrypoint_kwargs'; use the first argument"),
        ({"srun": "-n1"}, r"has no 'srun'; use the environment's command, such as command=\['srun', "),
    ]
    assert unexpected(cases, partial(create_remote_environment_server, url="localhost", port=0)) == []


def test_launch_is_pointed_from_a_launcher_of_jobs_to_its_command():
    with pytest.raises(ConfigError, match=r"^launch has no 'srun'; use .*command=\['srun', .*'python3'\]"):
        launch("CartPole-v1", srun="--gres=gpu:1")


def test_paths_are_paths_or_texts(tmp_path):
    assert ServerOptions(client_entrypoints=str(tmp_path)).client_entrypoints
    assert ServerOptions(client_entrypoints=Path(tmp_path), interpreter="python3").interpreter
