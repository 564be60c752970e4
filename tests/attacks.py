"""What somebody does who wants to use another's session: without our client, and without its manners."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import grpc

from raw_client import method
from remote_gym.certs import CertificateFiles
from remote_gym.config import Limits
from remote_gym.errors import ConnectionLost
from remote_gym.protocol.constants import SESSION_KEY, TOKEN_KEY
from remote_gym.transport.direct_socket import PREAMBLE, ROUTING_ID_BYTES
from remote_gym.transport.framing import MessageSocket
from remote_gym.v1 import remote_gym_pb2 as pb
from waiting import scaled

SECONDS = 20.0
ANSWER = {
    "Spaces": pb.SpacesResponse,
    "Interact": pb.Response,
    "Step": pb.Response,
    "Close": pb.Response,
    "Open": pb.OpenResponse,
}
"""What answers each method."""
WAYS = ("Spaces", "Interact", "Step", "Close")
"""To use a session, in the order in which they are tried."""


def attack_by_grpc(
    port: int,
    credentials: grpc.ChannelCredentials | None,
    session: str,
    token: str,
    request: bytes,
    names: Iterable[str] = WAYS,
) -> list[str]:
    """Try each way to use a session, or those of these names.

    Returns:
        What each led to: a status, a kind of error and its message, or what was got.
    """
    metadata = ((SESSION_KEY, session), (TOKEN_KEY, token))
    address = f"localhost:{port}"
    channel = grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials)
    with channel:
        return [_try(channel, name, metadata, request) for name in names]


def _try(channel: grpc.Channel, name: str, metadata: Any, request: bytes) -> str:
    try:
        if name == "Interact":
            call = channel.stream_stream(method(name))
            answer = next(call(iter([request]), metadata=metadata, timeout=scaled(SECONDS)))
        else:
            answer = channel.unary_unary(method(name))(request, metadata=metadata, timeout=scaled(SECONDS))
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    return tell(ANSWER[name].FromString(answer))


def tell(response: Any) -> str:
    """An error's kind and message; or what was answered instead."""
    if not response.HasField("error"):
        return f"GOT: {response}"
    return f"{pb.ErrorDetail.Kind.Name(response.error.kind)}: {response.error.message}"


def attack_directly(
    address: pb.DirectAddress, context: ssl.SSLContext | None, token: str, request: bytes, client_token: str = ""
) -> str:
    """Attach to a session, and use it.

    Returns:
        What it led to, as for `attack_by_grpc`; ``"BROKEN: ..."`` where there was no answer.
    """
    with socket.create_connection(("localhost", address.port), timeout=scaled(SECONDS)) as sock:
        try:
            sock.sendall(PREAMBLE + address.routing_id)
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname="localhost")
            connection = MessageSocket(sock, Limits())
            connection.send(pb.Attach(token=token, client_token=client_token).SerializeToString())
            answer = connection.receive()
            if answer is None:
                return "BROKEN: closed"
            attached = pb.Attached.FromString(answer)
            if not attached.HasField("error"):
                connection.send(request)
                return f"ATTACHED: {connection.receive()!r}"
            # Whoever goes on after that gets nothing.
            try:
                connection.send(request)
                assert not connection.receive(), "a refused connection was answered"
            except ConnectionLost:
                pass
            return tell(attached)
        except OSError as error:  # ConnectionLost and SSLError are
            return f"BROKEN: {error}"
        finally:
            sock.close()


# HTTP/2 by hand, since no gRPC library can be made to use an old TLS


def call_over(secure: ssl.SSLSocket, path: str, metadata: dict[str, str], message: bytes = b"") -> bytes:
    """Make one gRPC call on a connection of its own.

    Returns:
        The message that answered it.
    """
    fields = {":method": "POST", ":scheme": "https", ":path": path, ":authority": "localhost"}
    fields |= {"te": "trailers", "content-type": "application/grpc", **metadata}
    headers = b"".join(_literal(name, value) for name, value in fields.items())
    body = b"\0" + len(message).to_bytes(4, "big") + message
    secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b""))
    secure.sendall(_frame(1, 4, 1, headers) + _frame(0, 1, 1, body))
    answer = b""
    stream = secure.makefile("rb")
    while len(header := stream.read(9)) == 9:
        payload = stream.read(int.from_bytes(header[:3], "big"))
        kind, flags, number = header[3], header[4], int.from_bytes(header[5:], "big")
        if kind == 0 and number == 1:
            answer += payload
        if number == 1 and flags & 1:  # the stream's end
            return answer[5:]
    raise ConnectionLost("closed before the call's end")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _literal(name: str, value: str) -> bytes:
    """A header of HPACK's that refers to no table. Of up to 126 characters."""
    assert len(name) < 127
    assert len(value) < 127
    return b"\0" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()


# Replay


class Recorder:
    """Somebody in between, who keeps what a client sends, encrypted as it is."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(scaled(SECONDS))
        self.port = self._listening.getsockname()[1]
        self.recorded = b""
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._relay)]
        self._threads[0].start()

    def _relay(self) -> None:
        client, _ = self._listening.accept()
        server = socket.create_connection(("localhost", self._port), timeout=scaled(SECONDS))
        client.settimeout(scaled(SECONDS))
        self._ends = [client, server]
        back = threading.Thread(target=self._pass_on, args=(server, client, False))
        self._threads.append(back)
        back.start()
        self._pass_on(client, server, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, record: bool) -> None:
        try:
            while data := source.recv(2**16):
                if record:
                    self.recorded += data
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join(scaled(SECONDS))
        for end in (*self._ends, self._listening):
            end.close()


@contextlib.contextmanager
def recording(port: int) -> Iterator[Recorder]:
    """Record one connection to a port of this machine."""
    recorder = Recorder(port)
    try:
        yield recorder
    finally:
        recorder.close()


def replay(port: int, recorded: bytes) -> None:
    """Send the same bytes to a port again, and wait until the server has closed."""
    with socket.create_connection(("localhost", port), timeout=scaled(SECONDS)) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(recorded)
            while sock.recv(2**16):
                pass


class Impostor:
    """Listens with a certificate that it should not have, and keeps what clients tell it once they trust it."""

    def __init__(self, files: CertificateFiles) -> None:
        self.heard = b""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(files.certificate, files.private_key)
        self._context.set_alpn_protocols(["h2"])
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.1)
        self.port = self._listening.getsockname()[1]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                sock, _ = self._listening.accept()
            except TimeoutError:
                continue
            with sock:
                sock.settimeout(scaled(SECONDS))
                try:
                    if sock.recv(len(PREAMBLE), socket.MSG_PEEK) == PREAMBLE:
                        sock.recv(len(PREAMBLE) + ROUTING_ID_BYTES, socket.MSG_WAITALL)
                    with self._context.wrap_socket(sock, server_side=True) as secure:
                        self.heard += secure.recv(2**16)
                except OSError:
                    continue

    def __enter__(self) -> Impostor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(scaled(SECONDS))
        self._listening.close()
