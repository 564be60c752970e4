"""Fingerprint of the records between a server and its workers, as a short text, on which both releases have to agree.

A worker's interpreter may have another release of this package. An older worker would leave out what it does not know,
such as what a policy allows, or wait for what never comes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor

from remote_gym.ipc import control, counters, forkserver_records
from remote_gym.protocol.constants import PROTOCOL_VERSION
from remote_gym.v1 import remote_gym_pb2, worker_pb2

CHECK = """
import sys
sys.path[:] = sys.argv[5:] or sys.path
import remote_gym
try:
    from remote_gym.ipc.dialect import dialect
except ImportError:
    dialect = str
if dialect() != sys.argv[3]:
    sys.exit(
        f"remote_gym {getattr(remote_gym, '__version__', 'of an old release')} of {sys.executable} cannot run "
        f"environments for a server of remote_gym {sys.argv[4]}; install that release there"
    )
"""
"""Python that sets a forkserver's path, and ends it if its release does not agree with the server's; works in any."""


@functools.cache
def dialect() -> str:
    """A digest of all messages and records that the two exchange, by their names, numbers and types."""
    return hashlib.sha256("\n".join(_terms()).encode()).hexdigest()[:16]


def _terms() -> Iterator[str]:
    yield f"protocol {PROTOCOL_VERSION}"
    for record in (control.RECORD, forkserver_records.RECORD, counters.WORDS):
        yield record.format
    for enumeration in (
        control.WorkerCommand,
        control.WorkerEvent,
        forkserver_records.Command,
        forkserver_records.Event,
    ):
        yield from (f"{enumeration.__name__} {member.name} {member.value}" for member in enumeration)
    yield from (f"operation {name} {number}" for name, number in counters.OPERATIONS.items())
    for module in (remote_gym_pb2, worker_pb2):
        for _, message in sorted(module.DESCRIPTOR.message_types_by_name.items()):
            yield from _fields(message)


def _fields(message: Descriptor) -> Iterator[str]:
    # Not the descriptor's serialised form, which may differ between releases of protobuf.
    for field in sorted(message.fields, key=lambda field: field.number):
        yield f"{message.full_name} {field.name} {field.number} {field.type}"
    for nested in sorted(message.nested_types, key=lambda nested: nested.name):
        yield from _fields(nested)
