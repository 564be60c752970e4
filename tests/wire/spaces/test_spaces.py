"""A space that was sent is rebuilt equal, and samples alike."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from remote_gym.config import Limits
from remote_gym.errors import ConfigError, EncodingError
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import parse
from remote_gym.wire.spaces import casting, decoding
from remote_gym.wire.spaces.encoding import decode_space, encode_space
from wire.examples import ANY_SPACE, DICT_HAS_SORT_KEYS, DISCRETE_HAS_DTYPE, HAS_ONE_OF, LIMITS, SPACES, same


def carry(space: gym.Space[Any], limits: Limits = LIMITS) -> gym.Space[Any]:
    return decode_space(parse(pb.Space, encode_space(space, limits).SerializeToString()), limits)


def assert_alike(one: gym.Space[Any], other: gym.Space[Any]) -> None:
    """Equal, also where Gymnasium's `==` does not look, and sampling alike."""
    assert type(one) is type(other)
    assert one == other
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    for name in ("low", "high", "nvec", "start", "n"):
        assert same(getattr(one, name, None), getattr(other, name, None))
    for name in ("bounded_below", "bounded_above"):
        assert np.array_equal(getattr(one, name, None), getattr(other, name, None))
    for name in ("min_length", "max_length", "character_list", "stack", "sort_keys"):
        assert getattr(one, name, None) == getattr(other, name, None)
    one, other = copy.deepcopy(one), copy.deepcopy(other)
    one.seed(11)
    other.seed(11)
    for _ in range(4):
        assert same(one.sample(), other.sample())


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_space_of_every_kind_is_rebuilt(space: gym.Space[Any]) -> None:
    assert_alike(carry(space), space)


@given(ANY_SPACE)
def test_any_space_is_rebuilt(space: gym.Space[Any]) -> None:
    assert_alike(carry(space), space)


def test_key_order_is_kept() -> None:
    members = [("b", spaces.Discrete(2)), ("a", spaces.Discrete(3)), (1, spaces.Discrete(4))]
    assert list(carry(spaces.Dict(members)).spaces) == ["b", "a", 1]


def test_an_unsorted_dict_batches_unsorted() -> None:
    if not DICT_HAS_SORT_KEYS:
        pytest.skip("Gymnasium sorts the keys of every dict before 1.4")
    space = carry(SPACES["dict-unsorted"])
    assert list(gym.vector.utils.batch_space(space, 2).spaces) == ["b", "a"]


def test_encoding_a_space_does_not_move_its_generator() -> None:
    space, twin = Padded(), Padded()
    space.seed(5)
    twin.seed(5)
    encode_space(space, LIMITS)
    assert same(space.sample(), twin.sample())


def test_uniform_bounds_travel_as_one_element() -> None:
    assert len(encode_space(spaces.Box(0, 255, (1080, 1920, 3), np.uint8), LIMITS).SerializeToString()) < 40


# Stand-ins ------------------------------------------------------------------------------------------------


class Padded(spaces.Box):
    """A subclass whose elements are those of its base."""

    def __init__(self) -> None:
        super().__init__(-1, 1, (2,), np.float32)


class Sparse(spaces.Box):
    """A subclass whose elements are not."""

    def __init__(self) -> None:
        super().__init__(-1, 1, (2,), np.float32)

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        return {0: 1.0}


class Beyond(Padded):
    def sample(self, *args: Any, **kwargs: Any) -> Any:
        return np.full(2, 2, np.float32)


class Phrases(gym.Space[str]):
    """Texts, as MiniGrid's missions are."""

    def __init__(self, *phrases: Any) -> None:
        super().__init__(dtype=str)
        self.phrases = phrases

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        return self.phrases[self.np_random.integers(len(self.phrases))]


class Unknown(gym.Space[Any]):
    def sample(self, *args: Any, **kwargs: Any) -> Any:
        return 0


class NotCopied(Padded):
    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("there is one of me")


def test_a_subclass_travels_as_its_base() -> None:
    assert type(carry(Padded())) is spaces.Box
    assert type(carry(spaces.Tuple([Padded()])).spaces[0]) is spaces.Box


@pytest.mark.parametrize("space", [Sparse(), Beyond(), Unknown(), NotCopied(), Phrases(3), spaces.Tuple([Unknown()])])
def test_a_space_whose_elements_would_not_fit_is_refused_by_name(space: gym.Space[Any]) -> None:
    culprit = space.spaces[0] if isinstance(space, spaces.Tuple) else space
    with pytest.raises(ConfigError, match=type(culprit).__qualname__):
        encode_space(space, LIMITS)


def test_texts_of_an_unknown_class_travel_as_text() -> None:
    space = carry(Phrases("go to the gr\u00fcn ball", "x" * 3000))
    assert type(space) is spaces.Text
    for text in ("go to the gr\u00fcn ball", "x" * 3000, "", "pick up a red key!\n", "y" * 12000):
        assert space.contains(text)


def test_minigrid_missions_fit_the_text_they_travel_as() -> None:
    pytest.importorskip("minigrid")
    for name in ("MiniGrid-Empty-5x5-v0", "MiniGrid-Fetch-5x5-N2-v0", "BabyAI-GoToRedBallGrey-v0"):
        environment = gym.make(name)
        space = carry(environment.observation_space)
        for seed in range(3):
            assert space.contains(environment.reset(seed=seed)[0])
        environment.close()


# Refused --------------------------------------------------------------------------------------------------


def deep(depth: int) -> gym.Space[Any]:
    space: gym.Space[Any] = spaces.Discrete(2)
    for _ in range(depth):
        space = spaces.Tuple([space])
    return space


def test_nesting_is_bounded() -> None:
    assert_alike(carry(deep(32)), deep(32))
    with pytest.raises(ConfigError, match="deeper than 32"):
        encode_space(deep(33), LIMITS)


def test_nesting_is_bounded_by_the_receiver_too() -> None:
    message = encode_space(deep(5), LIMITS)
    assert decode_space(message, Limits(depth=5)) == deep(5)
    with pytest.raises(EncodingError, match="deeper than 4"):
        decode_space(message, Limits(depth=4))


def test_the_deepest_permitted_space_passes_the_parser() -> None:
    limits = Limits(depth=40)
    space: gym.Space[Any] = spaces.Discrete(2)
    for _ in range(40):
        space = spaces.Dict([(((((1,),),),), space)])
    response = pb.OpenResponse()
    response.session.description.observation_space.CopyFrom(encode_space(space, limits))
    arrived = parse(pb.OpenResponse, response.SerializeToString()).session.description.observation_space
    assert decode_space(arrived, limits) == space


def changed_box(**attributes: Any) -> spaces.Box:
    box = spaces.Box(-1, 1, (2,), np.float32)
    vars(box).update(attributes)
    return box


@pytest.mark.parametrize(
    ("space", "says"),
    [
        (spaces.Box(0, 1, (2,), np.dtype(">f4")), "native"),
        (spaces.Dict([(len, spaces.Discrete(2))]), "builtin_function"),
        (spaces.Text(2, charset="a\ud800"), "surrogate"),
        (spaces.Text(2**25), "max_length"),
        (spaces.MultiBinary((2**15, 2**15)), "limit"),
        (changed_box(low=np.array([2, 2], np.float32)), "refuses"),
    ],
    ids=["big-endian", "key", "surrogate", "long-text", "giant", "inverted"],
)
def test_a_space_without_a_wire_form_is_refused(space: gym.Space[Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        encode_space(space, LIMITS)


def test_characters_of_several_letters_are_refused() -> None:
    space = spaces.Text(2)
    space._char_list = ("ab", "c")
    with pytest.raises(ConfigError, match="'ab'"):
        encode_space(space, LIMITS)


def test_a_subclass_over_the_limits_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="Padded"):
        encode_space(Padded(), Limits(array_bytes=8))


F4 = np.float32(1).tobytes()
I8 = np.int64(1).tobytes()

BAD = {
    "no-kind": pb.Space(),
    "box-no-dtype": pb.Space(box=pb.BoxSpace()),
    "box-unknown-dtype": pb.Space(box=pb.BoxSpace(dtype=99)),  # type: ignore[arg-type]
    "box-text": pb.Space(box=pb.BoxSpace(dtype=pb.TEXT)),
    "box-complex": pb.Space(
        box=pb.BoxSpace(dtype=pb.COMPLEX64, low=2 * F4, high=2 * F4, bounded_below=b"\1", bounded_above=b"\1")
    ),
    "box-short": pb.Space(box=pb.BoxSpace(dtype=pb.FLOAT32, shape=[3], low=2 * F4, high=F4)),
    "box-no-bounded": pb.Space(box=pb.BoxSpace(dtype=pb.FLOAT32, shape=[3], low=F4, high=F4)),
    "box-bad-bool": pb.Space(
        box=pb.BoxSpace(dtype=pb.FLOAT32, shape=[3], low=F4, high=F4, bounded_below=b"\2", bounded_above=b"\1")
    ),
    "box-giant": pb.Space(box=pb.BoxSpace(dtype=pb.FLOAT32, shape=[2**40], low=F4, high=F4)),
    "box-overflow": pb.Space(box=pb.BoxSpace(dtype=pb.FLOAT32, shape=[2**33, 2**33], low=F4, high=F4)),
    "box-empty-giant": pb.Space(box=pb.BoxSpace(dtype=pb.FLOAT32, shape=[0, 2**63], low=F4, high=F4)),
    "box-dimensions": pb.Space(box=pb.BoxSpace(dtype=pb.FLOAT32, shape=[1] * 33, low=F4, high=F4)),
    "discrete-float": pb.Space(discrete=pb.DiscreteSpace(n=1, dtype=pb.FLOAT32)),
    "discrete-none": pb.Space(discrete=pb.DiscreteSpace(n=0, dtype=pb.INT64)),
    "discrete-wide": pb.Space(discrete=pb.DiscreteSpace(n=300, dtype=pb.INT8)),
    "multi-discrete-short": pb.Space(multi_discrete=pb.MultiDiscreteSpace(dtype=pb.INT64, shape=[2], nvec=I8)),
    "multi-discrete-zero": pb.Space(
        multi_discrete=pb.MultiDiscreteSpace(dtype=pb.INT64, shape=[1], nvec=bytes(8), start=bytes(8))
    ),
    "multi-binary-zero": pb.Space(multi_binary=pb.MultiBinarySpace(shape=[0])),
    "multi-binary-scalar": pb.Space(multi_binary=pb.MultiBinarySpace(shape=[2, 2], scalar_n=True)),
    "text-inverted": pb.Space(text=pb.TextSpace(min_length=2, max_length=1, characters="a")),
    "text-giant": pb.Space(text=pb.TextSpace(max_length=2**60, characters="a")),
    "dict-uneven": pb.Space(dict=pb.DictSpace(keys=[pb.Value(integer=1)])),
    "dict-twice": pb.Space(
        dict=pb.DictSpace(keys=[pb.Value(integer=1)] * 2, spaces=[pb.Space(tuple=pb.TupleSpace())] * 2)
    ),
    "dict-unhashable": pb.Space(
        dict=pb.DictSpace(keys=[pb.Value(list=pb.List())], spaces=[pb.Space(tuple=pb.TupleSpace())])
    ),
    "sequence-of-nothing": pb.Space(sequence=pb.SequenceSpace()),
    "graph-of-nothing": pb.Space(graph=pb.GraphSpace()),
    "one-of-none": pb.Space(one_of=pb.OneOfSpace()),
}


@pytest.mark.parametrize("message", BAD.values(), ids=BAD)
def test_a_message_that_describes_no_space_is_refused(message: pb.Space) -> None:
    with pytest.raises(EncodingError):
        decode_space(message, LIMITS)


@given(st.integers(1, 6))
def test_copies_within_copies_count(depth: int) -> None:
    message = pb.Space(discrete=pb.DiscreteSpace(n=2, dtype=pb.INT64))
    for _ in range(depth):
        message = pb.Space(sequence=pb.SequenceSpace(space=message, stack=True))
    cost = 16 * (2 ** (depth + 1) - 1)
    decode_space(message, Limits(items=cost))
    with pytest.raises(EncodingError, match=r"Limits\.items"):
        decode_space(message, Limits(items=cost - 1))


def test_bounds_of_all_members_count_together() -> None:
    box = spaces.Box(0, 1, (100,), np.uint8)
    assert carry(spaces.Tuple([box] * 2), Limits(array_bytes=800)) == spaces.Tuple([box] * 2)
    with pytest.raises(ConfigError, match="bounds"):
        encode_space(spaces.Tuple([box] * 2), Limits(array_bytes=799))


def test_the_characters_of_texts_count() -> None:
    with pytest.raises(ConfigError, match=r"Limits\.text_length|limit"):
        encode_space(spaces.Text(2, charset="abc"), Limits(text_length=2))


# What an older Gymnasium lacks ----------------------------------------------------------------------------


def test_a_discrete_dtype_unknown_to_the_installed_gymnasium_names_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_DISCRETE_HAS_DTYPE", False)
    message = pb.Space(discrete=pb.DiscreteSpace(n=2, dtype=pb.UINT8))
    with pytest.raises(EncodingError, match=gym.__version__):
        decode_space(message, LIMITS)
    assert carry(spaces.Discrete(3)) == spaces.Discrete(3)


def test_one_of_unknown_to_the_installed_gymnasium_names_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "OneOf", None)
    message = pb.Space(one_of=pb.OneOfSpace(spaces=[pb.Space(tuple=pb.TupleSpace())]))
    with pytest.raises(EncodingError, match=gym.__version__):
        decode_space(message, LIMITS)


def test_features_are_those_of_the_installed_gymnasium() -> None:
    assert (casting.OneOf is not None) == HAS_ONE_OF
    assert decoding._DISCRETE_HAS_DTYPE == DISCRETE_HAS_DTYPE
