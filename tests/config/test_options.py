"""Options all at once and one by one, as a type checker, `help` and a running program see them."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import pickle
import re
import typing
from pathlib import Path

import pytest

from remote_gym import (
    ClientOptions,
    ConfigError,
    Limits,
    RemoteEnvironment,
    RemoteVectorEnv,
    RetryPolicy,
    ServerOptions,
    TlsFiles,
    create_remote_environment_server,
)
from remote_gym.client.launching import OF_ENVIRONMENTS
from remote_gym.client.spec import without_secrets
from remote_gym.config import SERVERS_ALONE, ClientKeywords, LaunchKeywords, ServerKeywords

DOCUMENTED = (ServerOptions, ClientOptions, RetryPolicy, Limits)
UNITS = {"s": 1, "MiB": 2**20, "KiB/s": 2**10, "bytes": 1, "µs": 1}

ROOT = Path(__file__).resolve().parents[2]


def default_of(field):
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def documented(cls) -> dict[str, str]:
    """What a docstring has in parentheses for each field."""
    _, _, text = inspect.cleandoc(cls.__doc__).partition("\nAttributes:\n")
    return dict(re.findall(r"^    (\w+) \((.*?)\): ", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("keywords", "cls", "apart"),
    [(ServerKeywords, ServerOptions, {"use_thread"}), (ClientKeywords, ClientOptions, set())],
)
def test_keyword_arguments_are_typed_as_the_options_are(keywords, cls, apart):
    fields = {name: kind for name, kind in typing.get_type_hints(cls).items() if name not in apart}
    assert typing.get_type_hints(keywords) == fields
    assert list(keywords.__annotations__) == [name for name in cls.__dataclass_fields__ if name not in apart]


def test_what_launch_takes_is_either_an_option_of_the_server_or_a_key_of_its_environment():
    options = set(ServerOptions.__dataclass_fields__)
    assert not options & OF_ENVIRONMENTS
    assert set(typing.get_type_hints(LaunchKeywords)) == options | OF_ENVIRONMENTS
    assert SERVERS_ALONE - options <= OF_ENVIRONMENTS


@pytest.mark.parametrize("cls", DOCUMENTED, ids=lambda cls: cls.__name__)
def test_help_shows_each_option_with_its_default_and_unit(cls):
    shown = documented(cls)
    assert list(shown) == list(cls.__dataclass_fields__)
    for field in dataclasses.fields(cls):
        default, _, unit = shown[field.name].partition(" ")
        if field.type in ("float", "float | None") and field.name != "max_opens_per_second":
            assert unit.endswith("s"), field.name
        value = default_of(field)
        if unit and value is not None and unit in UNITS:
            assert float(default) * UNITS[unit] == value, field.name
        elif value is None:
            assert default.strip(",") == "None", field.name
        elif isinstance(value, (Limits, RetryPolicy)):
            assert shown[field.name] == f"{type(value).__name__}()"
        else:
            assert shown[field.name].replace(",", "") == repr(value), field.name


@pytest.mark.parametrize(
    ("function", "cls"),
    [
        (create_remote_environment_server, ServerOptions),
        (RemoteEnvironment, ClientOptions),
        (RemoteVectorEnv, ClientOptions),
    ],
)
def test_help_of_what_takes_options_shows_them_all(function, cls):
    parameters = inspect.signature(function).parameters
    for field in dataclasses.fields(cls):
        assert re.search(rf"^    {field.name} \(", function.__doc__, re.MULTILINE), field.name
        assert field.name in parameters
    assert not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())


def test_a_type_checker_knows_keyword_arguments(tmp_path):
    api = pytest.importorskip("mypy.api")
    program = tmp_path / "program.py"
    program.write_text(
        "from remote_gym import ClientOptions, RemoteEnvironment, TlsFiles, create_remote_environment_server\n"
        "reveal_type(ClientOptions().step_timeout)\n"
        "server = create_remote_environment_server('CartPole-v1', lease='long')\n"
        "RemoteEnvironment(step_timeot=3.0)\n"
        "RemoteEnvironment('localhost', 1, 'CartPole-v1', tls=TlsFiles(ca='ca.pem'), connection='fast')\n"
        "reveal_type(RemoteEnvironment().connection_info.connected_over)\n"
    )
    # As the task "typecheck" is run, and with what that has found: anew it would take ten seconds.
    settings = [f"--config-file={ROOT / 'pyproject.toml'}", f"--cache-dir={ROOT / '.mypy_cache'}"]
    said, _, _ = api.run([*settings, "--no-error-summary", str(program)])
    # Not by the whole path: where it has seen the same program before, mypy says what it said then.
    lines = [line.partition(f"{program.name}:")[2] for line in said.splitlines()]
    for expected in (
        r'^2: note: Revealed type is "(builtins\.)?float"',
        r'^3: error: Argument "lease" to "create_remote_environment_server" has incompatible type "str"',
        r'^4: error: Unexpected keyword argument "step_timeot" for "RemoteEnvironment"',
        r'^5: error: Argument "connection" to "RemoteEnvironment" has incompatible type',
        r"^6: note: Revealed type is .*'direct'.*'grpc'.*None",
    ):
        assert any(re.search(expected, line) for line in lines), said


def test_a_keyword_argument_refines_options_given_at_once():
    options = ServerOptions(lease=30.0, max_sessions=3)
    with create_remote_environment_server(
        "CartPole-v1", port=0, use_thread=True, options=options, lease=40.0
    ) as server:
        found = server.options
        assert (found.lease, found.max_sessions, found.use_thread) == (40.0, 3, True)
        chosen = ClientOptions(step_timeout=7.0, connection="grpc")
        with contextlib.closing(RemoteEnvironment(port=server.port, options=chosen, step_timeout=8.0)) as environment:
            environment.reset()
            assert (environment._options.step_timeout, environment._options.connection) == (8.0, "grpc")
            # What makes it again says the same, without what is a default or a secret.
            kwargs = environment.spec.kwargs
            assert (kwargs["step_timeout"], kwargs["connection"]) == (8.0, "grpc")
            assert "options" not in kwargs
            assert "lease" not in kwargs
    assert options.lease == 30.0


def test_use_thread_of_options_holds_unless_the_argument_says_otherwise():
    options = ServerOptions(use_thread=True)
    with create_remote_environment_server("CartPole-v1", port=0, options=options) as server:
        assert server.options.use_thread
    with create_remote_environment_server("CartPole-v1", port=0, use_thread=False, options=options) as server:
        assert not server.options.use_thread


def test_a_token_in_options_is_in_no_spec():
    options = ClientOptions(token="a-secret", step_timeout=9.0)
    made = without_secrets({"options": options, "url": "x"})
    assert made == {"step_timeout": 9.0, "url": "x"}


def test_names_that_do_not_exist_are_refused_with_the_nearest():
    for cls, wrong, right in [
        (ServerOptions, "leese", "did you mean lease?"),
        (ServerOptions, "drain", "did you mean drain_timeout?"),
        (ClientOptions, "limits", "did you mean message_limits?"),
        (ClientOptions, "timeout", "step_timeout"),
        (RetryPolicy, "attempt", "did you mean attempts?"),
        (RetryPolicy, "jitter", "use attempts, first_pause, longest_pause"),
        (Limits, "message_byte", "did you mean message_bytes?"),
        (TlsFiles, "key", "did you mean private_key?"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(f"{cls.__name__} has no {wrong!r}; ")) as caught:
            cls(**{wrong: 3})
        assert right in str(caught.value)
        assert caught.value.field == wrong


def test_config_errors_keep_their_field_when_copied():
    error = pickle.loads(pickle.dumps(ConfigError("lease is 0", field="lease")))
    assert (str(error), error.field) == ("lease is 0", "lease")
    assert ConfigError("a file").field is None
    error = pickle.loads(pickle.dumps(ConfigError("is 0", field="lease", where="ServerOptions.lease")))
    assert str(error) == "ServerOptions.lease is 0"
    assert (error.field, error.where, error.problem) == ("lease", "ServerOptions.lease", "is 0")
