"""The checks of a server: a right one passes, and each wrong one fails at the check that is about its fault."""

from __future__ import annotations

import select
from typing import Any

import gymnasium as gym
import pytest

from remote_gym.errors import ConfigError, ConnectError, EncodingError
from remote_gym.server import attachment, opening, service, sessions
from remote_gym.server import launch_request as arguments
from remote_gym.server import routing_ids as routes
from remote_gym.testing import (
    LoopbackServer,
    Outcome,
    Verdict,
    check_server,
    checks_of_sessions,
    examine_server,
    loopback_server,
)
from remote_gym.testing.conformance import CHECKS
from remote_gym.transport.busy_poll import Wakefulness
from remote_gym.transport.direct_socket import DirectSocket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire import parse
from remote_gym.worker import handshake as admission
from remote_gym.worker import main as worker
from remote_gym.worker.host import Host
from waiting import scaled

CARTPOLE = "CartPole-v1"


def examine(server: LoopbackServer, **arguments: Any) -> list[Outcome]:
    paths = server.client_credentials_paths
    return list(examine_server(server.server.url, server.server.port, None, paths, **arguments))


def verdicts(outcomes: list[Outcome]) -> dict[str, Verdict]:
    return {outcome.check: outcome.verdict for outcome in outcomes}


def test_our_own_server_passes_every_check():
    with loopback_server(CARTPOLE) as server:
        outcomes = examine(server, local=lambda: gym.make(CARTPOLE), steps=60)
    assert [str(outcome) for outcome in outcomes if outcome.verdict is Verdict.FAILED] == []
    assert [outcome.check for outcome in outcomes] == [check.name for check in CHECKS]
    skipped = [name for name, verdict in verdicts(outcomes).items() if verdict is Verdict.NOT_APPLICABLE]
    assert skipped == ["lease-ends"]  # whose 60 s nobody waits for


def test_what_a_server_lacks_is_not_applicable():
    with loopback_server({"entrypoint_kwargs": {"id": "FrozenLake-v1"}}, direct=False, secure=False) as server:
        found = verdicts(examine(server, checks=["oversized-message", "lockstep", "fence", "changing-connections"]))
    assert found == {
        "changing-connections": Verdict.PASSED,
        "fence": Verdict.PASSED,
        "lockstep": Verdict.NOT_APPLICABLE,
        "oversized-message": Verdict.NOT_APPLICABLE,
    }


def test_a_lease_that_is_short_is_waited_for(monkeypatch):
    monkeypatch.setattr(checks_of_sessions, "PATIENCE", scaled(0.5))
    with loopback_server(CARTPOLE, lease=scaled(0.2), use_thread=True) as server:
        assert verdicts(examine(server, checks=["lease-ends"])) == {"lease-ends": Verdict.PASSED}


def test_unknown_check_is_refused_and_a_server_that_is_not_there_is_told_of():
    with pytest.raises(ConfigError, match="no check 'fences'; there is open, "):
        examine_server("localhost", 1, checks=["fences"])
    with pytest.raises(ConnectError):
        examine_server("localhost", 1, connect_timeout=scaled(0.5))


# Servers with one fault each -------------------------------------------------------------------------------


class ForgetsAnswers(Host):
    """Runs a repeated request again."""

    def answer_in_parts(self, data: Any) -> tuple[bytes, ...]:
        request = parse.parse(pb.Request, data)
        if request.sequence == self._sequence != 0:
            self._sequence -= 1
        return super().answer_in_parts(data)


class ForgetsErrors(Host):
    """Runs a request again that failed."""

    def answer_in_parts(self, data: Any) -> tuple[bytes, ...]:
        answer = super().answer_in_parts(data)
        if b"before the first reset" in b"".join(answer):
            self._sequence -= 1
        return answer


class TakesAnyNumber(Host):
    def answer_in_parts(self, data: Any) -> tuple[bytes, ...]:
        try:
            request = parse.parse(pb.Request, data)
        except Exception:  # noqa: BLE001 - as it was
            return super().answer_in_parts(data)
        if request.sequence != self._sequence:
            self._sequence = (request.sequence or 2**64) - 1
        return super().answer_in_parts(data)


class UsesUpNumbers(Host):
    """Counts what is no request as one."""

    def answer_in_parts(self, data: Any) -> tuple[bytes, ...]:
        if bytes(data) == b"\xff\xff\xff":
            self._sequence += 1
        return super().answer_in_parts(data)


class LosesSeeds(Host):
    def _reset(self, request: pb.Request, response: pb.Response) -> None:
        request.reset.ClearField("seed")
        super()._reset(request, response)


class StepsUnreset(Host):
    def _step(self, request: pb.Request, response: pb.Response) -> None:
        if not self._was_reset:
            self._environment.reset()
            self._was_reset = True
        super()._step(request, response)


class StepsAnyway(Host):
    """Steps by another action where the one that came does not fit."""

    def _step(self, request: pb.Request, response: pb.Response) -> None:
        try:
            super()._step(request, response)
        except Exception:
            if self._was_reset:
                self._environment.step(self._environment.action_space.sample())
            raise


class RunsOneOfMany(Host):
    """Takes the first of several steps as often as there are steps."""

    def _step_many(self, request: pb.Request, response: pb.Response) -> None:
        for step in request.step_many.steps[1:]:
            step.CopyFrom(request.step_many.steps[0])
        self._environment.step(0)
        super()._step_many(request, response)


class ExposesEverything(Host):
    def _call(self, request: pb.Request, response: pb.Response) -> None:
        response.call.value.text = repr(getattr(self._environment, request.call.name, None))


class SwallowsErrors(Host):
    """Tells of the environment's error without its type."""

    def _run(self, request: pb.Request) -> tuple[bytes, ...]:
        response = parse.parse(pb.Response, b"".join(super()._run(request)))
        response.error.ClearField("remote_type") if response.HasField("error") else None
        return (response.SerializeToString(),)


class SendsFramesUnasked(Host):
    def _finish(self, info: object, transition: pb.Transition, wants_frame: bool) -> None:
        super()._finish(info, transition, wants_frame)
        if self._environment.render_mode:
            transition.frame.array.CopyFrom(pb.Array(dtype=pb.UINT8, shape=[1, 1, 3], data=b"abc"))


class IgnoresWishes(Host):
    def _run(self, request: pb.Request) -> tuple[bytes, ...]:
        request.ClearField("frame")
        return super()._run(request)


class SwapsBits(Host):
    """Rounds a reward."""

    def _finish(self, info: object, transition: pb.Transition, wants_frame: bool) -> None:
        super()._finish(info, transition, wants_frame)
        if transition.HasField("reward_float"):
            transition.reward_float += 1e-9


class ForgetsOptions(Host):
    """Does not so much as look at a reset's options."""

    def _reset(self, request: pb.Request, response: pb.Response) -> None:
        request.reset.ClearField("options")
        super()._reset(request, response)


HOSTS: list[tuple[type[Host], str]] = [
    (ForgetsAnswers, "repeated-sequence"),
    (ForgetsAnswers, "changing-connections"),
    (ForgetsErrors, "repeated-error"),
    (ForgetsOptions, "nested-value"),
    (LosesSeeds, "check-env"),
    (TakesAnyNumber, "skipped-sequence"),
    (UsesUpNumbers, "no-request"),
    (LosesSeeds, "seeds"),
    (StepsUnreset, "reset-first"),
    (StepsAnyway, "wrong-action"),
    (RunsOneOfMany, "steps-at-once"),
    (ExposesEverything, "not-exposed"),
    (SwallowsErrors, "environments-error"),
    (SendsFramesUnasked, "frames"),
    (IgnoresWishes, "frames"),
    (SwapsBits, "lockstep"),
]


@pytest.mark.parametrize(("host", "check"), HOSTS, ids=lambda each: getattr(each, "__name__", each))
def test_a_wrong_host_fails_its_check(host: type[Host], check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "Host", host)
    fails(check)


def fails(check: str, **options: Any) -> None:
    """The server as it stands fails that check, and not one that is about nothing of the kind."""
    other = "open" if check != "open" else "reset-first"
    with loopback_server(CARTPOLE, use_thread=True, secure=False, **options) as server:
        local = lambda: gym.make(CARTPOLE)  # noqa: E731
        outcomes = examine(server, checks=[check, other], local=local, steps=30, connect_timeout=scaled(2.0))
    assert verdicts(outcomes) == {other: Verdict.PASSED, check: Verdict.FAILED}, outcomes


def ignored(*_: object, **__: object) -> None: ...


def any_token(self: Any, session_id: str, token: str, owner: str) -> Any:
    if session_id not in self._open:
        raise sessions.SessionLost(session_id)
    return self._open[session_id]


def any_session(self: Any, session_id: str, token: str, owner: str) -> Any:
    return self._open.get(session_id) or next(iter(self._open.values()))


def any_number_of_times(self: Any, routing_id: bytes) -> str | None:
    found = self._sessions.get(routing_id)
    return found and str(found)


async def says_closed(self: Any, *_: object) -> bytes:
    """Answers that it is closed, and leaves it open."""
    return pb.Response(close=pb.CloseResponse()).SerializeToString()


def locks_out(self: Any, known: Any, session: Any, *rest: Any, begin: Any = attachment.Attachment.__init__) -> None:
    """Nobody comes back to a session whose connection ends, not even before the server has noticed that."""
    begin(self, known, session, *rest)
    session.entry.token = "another"


async def other_spaces(self: Any, session_id: str, token: str, owner: str) -> pb.SpacesResponse:
    """Tells of other spaces than the opening did."""
    description = pb.Description()
    description.CopyFrom(self._find(session_id, token, owner).description)
    description.action_space.discrete.n = 7
    return pb.SpacesResponse(description=description)


class WaitsForAnything(DirectSocket):
    """Goes on to wait where a message that is too long is announced."""

    def receive(self, deadline: float, wakefulness: Wakefulness | None = None) -> Any:
        try:
            return super().receive(deadline, wakefulness)
        except EncodingError:
            select.select([self], [], [], scaled(20.0))  # until the client has had enough
            raise


FAULTS: dict[str, tuple[tuple[object, str, object], ...]] = {
    # It does not look at the token: of calls by themselves, or of direct connections.
    "wrong-token": ((sessions.Sessions, "find", any_token),),
    "wrong-token ": ((admission.Handshake, "_check", ignored),),
    "unknown-session": ((sessions.Sessions, "find", any_session),),
    # An older connection is neither cut off nor refused.
    "fence": ((sessions.Sessions, "check_epoch", ignored), (attachment.OpenSession, "cut_off", ignored)),
    "routing-id": ((routes.RoutingIds, "take", any_number_of_times),),
    "open": ((sessions.secrets, "token_urlsafe", lambda _: "the same for all"),),
    "clients-code": ((arguments, "_take_client_code", ignored),),
    "spaces": ((service.Service, "spaces", other_spaces),),
    "oversized-message": ((admission, "DirectSocket", WaitsForAnything),),
    "lease-ends": ((service.Service, "expire", ignored), (checks_of_sessions, "PATIENCE", 0.3)),
    "other-version": ((opening, "check_version", ignored),),
    "close": ((service.Service, "close_session", says_closed),),
    "lease-resumes": ((attachment.Attachment, "__init__", locks_out),),
}


@pytest.mark.parametrize("check", FAULTS)
def test_a_wrong_server_fails_its_check(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, name, fault in FAULTS[check]:
        monkeypatch.setattr(owner, name, fault)
    fails(check.strip(), **({"lease": 0.2} if check == "lease-ends" else {}))


def test_each_check_is_seen_to_fail():
    assert {check.name for check in CHECKS} == {check for _, check in HOSTS} | {check.strip() for check in FAULTS}


def test_check_server_raises_for_a_test_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "Host", LosesSeeds)
    with loopback_server(CARTPOLE, use_thread=True, secure=False) as server:
        with pytest.raises(AssertionError, match="1 of 2 checks failed:\nseeds: failed: the same seed"):
            check_server("localhost", server.server.port, checks=["seeds", "open"])
