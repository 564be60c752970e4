"""The words by which an image runs a whole server, one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remote_gym.server.placement.place import Mount, Place
from remote_gym.server.placement.resources import Resources
from remote_gym.server.placement.serving import port_command, read_port, serve_command, stop_command

CERTS = Path("/private/server")


def command(resources: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    place, found = Place(image="sim:3", **fields), Resources(**(resources or {}))
    return [*serve_command(place, name="n", owner="me", port=56789, certs=CERTS, resources=found)]


CERTIFICATES = [
    *("--mount", "type=bind,source=/private/server,target=/run/remote-gym/certs,readonly"),
    *("--env", "REMOTE_GYM_CERTS=/run/remote-gym/certs"),
]


@pytest.mark.parametrize(("engine", "prompt"), [("docker", []), ("podman", ["--stop-timeout", "0"])])
def test_a_server_has_its_certificates_and_a_port_of_loopback(engine, prompt):
    assert command(engine=engine) == [
        *(engine, "run", "--rm", "--name", "n", "--label", "remote_gym.owner=me", *prompt),
        *("--publish", "127.0.0.1::56789", *CERTIFICATES, "sim:3"),
    ]
    place = Place(image="sim:3", engine=engine)
    assert port_command(place, "n", 56789) == (engine, "port", "n", "56789/tcp")
    assert stop_command(place, "n") == (engine, "stop", "-t", "10", "n")


def test_it_has_what_it_is_to_have_and_no_value_of_a_variable_in_its_words():
    resources = {"gpus": (0, 2), "cpus": (1, 3), "variables": {"B": "secret", "A": ""}}
    fields = {
        "network": "sims",
        "mounts": (Mount("/data", "/data", read_only=True),),
        "command": ("serve", "it"),
        "engine_options": ("--init",),
    }
    inside = [
        *("--cpuset-cpus", "1,3", "--mount", "type=bind,source=/data,target=/data,readonly"),
        *("--env", "A", "--env", "B", "--init", "sim:3", "serve", "it"),
    ]
    published = ["--network", "sims", "--publish", "127.0.0.1::56789", *CERTIFICATES]
    assert command(resources, **fields)[7:] == [*published, "--gpus", '"device=0,2"', *inside]
    devices = ["--device", "nvidia.com/gpu=0", "--device", "nvidia.com/gpu=2"]
    assert command(resources, engine="podman", **fields)[9:] == [*published, *devices, *inside]


def test_in_the_machines_own_network_nothing_is_published():
    assert "--publish" not in command(network="host")


@pytest.mark.parametrize(
    ("printed", "port"),
    [("127.0.0.1:45023\n", 45023), ("", None), ("0.0.0.0:45023\n", None), ("[::]:1\n127.0.0.1:2\n", 2)],
)
def test_the_port_is_one_of_loopback(printed, port):
    assert read_port(printed) == port
