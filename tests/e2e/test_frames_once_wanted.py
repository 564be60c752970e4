"""Frames travel with observations once somebody looks at them, and not before; what is seen is the same throughout."""

from __future__ import annotations

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from remote_gym import ConfigError, RemoteEnvironmentError
from remote_gym.client.rendering import PATIENCE
from remote_gym.config import Limits
from remote_gym.testing import loopback_server
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.worker.host import Host

ENTRYPOINT = '''
import gymnasium as gym
import numpy as np

EXPOSED = ("shade", "paint", "renders")


class Painter(gym.Env):
    """Paints its clock; counts how often, which its info tells; fails where the shade is negative."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    observation_space = gym.spaces.Discrete(10_000)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, render_mode=None, side=4):
        self.render_mode, self.side = render_mode, side
        self.clock = self.renders = self.shade = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.clock = 0
        return np.int64(self.clock), {"renders": self.renders}

    def step(self, action):
        self.clock += 1
        return np.int64(self.clock), 1.0, self.clock % 100 == 0, False, {"renders": self.renders}

    def render(self):
        if self.shade < 0:
            raise ValueError("out of paint")
        self.renders += 1
        return np.full((self.side, self.side, 3), self.clock + self.shade, np.uint8)

    def paint(self, shade):
        self.shade = shade


def create_environment(render_mode=None, side=4):
    return Painter(render_mode, side)
'''
FAILING = ENTRYPOINT.replace(
    "        self.clock += 1\n",
    "        self.clock += 1\n        if action == 1:\n            raise ValueError(self.clock)\n",
)


@pytest.fixture(scope="module", autouse=True)
def _entrypoints(own_folder):
    (own_folder / "painter.py").write_text(ENTRYPOINT)
    (own_folder / "failing_painter.py").write_text(FAILING)


PAINTED = {"entrypoint": "painter.py"}
"""A server's arguments, with which it serves `Painter`."""


@pytest.fixture(params=["direct", "grpc"])
def server(servers, request):
    with servers.lend(PAINTED) as lent:
        lent.client_arguments |= {"connection": request.param, "render_mode": "rgb_array"}
        yield lent


def steps(environment: gym.Env[Any, Any], count: int) -> list[int]:
    """How often the environment had rendered by each of some steps, before it did with that step."""
    return [environment.step(0)[4]["renders"] for _ in range(count)]


def test_no_frame_is_rendered_while_nobody_looks(server):
    environment = server.environment()
    environment.reset()
    steps(environment, 50)
    environment.reset()
    assert steps(environment, 2) == [0, 0]


@pytest.mark.parametrize("look", ["render", "latest_image"])
def test_frames_come_along_from_the_first_look_on_and_cease_after_some_that_nobody_saw(look, server):
    environment = server.environment()
    environment.reset()
    steps(environment, 3)
    frame = environment.render() if look == "render" else environment.latest_image
    assert (frame == 3).all()
    # One was fetched; then each step renders another, until as many as patience allows came in vain.
    assert steps(environment, PATIENCE + 3) == [1, *range(2, PATIENCE + 2), PATIENCE + 1, PATIENCE + 1]
    assert (environment.render() == 3 + PATIENCE + 3).all()


def test_whoever_renders_each_step_waits_for_one_answer_and_sees_each(server):
    environment = server.environment()
    for _ in range(2):
        before = environment.reset()[1]["renders"]
        for count in range(1, 30):
            assert (environment.render() == count - 1).all()
            assert environment.step(0)[4]["renders"] == before + count
            assert environment.latest_image is environment.render()


def test_an_episode_begins_without(server):
    environment = server.environment()
    environment.reset()
    environment.render()
    renders = environment.reset()[1]["renders"]
    assert renders == 1
    assert steps(environment, 3) == [1, 1, 1]
    assert (environment.render() == 3).all()


def test_many_steps_at_once_bring_the_last_ones_frame_alone(server):
    environment = server.environment()
    environment.reset()
    environment.render()
    assert [info["renders"] for *_, info in environment.step_many([0] * 5)] == [1] * 5
    assert (environment.render() == 5).all()
    assert [info["renders"] for *_, info in environment.step_many([0] * PATIENCE)] == [2] * PATIENCE
    assert environment.step(0)[4]["renders"] == 3
    assert environment.step(0)[4]["renders"] == 3


def test_what_a_call_changes_is_seen(server):
    environment = server.environment()
    environment.reset()
    environment.step(0)
    assert (environment.render() == 1).all()
    environment.paint(7)
    assert (environment.render() == 8).all()
    assert environment.renders == environment.renders == 2
    environment.render()
    assert environment.renders == 2


def test_a_frame_that_fails_costs_no_step_and_whoever_renders_is_told(server):
    environment = server.environment()
    environment.reset()
    environment.render()
    environment.paint(-1)
    assert environment.step(0)[0] == 1
    with pytest.raises(RemoteEnvironmentError, match="out of paint"):
        environment.render()
    assert environment.step_many([0, 0])[1][0] == 3
    environment.paint(0)
    assert (environment.render() == 3).all()


def test_a_frame_that_makes_an_answer_too_large_is_left_out():
    side = {"entrypoint_kwargs": {"side": 100}}
    with loopback_server(PAINTED | side, use_thread=True, message_limits=Limits(message_bytes=20_000)) as server:
        environment = server.environment(render_mode="rgb_array", connection="direct")
        environment.reset()
        for _ in range(2):
            with pytest.raises(Exception, match="20,000"):
                environment.render()
            assert environment.step(0)[1] == 1.0
        assert environment.step_many([0, 0])[1][0] == 4


def test_a_server_that_knows_no_such_requests_is_asked_for_each_frame(monkeypatch):
    answer = Host._run

    def run_as_before(host: Host, request: pb.Request) -> tuple[bytes, ...]:
        request.ClearField("frame")
        return answer(host, request)

    monkeypatch.setattr(Host, "_run", run_as_before)
    with loopback_server(PAINTED, use_thread=True) as server:
        environment = server.environment(render_mode="rgb_array")
        environment.reset()
        for count in range(1, 12):
            environment.step(0)
            assert (environment.render() == count).all()


def test_a_resumed_environment_is_rendered_too_whichever_way_it_was_opened(server):
    for frames in ("auto", "step", "on_demand"):
        environment = server.environment(frames=frames)
        environment.reset()
        environment.step(0)
        environment.render()
        environment.step(0)
        other = server.environment(resume=pickle.loads(pickle.dumps(environment.ticket)))
        for count in range(2, 15):
            assert (other.render() == count).all()
            other.step(0)


def test_a_request_that_is_repeated_gets_the_same_frame_and_another_is_refused():
    namespace: dict[str, Any] = {}
    exec(ENTRYPOINT, namespace)
    painter = namespace["Painter"]("rgb_array")
    host = Host(painter, limits=Limits())
    reset = pb.Request(sequence=1, reset=pb.ResetRequest(), frame=True).SerializeToString()
    first = host.answer(reset)
    assert pb.Response.FromString(first).reset.HasField("frame")
    assert host.answer(reset) == first
    assert painter.renders == 1
    action = pb.StepRequest(packed=np.int64(0).tobytes())
    step = host.answer(pb.Request(sequence=2, step=action, frame=True).SerializeToString())
    other = pb.Response.FromString(host.answer(pb.Request(sequence=2, step=action).SerializeToString()))
    assert other.error.kind == pb.ErrorDetail.OUT_OF_SEQUENCE
    assert host.answer(pb.Request(sequence=2).SerializeToString()) == step
    assert (painter.clock, painter.renders) == (1, 2)


def test_every_frame_is_shown_in_a_window_by_itself(server, monkeypatch):
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    environment = server.environment(render_mode="human")
    environment.reset()
    for count in range(1, PATIENCE + 4):
        environment.step(0)
        assert (pygame.surfarray.array3d(pygame.display.get_surface()) == count).all()
    environment.close()


def test_it_is_for_single_environments():
    from remote_gym import RemoteVectorEnv

    with pytest.raises(ConfigError, match="frames is 'auto'; use 'step' or 'on_demand'"):
        RemoteVectorEnv(port=1, num_envs=2, frames="auto")


@pytest.mark.parametrize("frames", ["auto", "on_demand"])
def test_what_a_step_that_failed_has_changed_is_seen(frames):
    with loopback_server({"entrypoint": "failing_painter.py"}, use_thread=True) as running:
        environment = running.environment(render_mode="rgb_array", frames=frames)
        environment.reset()
        environment.step(0)
        seen = [environment.render()[0, 0, 0]]
        with pytest.raises(RemoteEnvironmentError):
            environment.step(1)
        seen.append(environment.render()[0, 0, 0])
        with pytest.raises(RemoteEnvironmentError):
            environment.step_many([0, 1])
        seen.append(environment.render()[0, 0, 0])
        environment.close()
    assert seen == [1, 2, 4]
