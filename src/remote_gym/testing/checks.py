"""Parts of a server's checks: the subject, and two sessions that have to stay alike."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import gymnasium as gym

from remote_gym.testing.lockstep import find_difference
from remote_gym.testing.peer import Ask, Kind, Peer, Target
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse

SEED = 20240229
"""Seed of every reset that is compared; any would do."""


class NotApplicable(Exception):
    """The server, or its environment, does not have what the check is about; the message says what."""


@dataclass
class Subject:
    """Server that is checked.

    Attributes:
        target: Where it is, and what to open.
        description: Of the environment.
        offers_direct: Whether sessions can be reached directly.
        local: Creates the same environment here.
        steps: How many to compare with that.
    """

    target: Target
    description: pb.Description
    offers_direct: bool
    local: Callable[[], gym.Env[Any, Any]] | None
    steps: int

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of connection that there are."""
        return ("unary", "interact", "direct") if self.offers_direct else ("unary", "interact")

    @cached_property
    def difference(self) -> str | None:
        """How two sessions with the same seed and actions differ; None if they do not."""
        return find_difference(self._play(), self._play(), "what a second session returned")

    def _play(self) -> list[Any]:
        with self.target.session() as peer:
            ask = peer.connect("unary")
            peer.action_space.seed(SEED)
            answers = [ask(peer.reset(SEED))]
            answers += [ask(peer.step(peer.action_space.sample())) for _ in range(8)]
            return [peer.meaning(answer) for answer in answers]

    @contextlib.contextmanager
    def twins(self) -> Iterator[Twins]:
        """Two sessions that were reset alike.

        Raises:
            NotApplicable: If its environments do not repeat themselves.
        """
        if self.difference is not None:
            raise NotApplicable("the environment does not repeat itself under the same seed and actions")
        with self.target.session() as one, self.target.session() as other:
            twins = Twins(one, other)
            twins.compare(lambda peer: peer.reset(SEED), twins.ask_plainly)
            yield twins


class Twins:
    """Two sessions of which the first has something done to it that must not show.

    Attributes:
        peer: The first.
    """

    def __init__(self, one: Peer, other: Peer) -> None:
        self.peer = one
        self._other = other
        self._reference = other.connect("unary")
        self.ask_plainly = one.connect("unary")
        one.action_space.seed(SEED)

    def step(self, ask: Ask | None = None) -> tuple[bytes, bytes]:
        """Step both by the same action, the first over `ask`, and see that they return the same.

        Returns:
            The first one's request and response.

        Raises:
            AssertionError: If they differ: one has stepped more often than the other, or not at all.
        """
        action = self.peer.action_space.sample()
        return self.compare(lambda peer: peer.step(action), ask or self.ask_plainly)

    def compare(self, make: Callable[[Peer], bytes], ask: Ask) -> tuple[bytes, bytes]:
        """As `step`, with any request."""
        request = make(self.peer)
        answer = ask(request)
        expected = self._other.meaning(self._reference(make(self._other)))
        sequence = parse(pb.Response, answer).sequence
        expect(sequence == self.peer.sequence, f"response {sequence} came to request {self.peer.sequence}")
        difference = find_difference(expected, self.peer.meaning(answer), f"request {self.peer.sequence}")
        expect(difference is None, f"it went another way than a session to which nothing was done: {difference}")
        return request, answer

    def step_reference(self, action: Any) -> Any:
        """Let the second session take a step alone, and return what it returns."""
        return self._other.meaning(self._reference(self._other.step(action)))


class Check(NamedTuple):
    """A check, by name.

    `look` returns what it found. It raises `NotApplicable`, or for a failure an `AssertionError` or any of our errors.
    """

    name: str
    look: Callable[[Subject], str]


def expect(condition: bool, otherwise: str) -> None:
    """Fail the check by an `AssertionError` unless the condition holds."""
    if not condition:
        raise AssertionError(otherwise)


def refused(data: bytes, *kinds: str, sequence: int | None = None) -> pb.Response:
    """The response, which has to be an error of one of those kinds.

    Args:
        data: As it came.
        *kinds: Names of `ErrorDetail.Kind`.
        sequence: The number that it has to have.
    """
    response = parse(pb.Response, data)
    found = response.WhichOneof("result")
    expect(found == "error", f"expected an error of kind {' or '.join(kinds)}, found {found or 'nothing'}")
    kind = pb.ErrorDetail.Kind.Name(response.error.kind)
    words = f"{kind} ({response.error.message:.200})"
    expect(kind in kinds, f"expected an error of kind {' or '.join(kinds)}, found {words}")
    if sequence is not None:
        expect(response.sequence == sequence, f"{words} has the number {response.sequence}; it has to be {sequence}")
    return response


def same_response(one: bytes, other: bytes) -> bool:
    """Whether two encoded responses say the same, however an encoder wrote them."""
    first, second = (parse(pb.Response, data).SerializeToString(deterministic=True) for data in (one, other))
    return first == second
