"""Breaking what connects a client, as a network would, and ways around it."""

from __future__ import annotations

from remote_gym.client.session import ClientSession
from remote_gym.v1 import remote_gym_pb2 as pb


def break_connection(session: ClientSession) -> None:
    """End the connection that the session uses, behind its back."""
    stream = session._carrier.stream
    assert stream is not None
    stream.shut_down()


def fresh_address(session: ClientSession) -> pb.DirectAddress:
    """Where the session's worker can be reached by one more connection."""
    return session._connection.reach(session.id, session._session.token, 20.0).direct
