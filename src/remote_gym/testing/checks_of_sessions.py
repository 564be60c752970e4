"""Checks of opening, describing and ending a session, and of who may use it."""

from __future__ import annotations

import time

from remote_gym.errors import NotPermitted, TransportError
from remote_gym.testing.checks import Check, NotApplicable, Subject, expect, refused
from remote_gym.testing.lockstep import find_difference
from remote_gym.testing.peer import Peer
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.spaces.encoding import decode_space, encode_space

SHORT = 5.0
"""Seconds of a lease that is worth waiting for."""
PATIENCE = 5.0
"""Seconds that a server may take beyond the lease."""
GUESS = "0" * 43


def _opens(subject: Subject) -> str:
    with subject.target.session() as one, subject.target.session() as other:
        for session in (one.session, other.session):
            expect(bool(session.id and session.token), "a session has no id, or no token")
        expect(one.session.id != other.session.id, "two sessions have the same id")
        expect(one.session.token != other.session.token, "two sessions have the same token")
        expect(one.session.lease > 0, f"the lease is {one.session.lease}; it has to be above 0")
        return f"sessions have ids and tokens of their own, and a lease of {one.session.lease:g} s"


def _other_version(subject: Subject) -> str:
    request = subject.target.opening()
    request.protocol_version = 2**31
    response = subject.target.try_to_open(request)
    kind = pb.ErrorDetail.Kind.Name(response.error.kind)
    expect(response.HasField("error"), "it opened a session for version 2147483648")
    expect(kind == "PROTOCOL_MISMATCH", f"expected an error of kind PROTOCOL_MISMATCH, found {kind}")
    return response.error.message[:200]


def _code_refused(subject: Subject) -> str:
    request = subject.target.opening()
    request.repo = "https://example.invalid/code"
    response = subject.target.try_to_open(request)
    kind = pb.ErrorDetail.Kind.Name(response.error.kind)
    expect(response.HasField("error"), "it opened a session for code that the client named")
    expect(kind == "NOT_PERMITTED", f"expected an error of kind NOT_PERMITTED, found {kind}")
    return "a client may not name a repository"


def _spaces(subject: Subject) -> str:
    limits = subject.target.options.message_limits
    with subject.target.session() as peer:
        answer = parse(pb.SpacesResponse, peer.call("Spaces"))
        told = (answer.description.observation_space, answer.description.action_space)
        opened = (peer.session.description.observation_space, peer.session.description.action_space)
        expect(told == opened, "Spaces tells of other spaces than Open did")
    for message in told:
        space = decode_space(message, limits)
        again = decode_space(encode_space(space, limits), limits)
        for each in (space, again):
            each.seed(1)
        difference = find_difference(space.sample(), again.sample(), "a sample")
        expect(space == again and difference is None, f"{space} does not survive a round trip: {difference}")
    return f"observations {space_name(told[0])}, actions {space_name(told[1])}"


def space_name(message: pb.Space) -> str:
    """The kind of a space."""
    return str(message.WhichOneof("kind"))


def _wrong_token(subject: Subject) -> str:
    with subject.twins() as twins:
        peer = twins.peer
        twins.step()
        request = peer.next(render=pb.RenderRequest())
        peer.sequence -= 1
        for method in ("Step", "Render", "Close"):
            refused(peer.call(method, request, token=GUESS), "NOT_PERMITTED", sequence=0)
        answer = parse(pb.SpacesResponse, peer.call("Spaces", token=GUESS))
        expect(answer.error.kind == pb.ErrorDetail.NOT_PERMITTED, "Spaces answers without the session's token")
        refused(peer.connect("interact", GUESS)(request), "NOT_PERMITTED", sequence=0)
        ways = "by calls and Interact"
        if subject.offers_direct:
            ways = "by calls, Interact and directly"
            try:
                peer.connect("direct", GUESS)
            except (NotPermitted, TransportError):
                pass
            else:
                raise AssertionError("a direct connection was attached without the session's token")
        twins.step()
        return f"refused {ways}, and the session goes on"


def _unknown_session(subject: Subject) -> str:
    with subject.target.session() as peer:
        for method in ("Step", "Close"):
            refused(peer.call(method, session_id="nobody"), "SESSION_LOST", sequence=0)
        answer = parse(pb.SpacesResponse, peer.call("Spaces", session_id="nobody"))
        expect(answer.error.kind == pb.ErrorDetail.SESSION_LOST, "Spaces answers for a session that there is not")
    return "its calls are answered by SESSION_LOST"


def _close(subject: Subject) -> str:
    with subject.target.session() as peer:
        ask = peer.connect("unary")
        ask(peer.reset(None))
        response = parse(pb.Response, peer.call("Close", b"not even a request"))
        expect(response.HasField("close"), f"Close was answered by {response.WhichOneof('result')}")
        error = refused(ask(peer.next(render=pb.RenderRequest())), "SESSION_LOST", sequence=0).error
        refused(peer.call("Close"), "SESSION_LOST", sequence=0)
    with subject.target.session() as peer:
        ask = peer.connect("interact")
        ask(peer.reset(None))
        response = parse(pb.Response, ask(peer.next(close=pb.CloseRequest())))
        expect(response.HasField("close"), f"a close on Interact was answered by {response.WhichOneof('result')}")
        expect(response.sequence == 2, f"a close on Interact has the number {response.sequence}; it has to be 2")
        _expect_gone(peer, "a close on Interact")
    return error.message[:200]


def _expect_gone(peer: Peer, after: str) -> None:
    """Wait for the session to be told of as lost, which may take the server a moment."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        answer = parse(pb.SpacesResponse, peer.call("Spaces"))
        if answer.HasField("error"):
            expect(answer.error.kind == pb.ErrorDetail.SESSION_LOST, f"after {after}: {answer.error.message:.200}")
            return
        time.sleep(0.05)
    raise AssertionError(f"the session is still there {PATIENCE:g} s after {after}")


def _lease_resumes(subject: Subject) -> str:
    with subject.twins() as twins:
        for kind in subject.kinds[1:]:
            ask = twins.peer.connect(kind)
            twins.step(ask)
            twins.peer.drop()
            twins.step()
    return f"a session whose {' or '.join(subject.kinds[1:])} connection broke goes on"


def _lease_ends(subject: Subject) -> str:
    with subject.target.session() as peer:
        lease = peer.session.lease
        if lease > SHORT:
            raise NotApplicable(f"the lease is {lease:g} s, and is waited for up to {SHORT:g} s")
        peer.connect("interact")(peer.reset(None))
        peer.drop()
        # Not asked for in between, which a server may take for use.
        time.sleep(lease + PATIENCE)
        answer = parse(pb.SpacesResponse, peer.call("Spaces"))
        expect(answer.error.kind == pb.ErrorDetail.SESSION_LOST, f"it is still there {PATIENCE:g} s after its lease")
    return f"gone within {PATIENCE:g} s after its lease of {lease:g} s"


CHECKS = (
    Check("open", _opens),
    Check("other-version", _other_version),
    Check("clients-code", _code_refused),
    Check("spaces", _spaces),
    Check("wrong-token", _wrong_token),
    Check("unknown-session", _unknown_session),
    Check("close", _close),
    Check("lease-resumes", _lease_resumes),
)

LAST = (Check("lease-ends", _lease_ends),)
"""Checks that may take a while."""
