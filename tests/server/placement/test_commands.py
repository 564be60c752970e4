"""The words of the commands that places mean, one by one."""

from __future__ import annotations

import os
import shlex
import subprocess
from typing import Any

import pytest

from remote_gym.server.placement.commands import (
    GuestCommand,
    guest_command,
    list_command,
    master_command,
    on_host,
    remove_command,
)
from remote_gym.server.placement.place import Mount, Place, Uv
from remote_gym.server.placement.resources import gpu_variables

SECRET = "it's $HOME; `x` \\"
SSH = [
    *("ssh", "-T"),
    *("-o", "BatchMode=yes"),
    *("-o", "ConnectTimeout=20"),
    *("-o", "ServerAliveInterval=15"),
    *("-o", "ServerAliveCountMax=3"),
    *("-o", "RemoteCommand=none"),
    *("-o", "ClearAllForwardings=yes"),
    *("-o", "ControlPersist=no"),
]
SHARING = [*SSH, "-o", "ControlMaster=no", "-o", "ControlPath=/run/c", "--"]


def command(variables: dict[str, str] | None = None, **fields: Any) -> GuestCommand:
    return guest_command(Place(**fields), name="remote_gym-7", owner="me", control="/run/c", variables=variables)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place(python="/opt/py38/bin/python"), ["/opt/py38/bin/python"]),
        (Place(command=("srun", "--pty", "python")), ["srun", "--pty", "python"]),
        (Place(conda="isaac"), ["conda", "run", "--no-capture-output", "-n", "isaac", "python"]),
        (Place(conda="/opt/isaac"), ["conda", "run", "--no-capture-output", "-p", "/opt/isaac", "python"]),
        (
            Place(uv=Uv("3.8", ("gym==0.26.2", "numpy<1.24"))),
            [
                *("uv", "run", "--no-project", "--isolated", "--python", "3.8"),
                *("--with", "gym==0.26.2", "--with", "numpy<1.24", "python"),
            ],
        ),
        (
            Place(uv=Uv(None, ("numpy-financial",))),
            ["uv", "run", "--no-project", "--isolated", "--with", "numpy-financial", "--with", "numpy", "python"],
        ),
    ],
)
def test_a_python_is_named_by_words_alone(place, words):
    assert guest_command(place, name="n", owner="o") == GuestCommand(words=tuple(words))


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_an_image_has_a_container_of_its_own_without_a_network(engine):
    found = command(image="sim:3", engine=engine)
    assert list(found.words) == [
        *(engine, "run", "-i", "--rm", "--name", "remote_gym-7", "--label", "remote_gym.owner=me"),
        *(("--stop-timeout", "0") if engine == "podman" else ()),
        *("--network", "none", "sim:3", "python3"),
    ]
    assert found.remove == (engine, "rm", "--force", "remote_gym-7")


def test_a_container_has_what_it_is_to_have():
    mounts = (Mount("/data set", "/data", read_only=True), Mount("/out", "/out"))
    found = command(
        image="sim:3",
        network="bridge",
        mounts=mounts,
        conda="sim",
        variables={"B": "2", "A": SECRET},
        engine_options=("--shm-size", "8g"),
    )
    assert list(found.words) == [
        *("docker", "run", "-i", "--rm", "--name", "remote_gym-7", "--label", "remote_gym.owner=me"),
        *("--network", "bridge"),
        *("--mount", "type=bind,source=/data set,target=/data,readonly"),
        *("--mount", "type=bind,source=/out,target=/out"),
        *("--env", "A", "--env", "B", "--shm-size", "8g"),
        *("sim:3", "conda", "run", "--no-capture-output", "-n", "sim", "python"),
    ]
    assert found.variables == {"A": SECRET, "B": "2"}


def test_apptainer_has_neither_name_nor_anything_left():
    mounts = (Mount("/data", "/data", read_only=True), Mount("/out", "/out"))
    found = command(
        image="sim.sif",
        engine="apptainer",
        mounts=mounts,
        variables={"A": SECRET},
        engine_options=("--writable-tmpfs",),
    )
    assert list(found.words) == [
        *("apptainer", "exec", "--containall", "--net", "--network", "none"),
        *("--bind", "/data:/data:ro", "--bind", "/out:/out", "--writable-tmpfs", "sim.sif", "python3"),
    ]
    assert found.variables == {"APPTAINERENV_A": SECRET}
    assert found.remove == ()
    on_hosts = command(image="sim.sif", engine="apptainer", network="host")
    assert list(on_hosts.words) == ["apptainer", "exec", "--containall", "sim.sif", "python3"]


@pytest.mark.parametrize(
    ("fields", "remote"),
    [
        ({}, "exec python3"),
        ({"python": "/opt/my py/bin/python"}, "exec '/opt/my py/bin/python'"),
        ({"conda": "isaac"}, "exec conda run --no-capture-output -n isaac python"),
        ({"command": ("sh", "-c", "a && b $1")}, "exec sh -c 'a && b $1'"),
    ],
)
def test_a_host_gets_one_word_that_its_shell_takes_apart(fields, remote):
    found = command(ssh="me@gpu-box", **fields)
    assert list(found.words) == [*SHARING, "me@gpu-box", remote]
    assert found == GuestCommand(words=found.words, ends_in_shell=True)


def test_an_image_may_be_on_a_host():
    found = command(ssh="box", image="sim:3", engine="podman", variables={"A": SECRET})
    *outer, remote = found.words
    assert outer == [*SHARING, "box"]
    exec_, sh, flag, script, *inner = shlex.split(remote)
    assert (exec_, sh, flag) == ("exec", "sh", "-c")
    assert script == 'IFS= read -r line && eval "$line" && exec "$0" "$@"'
    assert inner == [
        *("podman", "run", "-i", "--rm", "--name", "remote_gym-7", "--label", "remote_gym.owner=me"),
        *("--stop-timeout", "0", "--network", "none", "--env", "A", "sim:3", "python3"),
    ]
    assert found.variables == {}  # of the ssh that runs here
    assert list(found.remove) == [*SHARING, "box", "exec podman rm --force remote_gym-7"]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_host_reads_variables_from_its_input_and_no_byte_further(shell, tmp_path):
    show = "import os, sys; sys.stdout.write(os.environ['A'] + '|' + os.environ['B'] + '|' + sys.stdin.read())"
    words = command(ssh="box", command=("python3", "-c", show), variables={"A": SECRET, "B": "-n x"})
    done = subprocess.run(
        [shell, "-c", words.words[-1]],
        input=words.first_line.encode() + b"\nrest\n",
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
        check=True,
        timeout=60,
    )
    assert done.stdout.decode() == f"{SECRET}|-n x|rest\n"
    assert SECRET not in " ".join(words.words)


def test_without_a_connection_to_share_a_host_is_connected_to_anew():
    found = guest_command(Place(ssh="box"), name="n", owner="o")
    assert "ControlPath=none" in found.words


def test_a_connection_to_share_says_that_it_is_there_and_lasts_until_its_input_ends():
    options = ["-o", "ControlMaster=yes", "-o", "ControlPath=/run/c"]
    assert list(master_command("box", "/run/c", "abc")) == [*SSH, *options, "--", "box", "echo abc && exec cat"]


def test_containers_are_found_by_their_label_and_removed_by_name():
    place = Place(image="sim:3", engine="podman", ssh="box")
    words = ["podman", "ps", "--all", "--filter", "label=remote_gym.owner", "--format", "{{.Names}} {{.Labels}}"]
    assert list(list_command(place)) == words
    assert on_host("box", words, "/run/c")[-1] == f"exec {shlex.join(words)}"
    assert remove_command(place, ["a", "b"]) == ("podman", "rm", "--force", "a", "b")


def test_a_container_gets_its_device_and_processors_by_the_engines_own_options():
    place = {"image": "sim:3"}
    docker = guest_command(Place(**place), name="n", owner="o", gpu=2, cpus=(0, 3))
    assert list(docker.words)[8:] == [
        *("--network", "none", "--gpus", "device=2", "--cpuset-cpus", "0,3", "sim:3", "python3"),
    ]
    podman = guest_command(Place(**place, engine="podman", ssh="box"), name="n", owner="o", gpu=2, cpus=(0,))
    assert "--device nvidia.com/gpu=2 --cpuset-cpus 0 sim:3 python3" in podman.words[-1]
    for command in (docker, podman):  # inside, that is the only one, and so the first
        assert (command.variables, command.first_line) == ({}, "")


def test_apptainer_sees_all_devices_and_a_variable_names_one():
    found = guest_command(Place(image="sim.sif", engine="apptainer", network="host"), name="n", owner="o", gpu=1)
    assert list(found.words) == ["apptainer", "exec", "--containall", "--nv", "sim.sif", "python3"]
    assert found.variables["APPTAINERENV_CUDA_VISIBLE_DEVICES"] == "1"


def test_a_host_gets_device_and_processors_with_the_command():
    found = guest_command(Place(ssh="box", conda="sim"), name="n", owner="o", gpu=1, cpus=(4, 5))
    assert "CUDA_VISIBLE_DEVICES=1" in found.first_line.split(" ")
    inner = shlex.split(found.words[-1])[4:]
    assert inner == ["taskset", "--cpu-list", "4,5", "conda", "run", "--no-capture-output", "-n", "sim", "python"]


def test_another_python_here_has_them_as_variables_alone():
    found = guest_command(Place(conda="sim"), name="n", owner="o", gpu=1, variables={"A": "b"})
    assert found.variables == {"A": "b", **gpu_variables(1)}
    assert found.words[0] == "conda"
