"""Checks that each request is answered exactly once, over connections of every kind."""

from __future__ import annotations

import contextlib
from itertools import permutations

from remote_gym.errors import ConnectionLost, NotPermitted, TransportError
from remote_gym.testing.checks import Check, NotApplicable, Subject, expect, refused, same_response
from remote_gym.testing.peer import Kind
from remote_gym.v1 import remote_gym_pb2 as pb


def _repeated(subject: Subject) -> str:
    with subject.twins() as twins:
        for kind in subject.kinds:
            ask = twins.peer.connect(kind)
            request, answer = twins.step(ask)
            for again in range(2):
                repeated = ask(request)
                expect(
                    same_response(answer, repeated),
                    f"request {twins.peer.sequence}, sent again ({kind}), was answered otherwise the {again + 2}. time",
                )
            number = twins.peer.sequence
            blank = ask(pb.Request(sequence=number).SerializeToString())
            expect(same_response(answer, blank), f"the number alone does not get its answer once more ({kind})")
            render = pb.Request(sequence=number, render=pb.RenderRequest()).SerializeToString()
            refused(ask(render), "OUT_OF_SEQUENCE", sequence=number)
            twins.step(ask)
    return f"answered again as before, and not run, over {_and(subject.kinds)}"


def _repeated_error(subject: Subject) -> str:
    with subject.target.session() as peer:
        ask = peer.connect("unary")
        request = peer.step(peer.action_space.sample())
        answer = ask(request)
        refused(answer, "RESET_NEEDED", sequence=1)
        expect(same_response(answer, ask(request)), "an error was answered otherwise the second time")
        refused(ask(peer.next()), "ENCODING", sequence=2)
    return "errors use up their number, and are answered again as before"


def _skipped(subject: Subject) -> str:
    with subject.twins() as twins:
        for kind in subject.kinds:
            ask = twins.peer.connect(kind)
            twins.step(ask)
            stands = twins.peer.sequence
            for wrong in (stands + 2, stands - 1, 0, 2**64 - 1):
                step = pb.Request(sequence=wrong, step=twins.peer.step_request(twins.peer.action_space.sample()))
                refused(ask(step.SerializeToString()), "OUT_OF_SEQUENCE", sequence=wrong)
            twins.step(ask)
    return f"refused over {_and(subject.kinds)}, and nothing ran"


def _no_request(subject: Subject) -> str:
    with subject.twins() as twins:
        for kind in subject.kinds:
            ask = twins.peer.connect(kind)
            refused(ask(b"\xff\xff\xff"), "ENCODING", sequence=0)
            twins.step(ask)
    return "bytes that are no Request are refused, and their number stays free"


def _changing(subject: Subject) -> str:
    with subject.twins() as twins:
        for before, after in permutations(subject.kinds, 2):
            request, answer = twins.step(twins.peer.connect(before))
            ask = twins.peer.connect(after)
            # As a client does whose connection broke before the answer came.
            expect(same_response(answer, ask(request)), f"a step sent {before} was answered otherwise {after}")
            twins.step(ask)
    return f"{_and(subject.kinds)} in turn, each asking for the last answer again; no step was lost or doubled"


def _fence(subject: Subject) -> str:
    pairs = [(one, other) for one in subject.kinds[1:] for other in subject.kinds[1:]]
    with subject.twins() as twins:
        for older, newer in pairs:
            first = twins.peer.connect(older)
            twins.step(first)
            second = twins.peer.connect(newer)
            twins.step(second)
            step = twins.peer.step(twins.peer.action_space.sample())
            twins.peer.sequence -= 1
            with contextlib.suppress(ConnectionLost):  # it was told, or just ended
                refused(first(step), "OUT_OF_SEQUENCE", sequence=0)
            twins.step(second)
    return "the older of two connections is cut off: " + ", ".join(f"{one} by {other}" for one, other in pairs)


def _routing_id(subject: Subject) -> str:
    if not subject.offers_direct:
        raise NotApplicable("there is no direct connection, and so no routing id")
    with subject.twins() as twins:
        address = twins.peer.address()
        ask = twins.peer.connect("direct", address=address)
        twins.step(ask)
        try:
            twins.peer.connect("direct", address=address)
        except (NotPermitted, TransportError):
            twins.step(ask)
            return "each is good for one connection; who comes by one once more is refused, and the session goes on"
    raise AssertionError("two direct connections were attached by the same routing id")


def _oversized(subject: Subject) -> str:
    if not subject.offers_direct:
        raise NotApplicable("there is no direct connection, on which a length can be announced")
    announced = 2**32 - 1
    with subject.twins() as twins:
        twins.step(twins.peer.connect("direct"))
        try:
            twins.peer.announce(announced)
        except ConnectionLost:
            twins.step()
            return f"a direct connection that announces {announced:,} bytes ends, and the session goes on"
    raise AssertionError(f"{announced:,} bytes were announced on a direct connection, and it was not ended")


def _nested(subject: Subject) -> str:
    with subject.twins() as twins:
        # Deeper than any limit that a server can have, and not so deep that protobuf itself refuses.
        value = outermost = pb.Value()
        for _ in range(45):
            value = value.list.items.add()
        value.boolean = True
        answer = twins.ask_plainly(twins.peer.next(reset=pb.ResetRequest(options=outermost)))
        if refused(answer, "ENCODING").sequence == 0:  # it could not even be parsed, and its number stays free
            twins.peer.sequence -= 1
        twins.step()
    return "values nested deeper than any limit are refused, and nothing ran"


def _and(kinds: tuple[Kind, ...]) -> str:
    *most, last = kinds
    return f"{', '.join(most)} and {last}"


CHECKS = (
    Check("repeated-sequence", _repeated),
    Check("repeated-error", _repeated_error),
    Check("skipped-sequence", _skipped),
    Check("no-request", _no_request),
    Check("changing-connections", _changing),
    Check("fence", _fence),
    Check("routing-id", _routing_id),
    Check("oversized-message", _oversized),
    Check("nested-value", _nested),
)
