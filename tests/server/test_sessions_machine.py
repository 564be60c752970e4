"""The registry of sessions beside the plainest model of it, in whatever order things happen to it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from remote_gym.errors import NotPermitted, OutOfSequence, ServerFull, SessionLost
from remote_gym.server.sessions import Session, Sessions

PLACES = 5
LEASE = 60.0
IDENTITIES = st.sampled_from(["alice", "bob", ""])


@dataclass(eq=False)
class Model:
    """What is known of one session."""

    session: Session
    identity: str
    env_ids: set[int]
    deadline: float
    epochs: list[int] = field(default_factory=list)
    users: int = 0
    reason: str | None = None  # why it ended; None while it is open


class SessionsMachine(RuleBasedStateMachine):
    """Opens, finds, uses, deserts and ends sessions."""

    models = Bundle("models")
    ended = Bundle("ended")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.sessions = Sessions(max_sessions=PLACES, lease=LEASE, clock=lambda: self.now)
        self.held: list[Model] = []  # open, or still closing: those hold places and env_ids

    @rule(target=models, identity=IDENTITIES, num_envs=st.integers(1, 3))
    @precondition(lambda self: len(self.held) < PLACES)
    def open(self, identity: str, num_envs: int) -> Model:
        taken = set().union(*(model.env_ids for model in self.held))
        session = self.sessions.open(identity, num_envs)
        first = next(n for n in range(100) if not taken & set(range(n, n + num_envs)))
        assert session.env_id == first
        assert session.id not in {model.session.id for model in self.held}
        model = Model(session, identity, set(range(first, first + num_envs)), self.now + LEASE)
        self.held.append(model)
        return model

    @rule(identity=IDENTITIES)
    @precondition(lambda self: len(self.held) == PLACES)
    def open_one_too_many(self, identity: str) -> None:
        closing = sum(model.reason is not None for model in self.held)
        with pytest.raises(ServerFull, match=f"holds {PLACES - closing} sessions, and {closing} more"):
            self.sessions.open(identity)

    @rule(model=models)
    def find(self, model: Model) -> None:
        session = model.session
        if model.reason is None:
            assert self.sessions.find(session.id, session.token, model.identity) is session
        else:
            with pytest.raises(SessionLost, match=model.reason):
                self.sessions.find(session.id, session.token, model.identity)

    @rule(model=models, other=models, identity=IDENTITIES)
    def find_by_what_is_not_its_own(self, model: Model, other: Model, identity: str) -> None:
        if model is other and identity == model.identity:
            return
        with pytest.raises(NotPermitted) as refused:
            self.sessions.find(model.session.id, other.session.token, identity)
        assert model.reason is None or model.reason not in str(refused.value)

    @rule(model=models)
    def attach(self, model: Model) -> None:
        if model.reason is None:
            epoch = self.sessions.attach(model.session)
            assert epoch > max(model.epochs, default=0)
            model.epochs.append(epoch)
            model.users += 1

    @rule(model=models)
    def enter(self, model: Model) -> None:
        if model.reason is None:
            self.sessions.enter(model.session)
            model.users += 1

    @rule(model=models)
    def leave(self, model: Model) -> None:
        if model.users:  # of an ended session too, as whoever was attached finds out
            self.sessions.leave(model.session)
            model.users -= 1
            model.deadline = self.now + LEASE

    @rule(model=models)
    def ask_as_each_attachment(self, model: Model) -> None:
        for epoch in model.epochs:
            if model.reason is not None:
                with pytest.raises(SessionLost, match=model.reason):
                    self.sessions.check_epoch(model.session, epoch)
            elif epoch == model.epochs[-1]:
                self.sessions.check_epoch(model.session, epoch)
            else:
                with pytest.raises(OutOfSequence):
                    self.sessions.check_epoch(model.session, epoch)

    @rule(seconds=st.sampled_from([0.1, LEASE / 2, LEASE, 10 * LEASE]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=ended, model=models, reason=st.sampled_from(["it was closed", "its worker died"]))
    def end(self, model: Model, reason: str) -> Model:
        assert self.sessions.end(model.session, reason) == (model.reason is None)
        if model.reason is None:
            model.reason = reason
        return model

    @rule(model=consumes(ended))
    def release(self, model: Model) -> None:
        if model in self.held:
            self.sessions.release(model.session)
            self.held.remove(model)

    @invariant()
    def as_many_are_open_as_have_not_ended(self) -> None:
        assert len(self.sessions) == sum(model.reason is None for model in self.held)

    @invariant()
    def those_expire_that_nobody_uses_and_whose_lease_is_over(self) -> None:
        expected = [m.session for m in self.held if m.reason is None and not m.users and m.deadline <= self.now]
        assert self.sessions.expired() == expected


TestSessions = SessionsMachine.TestCase
