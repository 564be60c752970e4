"""Checks that an environment behaves at a distance as it does at home, its errors and frames included."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import gymnasium as gym
from gymnasium.utils.env_checker import check_env

from remote_gym.client.environment import RemoteEnvironment
from remote_gym.testing.checks import SEED, Check, NotApplicable, Subject, expect, refused
from remote_gym.testing.lockstep import find_difference, play_in_lockstep
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.frames import decode_frame
from remote_gym.wire.parse import parse
from remote_gym.wire.spaces.encoding import decode_space, encode_space
from remote_gym.wire.values import decode_value


def _reset_first(subject: Subject) -> str:
    with subject.target.session() as peer:
        ask = peer.connect("unary")
        refused(ask(peer.step(peer.action_space.sample())), "RESET_NEEDED", sequence=1)
        response = parse(pb.Response, ask(peer.reset(SEED)))
        expect(response.WhichOneof("result") == "reset", f"a reset after it was answered by {response.error.message}")
    return "a step before the first reset is refused, and the reset after it works"


def _seeds(subject: Subject) -> str:
    if subject.description.spec.nondeterministic:
        raise NotApplicable("the environment's spec says that it is not deterministic")
    expect(subject.difference is None, f"the same seed and actions gave something else: {subject.difference}")
    return "two sessions with the same seed and actions return the same"


def _lockstep(subject: Subject) -> str:
    if subject.local is None:
        raise NotApplicable("no local environment was given to compare it with")
    limits = subject.target.options.message_limits
    for connection in ("grpc", "direct") if subject.offers_direct else ("grpc",):
        with (
            contextlib.closing(subject.local()) as local,
            contextlib.closing(remote(subject, connection=connection)) as other,
        ):
            for name in ("observation_space", "action_space"):
                # As it travels: a kind of space that an environment derived for itself arrives as what it is made of.
                here = decode_space(encode_space(getattr(local, name), limits), limits)
                there = getattr(other, name)
                expect(here == there, f"{name} is {here} here and {there} there")
            play_in_lockstep(local, other, steps=subject.steps, seed=SEED)
    return f"{subject.steps} steps over each kind of connection equal those of the local environment, bit for bit"


def _wrong_action(subject: Subject) -> str:
    with subject.twins() as twins:
        peer = twins.peer
        ask = twins.ask_plainly
        twins.step()
        wrong = {
            "none": pb.StepRequest(),
            "of another size": pb.StepRequest(packed=b"\0" * 1013),
            "of another kind": pb.StepRequest(
                value=pb.Value(dict=pb.Dict(names=["?"], values=[pb.Value(boolean=True)]))
            ),
        }
        for request in wrong.values():
            data = peer.next(step=request)
            refused(ask(data), "ENCODING", "INVALID_ACTION", sequence=peer.sequence)
            twins.step()
    return f"refused, and the environment did not step: an action that is {', '.join(wrong)}"


def _steps_at_once(subject: Subject) -> str:
    with subject.twins() as twins:
        peer, actions = twins.peer, [twins.peer.action_space.sample() for _ in range(3)]
        steps = [peer.step_request(action) for action in actions]
        response = parse(pb.Response, twins.ask_plainly(peer.next(step_many=pb.StepManyRequest(steps=steps))))
        if response.error.kind == pb.ErrorDetail.ENCODING:
            raise NotApplicable("the server does not know step_many")
        expect(response.HasField("step_many"), f"step_many was answered by {response.WhichOneof('result')}")
        found = [("step", *peer.transition(each)) for each in response.step_many.transitions]
        expected = [twins.step_reference(action) for action in actions[: len(found)]]
        difference = find_difference(expected, found, "step_many")
        expect(difference is None, str(difference))
        ended = bool(found) and any(bool(flag) for flag in found[-1][3:5])
        complete = len(found) == len(actions) or ended or response.step_many.HasField("error")
        expect(complete, f"{len(found)} transitions came for {len(actions)} actions")
        return f"{len(found)} steps in one message are those that {len(found)} messages make"


def _not_exposed(subject: Subject) -> str:
    with subject.twins() as twins:
        twins.step()
        for name in ("__class__", "__init__", "close", "no_such_name"):
            if name in {exposed.name for exposed in subject.description.exposed}:
                continue
            error = refused(twins.ask_plainly(twins.peer.next(call=pb.CallRequest(name=name))), "ENVIRONMENT").error
            expect(
                error.remote_type == "builtins.AttributeError",
                f"a call of {name!r} raised {error.remote_type}; it has to be builtins.AttributeError",
            )
        twins.step()
    return "calls of what is not exposed are answered by an AttributeError, and the session goes on"


def _error_travels(subject: Subject) -> str:
    with subject.twins() as twins:
        peer, ask = twins.peer, twins.ask_plainly
        # Gymnasium's own generator of random numbers takes no negative seed, and few environments have another.
        response = parse(pb.Response, ask(peer.reset(-1)))
        if not response.HasField("error"):
            raise NotApplicable("the environment accepts a negative seed, and nothing else is known to make it fail")
        error = refused(response.SerializeToString(), "ENVIRONMENT", sequence=peer.sequence).error
        for field in ("message", "remote_type", "remote_message"):
            expect(bool(getattr(error, field)), f"an error of the environment has no {field}")
        response = parse(pb.Response, ask(peer.reset(SEED)))
        expect(response.HasField("reset"), f"the reset after an error failed: {response.error.message}")
    return f"{error.remote_type} arrives with its message, and the session goes on"


def _frames(subject: Subject) -> str:
    limits = subject.target.options.message_limits
    metadata = decode_value(subject.description.metadata, limits)
    if "rgb_array" not in (metadata.get("render_modes") or ()):
        raise NotApplicable("the environment has no render mode 'rgb_array'")
    with subject.target.session(subject.target.opening("rgb_array", frames=True)) as peer:
        ask = peer.connect("unary")
        first = parse(pb.Response, ask(peer.reset(SEED)))
        second = parse(pb.Response, ask(peer.step(peer.action_space.sample())))
        rendered = parse(pb.Response, ask(peer.next(render=pb.RenderRequest())))
        for response in (first, second, rendered):
            expect(not response.HasField("error"), f"with frames: {response.error.message:.300}")
        shapes = set()
        for message in (first.reset, second.step, rendered.render):
            expect(message.HasField("frame"), "a session opened with FRAMES_STEP got no frame")
            frame = decode_frame(message.frame, limits)
            expect(getattr(frame, "ndim", 0) == 3, f"a frame of mode 'rgb_array' is {frame!r:.100}")
            shapes.add(frame.shape)
    with subject.target.session(subject.target.opening("rgb_array")) as peer:
        ask = peer.connect("unary")
        response = parse(pb.Response, ask(peer.reset(SEED)))
        expect(not response.reset.HasField("frame"), "a frame came that was not asked for")
        wish = peer.next(step=peer.step_request(peer.action_space.sample()), frame=True)
        response = parse(pb.Response, ask(wish))
        expect(response.step.HasField("frame"), "a step that asked for a frame got none")
    found = ", ".join(map(str, sorted(shapes)))
    return f"with each observation, by Render, with a step that asks, and not unasked; of shape {found}"


def _gymnasiums_own(subject: Subject) -> str:
    with contextlib.closing(remote(subject)) as environment, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an environment's habits, such as unbounded spaces
        try:
            check_env(environment, skip_render_check=True)
        except AssertionError as error:
            raise AssertionError(f"gymnasium.utils.env_checker.check_env: {error}") from error
    return "gymnasium.utils.env_checker.check_env finds no fault"


def remote(subject: Subject, **options: Any) -> gym.Env[Any, Any]:
    """The environment, as Python's own client has it."""
    target = subject.target
    chosen = {**target.changed_options, **options}
    return RemoteEnvironment(target.url, target.port, dict(target.remote_args), tls=target.tls, **chosen)


CHECKS = (
    Check("reset-first", _reset_first),
    Check("seeds", _seeds),
    Check("lockstep", _lockstep),
    Check("wrong-action", _wrong_action),
    Check("steps-at-once", _steps_at_once),
    Check("not-exposed", _not_exposed),
    Check("environments-error", _error_travels),
    Check("frames", _frames),
    Check("check-env", _gymnasiums_own),
)
