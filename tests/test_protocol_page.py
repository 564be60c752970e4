"""The sequences of docs/protocol.md are what an environment's host really answers."""

from __future__ import annotations

import re
from pathlib import Path

import gymnasium as gym
from google.protobuf import text_format

from remote_gym.config import Limits
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parts import Joining, announced
from remote_gym.worker.host import Host

PAGE = Path(__file__).resolve().parent.parent / "docs" / "protocol.md"
BLOCK = re.compile(r"^```textproto\n# (Request|Response)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_parts_make_the_first_request_as_the_page_tells():
    parts = re.findall(r"^```textproto\n# Part\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    messages = [text_format.Parse(text, pb.Request()).SerializeToString() for text in parts]
    joining = Joining(announced(messages[0]))
    for message in messages:
        joining.add(message)
    assert pb.Request.FromString(bytes(joining.request)) == pb.Request(sequence=1, reset=pb.ResetRequest())


def exchanges():
    """Each request of the page, with the response below it."""
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert [kind for kind, _ in blocks] == ["Request", "Response"] * (len(blocks) // 2)
    texts = [text for _, text in blocks]
    for request, response in zip(texts[::2], texts[1::2], strict=True):
        yield text_format.Parse(request, pb.Request()), text_format.Parse(response, pb.Response())


def test_host_answers_as_the_page_tells():
    host = Host(
        gym.make("CartPole-v1"), exposed=("np_random",), made_by_id=True, limits=Limits()
    )  # as when it is served by its id
    told = list(exchanges())
    assert len(told) >= 6
    for request, expected in told:
        answered = pb.Response.FromString(host.answer(request.SerializeToString()))
        if answered.HasField("error"):
            answered.error.remote_traceback = ""  # it names files
        assert answered == expected
    assert host.closed
