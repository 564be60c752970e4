"""To whom a client connects, as whom, and the session that it has opened there."""

from __future__ import annotations

import os

from remote_gym.address import is_loopback
from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.client.connect.credentials import Credentials
from remote_gym.client.rules.connection import Connection
from remote_gym.client.rules.operations import Operations
from remote_gym.config import TOKEN_VARIABLE, ClientOptions, TlsFiles, is_token
from remote_gym.errors import ConfigError, ProtocolMismatch
from remote_gym.protocol.constants import PROTOCOL_VERSION, package_versions
from remote_gym.protocol.ticket import SessionTicket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import decode_error

PathLike = str | os.PathLike[str]
CredentialPaths = tuple[PathLike | None, PathLike | None, PathLike | None]
"""Certificate authority of the server, the client's certificate, and its private key."""


def connect(
    url: str,
    port: int,
    files: TlsFiles | None,
    options: ClientOptions,
    credentials: Credentials | None = None,
) -> GrpcConnection:
    """A connection to a server; nothing is sent yet.

    Args:
        url: The server's.
        port: The server's.
        files: PEM files; None for no TLS.
        options: The client's.
        credentials: Of an earlier connection with the same files, if there was one.

    Raises:
        ConfigError: If the files cannot be used, or there are none and the server is another machine.
    """
    return GrpcConnection(url, port, files, options, token_to_show(url, files, options), credentials)


def token_to_show(url: str, files: TlsFiles | None, options: ClientOptions) -> str:
    """The token that a server gets to see; empty for none. The arguments are those of `connect`.

    Raises:
        ConfigError: If there is no TLS, and it would be needed; or if the token is none.
    """
    if files is None and not options.allow_insecure and not is_loopback(url):
        raise ConfigError(
            f"{url!r} is another machine, and without certificates anybody in between could read and change "
            "what is sent; give certificates (tls), or accept it by allow_insecure=True",
            field="url",
            where="url",
        )
    token = options.token
    if files is None and token is not None:
        raise ConfigError(
            "needs TLS, or anybody could read it; give certificates (tls)",
            field="token",
            where="ClientOptions.token",
        )
    if files is None and options.server_name is not None:
        raise ConfigError(
            "needs TLS, by which it is checked; give certificates (tls)",
            field="server_name",
            where="ClientOptions.server_name",
        )
    if files is not None and token is None and (token := os.environ.get(TOKEN_VARIABLE)) and not is_token(token):
        raise ConfigError(
            f"{TOKEN_VARIABLE} of the environment is not what 'remote-gym token' printed; use that", field="token"
        )
    return token or ""


def opening_session(connection: Connection, request: pb.OpenRequest, options: ClientOptions) -> Operations[pb.Session]:
    """Have a session opened.

    Raises:
        RemoteGymError: As the server says.
        ProtocolMismatch: If the server answers in a way that this client does not know.
        TransportError: If it could not be reached, or the connection broke.
    """
    timeouts = {"connect_timeout": options.connect_timeout, "open_timeout": options.open_timeout}
    response: pb.OpenResponse = yield lambda: connection.open(request, **timeouts)
    if response.HasField("error"):
        raise decode_error(response.error)
    if not response.HasField("session"):
        raise ProtocolMismatch(
            f"{connection.address} answered the opening of a session with a result that this client does not know; "
            f"it speaks version {PROTOCOL_VERSION} of the protocol ({package_versions()}), and the server likely a "
            "later one; install the same release at both ends"
        )
    return response.session


def finding_session(connection: Connection, ticket: SessionTicket, options: ClientOptions) -> Operations[pb.Session]:
    """Find the session that a ticket is for. Raises as `opening_session` does."""
    timeout = options.connect_timeout
    found: pb.SpacesResponse = yield lambda: connection.reach(ticket.session, ticket.token, timeout)
    session = pb.Session(
        id=ticket.session,
        token=ticket.token,
        lease=found.lease,
        message_bytes=found.message_bytes,
        description=found.description,
    )
    if found.HasField("direct"):
        session.direct.CopyFrom(found.direct)
    return session
