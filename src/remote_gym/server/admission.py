"""What a worker asks of who comes to it directly: the server's TLS, the owner's certificate, the session's token."""

from __future__ import annotations

import hmac
import socket
import ssl
from pathlib import Path
from typing import Any

from remote_gym.config import Limits, TlsFiles
from remote_gym.errors import NotPermitted, TransportError
from remote_gym.tls import server_context
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.direct import DirectSocket
from remote_gym.wire.parse import parse
from remote_gym.wire.status import encode_error
from remote_gym.wire.stream import MessageSocket

ADMISSION_TIMEOUT = 5.0
"""Seconds that each step of the handshake, and then the token, may take to come."""


def admit(sock: socket.socket, launch: worker_pb2.Launch, limits: Limits, poll_us: int) -> DirectSocket:
    """Take a connection through TLS and `Attach`. It is closed where this raises.

    Args:
        sock: A client's, whose preamble has been read.
        launch: Whose session it is.
        limits: Bounds on messages.
        poll_us: Told to the client.

    Raises:
        NotPermitted: If the client's identity is not the session's owner's, or the token is wrong.
        TransportError: If the client goes away, or takes too long.
        OSError: If TLS fails.
        EncodingError: If something else than `Attach` came.
    """
    try:
        sock.settimeout(ADMISSION_TIMEOUT)
        identity = ""
        if launch.HasField("tls"):
            sock = _context(launch.tls).wrap_socket(sock, server_side=True)
            identity = peer_identity(sock.getpeercert())
        connection = MessageSocket(sock, limits)
        data = connection.receive()
        if data is None:
            raise TransportError("it closed before it attached")
        try:
            _check(parse(pb.Attach, data), identity, launch)
        except NotPermitted as error:
            connection.send(pb.Attached(error=encode_error(error)).SerializeToString())
            raise
        connection.send(pb.Attached(poll_us=poll_us).SerializeToString())
        return DirectSocket(sock, limits)
    except BaseException:
        sock.close()
        raise


def peer_identity(certificate: Any) -> str:
    """Who a client is by its certificate, as `remote_gym.server.grpc_server.identity` has it from gRPC."""
    if not certificate:
        return ""
    names = certificate.get("subjectAltName", ())
    for kind in ("URI", "DNS", "email"):
        for name, value in names:
            if name == kind and value:
                return f"{kind}:{value}"
    for part in certificate.get("subject", ()):
        for name, value in part:
            if name == "commonName" and value:
                return f"CN:{value}"
    return ""


def _check(attach: pb.Attach, identity: str, launch: worker_pb2.Launch) -> None:
    # In constant time, so that a token cannot be guessed byte by byte.
    if not hmac.compare_digest(attach.token.encode(), launch.token.encode()):
        raise NotPermitted(f"session {launch.session}: this is not its token")
    if identity != launch.owner:
        raise NotPermitted(f"session {launch.session}: it was opened by another identity than {identity!r}")


def _context(paths: worker_pb2.TlsPaths) -> ssl.SSLContext:
    # Read anew for each connection, so that renewed certificates are used.
    files = TlsFiles(
        ca=Path(paths.ca) if paths.ca else None,
        certificate=Path(paths.certificate),
        private_key=Path(paths.private_key),
    )
    # The server has checked them, with more than a worker wants to load.
    context = server_context(files, check=False)
    context.num_tickets = 0  # nobody resumes these sessions, and reading a ticket costs the client's first step
    return context
