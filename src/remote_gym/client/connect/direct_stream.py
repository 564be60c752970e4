"""A direct connection to a session's worker: the fast path."""

from __future__ import annotations

import socket
import ssl
import time

from remote_gym.address import Place, is_loopback, is_unix, unix_path
from remote_gym.config import Limits
from remote_gym.errors import ConnectError, ConnectionLost, ConnectReason, DeadlineExceeded, RemoteGymError
from remote_gym.protocol.stream import Stream, within
from remote_gym.transport.busy_poll import Wakefulness
from remote_gym.transport.direct_socket import DirectSocket
from remote_gym.transport.framing import MessageSocket
from remote_gym.transport.preamble import write_preamble
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.errors import decode_error
from remote_gym.wire.parse import parse


class DirectStream(Stream):
    """Attached to a session: send, and receive the answer, again and again.

    Args:
        place: The host that the server is known by, or ``unix:path``, and the port by which it was reached.
        address: Where the worker can be reached there.
        token: The session's.
        context: This end's TLS; None for plaintext.
        client_token: What the server knows the client by, where that is no certificate.
        server_name: The server's, where that is not the host of `place`.
        limits: Bounds on messages.
        timeout: Seconds that connecting may take.
        poll_us: Microseconds to look for an answer without sleeping; longer where answers take somewhat longer.

    Raises:
        ConnectError: If it cannot be reached, or one end does not accept the other.
        NotPermitted: If the worker does not accept token or identity.
    """

    is_direct = True

    def __init__(
        self,
        place: Place,
        address: pb.DirectAddress,
        token: str,
        *,
        context: ssl.SSLContext | None,
        limits: Limits,
        timeout: float,
        poll_us: float,
        client_token: str = "",
        server_name: str | None = None,
    ) -> None:
        url = place[0]
        target, self._where = target_of(place, address)
        if address.tls != (context is not None):
            text = f"the direct connection to {self._where} has {'' if address.tls else 'no '}TLS"
            raise ConnectError(text, reason=ConnectReason.NOT_DIRECT)
        deadline = time.monotonic() + timeout
        try:
            sock = _connect(target, deadline)
        except OSError as error:
            text = f"no direct connection to {self._where}: {error}"
            raise ConnectError(text, reason=ConnectReason.NOT_DIRECT) from error
        try:
            sock.settimeout(_remaining(deadline))
            sock.sendall(write_preamble(address.routing_id, server_name or ""))
            if context is not None:
                name = server_name or ("localhost" if is_unix(url) else url.strip("[]"))
                sock = context.wrap_socket(sock, server_hostname=name)
                sock.settimeout(_remaining(deadline))
            hint = _attach(MessageSocket(sock, limits), token, client_token, deadline)
        except (OSError, ssl.SSLError) as error:
            sock.close()
            text = f"the direct connection to {self._where} was refused: {error}"
            raise ConnectError(text, reason=ConnectReason.NOT_DIRECT) from error
        except BaseException:
            sock.close()
            raise
        # On one machine both ends share the cores, and the worker knows how many others there are.
        is_here = server_name is None and is_loopback(url)
        self._wakefulness = Wakefulness((min(poll_us, hint) if is_here else poll_us) / 1e6)
        self._socket = DirectSocket(sock, limits)
        self._in_use = self._closed = False
        self._sent = time.monotonic()

    def send(self, data: bytes, deadline: float) -> None:
        """Send one message. After an error the connection is of no more use.

        Args:
            data: The message.
            deadline: On `time.monotonic`.

        Raises:
            DeadlineExceeded: If the worker does not read it in time.
            ConnectionLost: If the connection ended.
        """
        self._sent = time.monotonic()
        self._in_use = True
        try:
            if self._closed:
                raise self._is_closed()
            self._socket.send(data, deadline)
        except DeadlineExceeded as error:
            raise self._too_late(deadline) from error
        finally:
            self._in_use = False
            if self._closed:
                self._socket.close()

    def receive(self, deadline: float) -> bytes | memoryview:
        """Wait for the message that answers the one sent. After an error the connection is of no more use.

        Args:
            deadline: On `time.monotonic`.

        Raises:
            DeadlineExceeded: If it did not come in time.
            ConnectionLost: If the connection ended.
        """
        self._in_use = True
        try:
            if self._closed:
                raise self._is_closed()
            wakefulness = self._wakefulness
            answer = self._socket.receive(deadline, wakefulness)
            if 0 < wakefulness.base < (waited := time.monotonic() - self._sent):
                wakefulness.learn(waited)
        except DeadlineExceeded as error:
            raise self._too_late(deadline) from error
        finally:
            self._in_use = False
            if self._closed:
                self._socket.close()
        if answer is None:
            raise ConnectionLost(f"the worker at {self._where} closed the direct connection")
        return answer

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def shut_down(self) -> None:
        """End the connection, and wake the thread that waits for it."""
        self._socket.shut_down()

    def close(self) -> None:
        """Detach. The session lives on for its lease.

        While another thread uses it, or this one was interrupted by a signal as it did, that ends by `ConnectionLost`.
        It also releases the descriptor, whose number could be another file's by then if this did.
        """
        self._closed = True
        self.shut_down()
        if not self._in_use:
            self._socket.close()

    def _is_closed(self) -> ConnectionLost:
        return ConnectionLost(f"the direct connection to {self._where} is closed")

    def _too_late(self, deadline: float) -> DeadlineExceeded:
        return DeadlineExceeded(f"no answer from {self._where}{within(deadline - self._sent)}")


def target_of(place: Place, address: pb.DirectAddress) -> tuple[str | Place, str]:
    """Where to connect to, a Unix socket's path or a host and a port; and how to call that in an error."""
    url, port = place
    host = url.strip("[]")
    if address.same_place:
        target: str | Place = unix_path(url) if is_unix(url) else (host, port)
    else:
        target = address.path or (host, address.port)
    return target, target if isinstance(target, str) else f"{url} port {target[1]}"


def _connect(target: str | Place, deadline: float) -> socket.socket:
    if not isinstance(target, str):
        return socket.create_connection(target, timeout=_remaining(deadline))
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(_remaining(deadline))
    try:
        sock.connect(target)
    except OSError:
        sock.close()
        raise
    return sock


def _attach(connection: MessageSocket, token: str, client_token: str, deadline: float) -> int:
    connection.send(pb.Attach(token=token, client_token=client_token).SerializeToString())
    answer = connection.receive(deadline)
    if answer is None:
        raise ConnectionLost("the worker closed the connection")
    attached = parse(pb.Attached, answer)
    if attached.HasField("error"):
        error = decode_error(attached.error)
        assert isinstance(error, RemoteGymError)
        raise error
    return attached.poll_us


def _remaining(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
