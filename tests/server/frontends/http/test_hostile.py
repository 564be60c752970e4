"""Whatever a client sends, each parser of the HTTP frontend answers by a value or by an error of its own."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("uvicorn", reason="the extra http is not installed")

from environments import make_spaces
from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError, InvalidAction
from remote_gym.server.frontends.http.protocols.multipart import boundary_of, read_parts, write_parts
from remote_gym.server.frontends.http.protocols.openenv import action_of
from remote_gym.server.frontends.http.protocols.vagen import configuration_in, new_id
from remote_gym.server.frontends.http.protocols.vagen_values import action_of as action_of_text
from remote_gym.server.frontends.http.reading import Refused, parse_object
from remote_gym.server.frontends.http.values import JsonWriter, element_of
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.spaces.elements import encode_action
from remote_gym.wire.spaces.layout import compile_layout

SPACES = make_spaces()
LAYOUTS = {name: compile_layout(space) for name, space in SPACES.items()}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["NaN", "Infinity", "nodes", "edges"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["nodes", "edges", "edge_links", "action", "a", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.sampled_from(sorted(SPACES)), JSON)
@example("box_int16", [2**64, 1, 1, 1])
@example("box_uint8", [[[[]]]])
@example("graph", {"nodes": [[1.0], [2.0, 3.0]], "edges": None, "edge_links": [[10**30, 0]]})
def test_any_json_is_an_action_or_refused_as_one(name, value):
    space = SPACES[name]
    for read in (element_of, lambda space, value: action_of(space, value if isinstance(value, dict) else {})):
        with contextlib.suppress(InvalidAction, EncodingError, ConfigError):
            encode_action(LAYOUTS[name], read(space, value), pb.StepRequest(), Limits())
    with contextlib.suppress(InvalidAction, EncodingError, ConfigError):
        text = json.dumps(value)
        encode_action(LAYOUTS[name], action_of_text(space, text), pb.StepRequest(), Limits())


@given(JSON)
def test_any_value_is_written_as_json_proper(value):
    written = JsonWriter(texts=True).write(value)
    json.loads(written, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@given(st.binary(max_size=200) | st.text(max_size=200))
@example(b"[" * 5000)
@example(b'{"a": ' * 5000)
@example(b"\xff\xfe")
@example("1" * 5000)
def test_any_bytes_are_an_object_or_refused(data):
    with contextlib.suppress(Refused):
        assert isinstance(parse_object(data), dict)


@given(st.lists(st.sampled_from([b"--B", b"--", b"\r\n", b": ", b"name", b"\r\n\r\n", b"x", b"\xff"]), max_size=20))
def test_any_bytes_are_parts_or_refused(pieces):
    with contextlib.suppress(Refused):
        for headers, content in read_parts(b"".join(pieces), "B"):
            assert all(isinstance(name, str) for name in headers)
            assert isinstance(content, bytes)


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_parts_come_back_as_they_were_written(contents):
    body = write_parts([("image/png", content) for content in contents], "boundary-of-no-content")
    found = read_parts(body, "boundary-of-no-content") if contents else []
    assert [content for _, content in found] == contents


@given(st.text(max_size=100))
@example('multipart/form-data; boundary="')
@example("multipart/form-data; boundary=\r\nx")
def test_any_text_names_a_boundary_or_is_refused(text):
    with contextlib.suppress(Refused):
        assert boundary_of(text)


@given(st.text(max_size=100))
@example("x.W10=")
@example("x.é")
@example("a.b.c")
def test_any_id_carries_a_configuration_or_none(text):
    assert isinstance(configuration_in(text), (dict, type(None)))


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_ids_carry_their_configuration(config):
    found = configuration_in(new_id(config))
    assert json.dumps(found, sort_keys=True) == json.dumps(config, sort_keys=True)
