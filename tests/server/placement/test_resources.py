"""Devices, processors and variables of environments: read or refused, and shared out."""

from __future__ import annotations

import os
from typing import Any

import pytest

from remote_gym import ConfigError, create_remote_environment_server
from remote_gym.server.placement.resources import Gpus, Resources, gpu_variables, read_resources


def read(*, is_here: bool = True, **arguments: Any) -> Resources:
    return read_resources(arguments, field="environments", where="environments['sim']", is_here=is_here)


def test_each_is_read():
    assert read(entrypoint="file.py", gpus=None) == Resources()
    found = read(gpus=[0, "GPU-8f2e-11"], cpus=[999], variables={"A": "1"}, max_sessions=2, is_here=False)
    assert found == Resources(gpus=(0, "GPU-8f2e-11"), cpus=(999,), variables={"A": "1"}, max_sessions=2)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"gpus": 0}, "has gpus 0; use a list of numbers, each once, such as [0, 1]"),
        ({"gpus": []}, "has gpus []; use a list of numbers"),
        ({"gpus": [0, 0]}, "has gpus [0, 0]; use a list of numbers, each once"),
        ({"gpus": [True]}, "has gpus [True]; use "),
        ({"gpus": ["0,1"]}, "has gpus ['0,1']; use "),
        ({"cpus": [-1]}, "has cpus [-1]; use a list of numbers, each once, such as [0, 1, 2, 3]"),
        ({"cpus": [0, 99999]}, "has cpus [0, 99999], of which 99999 is none that this server may use: "),
        ({"variables": ["A=1"]}, "has variables ['A=1']; use a dict such as {'OMP_NUM_THREADS': '1'}"),
        ({"variables": {"A-B": "1"}}, "has variables of the name 'A-B'; use letters, digits and '_'"),
        ({"variables": {"A": 1}}, "has a variable 'A' of type int; use a text of one line"),
        ({"variables": {"A": "secret\nB"}}, "has a variable 'A' of type str; use a text of one line"),
        (
            {"gpus": [0], "variables": {"CUDA_VISIBLE_DEVICES": "1"}},
            "has both gpus and the variable 'CUDA_VISIBLE_DEVICES', which they set; keep one of the two",
        ),
        ({"max_sessions": 0}, "has max_sessions, which is 0; use an integer from 1 to 1,000,000"),
    ],
)
def test_what_cannot_work_is_refused_when_a_server_is_made(arguments, problem):
    with pytest.raises(ConfigError) as caught:
        create_remote_environment_server(
            "CartPole-v1", port=0, environments={"sim": {"entrypoint": "x.py", **arguments}}
        )
    assert problem in str(caught.value)
    assert "secret" not in str(caught.value)
    assert caught.value.field == "environments"


@pytest.mark.parametrize(
    "arguments", [{"gpus": [0]}, {"cpus": sorted(os.sched_getaffinity(0))}, {"variables": {"A": "1"}}]
)
def test_threads_cannot_have_their_own(arguments):
    offer = {"entrypoint_kwargs": {"id": "CartPole-v1"}, **arguments}
    with pytest.raises(ConfigError, match=f"has {next(iter(arguments))} .*use_thread=True"):
        create_remote_environment_server(offer, port=0, use_thread=True)


def test_each_session_gets_the_device_that_the_fewest_use():
    gpus = Gpus()
    assert [gpus.take(None, [0, 1, 2]) for _ in range(4)] == [0, 1, 2, 0]
    gpus.give_back(None, 1)
    assert gpus.take(None, [0, 1, 2]) == 1
    assert gpus.take(None, [2, 0]) == 2  # another environment's, which may have fewer of them
    assert gpus.take("box", [2, 0]) == 2  # another machine's
    gpus.give_back(None, 0)
    gpus.give_back(None, 0)
    assert gpus.take(None, [2, 1, 0]) == 0


def test_a_device_is_named_as_libraries_look_for_it():
    assert gpu_variables(2) == {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": "2",
        "MUJOCO_EGL_DEVICE_ID": "2",
        "EGL_DEVICE_ID": "2",
    }
    assert gpu_variables("GPU-1a") == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "GPU-1a"}
