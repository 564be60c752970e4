"""Requests that environments of either kind make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from remote_gym.config import Limits
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import encode_value


def reset_request(seed: Any, options: Mapping[str, Any] | None, limits: Limits) -> pb.Request:
    """To reset, without a number.

    Raises:
        EncodingError: If `seed` or `options` have no wire form.
    """
    request = pb.Request()
    request.reset.SetInParent()
    if seed is not None:
        encode_value(seed, request.reset.seed, strict=True, limits=limits, path="seed")
    if options is not None:
        encode_value(options, request.reset.options, strict=True, limits=limits, path="options")
    return request


def call_request(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], limits: Limits) -> pb.Request:
    """To call a method or read an attribute, without a number.

    Raises:
        EncodingError: If an argument has no wire form.
    """
    request = pb.Request(call=pb.CallRequest(name=name))
    if args:
        encode_value(args, request.call.args, strict=True, limits=limits, path=f"{name}(...)")
    if kwargs:
        encode_value(kwargs, request.call.kwargs, strict=True, limits=limits, path=f"{name}(...)")
    return request


def assign_request(name: str, value: Any, limits: Limits) -> pb.Request:
    """To set an attribute, without a number.

    Raises:
        EncodingError: If the value has no wire form.
    """
    request = pb.Request(call=pb.CallRequest(name=name))
    encode_value(value, request.call.assign, strict=True, limits=limits, path=name)
    return request
