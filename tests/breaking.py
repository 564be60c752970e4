"""Breaking what connects a client, as a network would."""

from __future__ import annotations

import socket

from remote_gym.client.direct import DirectConnection
from remote_gym.client.session import ClientSession


def break_connection(session: ClientSession) -> None:
    """End the connection that the session uses, behind its back."""
    interaction = session._interaction
    assert interaction is not None
    if isinstance(interaction, DirectConnection):
        # Not SSLSocket's own, which would go on to read what has arrived as if it were not encrypted.
        socket.socket.shutdown(interaction._socket._socket, socket.SHUT_RDWR)
    else:
        interaction._call.cancel()
