"""What a guest may send, read without any process: anything but what it should is its end, and nothing else."""

from __future__ import annotations

import contextlib
import struct
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, LossReason, RemoteEnvironmentError
from remote_gym.guest import program
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.autoreset import AutoresetMode, autoreset_code
from remote_gym.worker.environment.guests.creation import create_environment
from remote_gym.worker.environment.guests.environment import GuestEnvironment
from remote_gym.worker.environment.guests.messages import Guest
from remote_gym.worker.environment.guests.process import GuestLost
from remote_gym.worker.environment.guests.vectors import AskedAhead
from remote_gym.worker.environment.vector import batch

LIMITS = Limits(message_bytes=2**20, items=200, array_bytes=2**16, text_length=2**10)
WRITER = program.Writer(asdict(LIMITS))
UNBOUND = program.Writer(asdict(Limits()))
SPACE = spaces.Dict({"position": spaces.Box(-1, 1, (3,)), "flags": spaces.Box(0, 1, (2,), bool)})
ACTIONS = spaces.Discrete(3)
SIZE = 3 * 4 + 2


class Scripted:
    """In the place of a process: answers what it is given to answer."""

    def __init__(self) -> None:
        self.first = memoryview(value({}))
        self.answer = b""
        self.asked: list[bytes] = []
        self.is_lost = False

    def ask(self, request: bytes) -> memoryview:
        self.asked.append(request)
        return memoryview(self.answer)

    def lose(self, why: str) -> GuestLost:
        self.is_lost = True
        return GuestLost(why, reason=LossReason.CRASHED)

    def close(self, timeout: float = 0.0) -> None:
        self.is_lost = True


def value(content: Any) -> bytes:
    return b"v" + WRITER.write(content)


def description(**changed: Any) -> dict[str, Any]:
    return {
        "observation_space": program.write_space(SPACE, WRITER),
        "action_space": program.write_space(ACTIONS, WRITER),
        "observation_size": SIZE,
        "action_size": 8,
        "metadata": {"render_modes": ["rgb_array"]},
        "render_mode": None,
        "spec": ("CartPole-v1", 475.0, False, 500),
        "exposed": [("speed", False), ("honk", True), ("absent", None)],
        **changed,
    }


def create(**changed: Any) -> tuple[GuestEnvironment, Any]:
    process: Any = Scripted()
    guest = Guest(process, LIMITS)
    process.answer = value(description(**changed))
    environment: Any = create_environment(guest, 0, {})
    return environment, process


def packed(flags: int = 0, observation: bytes = bytes(SIZE), info: bytes = b"") -> bytes:
    return struct.pack("<BdB", ord("p"), 1.5, flags) + observation + info


def test_a_packed_step_has_the_kinds_that_the_environment_returned():
    environment, process = create()
    process.answer = packed(observation=struct.pack("<2?3f", True, False, 1, 2, 3))
    observation, reward, terminated, truncated, info = environment.step(np.int64(1))
    assert process.asked[-1] == b"p\0\0" + np.int64(1).tobytes()
    assert [each.tolist() for each in observation.values()] == [[True, False], [1.0, 2.0, 3.0]]
    assert all(each.flags.writeable for each in observation.values())
    assert (reward, terminated, truncated, info) == (1.5, False, False, {})
    assert list(map(type, (reward, terminated, truncated))) == [float, bool, bool]
    process.answer = packed(2 | 4 | 16, info=WRITER.write({"a": 1}))
    _, reward, terminated, truncated, info = environment.step(1)
    assert list(map(type, (reward, terminated, truncated))) == [np.float64, np.bool_, bool]
    assert (bool(terminated), truncated, info) == (False, True, {"a": 1})


@pytest.mark.parametrize(
    "answer",
    [
        b"p",
        packed()[:-1],
        packed(observation=b"\2" + bytes(SIZE - 1)),
        packed(info=b"\xff"),
        packed(info=b"\x0a"),
        b"x" + packed(),
        b"v",
        b"v\x62\x00",
        b"a\0\0\0\0",
        b"v" + UNBOUND.write([0] * 300),
        b"v" + UNBOUND.write("x" * 2000),
        b"v" + UNBOUND.write(np.zeros(2**17, np.uint8)),
        b"e",
        b"e" + WRITER.write((0, "a", "b")),
        b"e" + WRITER.write((0, "a", "b", 3)),
        b"e" + WRITER.write(("0", "a", "b", "c")),
    ],
)
def test_a_step_that_cannot_be_read_ends_the_guest(answer):
    environment, process = create()
    process.answer = answer
    with pytest.raises(GuestLost):
        environment.step(1)
    assert process.is_lost


@pytest.mark.parametrize("shape", [(2**40,), (0, 2**62), (3, 3), ()])
@pytest.mark.parametrize("dtype", [pb.UINT8, pb.FLOAT64, 99, pb.TEXT])
def test_a_frame_that_is_not_what_it_tells_ends_the_guest(shape, dtype):
    environment, process = create()
    head = pb.Array(dtype=dtype, shape=shape).SerializeToString()
    process.answer = b"a" + struct.pack("<I", len(head)) + head + bytes(5)
    with pytest.raises(GuestLost):
        environment.render()
    for length in (0, 2**32 - 1, len(head) - 1):
        process.answer = b"a" + struct.pack("<I", length) + head + bytes(5)
        with pytest.raises(GuestLost):
            environment.render()


def test_a_frame_is_the_callers_own():
    environment, process = create()
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    head = program.array_head(image)
    process.answer = b"a" + struct.pack("<I", len(head)) + head + image.tobytes()
    frame = environment.render()
    assert np.array_equal(frame, image)
    frame[:] = 0


@pytest.mark.parametrize(
    "changed",
    [
        {"metadata": 3},
        {"render_mode": 3},
        {"spec": (1, 2)},
        {"spec": 3},
        {"spec": ("\ud800", None, False, None)},
        {"render_mode": "\ud800"},
        {"exposed": [("\ud800", True)]},
        {"exposed": [(3, True)]},
        {"spec": (3, None, False, None)},
        {"spec": ("A-v0", [1.0], False, None)},
        {"spec": ("A-v0", None, False, 2**70)},
        {"spec": ("A-v0", None, None, 3)},
        {"exposed": [("a",)]},
        {"exposed": 7},
        {"observation_space": "text"},
        {"tried": 3},
        {"tried": [("A", b"")]},
        {"tried": [(3, program.write_space(ACTIONS, WRITER), [])]},
        {"tried": [("A", program.write_space(ACTIONS, WRITER), 3)]},
        {"tried": [("A", program.write_space(ACTIONS, WRITER), [3])]},
        {"tried": [("A", program.write_space(ACTIONS, WRITER), [b"\xff"])]},
    ],
)
def test_a_description_that_cannot_be_read_ends_the_guest(changed):
    with pytest.raises(GuestLost):
        create(**changed)


def test_a_space_that_cannot_be_one_or_is_packed_otherwise_is_refused():
    tried = ("A", program.write_space(ACTIONS, WRITER), [WRITER.write(1), WRITER.write(7)])
    for changed in (
        {"observation_space": b"\xff"},
        {"observation_space": b""},
        {"action_size": 4},
        {"tried": [("A", b"\xff", [])]},
    ):
        with pytest.raises(ConfigError, match="the guest's"):
            create(**changed)
    with pytest.raises(ConfigError, match=r"^a space of type A cannot travel as Discrete\(3\): its sample 7 is no"):
        create(tried=[tried])


def test_errors_arrive_as_what_they_are():
    environment, process = create()
    process.answer = b"e" + WRITER.write((0, "a.B", "text", "Traceback ..."))
    with pytest.raises(RemoteEnvironmentError) as caught:
        environment.reset(seed=3)
    assert (caught.value.remote_type, caught.value.remote_message) == ("a.B", "text")
    assert caught.value.remote_traceback == "Traceback ..."
    for kind, error in ((1, ConfigError), (2, EncodingError)):
        process.answer = b"e" + WRITER.write((kind, "a.B", "text", "Traceback ..."))
        with pytest.raises(error, match=r"^text$"):
            environment.reset()


def test_what_cannot_be_sent_to_a_guest_is_an_error_here():
    environment, process = create()
    before = len(process.asked)
    with pytest.raises(EncodingError, match=r"^options\[1\]\['a'\]"):
        environment.reset(options={"a": lambda: 3})
    assert len(process.asked) == before


def test_attributes_are_asked_of_the_guest_by_their_names():
    environment, process = create()
    assert [environment.kind_of(name) for name in ("speed", "honk", "absent", "other")] == [False, True, None, None]
    process.answer = value(3)
    assert environment.get("speed") == 3
    assert environment.call("honk", (1,), {"loud": True}) == 3
    environment.assign("speed", 4)
    assert [request[:1] for request in process.asked[-3:]] == [b"g", b"m", b"a"]
    assert program.read_value(process.asked[-2][3:]) == ("honk", (1,), {"loud": True})


@given(st.sampled_from(b"pvae"), st.binary(max_size=60), st.booleans())
def test_nothing_but_a_lost_guest_or_an_environments_error_comes_of_any_bytes(kind, content, whole):
    environment, process = create()
    process.answer = bytes([kind]) + (struct.pack("<dB", 0.0, 0) + bytes(SIZE) if whole else b"") + content
    for ask in (lambda: environment.step(1), environment.render, environment.reset, lambda: environment.get("speed")):
        with contextlib.suppress(GuestLost, RemoteEnvironmentError, ConfigError, EncodingError):
            ask()


@given(st.dictionaries(st.sampled_from(sorted(description())), st.none() | st.integers() | st.binary() | st.text()))
def test_nothing_but_a_refusal_comes_of_any_description(changed):
    with contextlib.suppress(GuestLost, ConfigError):
        create(**changed)


# --------------------------------------------------------------------------------------------------------------
# Several environments


def create_several(mode: str) -> tuple[Any, Any]:
    """Two environments that are stepped by one message, and what stands for their process."""
    process: Any = Scripted()
    guest = Guest(process, LIMITS)
    process.answer = value(description())
    environments: list[Any] = [create_environment(guest, index, {}) for index in range(2)]
    together = batch(environments.__getitem__, 2, autoreset_code(mode) if AutoresetMode else pb.AUTORESET_UNSPECIFIED)
    together.ahead = AskedAhead(guest, environments)  # type: ignore[attr-defined]
    process.answer = value((SPACE.sample(), {}))
    together.reset()
    return together, process


def several(*answers: tuple[str, int, bytes], more: int = 0) -> bytes:
    entries = [program.ENTRY.pack(ord(kind), index, len(content)) + content for kind, index, content in answers]
    return bytes([program.IS_SEVERAL, more]) + b"".join(entries)


STEPPED = ("p", 0, packed()), ("p", 1, packed())
ENDED = ("p", 0, packed(1)), ("r", 0, value((SPACE.sample(), {}))), ("p", 1, packed())
ERROR = b"e" + WRITER.write((0, "a.B", "text", "Traceback ..."))


def test_a_vector_step_is_one_request_and_has_the_answers_of_each():
    together, process = create_several("SameStep")
    before = len(process.asked)
    process.answer = several(*ENDED)
    _, rewards, terminated, _, _ = together.step(np.array([1, 2]))
    assert (rewards.tolist(), terminated.tolist()) == ([1.5, 1.5], [True, False])
    [request] = process.asked[before:]
    assert request[:3] == struct.pack("<BH", program.SEVERAL, 1 if AutoresetMode else program.RESETS_ENDED)
    actions = [program.ENTRY.pack(ord("p"), index, 8) + np.int64(index + 1).tobytes() for index in range(2)]
    assert request[3:] == b"".join(actions)


@pytest.mark.parametrize(
    "answer",
    [
        b"n",
        b"n\0",
        b"n\1",
        packed(),
        several(*STEPPED[:1]),
        several(*STEPPED, *STEPPED),
        several(*STEPPED[::-1]),
        several(*STEPPED, more=1),
        several(STEPPED[0], ("v", 1, packed())),
        several(STEPPED[0], ("p", 7, packed())),
        several(STEPPED[0], ("p", 1, b"")),
        several(*STEPPED)[:-1],
        several(*STEPPED) + b"p\0\0",
        several(STEPPED[0], ("r", 1, packed())),
        several(("r", 0, packed()), *STEPPED),
        several(ENDED[0], ENDED[1], ENDED[1], ENDED[2]),
        several(("p", 0, ERROR), STEPPED[1]),
        several(("p", 0, b"e"), STEPPED[1]),
        several(("p", 0, packed()[:-1]), STEPPED[1]),
        several(("p", 0, packed(info=b"\xff")), STEPPED[1]),
    ],
)
def test_answers_to_a_vector_step_that_cannot_be_read_end_the_guest(answer):
    together, process = create_several("SameStep")
    process.answer = answer
    with pytest.raises(GuestLost):
        together.step(np.array([1, 2]))
    assert process.is_lost


def test_nothing_is_left_of_a_vector_step_that_has_failed():
    together, process = create_several("SameStep")
    process.answer = several(STEPPED[0], ("p", 1, ERROR))
    with pytest.raises(RemoteEnvironmentError, match="text"):
        together.step(np.array([1, 2]))
    process.answer = several(*STEPPED)
    assert together.step(np.array([1, 2]))[1].tolist() == [1.5, 1.5]


@given(st.binary(max_size=60), st.booleans(), st.sampled_from(["SameStep", "NextStep", "Disabled"]))
def test_nothing_but_a_lost_guest_or_an_environments_error_comes_of_any_answers(content, whole, mode):
    together, process = create_several(mode if AutoresetMode else "NextStep")
    process.answer = (several(STEPPED[0]) if whole else b"n\0") + content
    with contextlib.suppress(GuestLost, RemoteEnvironmentError, ConfigError, EncodingError):
        together.step(np.array([1, 2]))


def vector_description(**changed: Any) -> dict[str, Any]:
    spaces_of_one = {"single_observation_space": SPACE, "single_action_space": ACTIONS}
    return {
        **description(observation_space=None, action_space=None, observation_size=2 * SIZE, action_size=16),
        **{name: program.write_space(space, WRITER) for name, space in spaces_of_one.items()},
        "num_envs": 2,
        "autoreset_mode": "SameStep",
        **changed,
    }


def create_vector(**changed: Any) -> tuple[Any, Any]:
    process: Any = Scripted()
    guest = Guest(process, LIMITS)
    process.answer = value(vector_description(**changed))
    return create_environment(guest, 0, {}), process


def stepped_vector(infos: Any) -> bytes:
    rest = (np.ones(2), np.array([True, False]), np.zeros(2, bool), infos)
    return b"b" + bytes(2 * SIZE) + WRITER.write(rest)


def test_a_vector_environments_step_is_as_gymnasium_has_it():
    environment, process = create_vector()
    final = {"position": np.ones(3, np.float32), "flags": np.ones(2, bool)}
    process.answer = stepped_vector([{"final_observation": final, "final_info": {"a": 1}}, {"a": 2}])
    observations, rewards, terminated, _, infos = environment.step(np.array([1, 2]))
    assert process.asked[-1] == b"p\0\0" + np.array([1, 2]).tobytes()
    assert observations in environment.observation_space
    assert (rewards.tolist(), terminated.tolist()) == ([1.0, 1.0], [True, False])
    if AutoresetMode:
        assert infos["a"].tolist() == [0, 2]
        assert infos["final_info"]["a"].tolist() == [1, 0]
        assert infos["_final_obs"].tolist() == [True, False]
        assert infos["final_obs"][0]["position"].tolist() == [1, 1, 1]
    process.answer = stepped_vector({"final_observation": np.full(2, None), "other": 3})
    assert set(environment.step(np.array([1, 2]))[4]) == {
        "final_obs" if AutoresetMode else "final_observation",
        "other",
    }


@pytest.mark.parametrize(
    "answer", [b"b", stepped_vector({})[:20], b"b" + bytes(2 * SIZE) + WRITER.write(3), b"b" + bytes(2 * SIZE), b"n\0"]
)
def test_a_vector_environments_step_that_cannot_be_read_ends_the_guest(answer):
    environment, process = create_vector()
    process.answer = answer
    with pytest.raises(GuestLost):
        environment.step(np.array([1, 2]))
    assert process.is_lost


@pytest.mark.parametrize("count", [0, -1, 2**40, "2", None, 2.0])
def test_a_vector_environment_of_no_number_ends_the_guest(count):
    with pytest.raises(GuestLost):
        create_vector(num_envs=count)


@given(
    st.dictionaries(st.sampled_from(sorted(vector_description())), st.none() | st.integers() | st.binary() | st.text()),
    st.recursive(
        st.none() | st.integers() | st.text(), lambda items: st.lists(items) | st.dictionaries(st.text(), items)
    ),
)
def test_nothing_but_a_refusal_comes_of_any_vector_environment(changed, infos):
    with contextlib.suppress(GuestLost, ConfigError, EncodingError):
        environment, process = create_vector(**changed)
        process.answer = stepped_vector(infos)
        environment.step(np.array([1, 2]))
