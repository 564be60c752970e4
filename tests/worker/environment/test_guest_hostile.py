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
from remote_gym.worker.environment.guest import GuestEnvironment
from remote_gym.worker.environment.guest_messages import Guest
from remote_gym.worker.environment.guest_process import GuestLost

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
    return GuestEnvironment(guest, 0, {}), process


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
        {"exposed": [("a",)]},
        {"exposed": 7},
        {"observation_space": "text"},
    ],
)
def test_a_description_that_cannot_be_read_ends_the_guest(changed):
    with pytest.raises(GuestLost):
        create(**changed)


def test_a_space_that_cannot_be_one_or_is_packed_otherwise_is_refused():
    for changed in ({"observation_space": b"\xff"}, {"observation_space": b""}, {"action_size": 4}):
        with pytest.raises(ConfigError, match="the guest's"):
            create(**changed)


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
