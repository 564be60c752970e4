"""Large packed observations, past protobuf's copies.

To set a `bytes` field copies it, to serialise the message copies it again, and so at the other end. For an image that
costs more than encryption does. So the message is written around the observation here, byte for byte as protobuf
could have, with the observation as its last field, and taken apart again in the same way. Another end that knows
nothing of this parses it as it parses any message.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError, Message

from remote_gym.config import Limits
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.parse import DEFAULT, parse
from remote_gym.wire.varint import VarintError, read_varint, varint

LARGE = 2**15
"""Bytes from which it is worth the trouble."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_SEQUENCE = pb.Response.SEQUENCE_FIELD_NUMBER << 3 | _VARINT
_PACKED = pb.Transition.PACKED_FIELD_NUMBER << 3 | _LENGTH
_TRANSITIONS = {pb.Response.RESET_FIELD_NUMBER: "reset", pb.Response.STEP_FIELD_NUMBER: "step"}


def splice(response: pb.Response, packed: bytes) -> tuple[bytes, bytes]:
    """Write a response whose transition lacks its packed observation.

    Returns:
        What comes before the observation, and the observation itself; together they are the message.
    """
    name = response.WhichOneof("result")
    number = pb.Response.RESET_FIELD_NUMBER if name == "reset" else pb.Response.STEP_FIELD_NUMBER
    transition = response.reset if name == "reset" else response.step
    rest = transition.SerializeToString() + varint(_PACKED) + varint(len(packed))
    head = (
        varint(_SEQUENCE)
        + varint(response.sequence)
        + varint(number << 3 | _LENGTH)
        + varint(len(rest) + len(packed))
        + rest
    )
    return head, packed


def parse_response(data: bytes | memoryview, limits: Limits = DEFAULT) -> tuple[pb.Response, memoryview | None]:
    """Parse a response, without its packed observation if that is large and the message's last field.

    Returns:
        The response, and the observation that it lacks, which is part of `data`; or the whole of it, and None.

    Raises:
        EncodingError: If the bytes are no response, or hold more values than the limits allow.
    """
    if len(data) < LARGE:
        response = pb.Response()
        try:
            response.ParseFromString(data)  # type: ignore[arg-type]
        except DecodeError:
            return parse(pb.Response, data), None  # which raises, and says what
        return response, None
    view = memoryview(data)
    try:
        return _take_apart(view, limits)
    except (_NotSpliced, VarintError):
        return parse(pb.Response, data, limits), None


class _NotSpliced(Exception):
    """The message is of another form, or of none; protobuf will tell."""


def _take_apart(view: memoryview, limits: Limits) -> tuple[pb.Response, memoryview]:
    tag, position = read_varint(view, 0)
    if tag != _SEQUENCE:
        raise _NotSpliced
    sequence, position = read_varint(view, position)
    tag, position = read_varint(view, position)
    size, begin = read_varint(view, position)
    name = _TRANSITIONS.get(tag >> 3)
    if name is None or tag & 7 != _LENGTH or begin + size != len(view) or sequence >= 2**64:
        raise _NotSpliced
    position = begin
    while True:
        end_of_rest = position
        tag, position = read_varint(view, position)
        if tag == _PACKED:
            size, position = read_varint(view, position)
            if size < LARGE or position + size != len(view):
                raise _NotSpliced
            response = pb.Response(sequence=sequence)
            transition: Message = getattr(response, name)
            transition.SetInParent()
            transition.MergeFrom(parse(pb.Transition, bytes(view[begin:end_of_rest]), limits))
            return response, view[position:]
        position = _skip(view, tag & 7, position)


def _skip(view: memoryview, wire_type: int, position: int) -> int:
    if wire_type == _VARINT:
        return read_varint(view, position)[1]
    if wire_type == _FIXED64:
        return position + 8
    if wire_type == _FIXED32:
        return position + 4
    if wire_type == _LENGTH:
        size, position = read_varint(view, position)
        return position + size
    raise _NotSpliced
