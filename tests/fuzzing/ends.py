"""Fuzz targets: both ends as they stand, fed with whatever the other might send.

Real sockets, the real service, a real worker's thread, the real client; only who speaks to them is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import select
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium as gym
from gymnasium.error import ResetNeeded

from fuzzing.entrypoint import Meek
from remote_gym.address import network_in
from remote_gym.certs import create_all
from remote_gym.client.environment import RemoteEnvironment
from remote_gym.config import Limits, ServerOptions, is_server_name
from remote_gym.errors import ConnectError, ConnectionLost, EncodingError, RemoteGymError, SessionLost, TransportError
from remote_gym.hub.first_bytes import ConnectionKind, FirstBytes, recognise
from remote_gym.protocol.hub import DIAL_BACK, unpack
from remote_gym.server.access.clients import Client
from remote_gym.server.frontends.hub_dialler import is_peer
from remote_gym.server.frontends.listener import _read_first
from remote_gym.server.frontends.sniffing import Kind, sniff
from remote_gym.server.launch.handle import WorkerHandle
from remote_gym.server.launch.thread import ThreadLauncher
from remote_gym.server.service import Service
from remote_gym.transport.client_hello import MOST_BYTES
from remote_gym.transport.direct_socket import ROUTING_ID_BYTES, DirectSocket
from remote_gym.transport.framing import HEADER_BYTES, MessageSocket
from remote_gym.transport.preamble import read_preamble, write_preamble
from remote_gym.v1 import hub_pb2, worker_pb2
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.autoreset import AutoresetMode
from remote_gym.wire.parse import parse
from remote_gym.worker.environment.guests.creation import create_environment
from remote_gym.worker.environment.guests.environment import GuestEnvironment
from remote_gym.worker.environment.guests.messages import Guest
from remote_gym.worker.environment.guests.process import GuestLost
from remote_gym.worker.environment.guests.vectors import AskedAhead
from remote_gym.worker.environment.vector import batch
from remote_gym.worker.handshake import Admitting, Handshake
from remote_gym.worker.host import Host
from remote_gym.worker.main import create, make_host

SMALL = Limits(message_bytes=2**16, items=2**12, array_bytes=2**20, text_length=2**12)
FOLDER = Path(__file__).parent
FUZZER = Client("fuzzer")
TOKEN, ROUTING_ID = "the token", bytes(range(ROUTING_ID_BYTES))
LONGEST = 2**14
"""Bytes that a socket pair surely takes before somebody reads."""


def chunks(data: bytes) -> list[bytes]:
    """Parts of the input, each after two bytes of length."""
    found = []
    while data:
        size = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + size])
        data = data[2 + size :]
    return found


def joined(*parts: bytes) -> bytes:
    """The input that `chunks` takes apart."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


@contextlib.contextmanager
def sent(data: bytes) -> Iterator[socket.socket]:
    """A socket at which exactly those bytes arrive, and then the end."""
    theirs, ours = socket.socketpair()
    with theirs, ours:
        theirs.sendall(data[:LONGEST])
        theirs.shutdown(socket.SHUT_WR)
        yield ours


def framed(data: bytes) -> list[bytes]:
    """The whole messages in a stream, as the protocol's page tells."""
    messages = []
    while len(data) >= HEADER_BYTES:
        size = int.from_bytes(data[:HEADER_BYTES], "big")
        if size > SMALL.message_bytes or len(data) < HEADER_BYTES + size:
            break
        messages.append(data[HEADER_BYTES : HEADER_BYTES + size])
        data = data[HEADER_BYTES + size :]
    return messages


def fuzz_framing(data: bytes) -> None:
    """Read a stream by either kind of socket: both find the messages that are there, and no others."""
    expected = framed(data[:LONGEST])
    with sent(data) as sock:
        assert _receive_all(MessageSocket(sock, SMALL).receive) == expected
    with sent(data) as sock:
        direct = DirectSocket(sock, SMALL)
        assert _receive_all(lambda: direct.receive(time.monotonic() + 10.0)) == expected


def _receive_all(receive: Any) -> list[bytes]:
    messages = []
    with contextlib.suppress(EncodingError, ConnectionLost):
        while (message := receive()) is not None:
            messages.append(bytes(message))
    return messages


def fuzz_preamble(data: bytes) -> None:
    """Read what a connection begins with: its bytes alone say what it is; of a direct one none too many are read."""
    with sent(data) as sock:
        sock.setblocking(False)
        sniffer = loop().run_until_complete(asyncio.wait_for(_read_first(sock), 10.0))
        read, kind = bytes(sniffer.data), sniffer.kind
        assert len(read) <= MOST_BYTES
        assert read == data[: len(read)]
        assert kind is sniff(read) is next(filter(None, (sniff(read[:size]) for size in range(len(read) + 1))), None)
        if (chosen := protocol_by_openssl(read)) is not None:
            assert kind is (Kind.GRPC if chosen == "h2" else Kind.HTTPS)
        try:
            preamble = read_preamble(data)
        except ValueError:
            preamble = None
        assert sniffer.preamble == preamble
        assert (kind is Kind.DIRECT) == (preamble is not None)
        if preamble is not None:
            size = len(write_preamble(*preamble))
            assert read == write_preamble(*preamble) == data[:size]
            sock.setblocking(True)
            assert sock.recv(LONGEST) == data[size:][: LONGEST - size]


def fuzz_hub(data: bytes) -> None:
    """Recognise who comes to a hub: alike from parts and from the whole, and without a byte too many."""
    first, found = FirstBytes(), None
    while found is None and (part := data[len(first.data) :][: min(7, first.readable)]):
        found = first.feed(part)
    assert bytes(first.data) == data[: len(first.data)]
    assert len(first.data) <= MOST_BYTES
    assert found == recognise(bytes(first.data))
    if found is not None and found.kind is ConnectionKind.CLIENT:
        assert is_server_name(found.name)
    elif found is not None and found.kind is ConnectionKind.DIALLING_BACK:
        assert data.startswith(DIAL_BACK + found.id)
    for end in (hub_pb2.ToHub, hub_pb2.ToServer):
        with contextlib.suppress(EncodingError):
            message = unpack(end, data)
            if isinstance(message, hub_pb2.ToServer) and is_peer(message.dial_back.peer):
                assert network_in(message.dial_back.peer)


def protocol_by_openssl(data: bytes) -> str | None:
    """What OpenSSL would speak, if it had to choose, with a client that begins so, empty if it offers nothing of use.

    None for what OpenSSL does not take for the whole of a ClientHello, which we may take for one.
    """
    for protocol in ("http/1.1", "h2"):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(data)
        server = tls_of(protocol).wrap_bio(incoming, outgoing, server_side=True)
        with contextlib.suppress(ssl.SSLError):  # it waits for more, or has found what it does not take
            server.do_handshake()
        if outgoing.read(1) != b"\x16":  # it has not answered by its own hello
            return None
        if server.selected_alpn_protocol() is not None:
            return protocol
    return ""


@functools.cache
def tls_of(protocol: str) -> ssl.SSLContext:
    """A server's TLS that speaks that protocol."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols([protocol])
    with tempfile.TemporaryDirectory() as folder:
        create_all(Path(folder), ["localhost"])
        context.load_cert_chain(Path(folder) / "server.pem", Path(folder) / "server-key.pem")
    return context


def fuzz_admission(data: bytes) -> None:
    """Attach directly: whoever does not show the token is refused, by a documented error."""
    launch = worker_pb2.Launch(session="fuzzed", token=TOKEN)
    messages = framed(data[:LONGEST])
    token = None
    with contextlib.suppress(EncodingError):
        token = parse(pb.Attach, messages[0]).token if messages else None
    with sent(data) as sock:
        try:
            direct = _admitted(Handshake(launch, SMALL).admit(sock.dup(), 0), sock)
        except (OSError, RemoteGymError):
            assert token != TOKEN
            return
        direct.close()
        assert token == TOKEN


def _admitted(admitting: Admitting, sock: socket.socket) -> DirectSocket:
    """Wait for what an admission waits for, until it is over."""
    poll = select.poll()
    while True:
        try:
            poll.register(sock, next(admitting))
        except StopIteration as end:
            direct: DirectSocket = end.value[0]
            return direct
        assert poll.poll(10_000), "everything has been sent, and it waits for more"


def fuzz_link(data: bytes) -> None:
    """Hear a worker, whose environment may say anything: its first message answers, or nothing does."""
    messages = framed(data[:LONGEST])
    answer = loop().run_until_complete(asyncio.wait_for(_ask_worker(data[:LONGEST]), 10.0))
    if answer is not None or (messages and len(data) == 4 + len(messages[0])):  # who says more may be cut off
        assert answer == messages[0]


async def _ask_worker(data: bytes) -> bytes | None:
    (requests, theirs), (control, their_handover) = socket.socketpair(), socket.socketpair()
    worker = WorkerHandle("fuzzed", lambda: None, SMALL.message_bytes)
    with requests, theirs, control, their_handover:
        await worker.connect(requests.dup(), control.dup())
        worker.set_exited("it was fuzzed")  # so that nobody waits for word of that
        asked = asyncio.ensure_future(worker.ask(b"anything"))
        await asyncio.sleep(0)
        for sock in (theirs, their_handover):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
        try:
            return await asked
        except SessionLost:
            return None
        finally:
            await worker.close(0.0)
            await worker.gone


_hosts: list[Host] = []


def fuzz_host(data: bytes) -> None:
    """Answer requests: always a response, and the same one to a number that was answered."""
    if not _hosts:
        _hosts.append(Host(Meek("rgb_array"), exposed=("level", "add"), send_frames=True, limits=SMALL))
    host = _hosts[0]
    for part in chunks(data):
        with contextlib.suppress(EncodingError):
            request = parse(pb.Request, part)
            if request.sequence == 1:  # else hardly any number would be the next
                request.sequence = host._sequence + 1
                part = request.SerializeToString()
        before = host._sequence
        answer = host.answer(part)
        response = parse(pb.Response, answer)
        assert len(answer) <= SMALL.message_bytes
        if host._sequence != before:
            assert host._sequence == before + 1 == response.sequence
            assert host.answer(part) == answer
        else:
            assert response.HasField("error") or response.sequence == before
    if host.closed:
        _hosts.clear()


def fuzz_launch(data: bytes) -> None:
    """Create an environment as a request to open tells, all that a client may say in it included."""
    from remote_gym.server.launch_request import launch_message

    options = ServerOptions(max_num_envs=3, message_limits=SMALL)
    with contextlib.suppress(RemoteGymError):
        opened = parse(worker_pb2.Opening, data)
        launch = launch_message(opened, {"entrypoint": "entrypoint.py"}, options)
        launch.root = str(FOLDER)
        launch = parse(worker_pb2.Launch, launch.SerializeToString())
        limits = Limits(**launch.limits)
        host = make_host(create(launch, limits, own_process=False), launch, limits)
        host.describe()
        host.close()


class _Served:
    """A service with one session, which is opened again when a request has closed it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        options = ServerOptions(use_thread=True, max_num_envs=2, message_limits=SMALL, max_sessions=4)
        self.service = self.loop.run_until_complete(self._make(options))
        self.session: pb.Session | None = None

    async def _make(self, options: ServerOptions) -> Service:
        os.chdir(FOLDER)
        return Service(ThreadLauncher(SMALL.message_bytes), {"entrypoint": "entrypoint.py"}, options)

    def open(self) -> pb.Session:
        if self.session is None:
            request = worker_pb2.Opening(protocol_version=1)
            self.session = self.loop.run_until_complete(self.service.open(request, FUZZER)).session
        return self.session


@functools.cache
def served() -> _Served:
    return _Served()


def fuzz_service(data: bytes) -> None:
    """Open, ask, look and close, by whatever id, token and message."""
    end = served()
    run = end.loop.run_until_complete
    operation, *parts = chunks(data) or [b""]
    session = end.open()
    key = tuple(part.decode("utf-8", "surrogateescape") for part in [*parts[:2], b"", b""][:2])
    key = (session.id if key[0] == "=" else key[0], session.token if key[1] == "=" else key[1])
    is_ours = key == (session.id, session.token)
    rest = parts[2] if len(parts) > 2 else b""
    if operation == b"open":
        with contextlib.suppress(EncodingError):
            opened = run(end.service.open(parse(worker_pb2.Opening, rest), FUZZER))
            if opened.HasField("session"):
                run(end.service.close_session(opened.session.id, opened.session.token, FUZZER))
    elif operation == b"spaces":
        assert run(end.service.spaces(*key, FUZZER)).HasField("description") == is_ours
    elif operation == b"close" and not is_ours:
        parse(pb.Response, run(end.service.close_session(*key, FUZZER)))
    else:
        response = parse(pb.Response, run(end.service.ask(*key, FUZZER, rest)))
        assert is_ours or response.HasField("error")
        if response.HasField("close"):
            end.session = None


class _Connection:
    """Stands where `GrpcConnection` does, and brings what was fuzzed: an answer to `Open`, then responses."""

    address = "fuzzed:1"

    def __init__(self, answers: list[bytes]) -> None:
        self._answers = answers

    def open(self, _request: pb.OpenRequest, **_timeouts: float) -> pb.OpenResponse:
        return parse(pb.OpenResponse, self.receive(0.0))

    def attach(self, _session: str, _token: str, _message_bytes: int) -> _Connection:
        return self

    def attach_directly(self, *_: object) -> _Connection:
        raise ConnectError("there is none")

    def reach(self, *_: object) -> None:
        raise EncodingError("no more is to come")

    def send(self, data: bytes, deadline: float) -> None: ...

    def receive(self, _deadline: float) -> bytes:
        if not self._answers:
            raise TransportError("no more is to come")
        return self._answers.pop(0)

    def close_session(self, *_: object) -> None: ...

    def renew(self) -> None: ...

    def close(self) -> None: ...


def fuzz_client(data: bytes) -> None:
    """Open, reset, step, render and call at a server that says anything."""
    connection = _Connection(chunks(data))
    documented = contextlib.suppress(RemoteGymError, ResetNeeded)
    with mock.patch("remote_gym.client.environment.connect", return_value=connection), documented:
        environment = RemoteEnvironment(port=1, render_mode="rgb_array", message_limits=SMALL)
        with contextlib.closing(environment):
            environment.reset(seed=1)
            action = _sample(environment)
            environment.step(action)
            environment.render()
            environment.call("level")
            environment.step_many([action, action])


def _sample(environment: gym.Env[Any, Any]) -> Any:
    try:
        return environment.action_space.sample()
    except Exception as error:
        raise EncodingError(f"nothing can be sampled: {error}") from error


@functools.cache
def loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


class _Said:
    """In the place of a guest's process: what it says is the input."""

    def __init__(self, messages: list[bytes]) -> None:
        self._messages = iter(messages)
        self.is_lost = False
        self.first = self.ask(b"")

    def ask(self, _request: bytes) -> memoryview:
        message = b"" if self.is_lost else next(self._messages, b"")
        if not message:
            raise self.lose("has said all that it had to say")
        return memoryview(message)

    def lose(self, why: str) -> GuestLost:
        self.is_lost = True
        return GuestLost(why)

    def close(self, _timeout: float = 0.0) -> None:
        self.is_lost = True


def fuzz_guest(data: bytes) -> None:
    """Host an environment in a guest that says anything: one is made, reset, stepped, rendered, and asked for more."""
    process: Any = None
    with contextlib.suppress(RemoteGymError, ResetNeeded):
        process = _Said(chunks(data))
        environment = create_environment(Guest(process, SMALL), 0, {})
        for ask in (
            environment.reset,
            lambda: environment.step(environment.action_space.sample()),
            lambda: environment.step(None),
            environment.render,
            lambda: environment.get("level"),
            lambda: environment.call("add", (1,), {}),
            lambda: environment.assign("level", 3),
        ):
            with contextlib.suppress(RemoteGymError, ResetNeeded):
                ask()
        host = Host(environment, exposed=environment.exposed, limits=SMALL)
        host.describe()
        for sequence, operation in enumerate(({"reset": {}}, {"step": {"packed": bytes(8)}}, {"render": {}}), 1):
            answer = host.answer(pb.Request(sequence=sequence, **operation).SerializeToString())
            parse(pb.Response, answer)
        if isinstance(environment, GuestEnvironment):
            step_several(process)


def step_several(process: Any) -> None:
    """Step two environments of such a guest together, a few times."""
    guest = Guest(process, SMALL)
    with contextlib.suppress(RemoteGymError, ResetNeeded):
        environments: list[Any] = [create_environment(guest, index, {}) for index in range(2)]
        together: Any = batch(environments.__getitem__, 2, pb.SAME_STEP if AutoresetMode else pb.AUTORESET_UNSPECIFIED)
        together.ahead = AskedAhead(guest, environments)
        host = Host(together, limits=SMALL)
        with contextlib.closing(together):  # or it would be when it is garbage, with an error that nobody sees
            for sequence, operation in enumerate(({"reset": {}}, *[{"step": {"packed": bytes(16)}}] * 3), 1):
                answer = host.answer(pb.Request(sequence=sequence, **operation).SerializeToString())
                parse(pb.Response, answer)
