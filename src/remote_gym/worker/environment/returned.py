"""Unpacks what environments return, and names what is wrong with it."""

from __future__ import annotations

from typing import Any

from remote_gym.config import Limits
from remote_gym.errors import EncodingError, InvalidObservation
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import encode_value
from remote_gym.wire.values.foreign import NoArray, local
from remote_gym.wire.values.unencodable import short_repr

_OLD = "as Gym before 0.26 had it; return {}, or wrap the environment in one of shimmy's GymV21CompatibilityV0"


def unpack_reset(returned: Any) -> tuple[Any, Any]:
    """Observation and info of what ``reset()`` returned.

    Raises:
        InvalidObservation: If it is no pair: the environment is of an older interface, or returned nothing.
    """
    # Not by unpacking, which would take an array of two numbers, or a dict of two keys, for observation and info.
    if isinstance(returned, tuple | list) and len(returned) == 2:
        return returned[0], returned[1]
    old = _OLD.format("the pair (observation, info)")
    raise InvalidObservation(f"reset() returned {_describe(returned)}, so an observation without an info, {old}")


def unpackable_step(returned: Any) -> InvalidObservation:
    """The error for what ``step()`` returned, if that is not five values."""
    wanted = "(observation, reward, terminated, truncated, info)"
    if isinstance(returned, tuple | list) and len(returned) == 4:
        return InvalidObservation(
            f"step() returned 4 values, so (observation, reward, done, info), {_OLD.format(wanted)}"
        )
    return InvalidObservation(f"step() returned {_describe(returned)}; it has to be the five values {wanted}")


def local_flag(name: str, flag: Any) -> Any:
    """A flag, or an array of flags, as it is, or as NumPy's array if it is another library's.

    Raises:
        EncodingError: If it cannot be one.
    """
    try:
        return local(flag)
    except NoArray as reason:
        raise EncodingError(f"{name}: {reason}") from reason


def encode_flags(terminated: Any, truncated: Any, transition: pb.Transition, limits: Limits) -> None:
    """Write the flags of a step where they are not both of type bool: arrays, as of a vector environment, or whatever.

    Raises:
        EncodingError: If one has no wire form.
    """
    if type(terminated) is bool:
        transition.terminated_bool = terminated
    else:
        encode_value(terminated, transition.terminated_value, strict=True, limits=limits, path="terminated")
    if type(truncated) is bool:
        transition.truncated_bool = truncated
    else:
        encode_value(truncated, transition.truncated_value, strict=True, limits=limits, path="truncated")


def _describe(returned: Any) -> str:
    if isinstance(returned, tuple | list):
        return f"{len(returned)} values"
    return short_repr(returned)
