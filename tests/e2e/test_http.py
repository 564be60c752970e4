"""Who may ask by HTTP, and from where; what ends a client that is slow, silent or too large."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import ssl
import subprocess
import sys

import pytest

pytest.importorskip("uvicorn", reason="the extra http is not installed")
if sys.platform != "linux":
    pytest.skip("elsewhere HTTP has a port of its own only", allow_module_level=True)

from websockets.exceptions import ConnectionClosed, InvalidStatus

from environments import ACTION
from http_client import Asking, asking, context_of, socket_of
from remote_gym import ConfigError, RemoteEnvironment, create_remote_environment_server
from remote_gym.auth.tokens import add_token
from remote_gym.server.frontends.http import connection as connection_module
from remote_gym.server.frontends.http import reading
from remote_gym.server.frontends.http import server as server_module
from remote_gym.testing import loopback_server
from tenants import tenant
from waiting import scaled, wait_until

HEALTH = "/openenv/health"
RESET = "/openenv/reset"


def raw(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=scaled(20.0)) as sock:
        sock.sendall(data)
        return read_to_end(sock)


def read_to_end(sock: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(2**16):
            found += part
    return found


@pytest.fixture
def plain(servers, obedient):
    with servers.lend(obedient, secure=False, use_thread=True, http=True, http_port=0) as lent:
        yield lent


@pytest.fixture
def secure(servers, obedient):
    with servers.lend(obedient, use_thread=True, http=True) as lent:
        yield lent


def test_nothing_of_http_is_loaded_without_it():
    code = (
        "import sys\nfrom remote_gym import create_remote_environment_server\n"
        "with create_remote_environment_server('CartPole-v1', port=0, check=False): pass\n"
        "assert not {'starlette', 'uvicorn', 'websockets', 'anyio'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=scaled(60.0))


def test_without_the_extra_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    for name in [name for name in sys.modules if name.startswith("remote_gym.server.frontends.http")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"pip install 'remote-gym\[http\]'"):
        create_remote_environment_server("CartPole-v1", port=0, check=False, http=True)


def test_grpc_direct_connections_and_http_share_a_port(secure):
    for connection in ("direct", "grpc"):
        environment = secure.environment(connection=connection)
        environment.reset()
        assert environment.step(ACTION["step"])[0]["count"] == 1
        environment.close()
    with asking(secure) as client:
        assert client.ask("GET", HEALTH)[:2] == (200, {"status": "healthy"})


def test_http_may_have_a_port_of_its_own(plain):
    with contextlib.closing(Asking(plain.server.http_port)) as client:
        assert client.ask("GET", HEALTH)[0] == 200
    with socket_of(plain, port=plain.server.http_port) as ws:
        assert ws.ask("reset")["type"] == "observation"
        ws.send("close")


def test_a_port_of_its_own_alone_leaves_the_other_as_it_was(obedient):
    with loopback_server(obedient, secure=False, use_thread=True, http_port=0) as server:
        assert raw(server.server.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 505")
        with contextlib.closing(Asking(server.server.http_port)) as client:
            assert client.ask("GET", HEALTH)[0] == 200


def test_plaintext_is_refused_where_there_is_tls(secure):
    assert raw(secure.server.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 505")


def test_clients_without_a_certificate_are_shut_out_where_there_is_an_authority(secure):
    ca = secure.client_credentials_paths[0]
    with (
        contextlib.closing(Asking(secure.server.port, context_of((ca, None, None)))) as client,
        pytest.raises((ssl.SSLError, ConnectionError)),
    ):
        client.ask("GET", HEALTH)


def test_tls_is_of_version_1_3_alone(secure):
    context = context_of(secure.client_credentials_paths)
    assert context is not None
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with contextlib.closing(Asking(secure.server.port, context)) as client, pytest.raises(ssl.SSLError):
        client.ask("GET", HEALTH)


def test_a_session_is_the_certificates_own(obedient):
    with loopback_server(obedient, use_thread=True, http=True, allow=("DNS:alice",)) as server:
        alice = tenant(server, "alice")
        with contextlib.closing(Asking(server.server.port, context_of(alice))) as client:
            assert client.ask("POST", RESET, {})[0] == 200
            assert [status.identity for status in server.server.sessions()] == ["DNS:alice"]
        with asking(server) as client:
            status, body, _ = client.ask("POST", RESET, {})
            assert (status, list(body)) == (403, ["detail"])


def test_another_identity_does_not_find_a_session_by_its_cookie(obedient):
    with loopback_server(obedient, use_thread=True, http=True) as server:
        with contextlib.closing(Asking(server.server.port, context_of(tenant(server, "alice")))) as client:
            cookie = client.ask("POST", RESET, {})[2].headers["set-cookie"].partition(";")[0]
            assert client.ask("POST", "/openenv/step", {"action": 0}, {"Cookie": cookie})[0] == 200
        with contextlib.closing(Asking(server.server.port, context_of(tenant(server, "bob")))) as client:
            assert client.ask("POST", "/openenv/step", {"action": 0}, {"Cookie": cookie})[0] == 400
            assert client.ask("GET", "/openenv/state", headers={"Cookie": cookie})[1]["step_count"] == 0


# ------------------------------------------------------------------------------------------------------- tokens


@pytest.fixture
def token_server(obedient, certificates, tmp_path):
    token = add_token(tmp_path / "tokens", "agent")
    paths = (certificates.server, certificates.server_key, None)

    @contextlib.contextmanager
    def start(**options):
        arguments = {"use_thread": True, "check": False, "http": True, "token_file": tmp_path / "tokens", **options}
        with create_remote_environment_server(obedient, "localhost", 0, paths, **arguments) as server:
            context = context_of((certificates.ca, None, None))
            yield server, token, lambda **headers: contextlib.closing(Asking(server.port, context, headers))

    return start


def test_tokens_come_by_either_header(token_server):
    with token_server() as (server, token, client_of):
        for headers in ({"Authorization": f"Bearer {token}"}, {"X-API-Key": token}):
            with client_of(**headers) as client:
                assert client.ask("POST", RESET, {})[0] == 200
        assert {status.identity for status in server.sessions()} == {"token:agent"}


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": ""}, {"Authorization": "Basic x"}]
)
def test_without_a_good_token_nothing_is_answered(token_server, headers):
    with token_server() as (server, _, client_of), client_of(**headers) as client:
        status, body, answer = client.ask("POST", RESET, {})
        assert (status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert "token" in body["detail"]
        assert client.ask("GET", HEALTH)[0] == 200  # which says nothing, and is asked before there is a token
        assert server.session_count == 0


def test_two_tokens_are_one_too_many(token_server):
    with token_server() as (_, token, client_of), client_of(**{"X-API-Key": token}) as client:
        assert client.ask("POST", RESET, {}, {"Authorization": "Bearer other"})[0] == 401
        assert client.ask("POST", RESET, {}, {"Authorization": f"Bearer {token}"})[0] == 200


@pytest.mark.parametrize("path", ["/openenv/state?token={}", "/token/{}/openenv/state"])
def test_tokens_in_urls_count_only_if_that_is_switched_on_and_are_in_no_log(token_server, path, caplog):
    with caplog.at_level(logging.DEBUG):
        with token_server() as (_, token, client_of), client_of() as client:
            status, body, _ = client.ask("GET", path.format(token))
            assert status == 401
            assert "http_url_tokens" in body["detail"]
        with token_server(http_url_tokens=True) as (server, _, client_of):
            with client_of() as client:
                assert client.ask("GET", path.format(token))[0] == 200
            sockets = path.format(token).replace("state", "ws")
            with socket_of(server, sockets, ssl=client.connection._context, port=server.port):
                pass
    of_the_server = [record.getMessage() for record in caplog.records if record.name != "websockets.client"]
    assert not [line for line in of_the_server if token in line]


def test_a_token_that_is_taken_away_ends_its_websocket(token_server, tmp_path):
    with token_server() as (server, token, client_of), client_of() as client:
        headers = {"Authorization": f"Bearer {token}"}
        with socket_of(server, headers=headers, ssl=client.connection._context, port=server.port) as ws:
            assert ws.ask("reset")["type"] == "observation"
            (tmp_path / "tokens").write_text("")
            with pytest.raises(ConnectionClosed) as closed:
                ws.receive()
            assert closed.value.rcvd.code == 1008


def test_a_connection_that_is_too_old_has_to_show_its_certificate_again(obedient):
    with loopback_server(obedient, use_thread=True, http=True, certificate_lifetime=0.6) as server:
        with asking(server) as client, socket_of(server) as ws:
            assert ws.ask("reset")["type"] == "observation"
            wait_until(lambda: client.ask("GET", "/openenv/state")[2].headers["connection"] == "close")
            ws.send("step", {"action": 0})
            with pytest.raises(ConnectionClosed):
                ws.receive()


# ------------------------------------------------------------------------------------------------------ browsers


def test_a_page_whose_name_leads_here_is_refused(plain):
    with asking(plain) as client:
        for host in ("evil.example", f"evil.example:{plain.server.port}"):
            status, body, _ = client.ask("GET", HEALTH, headers={"Host": host})
            assert status == 421
            assert "evil.example" in body["detail"]
        assert client.ask("GET", HEALTH, headers={"Host": "127.0.0.1"})[0] == 200
    assert raw(plain.server.port, b"GET /openenv/health HTTP/1.0\r\nConnection: close\r\n\r\n").startswith(
        b"HTTP/1.1 421"
    )
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    head = b"GET /openenv/ws HTTP/1.1\r\nHost: evil.example\r\n" + upgrade + b"dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert raw(plain.server.port, head).startswith(b"HTTP/1.1 421")


def test_pages_of_other_sites_may_not_ask(plain):
    with asking(plain) as client:
        for origin in ("https://evil.example", "null", "http://localhost:1"):
            assert client.ask("POST", RESET, {}, {"Origin": origin})[0] == 403
            assert client.ask("OPTIONS", RESET, None, {"Origin": origin})[0] == 403
    with pytest.raises(InvalidStatus, match="403"), socket_of(plain, headers={"Origin": "https://evil.example"}):
        pass
    assert plain.server.session_count == 0


def test_pages_of_origins_that_are_named_may(obedient):
    origin = "https://lab.example"
    with loopback_server(obedient, secure=False, use_thread=True, http=True, http_origins=(origin,)) as server:
        with asking(server, Origin=origin) as client:
            status, _, answer = client.ask("OPTIONS", RESET)
            assert (status, answer.headers["access-control-allow-origin"]) == (204, origin)
            status, _, answer = client.ask("POST", RESET, {})
            assert (status, answer.headers["access-control-allow-origin"]) == (200, origin)
        with socket_of(server, headers={"Origin": origin}) as ws:
            assert ws.ask("reset")["type"] == "observation"


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_bodies_need_their_content_type(plain, kind):
    with asking(plain) as client:
        assert client.ask("POST", RESET, b"{}", {"Content-Type": kind})[0] == 415
    assert plain.server.session_count == 0


# -------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff", b"[" * 100_000, b'"a"', b"1e999999"])
def test_what_is_no_json_object_is_refused(plain, body):
    with asking(plain) as client:
        status, answer, _ = client.ask("POST", RESET, body, {"Content-Type": "application/json"})
        assert status == 400
        assert "JSON" in answer["detail"]


def test_large_bodies_are_refused_before_they_are_read(plain, monkeypatch):
    with asking(plain) as client:
        client.connection.putrequest("POST", RESET)
        client.connection.putheader("Content-Type", "application/json")
        client.connection.putheader("Content-Length", str(2**40))
        client.connection.endheaders()
        assert client.connection.getresponse().status == 413
    monkeypatch.setattr(reading, "BODY_BYTES", 1000)
    with asking(plain) as client:  # in chunks, so that nothing says how much will come
        headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        client.connection.request("POST", RESET, iter([b" " * 900, b" " * 900]), headers, encode_chunked=True)
        assert client.connection.getresponse().status == 413


def test_large_messages_end_their_websocket(plain):
    with socket_of(plain) as ws:
        ws.websocket.send(" " * (reading.BODY_BYTES + 1))
        with pytest.raises(ConnectionClosed):
            ws.receive()
    wait_until(lambda: not plain.server._ports._http._connections)


def test_silent_clients_are_ended(plain, monkeypatch):
    monkeypatch.setattr(connection_module, "HEAD_TIMEOUT", 0.5)
    for first in (
        b"G",
        b"GET /openenv/health HTTP/1.1\r\nHost: loc",
        b"GET /openenv/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", plain.server.http_port), timeout=scaled(20.0)) as sock:
            sock.sendall(first)
            read_to_end(sock)  # which comes to its end


def test_a_body_that_does_not_come_is_not_waited_for(plain, monkeypatch):
    monkeypatch.setattr(reading, "BODY_TIMEOUT", 0.3)
    head = b"POST /openenv/reset HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert raw(plain.server.port, head + b"Content-Length: 9\r\n\r\n{").startswith(b"HTTP/1.1 408")


@pytest.mark.long
def test_a_client_that_reads_nothing_is_ended(obedient, monkeypatch):
    monkeypatch.setattr(connection_module, "UNREAD_TIMEOUT", 0.5)
    request = b"GET /openenv/schema HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with loopback_server(obedient, secure=False, use_thread=True, http=True, http_port=0) as server:
        http = server.server._ports._http
        with socket.create_connection(("127.0.0.1", server.server.http_port), timeout=scaled(20.0)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(2.0)
            with contextlib.suppress(OSError):
                for _ in range(20_000):
                    sock.sendall(request * 50)
            wait_until(lambda: not http._connections)


def test_there_may_be_only_so_many_connections(obedient, monkeypatch):
    monkeypatch.setattr(server_module, "MOST_CONNECTIONS", 6)
    with loopback_server(obedient, secure=False, use_thread=True, http=True, http_port=0) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.server.http_port)))
            wait_until(lambda: len(server.server._ports._http._connections) >= 4)
            with socket.create_connection(("127.0.0.1", server.server.port), timeout=scaled(20.0)) as sock:
                sock.sendall(b"GET /openenv/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert read_to_end(sock) == b""
        wait_until(lambda: not server.server._ports._http._connections)
        with asking(server) as client:
            assert client.ask("GET", HEALTH)[0] == 200


def test_unknown_paths_and_methods_are_told_so(plain):
    with asking(plain) as client:
        status, body, _ = client.ask("GET", "/nothing")
        assert status == 404
        assert "/openenv" in body["detail"]
        assert client.ask("GET", RESET)[0] == 405


def test_a_server_that_stops_ends_its_connections(obedient):
    with loopback_server(obedient, secure=False, use_thread=True, http=True) as server:
        with socket_of(server) as ws:
            ws.ask("reset")
            server.server.stop().wait(scaled(20.0))
            with contextlib.suppress(Exception):
                ws.receive()
        http = server.server._ports._http
        assert not http._connections
        assert not http._tasks


def test_the_command_line_has_it(obedient, tmp_path):
    from served import served

    with served("CartPole-v1", "--port=0", "--http", "--http-port=0", "--http-root=openenv", "--thread") as process:
        with contextlib.closing(Asking(process.port)) as client:
            assert client.ask("GET", "/health")[1] == {"status": "healthy"}
            assert client.ask("POST", "/reset", {"seed": 1})[1]["done"] is False
            assert json.dumps(client.ask("GET", "/schema")[1])
        assert isinstance(RemoteEnvironment, type)
