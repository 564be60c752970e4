"""Values arrive as they were sent, or are refused by name."""

from __future__ import annotations

import enum
import logging
import math
import weakref
from collections import OrderedDict, defaultdict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import GraphInstance
from hypothesis import given

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.values import Unencodable, decode_array, decode_value, encode_array, encode_value
from wire.examples import ANY_VALUE, LIMITS, arrays_in, same


def carry(value: Any, *, strict: bool = True, limits: Limits = LIMITS) -> Any:
    message = pb.Value()
    encode_value(value, message, strict=strict, limits=limits, path="info")
    return decode_value(parse(pb.Value, message.SerializeToString()), limits)


def refusal(value: Any, limits: Limits = LIMITS) -> str:
    with pytest.raises(EncodingError) as raised:
        encode_value(value, pb.Value(), strict=True, limits=limits, path="options")
    return str(raised.value)


@given(ANY_VALUE)
def test_any_value_arrives_bit_for_bit_and_type_for_type(value: Any) -> None:
    assert same(carry(value), value)


@given(ANY_VALUE)
def test_arrays_arrive_writable_aligned_and_owning_their_memory(value: Any) -> None:
    for array in arrays_in(carry(value)):
        assert array.flags.writeable
        assert array.flags.owndata
        assert array.flags.aligned


def test_arrays_of_one_message_share_no_memory() -> None:
    array = np.arange(5)
    left, right = carry([array, array])
    assert not np.shares_memory(left, right)


EDGES = {
    "none": None,
    "true": True,
    "one": 1,
    "int64-least": -(2**63),
    "int64-most": 2**63 - 1,
    "beyond-int64": 2**63,
    "below-int64": -(2**63) - 1,
    "huge": -(10**5000),
    "negative-zero": -0.0,
    "nan": math.nan,
    "lone-surrogate": "a\ud800b",
    "empty-text": "",
    "nul-text": "a\0",
    "list": [],
    "tuple": (),
    "dict": {},
    "dict-order": {"z": 1, "a": 2},
    "dict-surrogate-key": {"a": 1, "\udfff": 2},
    "dict-keys": {1: "int", (1, ("x",)): "tuple", None: "none", b"b": "bytes", 2.5: "float", np.int8(7): "scalar"},
    "zero-dimensional": np.array(1.5),
    "numpy-float": np.float64(1.5),
    "numpy-bool": np.True_,
    "numpy-str": np.str_("a\0"),
    "numpy-bytes": np.bytes_(b"a\0"),
    "numpy-complex": np.complex64(1 + 2j),
    "big-endian": np.arange(3, dtype=">i4"),
    "big-endian-text": np.array(["ab", "c"], dtype=">U2"),
    "empty-array": np.zeros((0, 84, 84, 3), np.uint8),
    "width-0-texts": np.ndarray((3,), "U0"),
    "bools": np.array([[True, False]]),
    "objects": np.array([None, [1, 2], {"a": np.arange(2)}], dtype=object),
    "objects-0d": np.array(None, dtype=object),
    "graph": GraphInstance(np.zeros((2, 3)), np.zeros(1), np.zeros((1, 2), np.int32)),
    "unencodable": Unencodable("a.B", "<b>"),
}


@pytest.mark.parametrize("value", EDGES.values(), ids=EDGES)
def test_edges_arrive_unchanged(value: Any) -> None:
    assert same(carry(value), value)


@pytest.mark.parametrize("bits", [0x7FF8DEAD00000001, 0xFFF8000000000002, 0x7FF4000000000003])
def test_payloads_of_nan_arrive(bits: int) -> None:
    value = np.array([bits], np.uint64).view(np.float64)
    assert same(carry(value), value)
    assert same(carry(value.tolist()), value.tolist())


def test_arrays_that_are_not_contiguous_arrive() -> None:
    array = np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)[::-1, :, ::2]
    assert same(carry(array), array)


def test_objects_in_an_array_stay_what_they_are() -> None:
    array = np.empty(2, object)
    array[0], array[1] = np.array(5), [np.arange(2), "x"]
    assert same(carry(array), array)


class Color(enum.IntEnum):
    RED = 1


class Name(str, enum.Enum):
    A = "a"


class Loud(str):
    def __str__(self) -> str:
        return self.upper()


class Half(float):
    pass


class Raw(bytes):
    pass


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Color.RED, 1),
        (Name.A, "a"),
        (Loud("a"), "a"),
        (Half(0.5), 0.5),
        (Raw(b"a"), b"a"),
        (Point(1, [2]), (1, [2])),
        (defaultdict(list, a=[1]), {"a": [1]}),
        ({Color.RED: 1, Name.A: 2}, {1: 1, "a": 2}),
    ],
)
def test_instances_of_subclasses_arrive_as_their_base(value: Any, arrives: Any) -> None:
    assert same(carry(value), arrives)


def test_ordered_dicts_keep_their_own_order() -> None:
    value = OrderedDict(a=1, b=2)
    value.move_to_end("a")
    assert same(carry(value), {"b": 2, "a": 1})


def test_what_arrives_as_its_base_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Special(dict):  # type: ignore[type-arg]
        pass

    with caplog.at_level(logging.INFO):
        carry([Special(), Special(a=1)])
    assert [record.getMessage().count("Special") for record in caplog.records] == [1]


class Silent:
    def __repr__(self) -> str:
        raise RuntimeError("no")


class Exits:
    def __repr__(self) -> str:
        raise SystemExit


class Unreadable(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise RuntimeError("no")


NO_WIRE_FORM = {
    "object": object(),
    "set": {1},
    "complex": 1j,
    "path": Path(),
    "type": int,
    "function": len,
    "masked": np.ma.array([1]),
    "matrix": np.arange(4).reshape(2, 2).view(np.matrix),
    "structured": np.zeros(2, [("a", int)]),
    "structured-scalar": np.zeros(2, [("a", int)])[0],
    "dates": np.array(["2020-01-01"], "datetime64[D]"),
    "date": np.datetime64("2020-01-01"),
    "longdouble": np.array([1], np.longdouble),
    "longdouble-scalar": np.longdouble(1),
    "silent": Silent(),
    "exits": Exits(),
    "unreadable": Unreadable(a=1),
}


@pytest.mark.parametrize("value", NO_WIRE_FORM.values(), ids=NO_WIRE_FORM)
def test_what_has_no_wire_form_is_summed_up_in_an_info(value: Any) -> None:
    arrived = carry({"before": 1, "odd": [value], "after": 2}, strict=False)
    assert list(arrived) == ["before", "odd", "after"]
    (odd,) = arrived["odd"]
    assert odd.type == f"{type(value).__module__}.{type(value).__qualname__}"
    assert len(odd.repr) <= 200


@pytest.mark.parametrize("value", NO_WIRE_FORM.values(), ids=NO_WIRE_FORM)
def test_what_has_no_wire_form_is_refused_in_options_with_its_place(value: Any) -> None:
    assert refusal({"a": [0, (1, value)]}).startswith("options['a'][1][1]: ")


def test_the_place_leads_through_graphs_and_arrays_of_objects() -> None:
    graph = GraphInstance(np.zeros(1), None, np.array([None, object()], dtype=object))
    assert refusal([graph]).startswith("options[0].edge_links[1]: ")
    assert refusal(GraphInstance({1, 2}, None, None)).startswith("options.nodes: ")


def test_keys_without_a_wire_form() -> None:
    assert "the key " in refusal({"a": {frozenset(): 1}})
    assert refusal({"a": {frozenset(): 1}}).startswith("options['a']: ")
    arrived = carry({frozenset({1}): 1, "b": 2}, strict=False)
    assert list(arrived.items()) == [(Unencodable("builtins.frozenset", "frozenset({1})"), 1), ("b", 2)]


def test_keys_that_look_alike_stay_apart() -> None:
    class Twin:
        def __repr__(self) -> str:
            return "twin"

    arrived = carry({Twin(): 1, Twin(): 2, Twin(): 3}, strict=False)
    assert sorted(arrived.values()) == [1, 2, 3]


def test_the_first_unencodable_of_a_type_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Odd:
        pass

    carry([Odd(), Odd()], strict=False)
    carry(Odd(), strict=False)
    assert ["Odd" in record.getMessage() for record in caplog.records] == [True]


def test_long_reprs_are_shortened_without_being_made_first() -> None:
    assert len(carry(set(range(10**6)), strict=False).repr) <= 200
    assert len(carry({("x" * 150, "y" * 150)}, strict=False).repr) == 200
    assert len(carry(type("Long", (), {"__repr__": lambda self: "x" * 10**6})(), strict=False).repr) == 200


def test_surrogates_in_a_repr_are_replaced() -> None:
    assert carry({"\ud800"}, strict=False).repr == "{'\\ud800'}"
    assert carry(type("Odd", (), {"__repr__": lambda self: "\ud800"})(), strict=False).repr == "?"


def test_an_unencodable_with_surrogates_passes_on() -> None:
    assert carry(Unencodable("a\ud800", "b")) == Unencodable("a?", "b")


def test_a_dead_proxy_does_not_break_an_info() -> None:
    class Owner:
        pass

    owner = Owner()
    dead = weakref.proxy(owner)
    del owner
    assert carry({"proxy": dead}, strict=False)["proxy"].type.endswith("ProxyType")


def cyclic(kind: str) -> Any:
    if kind == "dict":
        value: Any = {}
        value["self"] = value
    elif kind == "subclass":
        value = OrderedDict()
        value["self"] = [value]
    elif kind == "tuple":
        inner: list[Any] = []
        value = (inner,)
        inner.append(value)
    elif kind == "objects":
        value = np.empty(1, object)
        value[0] = value
    else:
        value = []
        value.append(value)
    return value


@pytest.mark.parametrize("kind", ["list", "dict", "tuple", "subclass", "objects"])
def test_cycles_end_where_they_close(kind: str) -> None:
    assert "contains itself" in refusal(cyclic(kind))
    assert "Unencodable" in str(carry(cyclic(kind), strict=False))


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_is_bounded() -> None:
    limits = Limits(depth=3)
    assert carry(nested(3), limits=limits) == nested(3)
    assert "deeper than 3" in refusal(nested(4), limits)
    assert "deeper than" in refusal(nested(10**5))
    assert isinstance(carry(nested(4), strict=False, limits=limits)[0][0][0], Unencodable)


def test_a_subclass_nests_no_deeper_than_its_base() -> None:
    limits = Limits(depth=2)
    assert carry([Point(Color.RED, Loud("x"))], limits=limits) == [(1, "x")]


def test_the_deepest_permitted_value_passes_the_parser() -> None:
    limits = Limits(depth=40)
    value: Any = np.arange(2)
    for _ in range(40):
        value = {(1,): value} if value is None else {"x": value}
    response = pb.Response()
    encode_value(value, response.step.info, strict=True, limits=limits)
    arrived = decode_value(parse(pb.Response, response.SerializeToString()).step.info, limits)
    assert same(arrived, value)


@pytest.mark.parametrize(
    ("value", "limits", "field"),
    [
        ([1, 2, 3], Limits(items=3), "Limits.items"),
        ({"a": [1, 2], "b": [1, 2]}, Limits(items=6), "Limits.items"),
        (np.zeros(100, np.uint8), Limits(array_bytes=99), "Limits.array_bytes"),
        (np.zeros((0, 2**40), np.uint8), LIMITS, "Limits.array_bytes"),
        (b"abc", Limits(array_bytes=2), "Limits.array_bytes"),
        ("abc", Limits(text_length=2), "Limits.text_length"),
        ({"abc": 1}, Limits(text_length=2), "Limits.text_length"),
        (2**100, Limits(text_length=8), "Limits.text_length"),
        (np.str_("abc"), Limits(text_length=2), "Limits.text_length"),
        (np.ndarray((1,) * 33, np.uint8, b"a") if np.__version__ >= "2" else None, LIMITS, "dimensions"),
    ],
)
def test_what_exceeds_a_limit_is_refused_with_its_name(value: Any, limits: Limits, field: str) -> None:
    if value is None:
        pytest.skip("NumPy 1 has no arrays of more than 32 dimensions")
    assert field in refusal(value, limits)
    assert carry(value, strict=False, limits=limits) != value if not isinstance(value, np.ndarray) else True


@pytest.mark.parametrize(
    ("value", "limits"),
    [
        ([1, 2], Limits(items=3)),
        ({"a": [1, 2], "b": [1, 2]}, Limits(items=7)),
        (b"ab", Limits(array_bytes=2)),
        ("ab", Limits(text_length=2)),
        ({"ab": 1}, Limits(text_length=2)),
    ],
)
def test_what_just_fits_a_limit_arrives(value: Any, limits: Limits) -> None:
    assert carry(value, limits=limits) == value


def test_shared_parts_cannot_multiply_without_bound() -> None:
    value: Any = "x"
    for _ in range(25):
        value = [value] * 10
    assert "Limits.items" in refusal(value)


def test_an_array_alone() -> None:
    message = pb.Array()
    encode_array(np.arange(6, dtype=np.float16).reshape(2, 3), message)
    assert same(decode_array(message, LIMITS), np.arange(6, dtype=np.float16).reshape(2, 3))
    with pytest.raises(EncodingError, match="datetime64"):
        encode_array(np.array(["2020"], "datetime64[Y]"), pb.Array())
