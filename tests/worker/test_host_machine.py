"""The host's rule of numbers beside the plainest model of it: each request runs once, whatever is sent in between."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from remote_gym.config import Limits
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.splice import LARGE
from remote_gym.wire.values import encode_value
from remote_gym.worker.host import Host

LIMITS = Limits()
STEP, RAISE, LARGE_INFO, END = range(4)
KIND = pb.ErrorDetail


class Ledger(gym.Env[Any, Any]):
    """Writes down all that is done to it. What it returns is never the same twice."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"]}

    def __init__(self, size: int) -> None:
        self.render_mode = "rgb_array"
        self.observation_space = spaces.Box(0, 255, (size,), np.uint8)
        self.action_space = spaces.Discrete(4)
        self.done: list[str] = []

    def _note(self, what: str) -> Any:
        self.done.append(what)
        return np.full(self.observation_space.shape, len(self.done) % 256, np.uint8)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self._note("reset"), {"done": len(self.done)}

    def step(self, action: Any) -> Any:
        observation = self._note(f"step {action}")
        if action == RAISE:
            raise ValueError(f"number {len(self.done)}")
        info = {"large": bytes(2000)} if action == LARGE_INFO else {"done": len(self.done)}
        return observation, 1.0, action == END, False, info

    def render(self) -> Any:
        return self._note("render")

    def tell(self) -> int:
        self._note("tell")
        return len(self.done)

    def close(self) -> None:
        self._note("close")


def step(action: int) -> pb.StepRequest:
    return pb.StepRequest(packed=action.to_bytes(8, "little"))


def value(content: Any) -> pb.Value:
    message = pb.Value()
    encode_value(content, message, strict=True, limits=LIMITS)
    return message


ACTIONS = st.integers(0, 3)
# What is asked; what the environment sees of it once it was reset, before that, and how it is answered, if by an error.
OPERATIONS: st.SearchStrategy[tuple[dict[str, Any], list[str]]] = st.one_of(
    st.just(({"reset": pb.ResetRequest()}, ["reset"])),
    st.just(({"render": pb.RenderRequest()}, ["render"])),
    st.just(({"call": pb.CallRequest(name="tell")}, ["tell"])),
    st.just(({"call": pb.CallRequest(name="close")}, [])),
    st.just(({}, [])),
    st.just(({"step": pb.StepRequest(packed=b"short")}, [])),
    st.just(({"step": pb.StepRequest(value=value("no number"))}, [])),
    ACTIONS.map(lambda action: ({"step": step(action)}, [f"step {action}"])),
    st.lists(ACTIONS, max_size=4).map(
        lambda actions: (
            {"step_many": pb.StepManyRequest(steps=map(step, actions))},
            [f"step {action}" for action in _until_over(actions)],
        )
    ),
)


def _until_over(actions: list[int]) -> list[int]:
    ends = [place for place, action in enumerate(actions) if action in (RAISE, END)]
    return actions[: ends[0] + 1] if ends else actions


class HostMachine(RuleBasedStateMachine):
    """Asks for the next number, the last one, and for wrong ones."""

    def __init__(self) -> None:
        super().__init__()
        self.environment = Ledger(LARGE + 1)  # so that observations travel as parts of their own
        self.host = Host(self.environment, exposed=("tell",), limits=LIMITS)
        self.sequence = 0
        self.request = self.answer = b""
        self.expected: list[str] = []
        self.was_reset = False

    @rule(operation=OPERATIONS)
    @precondition(lambda self: not self.host.closed)
    def ask_next(self, operation: tuple[dict[str, Any], list[str]]) -> None:
        fields, seen = operation
        self.was_reset = self.was_reset or "reset" in fields
        steps = "step" in fields or bool(fields.get("step_many") and fields["step_many"].steps)
        self.sequence += 1
        self.request = pb.Request(sequence=self.sequence, **fields).SerializeToString()
        self.answer = self.host.answer(self.request)
        response = pb.Response.FromString(self.answer)
        assert response.sequence == self.sequence
        if steps and not self.was_reset:
            error = response.error if "step" in fields else response.step_many.error
            assert error.kind == KIND.RESET_NEEDED
        else:
            self.expected += seen
            failed = response.HasField("error")
            assert failed == ((not seen and "step_many" not in fields) or fields.get("step") == step(RAISE))

    @rule()
    @precondition(lambda self: not self.host.closed)
    def close(self) -> None:
        self.sequence += 1
        self.request = pb.Request(sequence=self.sequence, close=pb.CloseRequest()).SerializeToString()
        self.answer = self.host.answer(self.request)
        assert pb.Response.FromString(self.answer).HasField("close")
        self.expected.append("close")
        assert self.host.closed

    @rule(says_what=st.booleans())
    @precondition(lambda self: self.sequence)
    def ask_again(self, says_what: bool) -> None:
        data = self.request if says_what else pb.Request(sequence=self.sequence).SerializeToString()
        assert self.host.answer(data) == self.answer

    @rule(operation=OPERATIONS)
    @precondition(lambda self: self.sequence)
    def ask_something_else_under_the_same_number(self, operation: tuple[dict[str, Any], list[str]]) -> None:
        data = pb.Request(sequence=self.sequence, **operation[0]).SerializeToString()
        if data != self.request and operation[0]:
            response = pb.Response.FromString(self.host.answer(data))
            assert (response.sequence, response.error.kind) == (self.sequence, KIND.OUT_OF_SEQUENCE)

    @rule(operation=OPERATIONS, away=st.integers(-5, 5) | st.integers(-(2**64), 2**64))
    def ask_another_number(self, operation: tuple[dict[str, Any], list[str]], away: int) -> None:
        wrong = (self.sequence + away) % 2**64
        if wrong == self.sequence + 1 or wrong == self.sequence != 0:
            return
        response = pb.Response.FromString(
            self.host.answer(pb.Request(sequence=wrong, **operation[0]).SerializeToString())
        )
        assert (response.sequence, response.error.kind) == (wrong, KIND.OUT_OF_SEQUENCE)

    @rule(data=st.binary(max_size=20).map(lambda data: b"\xff" + data))
    def ask_nothing(self, data: bytes) -> None:
        response = pb.Response.FromString(self.host.answer(data))
        assert (response.sequence, response.error.kind) == (0, KIND.ENCODING)

    @rule()
    @precondition(lambda self: not self.host.closed)
    def close_from_outside(self) -> None:
        """As the worker does when its server is gone; the last answer stays."""
        self.host.close()
        self.expected.append("close")

    @invariant()
    def each_request_ran_once(self) -> None:
        assert self.environment.done == self.expected


TestHost = HostMachine.TestCase
