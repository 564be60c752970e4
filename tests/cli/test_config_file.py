"""``serve --config``: a file says all that flags say, and ``--print-config`` writes it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.test_cli import port_of, serving
from remote_gym import ConfigError, RemoteEnvironment, TlsFiles
from remote_gym.certs import create_all
from remote_gym.cli import main
from remote_gym.cli.commands.serve import serve
from remote_gym.cli.config_file import _settings as settings_of
from remote_gym.cli.config_file import _value, as_file
from remote_gym.cli.settings import read_settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PEM = ("--certificate", "file.pem", "--key", "file.pem")
NO_SETTINGS = {"config", "print_config", "help"}
# What each flag is tried with, by its parameter's name; the others by their types.
SAMPLES = {
    "entrypoint": [("--entrypoint", "env.py")],
    "kwargs": [
        ("CartPole-v1", "--kwargs", '{"a": 1, "b": [1.5, {"c": "\\u00fc\\n\\"\\\\"}], "d e": true}'),
        ("CartPole-v1", "--kwargs", '{"nothing": null, "deep": [[{"x": null}]]}'),
        ("--environment", "e.f=Pole-v1", "--kwargs", 'e.f={"a": {}}', "--environment", "file=env.py"),
    ],
    "http_origins": [("--http-origin", "https://lab.example")],
    "repo": [("--entrypoint", "env.py", "--repo", "https://example.org/x.git")],
    "reference": [("--entrypoint", "env.py", "--repo", "r", "--reference", "v1")],
    "python": [("--entrypoint", "env.py", "--python", "python3"), ("CartPole-v1", "--python", "python3")],
    "command": [("--entrypoint", "env.py", "--command", "conda run -n 'my sim' python")],
    "there": [("--entrypoint", "env.py", "--command", "docker run -i sim:3 python3", "--there")],
    "uv_with": [("--uv-with", "gym==0.26.2"), ("--uv", "3.8", "--uv-with", "numpy<2")],
    "engine_options": [("--image", "sim:3", "--engine-options", "--shm-size '8 g'")],
    "mounts": [("--image", "sim:3", "--mount", "/a:/b:ro", "--mount", "/c:/d")],
    "gpus": [("--gpus", "0-2,5"), ("--gpus", "GPU-1a-2b")],
    "cpus": [("--cpus", "0-1,3")],
    "variables": [("--variable", "A=b=c", "--variable", 'B=it\'s "x"')],
    "include": [("--entrypoint", "env.py", "--command", "srun python", "--include", "libero", "--include", "a b.txt")],
    "environments": [("--environment", "easy=CartPole-v1", "--environment", "hard one=env.py")],
    "ids": [("--ids", "ALE/*", "--ids", "Cart*"), ("--ids", "Cart*", "--kwargs", '{"a": 3}')],
    "grpc_port": [("--grpc-port", "7000")],
    "receive_bytes": [("--receive-bytes", "1GiB")],
    "memory_limit": [("--memory-limit", "2GiB")],
    "rlimits": [("--rlimit", "nofile=128", "--rlimit", "as=4GiB")],
    "message_limits": [("--message-limit", "message_bytes=512MiB", "--message-limit", "depth=16")],
    "interpreter": [("--interpreter", "python3")],
    "certs": [("--certs", "certificates")],
    **dict.fromkeys(
        ("certificate", "key", "ca"), (("--certificate", "file.pem", "--key", "file.pem", "--ca", "file.pem"),)
    ),
    "lease": [("--lease", "90.5")],
    "port": [("--port", "0")],
    "max_opens_per_second": [("--max-opens-per-second", "0.5")],
    "step_timeout": [("--step-timeout", "1e3")],
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working directory with all the files that flags name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REMOTE_GYM_CERTS", raising=False)
    create_all(tmp_path / "certificates", ["localhost"])
    for name in ("env.py", "file.pem"):
        (tmp_path / name).write_text("")
    return tmp_path


def samples():
    for param in serve.params:
        if isinstance(param, click.Argument):
            yield param.name, ("CartPole-v1",)
        elif param.name in SAMPLES:
            yield from ((param.name, sample) for sample in SAMPLES[param.name])
        elif param.name not in NO_SETTINGS:
            kind = param.type.name
            value = {"integer": ["3"], "seconds": ["3.5"], "file": ["file.pem"], "directory": ["."]}
            if isinstance(param.type, click.Choice):
                value["choice"] = [str(param.type.choices[-1])]
            flags = [*param.opts, *param.secondary_opts]
            for flag in flags if param.is_flag else flags[:1]:
                yield param.name, (flag, *([] if param.is_flag else value.get(kind, ["text"])))


def understood(*arguments):
    """What ``serve`` makes of arguments: all that is passed on, and the file that says the same."""
    with serve.make_context("serve", list(arguments)) as context:
        params = {name: value for name, value in context.params.items() if name != "print_config"}
        options = {name: params.pop(name) for name in ("verbose", "log_format")}
        found = read_settings(context, params)
        return (found, options), as_file(context, {**params, **options}, found.offer, found.unused)


def test_the_file_says_what_each_flag_says(folder):
    tried = set()
    for name, arguments in samples():
        if not any(each in arguments for each in ("CartPole-v1", "--entrypoint", "--environment", "--ids")):
            arguments = ("CartPole-v1", *arguments)
        meant, written = understood(*arguments)
        (folder / "server.toml").write_text(written, "utf-8")
        again, rewritten = understood("--config", "server.toml")
        assert again == meant, (arguments, written)
        assert rewritten == written
        if name != "environment_id":
            assert meant != understood("CartPole-v1")[0] or "--check" in arguments or "--direct" in arguments, arguments
        tried.add(name)
    assert tried == {param.name for param in serve.params} - NO_SETTINGS


def test_the_file_says_what_all_flags_together_say(folder):
    # Those aside that contradict others: threads share one process, ids need an environment that leaves its id open.
    apart = {"environment_id", "kwargs", "certs", "use_thread", "ids"}
    first = {name: arguments for name, arguments in reversed(list(samples())) if name not in apart}
    flags = [text for arguments in first.values() for text in arguments]
    meant, written = understood(*flags, "--kwargs", '{"a": 1}', "--kwargs", 'easy={"b": 2}')
    (folder / "server.toml").write_text(written, "utf-8")
    assert understood("--config", "server.toml") == (meant, written)
    assert len(written.splitlines()) > len(first)


def test_a_file_and_flags_name_the_python_of_an_environment(folder):
    (folder / "server.toml").write_text(
        '[environment]\nid = "CartPole-v1"\npython = "python3"\n'
        '[environments.x]\nentrypoint = "/sim/x.py"\ncommand = ["docker", "run", "-i", "sim:3", "python"]\n'
        "there = true\n"
    )
    (found, _), _ = understood("--config", "server.toml")
    assert found.default_args == {"entrypoint_kwargs": {"id": "CartPole-v1"}, "python": "python3"}
    named = found.options.environments["x"]
    assert (named["command"], named["there"]) == (["docker", "run", "-i", "sim:3", "python"], True)
    (found, _), _ = understood("Other-v1", "--command", "conda run -n 'my sim' python")
    assert found.default_args["command"] == ["conda", "run", "-n", "my sim", "python"]


def test_flags_win_over_the_file(folder):
    (folder / "server.toml").write_text(
        '[environment]\nid = "CartPole-v1"\nkwargs = {a = 1}\n[environments.x]\nid = "X-v0"\nkwargs = {b = 1}\n'
        '[environments.y]\nid = "Y-v0"\n[sessions]\nlease = 5\nmax_sessions = 7\n[access]\ncerts = "certificates"\n'
    )
    (found, _), _ = understood(
        *("--config", "server.toml", "--lease", "6", "--kwargs", '{"c": 2}', "--kwargs", 'x={"d": 3}'),
        *("--environment", "y=Z-v0"),
    )
    assert (found.options.lease, found.options.max_sessions) == (6.0, 7)
    assert found.default_args == {"entrypoint_kwargs": {"id": "CartPole-v1", "c": 2}}
    assert found.options.environments == {
        "x": {"entrypoint_kwargs": {"id": "X-v0", "d": 3}},
        "y": {"entrypoint_kwargs": {"id": "Z-v0"}},
    }
    (found, _), _ = understood("Other-v1", "--config", "server.toml", *PEM)
    assert found.default_args == {"entrypoint_kwargs": {"id": "Other-v1"}}
    assert found.tls == TlsFiles(certificate="file.pem", private_key="file.pem")  # and nothing of the folder


def test_the_variable_counts_where_nothing_else_is_said(folder, monkeypatch):
    monkeypatch.setenv("REMOTE_GYM_CERTS", "certificates")
    (found, _), written = understood("CartPole-v1")
    assert found.tls.certificate == Path("certificates/server.pem")
    assert tomllib.loads(written)["access"] == {"certs": "certificates"}
    assert understood("CartPole-v1", "--certs", "")[0][0].tls is None
    assert understood("CartPole-v1", *PEM)[0][0].tls == TlsFiles(certificate="file.pem", private_key="file.pem")
    with pytest.raises(click.UsageError, match="either --certs, or --ca"):
        understood("CartPole-v1", "--ca", "file.pem", "--certs", "certificates")


def test_what_cannot_be_is_refused_with_its_line(folder):
    for text, message in [
        ("[sessions]\n\n# x\nleese = 3", "line 4: [sessions] has no 'leese'; did you mean lease?"),
        ("[session]\nlease = 3", "line 1: there is no table [session]; did you mean sessions?"),
        ("lease = 3", "line 1: there is no table [lease]"),
        ('[environment]\nid = "a"\nurl = "x"', "line 3: [environment] has no 'url'"),
        ('[environments.a]\nid = "a"\n[environments.b]\nname = "b"', "line 4: [environments.b] has no 'name'"),
        ("[environments]\na = 3", "line 2: environments.a is 3; use a table, [environments.a]"),
        ("[environment]\nid = 3", "line 2: id is 3; use a text"),
        ("[environment]\nid = 'a'\nkwargs = 3", "line 3: kwargs is 3; use a table"),
        ("[environment]\nid = 'a'\nkwargs = '{'", "line 3: kwargs is no JSON"),
        ('[environment]\nid = "a"\nlease = 3', "line 3: [environment] has no 'lease'; lease belongs in [sessions]"),
        ('[offer]\nid = "a"', "line 2: [offer] has no 'id'; id belongs in [environment]"),
        ("lease = 3", "there is no table [lease]; lease belongs in [sessions]"),
        ('[listen]\nhost = "x"', "line 2: [listen] has no 'host'; use url"),
        ('[environment]\nid = "a"\nhost = "x"', "line 3: [environment] has no 'host'; url belongs in [listen]"),
        (
            "[environments.a]\nid = 'a'\nentrypoint_kwargs = {}",
            "[environments.a] has no 'entrypoint_kwargs'; use kwargs",
        ),
        ("[environment]\nentrypoint = 'b'\nid = 'a'", "line 3: [environment] has both id and entrypoint"),
        ("[environments.a]\nid = 'a'\nentrypoint = 'b'", "line 3: [environments.a] has both id and entrypoint"),
        ("\n[environments.a]\nkwargs = {}", "line 2: [environments.a] has neither id nor entrypoint"),
        ("[sessions]\nlease = 0", "line 2: lease is 0.0; use a number of seconds from 0.1"),
        ("[sessions]\nlease = 'x'", "line 2: lease is 'x'; use a number"),
        ("[sessions]\nmax_sessions = 1.5", "line 2: max_sessions is 1.5; use an integer"),
        ("[sessions]\nmax_sessions = true", "line 2: max_sessions is True; use an integer"),
        ("[listen]\ndirect = 'no'", "line 2: direct is 'no'; use true or false"),
        ("[listen]\nurl = 3", "line 2: url is 3; use a text"),
        ("[access]\nallow = [\n 'DNS:a',\n 3]", "line 2: allow is ['DNS:a', 3]; use a list of texts"),
        ("[access]\n\nca = 'missing.pem'", "line 3: ca: File 'missing.pem' does not exist."),
        ("[access]\ncerts = 'nowhere'", "line 2: certs: there is no folder 'nowhere'"),
        ("[workers]\nmemory_limit = 'much'", "line 2: memory_limit: 'much' is no size; use"),
        ("[workers]\nmemory_limit = 3", "line 2: memory_limit is 3 bytes; use at least"),
        ("[workers]\nrlimits = {files = 3}", "line 2: rlimits is of 'files'; this system limits"),
        ("[workers]\nrlimits = 3", "line 2: rlimits is 3; use a table"),
        ("[listen]\nmessage_limits = 3", "line 2: message_limits is 3; use a table such as {message_bytes"),
        (
            "[listen]\nmessage_limits = {depht = 3}",
            "line 2: message_limits: Limits has no 'depht'; did you mean depth?",
        ),
        ("[listen]\nmessage_limits = {depth = 99}", "line 2: message_limits: depth is 99; protobuf parsers stop at"),
        ("[log]\nlog_format = 'xml'", "line 2: log_format: 'xml' is not one of"),
        ("[log\n", "server.toml is not TOML"),
    ]:
        (folder / "server.toml").write_text(text, "utf-8")
        result = CliRunner().invoke(main, ["serve", "CartPole-v1", "--config", "server.toml", "--print-config"])
        assert result.exit_code == 1, (text, result.output)
        assert message in result.output, (text, result.output)
        assert result.output.startswith("Error: ")


def test_a_table_that_names_no_environment_is_not_for_any_of_them(folder):
    (folder / "server.toml").write_text("\n[environment]\nkwargs = {a = 1}\n")
    with pytest.raises(ConfigError, match=r"line 2: \[environment\] has neither id nor entrypoint; add one, or"):
        understood("--config", "server.toml")
    (found, _), _ = understood("--config", "server.toml", "--ids", "CartPole-v1")
    assert found.default_args == {"entrypoint_kwargs": {"a": 1}}
    (found, _), _ = understood("--config", "server.toml", "CartPole-v1")
    assert found.default_args == {"entrypoint_kwargs": {"id": "CartPole-v1"}}


def test_an_entrypoint_may_stand_where_an_id_does(folder):
    (folder / "ours.py").write_text("def create_environment(): ...\n")
    assert understood("ours.py") == understood("--entrypoint", "ours.py")
    assert understood("ours.py")[0][0].default_args["entrypoint"] == "ours.py"
    with pytest.raises(click.UsageError, match="Give either an ID or --entrypoint"):
        understood("ours.py", "--entrypoint", "other.py")


def test_a_server_is_what_its_file_says(folder):
    (folder / "server.toml").write_text(
        '[environment]\nid = "CartPole-v1"\nkwargs = {max_episode_steps = 2}\n[listen]\nport = 0\n'
        '[access]\ncerts = "certificates"\n'
    )
    with serving("--config", "server.toml", cwd=folder) as (_, printed):
        assert 'tls=TlsFiles.from_folder("certificates", "client")' in printed
        command = ["play", f"localhost:{port_of(printed)}", "--certs", "certificates", "--episodes", "1"]
        played = CliRunner().invoke(main, command)
        assert "in 2 steps" in played.output
        # The same by the variable; and without, the server is not spoken to in plaintext.
        assert (
            "✗" not in CliRunner(env={"REMOTE_GYM_CERTS": "certificates"}).invoke(main, ["doctor", command[1]]).output
        )
        assert CliRunner().invoke(main, ["doctor", command[1]]).exit_code == 1
        with pytest.raises(Exception, match="TLS"):
            RemoteEnvironment(port=port_of(printed))


JSON = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@settings(deadline=None)
@given(JSON)
def test_every_value_reads_as_it_was_written(value):
    assert tomllib.loads(f"x = {_value(value)}")["x"] == value


def test_the_page_shows_a_file_that_works_and_names_every_key(folder):
    page = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text("utf-8")
    [example] = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (folder / "server.toml").write_text(example, "utf-8")
    (found, options), _ = understood("--config", "server.toml")
    assert found.default_args == {"entrypoint_kwargs": {"id": "CartPole-v1", "max_episode_steps": 200}}
    assert (found.options.memory_limit, found.options.rlimits, options["log_format"]) == (
        2**31,
        {"nofile": 256},
        "json",
    )
    for table, flags in settings_of(serve).items():
        assert f"| `[{table}]` | {', '.join(f'`{key}`' for key in flags)} |" in page
