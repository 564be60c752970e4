"""Lists of frames in parts: together they are what was rendered, and hostile parts are refused."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.testing import find_difference
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.frame_parts import FrameJoiner, FrameParts
from remote_gym.wire.frames import encode_frame
from remote_gym.worker.host import Host

LIMITS = Limits(message_bytes=4000)


class Collecting(gym.Env[Any, Any]):
    """Gives away what it has collected."""

    metadata = {"render_modes": ["rgb_array_list"]}  # noqa: RUF012
    observation_space = action_space = gym.spaces.Discrete(2)
    render_mode = "rgb_array_list"

    def __init__(self, frames: Any) -> None:
        self.frames = frames

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        return np.int64(0), {}

    def render(self) -> Any:
        frames, self.frames = self.frames, type(self.frames)()
        return frames


def ask(host: Host, sequence: int, **operation: Any) -> pb.Response:
    request = pb.Request(sequence=sequence, **operation).SerializeToString()
    answer = host.answer(request)
    assert host.answer(request) == answer  # however often it is asked
    assert len(answer) <= LIMITS.message_bytes
    return pb.Response.FromString(answer)


def fetch(host: Host) -> tuple[Any, int]:
    """What was rendered, and in how many parts it came."""
    joiner, sequence = FrameJoiner(LIMITS), 0
    while True:
        sequence += 1
        request = joiner.request()
        if not joiner.add(ask(host, sequence, render=request.render).render):
            return joiner.rendered, sequence


FRAMES = st.one_of(
    st.integers(1, 1200).map(lambda size: np.full((1, size, 3), size % 256, np.uint8)),
    st.text(max_size=50),
    st.lists(st.integers(), max_size=5),
)


@given(st.one_of(st.lists(FRAMES, max_size=20), st.lists(st.lists(FRAMES, max_size=8), min_size=1).map(tuple)))
def test_the_parts_together_are_what_was_rendered(frames):
    copied = type(frames)(list(each) if isinstance(frames, tuple) else each for each in frames)
    found, _ = fetch(Host(Collecting(frames), limits=LIMITS))
    assert find_difference(copied, found) is None


def test_no_part_is_larger_than_the_client_says_unless_a_frame_is():
    frames = [np.zeros((10, size, 3), np.uint8) for size in (20, 20, 20, 110, 20)]
    found, parts = fetch(Host(Collecting(list(frames)), limits=LIMITS))
    assert find_difference(frames, found) is None
    assert parts == 3  # three of 600; 3300; 600


@pytest.mark.parametrize("frames", ["a text", None, (), (np.zeros(3), [1]), {"a": [1]}])
def test_other_things_come_whole(frames):
    environment = Collecting(frames)
    environment.render = lambda: frames  # type: ignore[method-assign]
    assert find_difference(frames, fetch(Host(environment, limits=LIMITS))[0]) is None


def test_a_client_that_says_nothing_of_parts_gets_all_at_once():
    host = Host(Collecting([np.zeros(500, np.uint8)] * 4), limits=LIMITS)
    answer = ask(host, 1, render=pb.RenderRequest())
    assert len(answer.render.frame.value.list.items) == 4
    assert answer.render.rest == 0


def test_only_the_next_part_can_be_had_and_any_other_request_drops_it():
    def begin() -> Host:
        host = Host(Collecting([np.zeros(1500, np.uint8)] * 4), limits=LIMITS)
        assert ask(host, 1, render=pb.RenderRequest(part_bytes=2000)).render.rest == 3
        return host

    host = begin()
    assert "part 1 is next" in ask(host, 2, render=pb.RenderRequest(part_bytes=2000, part=2)).error.message
    assert "nothing remains" in ask(host, 3, render=pb.RenderRequest(part_bytes=2000, part=1)).error.message
    host = begin()
    ask(host, 2, reset=pb.ResetRequest())
    assert "nothing remains" in ask(host, 3, render=pb.RenderRequest(part_bytes=2000, part=1)).error.message
    host = begin()
    assert ask(host, 2, render=pb.RenderRequest(part_bytes=2000)).render.rest == 0  # rendered anew


def answer(frames: Any, rest: int) -> pb.RenderResponse:
    response = pb.RenderResponse(rest=rest)
    encode_frame(frames, response.frame, LIMITS)
    return response


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([([1], 2), ([2], 2)], "2 frames are to come after part 1; at most 1 can be"),
        ([([1], Limits().items)], "at most 1,048,575 can be"),
        ([([1], 2), (([2],), 1)], "part 1 of what was rendered does not fit"),
        ([(([1], [2]), 2), (([2],), 1)], "part 1 of what was rendered does not fit"),
        ([("text", 2), ([2], 1)], "part 1 of what was rendered does not fit"),
        ([([1], 2), ("text", 1)], "part 1 of what was rendered does not fit"),
    ],
)
def test_parts_that_cannot_be_are_refused(answers, message):
    joiner = FrameJoiner(Limits())
    *good, bad = [answer(*each) for each in answers]
    for each in good:
        assert joiner.add(each)
    with pytest.raises(EncodingError, match=message):
        joiner.add(bad)


def test_parts_hold_no_more_values_than_the_limits_allow():
    parts = FrameParts([0] * 100)
    assert len(parts.take(10**9, Limits(items=40))) == 20
    assert len(parts) == 80
