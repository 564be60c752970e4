"""Language of servers and hubs: first bytes, names, messages. Its reference are the comments in ``hub.proto``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message

from remote_gym.config import is_server_name
from remote_gym.v1 import hub_pb2
from remote_gym.wire.parse import parse

MAGIC = b"rmthub\x00\x01"
REGISTER, DIAL_BACK = MAGIC + b"R", MAGIC + b"B"
"""First bytes of a server's connections to a hub."""

PROTOCOL_VERSION = 1
"""Version that a server registers with, and the only one that a hub takes."""

ID_BYTES = 32
APPLICATION_PROTOCOL = "remote-gym-hub/1"
MESSAGE_BYTES = 2**13
"""Size of the largest message."""

PING_EVERY = 5.0
"""Seconds between two heartbeats of the hub's."""
SILENCE = 15.0
"""Seconds without a message after which the other end is taken for dead."""

M = TypeVar("M", hub_pb2.ToHub, hub_pb2.ToServer)


def pack(message: Message) -> bytes:
    """Encode a message to the end that it is for, such as a `DialBack` as `ToServer`."""
    outer = hub_pb2.ToHub() if isinstance(message, hub_pb2.Registration) else hub_pb2.ToServer()
    field = next(field for field in outer.DESCRIPTOR.fields if field.message_type is message.DESCRIPTOR)
    getattr(outer, field.name).CopyFrom(message)
    return outer.SerializeToString()


def unpack(kind: type[M], data: bytes) -> M:
    """Decode a message to one end, `ToHub` or `ToServer`.

    Raises:
        EncodingError: If it is none.
    """
    return parse(kind, data)


HEARTBEAT_TO_HUB = hub_pb2.ToHub(heartbeat=hub_pb2.Heartbeat()).SerializeToString()
HEARTBEAT_TO_SERVER = hub_pb2.ToServer(heartbeat=hub_pb2.Heartbeat()).SerializeToString()


def names_to_register(hosts: Iterable[str]) -> tuple[str, ...]:
    """By which of a certificate's names a server is reached through a hub.

    Those that stand for a machine itself, addresses and patterns are not: two servers could have the same.
    """
    names = dict.fromkeys(host.lower() for host in hosts)
    return tuple(name for name in names if is_server_name(name) and name.partition(".")[0] != "localhost")
