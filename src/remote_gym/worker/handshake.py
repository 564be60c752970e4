"""Admits a client that comes to a worker directly: by TLS, the session's identity, and its token."""

from __future__ import annotations

import functools
import hmac
import math
import select
import socket
import ssl
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TypeVar

from remote_gym.auth.expiry import seconds_left
from remote_gym.auth.identity import IdentityRule
from remote_gym.auth.tokens import TokenFile, Tokens
from remote_gym.config import Limits, TlsFiles
from remote_gym.errors import DenialReason, NotPermitted, TransportError
from remote_gym.tls import Reloaded, file_paths, server_context
from remote_gym.tls.peer import PeerCertificate, read_peer_certificate
from remote_gym.transport.direct_socket import DirectSocket, shut_down
from remote_gym.transport.framing import HEADER_BYTES, frame, read_length
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.errors import encode_error
from remote_gym.wire.parse import parse

T = TypeVar("T")

ATTACH_BYTES = 2**16
"""Size of an `Attach`, whose sender may be anybody yet."""

Admitting = Generator[int, None, tuple[DirectSocket, float]]
"""A client on its way in. What it yields is the event of `select.poll` that it waits for; what it returns is the
connection, and until when that is to be answered, on `time.perf_counter`. Closing it closes the connection."""


class Handshake:
    """Decides who may use a session directly.

    Files are read when somebody comes, and again when they have changed.

    Args:
        launch: Whose session it is.
        limits: Bounds on messages.
    """

    def __init__(self, launch: worker_pb2.Launch, limits: Limits) -> None:
        self._launch = launch
        self._limits = limits
        self._attach_bytes = min(ATTACH_BYTES, limits.message_bytes)
        self._context: Reloaded[ssl.SSLContext] | None = None
        self._rule = IdentityRule()
        tls = launch.tls
        if launch.HasField("tls"):
            files = TlsFiles(
                ca=Path(tls.ca) if tls.ca else None,
                certificate=Path(tls.certificate),
                private_key=Path(tls.private_key),
            )
            self._context = Reloaded(file_paths(files), functools.partial(_make_context, files))
            self._rule = IdentityRule(
                certificates=bool(tls.ca),
                common_names=tls.common_names,
                tokens=TokenFile(Path(tls.token_file), _known_tokens(launch)).get if tls.token_file else None,
            )

    def admit(self, sock: socket.socket, poll_us: int) -> Admitting:
        """Take a connection through TLS and `Attach`, without ever waiting for the client.

        The connection is closed where this raises.

        Args:
            sock: A client's, whose preamble has been read; becomes non-blocking.
            poll_us: Told to the client.

        Raises:
            NotPermitted: If the client's identity is not the session's, or the token is wrong.
            TransportError: If the client goes away.
            ConfigError: If the server's files do not load, and never did here.
            OSError: If TLS fails.
            EncodingError: If something else than `Attach` came.
        """
        try:
            sock.setblocking(False)
            der = None
            if self._context is not None:
                sock = secure = self._context.get().wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                yield from _when_ready(secure.do_handshake)
                der = secure.getpeercert(binary_form=True)
            size = read_length((yield from _read(sock, HEADER_BYTES)), self._attach_bytes)
            data = yield from _read(sock, size)
            # The few bytes of an answer fit into the socket's empty buffer.
            try:
                certificate = read_peer_certificate(der) if der else None
                self._check(parse(pb.Attach, data), certificate)
            except NotPermitted as error:
                sock.sendall(frame(pb.Attached(error=encode_error(error)).SerializeToString()))
                raise
            sock.sendall(frame(pb.Attached(poll_us=poll_us).SerializeToString()))
            return DirectSocket(sock, self._limits), self._answered_until(certificate)
        except BaseException:
            shut_down(sock)
            sock.close()
            raise

    def _check(self, attach: pb.Attach, certificate: PeerCertificate | None) -> None:
        session = self._launch.session
        # In constant time, so that a token cannot be guessed byte by byte.
        if not hmac.compare_digest(attach.token.encode(), self._launch.token.encode()):
            raise NotPermitted(f"session {session}: this is not its token", reason=DenialReason.SESSION)
        names = () if certificate is None else certificate.names
        identity = self._rule.identify(names, attach.client_token)
        if identity != self._launch.identity:
            raise NotPermitted(
                f"session {session}: it was opened by another identity than {identity!r}", reason=DenialReason.SESSION
            )

    def _answered_until(self, certificate: PeerCertificate | None) -> float:
        """When a connection made now is too old, or the certificate that it was made with expires."""
        expires = math.inf if certificate is None else certificate.not_after
        return time.perf_counter() + seconds_left(self._launch.tls.certificate_lifetime or None, expires)


def _when_ready(operation: Callable[[], T]) -> Generator[int, None, T]:
    """Try a socket's operation until it need not wait."""
    while True:
        try:
            return operation()
        except (BlockingIOError, ssl.SSLWantReadError):
            yield select.POLLIN
        except ssl.SSLWantWriteError:
            yield select.POLLOUT


def _read(sock: socket.socket, size: int) -> Generator[int, None, bytes]:
    """Read that many bytes, and no more: what follows is not the admission's."""
    data = b""
    while len(data) < size:
        part = yield from _when_ready(functools.partial(sock.recv, size - len(data)))
        if not part:
            raise TransportError("it closed before it attached")
        data += part
    return data


def _known_tokens(launch: worker_pb2.Launch) -> Tokens:
    """The identity's tokens as the server knew them: something to go on with while their file is being written."""
    _, _, name = launch.identity.partition(":")
    return Tokens([(name, digest) for digest in launch.tls.token_digests])


def _make_context(files: TlsFiles) -> ssl.SSLContext:
    # The server has checked them, with more than a worker wants to load.
    context = server_context(files, check=False)
    context.num_tickets = 0  # nobody resumes these sessions, and reading a ticket costs the client's first step
    return context
