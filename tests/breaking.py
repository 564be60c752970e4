"""Breaking what connects a client, as a network would, and ways around it."""

from __future__ import annotations

import socket

from remote_gym.client.connect.direct_stream import DirectStream
from remote_gym.client.session import ClientSession
from remote_gym.v1 import remote_gym_pb2 as pb


def break_connection(session: ClientSession) -> None:
    """End the connection that the session uses, behind its back."""
    interaction = session._carrier.stream
    assert interaction is not None
    if isinstance(interaction, DirectStream):
        # Not SSLSocket's own, which would go on to read what has arrived as if it were not encrypted.
        socket.socket.shutdown(interaction._socket._socket, socket.SHUT_RDWR)
    else:
        interaction._call.cancel()


def fresh_address(session: ClientSession) -> pb.DirectAddress:
    """Where the session's worker can be reached by one more connection."""
    return session._connection.reach(session.id, session._session.token, 20.0).direct
