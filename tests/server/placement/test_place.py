"""What a server's operator says of where an environment runs: read, or refused with what would be right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from remote_gym import ConfigError, create_remote_environment_server
from remote_gym.config import SERVERS_ALONE
from remote_gym.server.launch_request import check_arguments
from remote_gym.server.placement.place import Mount, Place, Uv, read_place, runs_elsewhere


def read(**arguments: Any) -> Place:
    return read_place(arguments, field="environments", where="environments['sim']")


def test_a_relative_python_is_the_one_of_the_servers_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    link = tmp_path / "venv" / "python"
    link.parent.mkdir()
    link.symlink_to(sys.executable)
    assert read(python="venv/python") == read(python="~/venv/python") == Place(python=str(link))


def test_without_any_of_them_it_runs_in_the_worker():
    arguments = {"entrypoint": "file.py", "python": None, "image": None}
    assert read(**arguments) == Place()
    assert not Place().is_elsewhere
    assert not runs_elsewhere(arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"python": sys.executable}, Place(python=sys.executable)),
        ({"python": Path("/there/python"), "ssh": "box"}, Place(python="/there/python", ssh="box")),
        ({"command": ["srun", "python"]}, Place(command=("srun", "python"))),
        ({"conda": "isaac"}, Place(conda="isaac")),
        ({"uv": "3.8"}, Place(uv=Uv("3.8"))),
        ({"uv": {"with": ["gym==0.26.2"]}}, Place(uv=Uv(None, ("gym==0.26.2",)))),
        ({"image": "sim:3"}, Place(image="sim:3", engine="docker")),
        (
            {
                "image": "sim:3",
                "engine": "podman",
                "network": "host",
                "mounts": ["/a b:/c", "/d:/e:ro"],
                "ssh": "u@box",
            },
            Place(
                image="sim:3",
                engine="podman",
                network="host",
                mounts=(Mount("/a b", "/c"), Mount("/d", "/e", read_only=True)),
                ssh="u@box",
            ),
        ),
    ],
)
def test_each_form_is_read(arguments, expected):
    assert read(**arguments) == expected
    assert expected.is_elsewhere
    assert runs_elsewhere(arguments)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"conda": "isaac", "uv": "3.8"}, "has both conda and uv; keep one of the two"),
        ({"python": sys.executable, "command": ["x"]}, "has both python and command; keep one of the two"),
        (
            {"python": "/no/such/python"},
            "has python '/no/such/python'; there is no such file; use the path of a Python executable",
        ),
        ({"command": "python"}, "has command 'python'; use a list of words, such as "),
        ({"command": []}, "has command []; use a list of words, such as "),
        ({"conda": "-n"}, "has conda '-n'; use the name of a Conda environment, such as 'isaac', or its path"),
        ({"uv": {"pyhton": "3.8"}}, "has no 'pyhton'; did you mean python?"),
        ({"uv": 3.8}, "has uv 3.8; use a version of Python, such as '3.8', or "),
        ({"uv": {"with": "gym"}}, "has uv with packages 'gym'; use "),
        ({"uv": {"with": ["--index-url=x"]}}, "has uv with packages ['--index-url=x']; use "),
        ({"image": "--privileged"}, "has image '--privileged'; use a text without spaces, such as 'sim:3'"),
        ({"image": "sim:3 sh"}, "has image 'sim:3 sh'; use a text without spaces, such as 'sim:3'"),
        ({"image": "sim:3", "engine": "dokcer"}, "has engine 'dokcer'; use 'docker', 'podman' or 'apptainer'"),
        ({"engine": "podman"}, "has engine without image; add the image that it is for, or leave it out"),
        ({"image": "sim:3", "engine_options": "--rm"}, "has engine_options '--rm'; use a list of words"),
        (
            {"image": "sim:3", "engine_options": ["sim:4"]},
            "has engine_options ['sim:4']; use a list of words that begins",
        ),
        ({"engine_options": ["--init"]}, "has engine_options without image; "),
        ({"mounts": ["/a:/b"], "ssh": "box"}, "has mounts without image; "),
        ({"image": "sim:3", "network": "-x"}, "has network '-x'; use a text without spaces, such as 'bridge'"),
        ({"image": "sim:3", "mounts": "/a:/b"}, "has mounts '/a:/b'; use a list such as ['/data:/data:ro']"),
        ({"image": "sim:3", "mounts": ["data:/b"]}, "of which 'data' is not absolute; begin both paths with '/'"),
        ({"image": "sim:3", "mounts": ["/a:b"]}, "of which 'b' is not absolute; "),
        ({"image": "sim:3", "mounts": ["/a"]}, "has the mount '/a'; use '/here:/there', or '/here:/there:ro'"),
        ({"image": "sim:3", "mounts": ["/a:/b:rw"]}, "has the mount '/a:/b:rw'; use "),
        ({"image": "sim:3", "mounts": ["/a,x=y:/b"]}, "has the mount '/a,x=y:/b'; use "),
        (
            {"ssh": "-oProxyCommand=sh"},
            "has ssh '-oProxyCommand=sh'; use a text without spaces, such as 'user@gpu-box'",
        ),
    ],
)
def test_what_cannot_work_is_refused_when_a_server_is_made(arguments, problem):
    with pytest.raises(ConfigError) as caught:
        create_remote_environment_server(
            "CartPole-v1", port=0, environments={"sim": {"entrypoint": "x.py", **arguments}}
        )
    assert problem in str(caught.value)
    assert str(caught.value).startswith("environments['sim']")
    assert caught.value.field == "environments"


@pytest.mark.parametrize(
    "arguments",
    [
        {"include": ["sims"]},
        {"include": "sims", "python": "python3"},
        {"include": [""], "python": "python3"},
        {"include": ["sims"], "image": "sim:3", "there": True},
    ],
)
def test_files_that_cannot_be_sent_along_are_refused_when_a_server_is_made(arguments):
    offer = {"sim": {"entrypoint": "x.py", **arguments}}
    with pytest.raises(ConfigError, match=r"environments\['sim'\].* has include .*; use a list of files and folders"):
        create_remote_environment_server("CartPole-v1", port=0, environments=offer)


def test_no_argument_that_leads_to_a_command_is_a_clients():
    assert {
        "python",
        "command",
        "there",
        "conda",
        "uv",
        "image",
        "engine",
        "network",
        "mounts",
        "engine_options",
        "ssh",
    } <= SERVERS_ALONE
    assert "include" in SERVERS_ALONE


@pytest.mark.parametrize("kwargs", [{}, {"id": None}, {"max_episode_steps": 5}])
def test_an_id_in_another_python_is_not_left_to_clients(kwargs):
    with pytest.raises(ConfigError, match="neither an entrypoint nor an id"):
        check_arguments("default_args", {"entrypoint_kwargs": kwargs, "python": sys.executable})
