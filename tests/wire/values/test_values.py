"""Values arrive as they were sent, or are refused by name."""

from __future__ import annotations

import copy
import dataclasses
import enum
import logging
import math
import os
import pickle
import struct
import weakref
from collections import Counter, OrderedDict, UserDict, UserList, defaultdict, deque, namedtuple
from collections.abc import Sequence
from datetime import datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from pathlib import PosixPath, PurePath, PurePosixPath, PureWindowsPath
from types import MappingProxyType, SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from gymnasium.spaces import GraphInstance
from hypothesis import given

from remote_gym.config import Limits
from remote_gym.errors import EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.values import Unencodable, decode_array, decode_value, encode_array, encode_value, remote_type
from remote_gym.wire.values.extended import BINARY64, BINARY128, OWN, X87, convert, long_to_bytes
from remote_gym.wire.values.unencodable import type_name
from wire.examples import ANY_VALUE, LIMITS, arrays_in, is_known, same


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


class Phase(enum.Enum):
    RUN = "run"
    STOP = ("stop", [1])


class Other(enum.Enum):
    RUN = "run"


class Stamp(datetime):
    pass


class Own(UserDict):  # type: ignore[type-arg]
    pass


class Folder(PurePosixPath):
    pass


@dataclasses.dataclass
class Pose:
    x: float
    items: set[str]


@dataclasses.dataclass(frozen=True)
class Cell:
    row: int
    column: int


class Raises(tzinfo):
    def utcoffset(self, _when: datetime | None) -> timedelta:
        raise RuntimeError("no")


class Endless(Sequence):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, index: Any) -> int:
        return 1


Point = namedtuple("Point", "x y")

STANDARD = {
    "datetime": datetime(2026, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=1), "CET"), fold=1),
    "datetime-first": datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    "datetime-last": datetime.max.replace(tzinfo=timezone(-timedelta(hours=14))),
    "timedelta-least": timedelta.min,
    "timedelta-most": timedelta.max,
    "time-in-a-place": time(2, 30, tzinfo=ZoneInfo("Europe/Berlin")) if is_known("Europe/Berlin") else None,
    "set": {1, "a", (2, frozenset({3}))},
    "deque-bounded": deque([1, [2]], maxlen=2),
    "deque-none": deque(maxlen=0),
    "decimal-nan": Decimal("-NaN123"),
    "decimal-signals": [Decimal("sNaN")],
    "decimal-exponent": Decimal("1E+999999"),
    "complex": complex(-0.0, math.nan),
    "bytearray": bytearray(b"a"),
    "path": PosixPath("/a/\udc80") if os.name == "posix" else None,
    "path-dot": PurePosixPath(),
    "path-windows": PureWindowsPath("C:/a"),
    "range": range(5, -3, -2),
    "not-a-time": np.datetime64("NaT"),
    "datetimes-big-endian": np.array(["2026-01-02", "NaT"], ">M8[ns]"),
    "timedeltas": np.array([[1, 2]], "m8[25s]"),
    "longdouble": np.longdouble("1.1"),
    "longcomplex": np.array([[1.5 + 2j]], np.clongdouble),
    "longdouble-big-endian": np.array([1, 2], np.dtype(np.longdouble).newbyteorder(">")),
    "void": np.void(b"abc"),
    "structured": np.array(
        [(1, (2.0, "a"), [1, 2])], [("a", ">i4"), ("b", [("c", "f8"), ("d", "U3")]), ("e", "i2", 2)]
    ),
    "structured-objects": np.array([(1, [None])], [("a", "i1"), ("b", object)]),
    "structured-empty": np.zeros((0, 3), [("a", "i4")]),
    "structured-scalar": np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")])[0],
    "masked": np.ma.array([1.5, 2.5], mask=[True, False], fill_value=-1.0, hard_mask=True),
    "masked-int8": np.ma.array(np.array([1], np.int8)),
    "masked-structured": np.ma.array([(1, 2.0)], mask=[(True, False)], dtype=[("a", "i4"), ("b", "f8")]),
    "masked-objects": np.ma.array(np.array([None, "a"], object), mask=[True, False]),
}


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
        (Stamp(2026, 1, 2, 3, tzinfo=timezone.utc, fold=1), datetime(2026, 1, 2, 3, tzinfo=timezone.utc, fold=1)),
        (Own(a=[1]), {"a": [1]}),
        (UserList([1]), [1]),
        ({"a": 1}.keys(), {"a"}),
        (np.arange(4).reshape(2, 2).view(np.matrix), np.arange(4).reshape(2, 2)),
        (Folder("a/b"), PurePosixPath("a/b")),
        (os.stat_result(range(10)), tuple(range(10))),
    ],
)
def test_instances_of_other_classes_arrive_as_the_nearest_plain_value_and_their_name(value: Any, arrives: Any) -> None:
    arrived = carry(value)
    assert isinstance(arrived, type(arrives))
    assert remote_type(arrived) == type_name(value)
    assert remote_type(arrives) is None
    if isinstance(arrives, np.ndarray):
        assert same(arrived.view(np.ndarray), arrives)
    else:
        assert arrived == arrives
        assert getattr(arrived, "fold", None) == getattr(arrives, "fold", None)
    for copied in (copy.copy(arrived), copy.deepcopy(arrived), pickle.loads(pickle.dumps(arrived)), carry(arrived)):
        assert same(copied, arrived)


def test_members_of_enumerations_have_their_names_and_values() -> None:
    for value in (Color.RED, Name.A, Phase.RUN):
        arrived = carry(value)
        assert (arrived.name, arrived.value) == (value.name, value.value)
        assert remote_type(arrived) == type_name(value)
    assert carry({Phase.RUN: 1, Phase.STOP: 2, "run": 3, Other.RUN: 4}) == {
        carry(Phase.RUN): 1,
        carry(Phase.STOP): 2,
        "run": 3,
        carry(Other.RUN): 4,
    }
    assert carry(Color.RED) == 1 == Color(carry(Color.RED))


def test_named_tuples_dataclasses_and_namespaces_have_their_fields_as_attributes() -> None:
    point = carry(Point(1, [2]))
    assert (point.x, point.y, point._fields, point._asdict()) == (1, [2], ("x", "y"), {"x": 1, "y": [2]})
    for value in (Pose(1.0, {"a"}), SimpleNamespace(x=1.0, items={"a"})):
        arrived = carry(value)
        assert (arrived.x, arrived.items) == (1.0, {"a"})
        assert vars(arrived) == vars(value)
        assert remote_type(arrived) == type_name(value)
        assert pickle.loads(pickle.dumps(arrived)) == copy.deepcopy(arrived) == arrived
        with pytest.raises(AttributeError, match="cannot be set"):
            arrived.x = 2.0
    assert carry({Cell(1, 2): "key"})[carry(Cell(1, 2))] == "key"


def test_dicts_of_pythons_own_arrive_as_they_are() -> None:
    ordered = OrderedDict(a=1, b=2)
    ordered.move_to_end("a")
    for value in (ordered, Counter("aab"), MappingProxyType({"a": 1})):
        arrived = carry(value)
        assert type(arrived) is type(value)
        assert arrived == value
        assert list(arrived) == list(value)


@pytest.mark.parametrize("value", STANDARD.values(), ids=STANDARD)
def test_values_of_the_standard_library_arrive_as_they_are(value: Any) -> None:
    assert same(carry(value), value)


def test_masked_is_the_one_and_only() -> None:
    assert carry([np.ma.masked])[0] is np.ma.masked


def test_a_zone_that_is_unknown_there_keeps_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    message = pb.Value()
    value = datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    encode_value(value, message, strict=True, limits=LIMITS)
    for key in ("Nowhere/Land", "../../etc/passwd", "tzdata", "zone.tab"):
        message.datetime.time.zone.key = key
        arrived = decode_value(message, LIMITS)
        assert arrived == value
        assert arrived.tzname() == key
    if is_known("Europe/Berlin"):
        message.datetime.time.zone.key = "Europe/Berlin"
        assert decode_value(message, LIMITS).tzinfo == ZoneInfo("Europe/Berlin")
        message.datetime.time.zone.offset += 1  # whose rules have changed since this machine learnt them
        assert decode_value(message, LIMITS).utcoffset() == timedelta(hours=2, microseconds=1)


def test_zones_of_other_packages_arrive_as_their_offset() -> None:
    class Zone(tzinfo):
        def utcoffset(self, _when: datetime | None) -> timedelta:
            return timedelta(hours=3)

        def tzname(self, _when: datetime | None) -> str:
            return "MSK"

    value = datetime(2026, 1, 2, tzinfo=Zone())
    arrived = carry(value)
    assert arrived == value
    assert arrived.tzinfo == timezone(timedelta(hours=3))
    assert arrived.tzname() == "MSK"


def test_long_doubles_of_other_machines_arrive_as_the_nearest_number() -> None:
    numbers = np.array([0.0, -0.0, 1.5, -1.1, 1e300, 5e-324, np.inf, -np.inf, np.nan], np.float64)
    bits = numbers.view(np.uint64)
    assert np.array_equal(convert(numbers.view(np.uint8).reshape(-1, 8), BINARY64), numbers, equal_nan=True)
    quads = np.zeros((len(numbers), 16), np.uint8)
    for index, number in enumerate(numbers.tolist()):
        quads[index] = np.frombuffer(quad(number), np.uint8)
    arrived = convert(quads, BINARY128)
    assert np.array_equal(arrived.astype(np.float64), numbers, equal_nan=True)
    assert np.array_equal(np.signbit(arrived[:-1]), np.signbit(numbers[:-1]))
    assert len(bits) == len(arrived)


def quad(number: float) -> bytes:
    """The float as IEEE 754's binary128."""
    (bits,) = struct.unpack("<Q", struct.pack("<d", number))
    sign, exponent, fraction = bits >> 63, bits >> 52 & 0x7FF, bits & (2**52 - 1)
    if exponent == 0x7FF:
        exponent = 0x7FFF
    elif exponent:
        exponent += 16383 - 1023
    elif fraction:  # which is not subnormal there
        shift = 53 - fraction.bit_length()
        exponent, fraction = 16383 - 1022 - shift, (fraction << shift) & (2**52 - 1)
    return (sign << 127 | exponent << 112 | fraction << 60).to_bytes(16, "little")


@pytest.mark.skipif(OWN != X87, reason="compares with what this machine makes of Intel's format")
def test_intels_long_doubles_are_read_by_others_as_they_are_here() -> None:
    one, tiny = np.longdouble(1), np.finfo(np.longdouble).smallest_subnormal
    large, infinite = np.ldexp(one, 13000), np.longdouble(np.inf)
    numbers = np.array([0 * one, -0.0 * one, 1.5 * one, one / 3, -large, tiny, infinite, -infinite])
    rows = np.frombuffer(long_to_bytes(numbers), np.uint8).reshape(-1, X87)
    assert np.array_equal(convert(rows, X87), numbers)
    assert np.array_equal(np.signbit(convert(rows, X87)), np.signbit(numbers))


@pytest.mark.parametrize("path", [PosixPath, PureWindowsPath, PurePosixPath])
def test_paths_of_other_systems_arrive_as_pure_ones(path: type[PurePath], monkeypatch: pytest.MonkeyPatch) -> None:
    message = pb.Value()
    encode_value(path("a/b"), message, strict=True, limits=LIMITS)
    message.path.windows = not message.path.windows
    assert type(decode_value(message, LIMITS)) in (PurePosixPath, PureWindowsPath)


def test_structured_arrays_keep_their_alignment_and_lose_what_others_left() -> None:
    aligned = np.zeros(3, np.dtype([("a", "i1"), ("b", "f8")], align=True))
    assert carry(aligned).dtype == aligned.dtype
    wide = np.zeros(3, [("a", "i1"), ("b", "f8", 100)])[["a"]]
    arrived = carry(wide)
    assert arrived.dtype == np.dtype([("a", "i1")])
    overlapping = np.array([(258,)], [("both", "i4")]).view(
        np.dtype({"names": ["all", "low"], "formats": ["<i4", "i1"], "offsets": [0, 0]})
    )
    assert carry(overlapping).tolist() == [(258, 2)]


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
    "type": int,
    "function": len,
    "generator": (number for number in ()),
    "masked-subclass": np.ma.array([1]).view(type("Own", (np.ma.MaskedArray,), {})),
    "giant-fraction": Fraction(1, 2**9000),
    "giant-range": range(2**70),
    "zone-that-raises": datetime(2026, 1, 1, tzinfo=Raises()),
    "giant-lazy-list": Endless(),
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
    assert refusal(GraphInstance(object(), None, None)).startswith("options.nodes: ")


def test_keys_without_a_wire_form() -> None:
    assert "the key " in refusal({"a": {len: 1}})
    assert refusal({"a": {len: 1}}).startswith("options['a']: ")
    arrived = carry({len: 1, "b": 2}, strict=False)
    assert list(arrived.items()) == [
        (Unencodable("builtins.builtin_function_or_method", "<built-in function len>"), 1),
        ("b", 2),
    ]


class Hashable(list):  # type: ignore[type-arg]
    def __hash__(self) -> int:  # type: ignore[override]
        return 7


class Itself(str):
    __eq__ = object.__eq__
    __hash__ = object.__hash__


@pytest.mark.parametrize("keys", [[Hashable([1])], [Itself("a"), Itself("a")], [(1, Hashable())]])
def test_keys_that_would_be_none_where_they_arrive_are_summed_up(keys: list[Any]) -> None:
    assert "equal where they arrive" in refusal(dict.fromkeys(keys, 1))
    assert "equal where they arrive" in refusal(set(keys))
    arrived = carry({"dict": dict.fromkeys(keys, 1) | {"b": 2}, "set": frozenset(keys)}, strict=False)
    assert [type(key) for key in arrived["dict"]] == [Unencodable] * len(keys) + [str]
    assert list(map(type, arrived["set"])) == [Unencodable] * len(keys)


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
    small = Limits(items=9)
    assert len(carry(set(range(10**6)), strict=False, limits=small).repr) <= 200
    assert len(carry({("x" * 150, "y" * 150)}, strict=False, limits=Limits(items=1)).repr) == 200
    assert len(carry(type("Long", (), {"__repr__": lambda self: "x" * 10**6})(), strict=False).repr) == 200


def test_surrogates_in_a_repr_are_replaced() -> None:
    assert carry({"\ud800"}, strict=False, limits=Limits(items=1)).repr == "{'\\ud800'}"
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


def test_a_class_of_the_users_is_a_level_of_its_own() -> None:
    assert carry([Point(Color.RED, Loud("x"))], limits=Limits(depth=4)) == [(1, "x")]
    assert "deeper" in refusal([Point(Color.RED, Loud("x"))], Limits(depth=3))


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
    with pytest.raises(EncodingError, match="has no wire form"):
        encode_array(np.zeros(2, [("a", int)]), pb.Array())
