"""Mistakes of somebody new are told by what they are, with a mend that works where they were made."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from remote_gym import RemoteEnvironment, create_remote_environment_server
from remote_gym.cli import main
from remote_gym.client.doctor import examine
from remote_gym.config import TlsFiles
from remote_gym.errors import ConnectError
from remote_gym.server.frontends import ports
from remote_gym.tls import client_files
from waiting import scaled

CARTPOLE = {"entrypoint_kwargs": {"id": "CartPole-v1"}}
TOKEN = "rgt_" + "a" * 43


def refusal(*arguments):
    """What a command says that fails."""
    called = [sys.executable, "-m", "remote_gym", *map(str, arguments)]
    ended = subprocess.run(called, capture_output=True, text=True, timeout=scaled(60), check=False)
    assert ended.returncode != 0
    return ended.stderr


def refusal_here(*arguments):
    """The same of a command that begins nothing, without a process for it."""
    ended = CliRunner().invoke(main, list(map(str, arguments)))
    assert ended.exit_code != 0
    return ended.output


@pytest.mark.parametrize(
    ("given", "missing"), [(("--certificate", "client"), "--key"), (("--key", "client_key"), "--certificate")]
)
@pytest.mark.parametrize("command", [("doctor", "localhost:1"), ("play", "localhost:1"), ("serve", "CartPole-v1")])
def test_half_of_a_pair_names_the_flag_that_is_missing(command, given, missing, certificates):
    said = refusal_here(*command, given[0], getattr(certificates, given[1]))
    assert f"needs {missing}, the" in said


@pytest.mark.parametrize(("given", "meant"), [("--host", "--url"), ("--tls", "--certs")])
def test_a_flag_of_other_programs_is_answered_by_ours(given, meant):
    assert f"No such option '{given}'; did you mean {meant}?" in refusal_here("serve", "CartPole-v1", given, "x")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--python", "retr0/bin/python"), "--python is 'retr0/bin/python'; there is no such file below {folder}; use"),
        (("--python", "no-such-python"), "--python is 'no-such-python'; there is no program of that name in PATH; use"),
        (("--gpus", "1,1"), "--gpus is [1, 1]; use a list of numbers"),
        (("--warm", "-1"), "--warm is -1; use an integer from 0"),
        (("--mount", "/a:/b"), "--mount: the environment has mounts without image; add"),
        (("--image", "sim", "--mount", "a:/b"), "--mount: the environment has the mount 'a:/b', of which"),
        (("--python", sys.executable, "--conda", "x"), "--python: the environment has both python and conda; keep one"),
        (("--uv-with", "-x"), "--uv-with: the environment has uv with packages ['-x']; use"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_wrong_about_an_environment_names_the_flag_that_says_it(given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert f"Error: {said.format(folder=tmp_path)}" in refusal_here("serve", "CartPole-v1", "--port", 0, *given)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[environment]\nid = "x"\n\npython = "a/b"', "4: python is 'a/b'; there is no such file below {folder}; use"),
        ('[environments.retro]\nid = "x"\npython = "a/b"', "3: python is 'a/b'; there is no such file below"),
        ('[environment]\nid = "x"\n[environments.retro]\nid="CartPole-v1"\nwarm = -1', "5: warm is -1; use an"),
        ('[environments.retro]\nid = "x"\nmounts = ["/a:/b"]', "3: [environments.retro] has mounts without image"),
        ('[listen]\nport = 0\n[environments.retro]\nid="No-v1"', "3: [environments.retro] cannot be served: Env"),
    ],
)
def test_what_is_wrong_about_an_environment_names_the_line_of_the_file_that_says_it(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "No-v1" not in text:  # before ids are looked for
        text = text.replace('"x"', '"CartPole-v1"')
    (tmp_path / "a.toml").write_text(text)
    refused = refusal_here("serve", "--port", 0, "--config", "a.toml")
    assert f"Error: a.toml, line {said.format(folder=tmp_path)}" in refused


def test_a_flag_is_named_where_it_takes_the_place_of_a_files_key(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text('[environment]\nid = "CartPole-v1"\npython = "a/b"\n')
    refused = refusal_here("serve", "--config", "a.toml", "--python", "c/d")
    assert "Error: --python is 'c/d'" in refused


def test_an_environment_of_a_file_that_cannot_be_created_names_its_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text('[environments.retro]\nid = "CartPole-v1"\nkwargs = {wrong = 1}\n')
    said = refusal("serve", "--port", 0, "--config", "a.toml")
    assert "Error: a.toml, line 1: environment 'retro' cannot be created" in said


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (("--python", sys.executable, sys.executable, "-c", "0"), f"{sys.executable} -c"),
        (("--no-check", "sh", "run.sh"), "sh run.sh"),
        (("sh",), "sh"),
        (("sh", "--no-such-flag"), "sh --no-such-flag"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value[-1],
)
def test_a_command_to_run_without_its_dashes_is_answered_by_these(given, meant):
    said = " ".join(refusal_here("launch", "CartPole-v1", *given).split())
    assert f"The command to run stands behind '--', as in: -- {meant} ..." in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--pyton", "sh"), "No such option '--pyton'"),
        (("--pyton", "P", "sh"), "No such option '--pyton'"),
        (("--python", "sh", "--no-such-flag"), "No such option '--no-such-flag'"),
        (("no-program-of-this-name",), "unexpected extra argument"),
        (("--warm", "x", "sh"), "'x' is no integer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_mistakes_are_not_answered_by_dashes(given, said):
    refused = refusal_here("launch", "CartPole-v1", *given)
    # Click has quoted options since 8.2, in place of a colon before them.
    assert said in re.sub(r"option: (--\S+)", r"option '\1'", refused)
    assert "behind '--'" not in refused


def test_a_misspelt_command_is_answered_by_the_nearest():
    assert "No such command 'serv'; did you mean serve or servers?" in refusal_here("serv", "CartPole-v1")


def test_an_authority_alone_does_not_make_a_server(certificates):
    assert "needs --certificate and --key" in refusal_here("serve", "CartPole-v1", "--ca", certificates.ca)


@pytest.mark.parametrize("arguments", [["CartPol-v1"], [], ["CartPole-v1", "--environment", "nonsense"]])
def test_a_log_of_json_ends_in_json_where_the_server_does_not_start(arguments):
    said = refusal("serve", *arguments, "--log-format", "json")
    lines = [json.loads(line) for line in said.splitlines()]
    assert lines[-1]["level"] == "ERROR"
    assert lines[-1]["event"] == "failed"


def test_what_gymnasium_asks_is_not_ended_by_a_full_stop():
    said = refusal("serve", "CartPol-v1")
    assert "Did you mean: `CartPole`? If a package registers" in said


def test_the_flag_that_serves_it_all_the_same_is_a_flag_whatever_the_error(tmp_path):
    file = tmp_path / "ours.py"
    file.write_text("def create_environment(*, level):\n    ...\n")
    said = refusal("serve", "--entrypoint", file, "--kwargs", '{"level": 1, "other": 2}')
    assert "--no-check serves it all the same)" in said
    assert "was to be called with" in said


def test_the_port_of_direct_connections_is_taken_for_what_it_may_be(certificates, monkeypatch):
    monkeypatch.setattr(ports, "ONE_PORT", False)  # as on Windows and macOS, whose servers have one
    paths = (certificates.server, certificates.server_key, certificates.ca)
    files = TlsFiles(ca=certificates.ca, certificate=certificates.client, private_key=certificates.client_key)
    with (
        create_remote_environment_server(CARTPOLE, port=0, check=False, use_thread=True) as plain,
        create_remote_environment_server(CARTPOLE, port=0, check=False, server_credentials_paths=paths) as secure,
    ):
        for server in (plain, secure):
            for shown in (None, files):
                *_, check = examine(
                    "localhost", server._service._live._routes._direct.port, shown, {}, timeout=scaled(2)
                )
                assert not check.works
                assert "may be the second one of a server on Windows or macOS" in f"{check.found} {check.mend}"


def test_each_of_several_servers_that_cannot_be_reached_tells_its_own_cause():
    with pytest.raises(ConnectError) as caught:
        RemoteEnvironment(addresses=["localhost:1", "localhost:2"], connect_timeout=scaled(0.5))
    for port in (1, 2):
        assert f"localhost port {port}: [Errno 111] Connection refused" in str(caught.value)
    assert "answer within" not in str(caught.value)


def test_relative_paths_of_certificates_are_those_of_the_folder_where_they_were_given(
    certificates, tmp_path, monkeypatch
):
    monkeypatch.chdir(certificates.ca.parent)
    mine = (certificates.ca.name, certificates.client, certificates.client_key)
    assert client_files(mine).ca == certificates.ca
    paths = (certificates.server, certificates.server_key, certificates.ca.name)
    options = {"check": False, "use_thread": True, "server_credentials_paths": paths}
    with create_remote_environment_server(CARTPOLE, port=0, **options) as server:
        environment = RemoteEnvironment("localhost", server.port, client_credentials_paths=mine)
        monkeypatch.chdir(tmp_path)
        environment.close()
        environment.reset()
        environment.close()
        assert environment.client_credentials_paths[0] == str(certificates.ca)


def test_a_token_that_counts_for_nothing_is_logged_once(certificates, caplog):
    paths = (certificates.server, certificates.server_key, certificates.ca)
    mine = (certificates.ca, certificates.client, certificates.client_key)
    options = {"check": False, "use_thread": True, "server_credentials_paths": paths}
    with (
        caplog.at_level(logging.WARNING, "remote_gym"),
        create_remote_environment_server(CARTPOLE, port=0, **options) as server,
    ):
        for _ in range(3):
            environment = RemoteEnvironment("localhost", server.port, client_credentials_paths=mine, token=TOKEN)
            environment.reset()
            environment.close()
    told = [record.getMessage() for record in caplog.records if "which counts for nothing" in record.getMessage()]
    assert len([text for text in told if text.startswith("a client at")]) == 1
