"""The direct connection: who gets in, who does not, and what happens when it cannot be had."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from breaking import break_connection, fresh_address
from environments import ACTION
from remote_gym import ConnectError, RemoteEnvironment, create_remote_environment_server, tls
from remote_gym.certs import create_certificate
from remote_gym.client.connect import choose as attaching
from remote_gym.client.connect.direct_stream import DirectStream
from remote_gym.client.connect.grpc_stream import GrpcStream
from remote_gym.client.rules.operations import perform
from remote_gym.config import Limits, TlsFiles
from remote_gym.errors import ConnectionLost, NotPermitted, OutOfSequence
from remote_gym.testing import loopback_server
from remote_gym.transport.direct_socket import PREAMBLE
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.worker.pending import ADMISSION_TIMEOUT, ARRIVALS_AT_ONCE
from waiting import scaled, wait_until


@pytest.fixture
def environment(process_server) -> RemoteEnvironment:
    process_server.client_arguments["connection"] = "direct"
    environment = process_server.environment()
    environment.reset()
    return environment


@pytest.fixture
def address(environment) -> pb.DirectAddress:
    return fresh_address(environment._session)


def raw_connection(address: pb.DirectAddress) -> socket.socket:
    return socket.create_connection(("localhost", address.port), timeout=scaled(10.0))


def attach(server, address: pb.DirectAddress, token: str, files: TlsFiles | None = None) -> DirectStream:
    ca, certificate, key = server.client_credentials_paths
    files = files or TlsFiles(ca=ca, certificate=certificate, private_key=key)
    return DirectStream(
        ("localhost", address.port),
        address,
        token,
        context=tls.client_context(files),
        limits=Limits(),
        timeout=30.0,
        poll_us=0,
    )


def assert_untouched(environment: RemoteEnvironment) -> None:
    """The session goes on where it was, over the connection that it had."""
    interaction = environment._session._carrier.stream
    count = environment.step(ACTION["step"])[0]["count"]
    assert environment.step(ACTION["step"])[0]["count"] == count + 1
    assert environment._session._carrier.stream is interaction


@pytest.fixture
def patience(monkeypatch) -> None:
    """A machine that stands still for a second does not make a client choose gRPC."""
    monkeypatch.setattr(attaching, "DIRECT_TIMEOUT", 30.0)


@pytest.mark.usefixtures("patience")
def test_it_is_what_an_environment_uses_by_default(process_server):
    process_server.client_arguments.clear()
    environment = process_server.environment()
    environment.reset()
    assert isinstance(environment._session._carrier.stream, DirectStream)


@pytest.mark.usefixtures("patience")
def test_a_session_changes_over_in_mid_episode_without_a_lost_or_doubled_step(process_server):
    environment = process_server.environment(connection="auto")
    environment.reset()
    session = environment._session
    for count in range(1, 9):
        assert environment.step(ACTION["step"])[0]["count"] == count
        assert isinstance(session._carrier.stream, GrpcStream if count % 2 == 0 else DirectStream)
        session._carrier._attaching._direct_from *= -1
        session._carrier.detach()


@pytest.mark.parametrize("sent", [b"get / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(40), PREAMBLE + bytes(16)])
def test_who_names_no_session_is_closed_out(environment, address, sent):
    with raw_connection(address) as stranger:
        stranger.sendall(sent)
        with contextlib.suppress(ConnectionResetError):  # which closing with bytes unread sends
            assert stranger.recv(1) == b""
    assert_untouched(environment)


def test_silent_strangers_do_not_keep_clients_out(process_server, environment, address):
    most = process_server.server.options.max_pending
    pending = process_server.server._ports._listener._pending
    strangers = [raw_connection(address) for _ in range(most)]
    try:
        wait_until(lambda: len(pending) == most)
        # A client comes all the same, in the place of the first of them.
        environment._session._carrier.detach()
        environment.step(ACTION["step"])
        assert isinstance(environment._session._carrier.stream, DirectStream)
        assert strangers[0].recv(1) == b""
        wait_until(lambda: len(pending) == most - 1)
        # And they are dropped in time.
        wait_until(lambda: not pending)
    finally:
        for stranger in strangers:
            stranger.close()


def test_of_silent_strangers_those_are_dropped_who_are_most(obedient):
    with loopback_server(obedient, max_pending=3) as server:
        address = server.environment(connection="direct")._session._session.direct
        pending = server.server._ports._listener._pending
        with contextlib.ExitStack() as stack:

            def connect(source: str) -> socket.socket:
                sock = socket.create_connection(("127.0.0.1", address.port), 10.0, (source, 0))
                return stack.enter_context(sock)

            connect("127.0.0.2")
            crowd = [connect("127.0.0.3") for _ in range(4)]
            assert crowd[0].recv(1) == b""
            assert crowd[1].recv(1) == b""
            assert sorted(pending.values()) == ["ipv4:127.0.0.2", "ipv4:127.0.0.3", "ipv4:127.0.0.3"]


def test_a_routing_id_without_a_certificate_is_not_enough(process_server, environment, address):
    with raw_connection(address) as stranger:
        stranger.sendall(PREAMBLE + address.routing_id)
        context = tls.client_context(TlsFiles(ca=process_server.client_credentials_paths[0]))
        with pytest.raises(OSError, match=r"(?i)certificate required|reset|broken pipe|EOF"):
            shake_hands_and_read(context, stranger)
    assert_untouched(environment)


def shake_hands_and_read(context: ssl.SSLContext, sock: socket.socket) -> None:
    with context.wrap_socket(sock, server_hostname="localhost") as secure:
        secure.sendall(b"\0\0\0\0")
        if not secure.recv(1):
            raise ssl.SSLEOFError("EOF")


def test_a_routing_id_that_was_read_on_the_wire_is_of_no_use(process_server, environment, address):
    """The owner has come by it: whoever comes by it after that does not so much as reach the worker."""
    attach(process_server, address, environment._session._session.token).close()
    environment._session._carrier.detach()
    assert environment.step(ACTION["step"])[0]["count"] == 1
    with raw_connection(address) as stranger:
        stranger.sendall(PREAMBLE + address.routing_id)
        assert stranger.recv(1) == b""
    assert_untouched(environment)


def test_who_is_silent_in_the_handshake_holds_up_no_step_and_is_closed_out(environment, address):
    """Even by ids that nobody has used, as whoever can stop the owner's packets would have them."""
    with contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(raw_connection(address)) for _ in range(ARRIVALS_AT_ONCE)]
        begin = time.monotonic()
        for stranger in strangers:
            stranger.sendall(PREAMBLE + fresh_address(environment._session).routing_id)
        steps = 0
        while time.monotonic() < begin + ADMISSION_TIMEOUT / 2:
            assert_untouched(environment)
            steps += 2
        assert steps > 20
        for stranger in strangers:
            assert stranger.recv(1) == b""
    assert_untouched(environment)


def test_whose_routing_id_another_has_used_up_goes_on_over_grpc_and_directly_later(process_server, caplog):
    environment = process_server.environment(connection="auto")
    environment.reset()
    session = environment._session
    session._carrier.detach()
    perform(session._carrier._attaching.reaching(10.0))
    address = session._carrier._attaching._address
    with raw_connection(address) as thief, caplog.at_level(logging.WARNING, logger="remote_gym.client"):
        thief.sendall(PREAMBLE + address.routing_id)
        wait_until(lambda: address.routing_id not in process_server.server._service._live._routes._sessions)
        assert environment.step(ACTION["step"])[0]["count"] == 1
        assert isinstance(session._carrier.stream, GrpcStream)
        session._carrier._attaching._direct_from = time.monotonic()
        session.improve()
        assert environment.step(ACTION["step"])[0]["count"] == 2
        assert isinstance(session._carrier.stream, DirectStream)
    assert caplog.text.count("goes on over gRPC") == 1


def test_plaintext_is_not_taken_for_tls(environment, address):
    with raw_connection(address) as stranger:
        stranger.sendall(PREAMBLE + address.routing_id + bytes(100))
        with contextlib.suppress(ConnectionResetError):
            while stranger.recv(100):
                pass
    assert_untouched(environment)


def test_a_wrong_token_is_refused(process_server, environment, address):
    with pytest.raises(NotPermitted, match="token"):
        attach(process_server, address, environment._session._session.token.swapcase())
    assert_untouched(environment)


def test_a_stolen_token_is_of_no_use_to_another_identity(tmp_path, certificates):
    ours = TlsFiles(ca=certificates.ca, certificate=certificates.client, private_key=certificates.client_key)
    request = tmp_path / "csr.json"
    request.write_text('{"CN": "mallory", "hosts": ["mallory"], "key": {"algo": "ecdsa", "size": 256}}')
    made = create_certificate(request, tmp_path, ca=certificates.ca, ca_key=certificates.ca_key, name="mallory")
    theirs = TlsFiles(ca=certificates.ca, certificate=made.certificate, private_key=made.private_key)
    paths = (certificates.server, certificates.server_key, certificates.ca)
    with create_remote_environment_server({"entrypoint": "environments.py"}, "localhost", 0, paths) as server:
        environment = RemoteEnvironment(
            "localhost", server.port, client_credentials_paths=(ours.ca, ours.certificate, ours.private_key)
        )
        environment.reset()
        session = environment._session._session
        with pytest.raises(NotPermitted, match="'DNS:mallory'"):
            DirectStream(
                ("localhost", server.port),
                fresh_address(environment._session),
                session.token,
                context=tls.client_context(theirs),
                limits=Limits(),
                timeout=scaled(30.0),
                poll_us=0,
            )
        assert_untouched(environment)
        environment.close()


def test_a_client_that_attaches_again_cuts_off_the_older_connection(process_server, environment, address):
    older = environment._session._carrier.stream
    newer = attach(process_server, address, environment._session._session.token)
    deadline = time.monotonic() + scaled(30.0)
    told = pb.Response.FromString(
        ask(older, pb.Request(sequence=2, step=pb.StepRequest()).SerializeToString(), deadline)
    )
    assert (told.sequence, told.error.kind) == (0, pb.ErrorDetail.OUT_OF_SEQUENCE)
    with pytest.raises(ConnectionLost):
        older.receive(deadline)
    newer.close()


def ask(connection: DirectStream, data: bytes, deadline: float) -> bytes | memoryview:
    connection.send(data, deadline)
    return connection.receive(deadline)


def test_rubbish_from_an_attached_client_ends_its_connection_and_not_the_session(process_server, environment):
    direct = environment._session._carrier.stream
    direct._socket._socket.setblocking(True)
    direct._socket._socket.sendall(b"\xff\xff\xff\xff")
    assert environment.step(ACTION["step"])[0]["count"] == 1


def test_a_client_that_hangs_up_before_it_attaches(process_server, environment, address):
    with raw_connection(address) as stranger:
        stranger.sendall(PREAMBLE + address.routing_id)
    assert_untouched(environment)


def test_where_it_cannot_be_reached_grpc_is_used_within_a_second_and_the_log_says_so_once(obedient, caplog):
    with loopback_server(obedient) as server:
        environment = server.environment(connect_timeout=scaled(100.0))
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            known = environment._session._carrier._attaching._address
            known.port, known.same_place = reserved.getsockname()[1], False
            before = time.monotonic()
            with caplog.at_level(logging.WARNING, logger="remote_gym"):
                environment.reset()
                environment._session._carrier.detach()
                environment.step(ACTION["step"])
            assert time.monotonic() - before < scaled(20.0)
    assert caplog.text.count("goes on over gRPC") == 1


def test_a_server_that_offers_none(obedient):
    with loopback_server(obedient, direct=False) as server:
        server.environment().reset()
        with pytest.raises(ConnectError, match="offers no direct"):
            server.environment(connection="direct").reset()


def test_direct_connections_come_to_the_one_port_and_the_one_unix_socket(obedient, tmp_path):
    with loopback_server(obedient) as server:
        assert fresh_address(server.environment(connection="direct")._session).port == server.server.port
    with loopback_server(obedient, secure=False, url=f"unix:{tmp_path}/socket") as server:
        server.environment(connection="direct").reset()
        assert [path.name for path in tmp_path.iterdir()] == ["socket"]
    assert not list(tmp_path.iterdir())


def test_the_lease_runs_when_a_direct_client_vanishes(obedient):
    with loopback_server(obedient, lease=scaled(0.5)) as server:
        environment = server.environment(connection="direct")
        environment.reset()
        other = server.environment(connection="direct")
        other.reset()
        other._session._carrier.detach()
        wait_until(lambda: server.server.session_count == 1)  # its lease is over; that of who is attached does not run
        environment.step(ACTION["step"])
        environment._session._carrier.detach()
        wait_until(lambda: server.server.session_count == 0)


def test_a_connection_that_breaks_while_certificates_are_replaced_is_made_again(obedient, tmp_path, certificates):
    """Between the two files' replacement they do not belong together."""
    files = [tmp_path / name for name in ("ca.pem", "client.pem", "client-key.pem")]
    for file, source in zip(files, (certificates.ca, certificates.client, certificates.client_key), strict=True):
        file.write_bytes(source.read_bytes())
    server_files = certificates.server, certificates.server_key, certificates.ca
    with create_remote_environment_server(obedient, "localhost", 0, server_files) as server:
        environment = RemoteEnvironment("localhost", server.port, None, tuple(files), connection="direct")
        environment.reset()
        files[2].write_bytes(certificates.server_key.read_bytes())
        break_connection(environment._session)
        mending = threading.Timer(0.5, files[2].write_bytes, (certificates.client_key.read_bytes(),))
        mending.start()
        assert environment.step(ACTION["step"])[0]["count"] == 1
        mending.join()
        environment.close()


@pytest.mark.parametrize("taken_over_by", ["direct", "grpc"])
def test_a_client_whose_session_another_took_over_does_not_take_it_back(process_server, taken_over_by):
    """Its next request would bear the number of one that the other has asked, and get the other's answer."""
    environment = process_server.environment()
    environment.reset()
    environment.step(ACTION["step"])
    heir = process_server.environment(resume=environment.ticket, connection=taken_over_by)
    heir.step(ACTION["numpy_flags"])
    with pytest.raises(OutOfSequence, match="newer connection"):
        environment.step(ACTION["step"])
    heir.step(ACTION["step"])
    heir.close()


def test_a_direct_connection_that_a_client_gave_up_does_not_cut_off_the_one_that_it_has_instead(process_server):
    """What it sent before it gave up may arrive long after, and then is admitted."""
    environment = process_server.environment(connection="grpc", step_timeout=scaled(30.0))
    environment.reset()
    session = environment._session._session
    environment._session._carrier.detach()
    ca, certificate, key = process_server.client_credentials_paths
    files = TlsFiles(ca=ca, certificate=certificate, private_key=key)
    attachments = process_server.server._service._sessions._open[session.id]
    before = attachments.epoch
    address = fresh_address(environment._session)
    late = raw_connection(address)
    late.sendall(PREAMBLE + address.routing_id)
    with (
        tls.client_context(files).wrap_socket(late, server_hostname="localhost") as late,
        ThreadPoolExecutor(1) as thread,
    ):
        step = thread.submit(environment.step, ACTION["step"])
        wait_until(lambda: attachments.epoch > before)
        token = pb.Attach(token=session.token).SerializeToString()
        late.sendall(len(token).to_bytes(4, "big") + token)
        assert step.result(30.0)[0]["count"] == 1
        assert environment.step(ACTION["step"])[0]["count"] == 2
