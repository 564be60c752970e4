"""What `doctor` says of servers in every kind of trouble, and what connecting says of them."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import socket
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from remote_gym import ConnectError, ConnectReason, RemoteEnvironment
from remote_gym.auth.tokens import add_token
from remote_gym.certs import create_all, create_certificate
from remote_gym.client.connect.diagnosis import diagnose, summarise
from remote_gym.client.doctor import examine
from remote_gym.config import TlsFiles
from remote_gym.server.create import create_remote_environment_server
from remote_gym.server.frontends import grpc as grpc_frontend
from waiting import scaled

TIMEOUT = 2.0


def cartpole_server(url="localhost", port=0, server_credentials_paths=None, **options):
    """In threads: the way to the environment is examined, and not what runs it."""
    cartpole = {"entrypoint_kwargs": {"id": "CartPole-v1"}}
    return create_remote_environment_server(cartpole, url, port, server_credentials_paths, use_thread=True, **options)


@pytest.fixture(scope="module")
def files(certificates):
    return TlsFiles(ca=certificates.ca, certificate=certificates.client, private_key=certificates.client_key)


@pytest.fixture(scope="module")
def secure_port(certificates):
    paths = (certificates.server, certificates.server_key, certificates.ca)
    with cartpole_server(server_credentials_paths=paths) as server:
        yield server.port


@pytest.fixture(scope="module")
def plain_port():
    with cartpole_server() as server:
        yield server.port


@contextlib.contextmanager
def silent_port():
    """Connections are made, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def http_port():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        server.RequestHandlerClass.log_message = lambda *_: None
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def examined(port, files=None, url="localhost", remote_args=None, **options):
    """The steps that work, and the check of the one that does not."""
    *checks, last = examine(url, port, files, remote_args, timeout=scaled(TIMEOUT), **options)
    assert all(check.works and not check.mend for check in checks)
    assert last.works or last.mend
    return [check.step for check in checks], last


def found_by_step(port, files):
    return {check.step: check.found for check in examine("localhost", port, files, None, timeout=scaled(TIMEOUT))}


def test_a_client_is_told_whom_the_server_takes_it_for_and_what_it_may_open(secure_port, plain_port, files):
    by_step = found_by_step(secure_port, files)
    assert by_step["session"].endswith(
        "; the server takes this client for 'DNS:remote-gym-client', who may open 'default'"
    )
    by_step = found_by_step(plain_port, None)
    assert by_step["session"].endswith(
        "; the server takes this client for nobody in particular, who may open 'default'"
    )


def test_healthy_server_over_tls(secure_port, files):
    steps, last = examined(secure_port, files)
    assert steps == [
        "this client's certificate",
        "name resolution",
        "TCP",
        "server's certificate",
        "server's demand",
        "TLS",
        "identity",
        "protocol",
        "session",
        "reset",
        "step",
    ]
    assert (last.step, last.works) == ("direct connection", True)


def test_certificates_are_described(secure_port, files):
    found = found_by_step(secure_port, files)
    year = str(datetime.datetime.now().year + 1)
    for step, names in (("this client's certificate", "remote-gym-client"), ("server's certificate", "localhost")):
        assert names in found[step]
        assert year in found[step]
    assert found["server's demand"] == "a client certificate"


def test_healthy_server_in_plaintext(plain_port):
    steps, last = examined(plain_port)
    assert steps == ["name resolution", "TCP", "plaintext", "protocol", "session", "reset", "step"]
    assert (last.step, last.works) == ("direct connection", True)


def test_unknown_name():
    steps, last = examined(1, url="nowhere.invalid")
    assert steps == []
    assert last.step == "name resolution"


def test_nobody_listens():
    steps, last = examined(closed_port())
    assert (steps, last.step) == (["name resolution"], "TCP")
    assert "start the server" in last.mend


def test_wrong_authority(secure_port, files, tmp_path):
    other = create_all(tmp_path, ["localhost"])
    steps, last = examined(secure_port, TlsFiles(ca=other.ca.certificate))
    assert (steps[-2:], last.step) == (["server's certificate", "server's demand"], "TLS")
    assert "the server's certificate is not accepted" in last.found
    assert "tls=TlsFiles(ca=...)" in last.mend


def test_client_certificate_of_another_authority(secure_port, certificates, tmp_path):
    other = create_all(tmp_path, ["localhost"]).client
    files = TlsFiles(ca=certificates.ca, certificate=other.certificate, private_key=other.private_key)
    _, last = examined(secure_port, files)
    assert (last.step, last.hopeless) == ("TLS", True)
    assert "from the authority that the server trusts" in last.mend


def test_files_that_do_not_fit_may_be_just_being_replaced(secure_port, certificates):
    files = TlsFiles(ca=certificates.ca, certificate=certificates.client, private_key=certificates.server_key)
    last = diagnose("localhost", secure_port, files, timeout=scaled(5.0))[-1]
    assert (last.step, last.works, last.hopeless) == ("TLS", False, False)
    assert "does not belong to" in last.found


def test_missing_client_certificate(secure_port, certificates):
    _, last = examined(secure_port, TlsFiles(ca=certificates.ca))
    assert (last.step, last.hopeless) == ("TLS", True)
    assert "requires a client certificate, and none is given" in last.found


def test_expired_client_certificate(secure_port, certificates, tmp_path):
    steps, last = examined(secure_port, expired(certificates, tmp_path))
    assert (steps, last.step) == ([], "this client's certificate")
    assert "expired" in last.found


def expired(certificates, folder: Path) -> TlsFiles:
    """A client's certificate that was good until yesterday."""
    ca = x509.load_pem_x509_certificate(certificates.ca.read_bytes())
    ca_key = load_pem_private_key(certificates.ca_key.read_bytes(), None)
    key = load_pem_private_key(certificates.client_key.read_bytes(), None)
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now - datetime.timedelta(days=1))
        .sign(ca_key, hashes.SHA256())
    )
    path = folder / "expired.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return TlsFiles(ca=certificates.ca, certificate=path, private_key=certificates.client_key)


@pytest.mark.parametrize(
    ("token", "found"),
    [
        (None, "none came with the call"),
        ("no-token-of-theirs", "'no-t'... is not, or no longer, one of the server's"),
        ("no token", "REMOTE_GYM_TOKEN of the environment is not what"),
    ],
)
def test_token_that_the_server_does_not_know(token, found, certificates, tmp_path, monkeypatch):
    known = add_token(tmp_path / "tokens", "alice")
    paths = (certificates.server, certificates.server_key, None)
    files = TlsFiles(ca=certificates.ca)
    set_token(monkeypatch, token)
    with cartpole_server(server_credentials_paths=paths, token_file=tmp_path / "tokens") as server:
        steps, last = examined(server.port, files)
        assert (steps[-1], last.step, last.hopeless) == ("TLS", "identity", True)
        assert found in last.found
        assert "REMOTE_GYM_TOKEN" in last.mend
        assert "'remote-gym token NAME --file FILE'" in last.mend
        assert "ServerOptions.token_file" in last.mend
        set_token(monkeypatch, known)
        by_step = found_by_step(server.port, files)
    assert by_step["identity"] == "the server knows this client, which sends the token in REMOTE_GYM_TOKEN"


def set_token(monkeypatch, token):
    if token is None:
        monkeypatch.delenv("REMOTE_GYM_TOKEN", raising=False)
    else:
        monkeypatch.setenv("REMOTE_GYM_TOKEN", token)


def test_certificate_that_names_nobody(certificates, tmp_path):
    request = tmp_path / "nobody.json"
    request.write_text('{"CN": "nobody", "key": {"algo": "ecdsa", "size": 256}}')
    nobody = create_certificate(
        request, tmp_path, ca=certificates.ca, ca_key=certificates.ca_key, profile="client", name="nobody"
    )
    paths = (certificates.server, certificates.server_key, certificates.ca)
    files = TlsFiles(ca=certificates.ca, certificate=nobody.certificate, private_key=nobody.private_key)
    with cartpole_server(server_credentials_paths=paths) as server:
        _, last = examined(server.port, files)
    assert last.step == "identity"
    assert "certificate that names this client" in last.mend


def test_what_a_known_client_may_not_open_is_no_matter_of_its_identity(certificates, files):
    paths = (certificates.server, certificates.server_key, certificates.ca)
    with cartpole_server(server_credentials_paths=paths, allow=("DNS:somebody-else",)) as server:
        steps, last = examined(server.port, files)
    assert (steps[-2:], last.step) == (["identity", "protocol"], "session")
    assert "have the server allow it" in last.mend


def test_name_that_the_certificate_does_not_hold(files, tmp_path):
    other = create_all(tmp_path, ["server.example.com"])
    paths = (other.server.certificate, other.server.private_key, other.ca.certificate)
    mine = TlsFiles(ca=other.ca.certificate, certificate=other.client.certificate, private_key=other.client.private_key)
    with cartpole_server(server_credentials_paths=paths) as server:
        steps, last = examined(server.port, mine)
    assert (steps[-1], last.step) == ("server's demand", "TLS")
    assert "server.example.com" not in last.mend
    assert "'localhost' among its hosts" in last.mend


def test_server_without_demand(certificates):
    paths = (certificates.server, certificates.server_key, None)
    with cartpole_server(server_credentials_paths=paths) as server:
        checks = list(examine("localhost", server.port, TlsFiles(ca=certificates.ca), None, timeout=scaled(TIMEOUT)))
    assert all(check.works for check in checks)
    assert "no client certificate" in [check.found for check in checks]


def test_plaintext_against_tls(secure_port):
    steps, last = examined(secure_port)
    assert steps == ["name resolution", "TCP", "server's certificate", "server's demand"]
    assert (last.step, last.hopeless) == ("plaintext", True)
    assert "give c" in last.mend


def test_tls_against_plaintext(plain_port, files):
    steps, last = examined(plain_port, files)
    assert (steps[-1], last.step) == ("TCP", "TLS")
    assert last.found == "the server does not speak TLS"
    assert last.mend.startswith("connect without certificates")


@pytest.mark.parametrize("secure", [False, True])
def test_web_server(secure, files):
    with http_port() as port:
        steps, last = examined(port, files if secure else None)
    assert (steps[-1], last.step) == ("TCP", "TLS" if secure else "plaintext")
    assert last.hopeless
    assert "what listens there does not speak HTTP/2; it answers b'" in last.found
    assert last.mend == "correct the port: this is no remote_gym server"


@contextlib.contextmanager
def tunnel_to_nowhere():
    """Takes connections and closes them, as ssh does where nobody listens at the far end."""

    def close_each():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    client.recv(1)  # or the close would be a reset
                    client.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=close_each)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("secure", [False, True])
def test_a_tunnel_that_leads_nowhere_is_named(secure, files):
    with tunnel_to_nowhere() as port:
        _, last = examined(port, files if secure else None)
    assert not last.works
    assert not last.hopeless  # as of a server that is full, which is not to be told from this
    assert last.reason is ConnectReason.UNANSWERED
    assert "the server closed the connection without an answer; it may be full" in f"{last.found}; {last.mend}"
    assert "if this is a tunnel, nothing listens at its far end" in f"{last.found}; {last.mend}"


def test_a_certificate_for_another_name_tells_which_it_is_for(certificates, files, tmp_path):
    create_all(tmp_path, ["localhost"])
    paths = [tmp_path / name for name in ("server.pem", "server-key.pem", "ca.pem")]
    with cartpole_server(server_credentials_paths=tuple(paths)) as server:
        _, last = examined(server.port, TlsFiles.from_folder(tmp_path, "client"), "127.0.0.1")
    assert last.found == (
        "the server's certificate is not accepted: IP address mismatch, certificate is not valid for '127.0.0.1'; "
        "it is good for: 'localhost'"
    )
    assert last.mend.startswith("connect by a name that the certificate holds")


@pytest.mark.parametrize("secure", [False, True])
def test_silence(secure, files):
    with silent_port() as port:
        checks = diagnose("127.0.0.1", port, files if secure else None, timeout=scaled(0.3))
    assert [check.works for check in checks] == [True, True, False]
    assert "does not answer" in checks[-1].found
    assert not checks[-1].hopeless


def test_environment_that_does_not_exist(plain_port):
    steps, last = examined(plain_port, remote_args={"environment": "hard"})
    assert (steps[-1], last.step) == ("protocol", "session")
    assert "no environment 'hard'" in last.found


@pytest.mark.parametrize("step", ["reset", "step"])
def test_environment_that_raises(step, tmp_path, monkeypatch):
    (tmp_path / "faulty.py").write_text(
        "import gymnasium as gym\n"
        "class Faulty(gym.Env):\n"
        "    observation_space = action_space = gym.spaces.Discrete(2)\n"
        "    def reset(self, **_):\n"
        "        return 0, {}\n"
        f"    def {step}(self, *_, **__):\n"
        "        raise RuntimeError('out of paint')\n"
        "def create_environment():\n"
        "    return Faulty()\n"
    )
    monkeypatch.chdir(tmp_path)
    with create_remote_environment_server({"entrypoint": "faulty.py"}, port=0, use_thread=True) as server:
        _, last = examined(server.port)
    assert last.step == step
    assert last.found == "the environment raised builtins.RuntimeError: out of paint"
    assert "faulty.py" in last.details
    assert "environment's own code" in last.mend


def test_each_kind_of_connection_by_itself(secure_port, files):
    assert examined(secure_port, files, connection="grpc")[1].step == "step"
    steps, last = examined(secure_port, files, connection="direct")
    assert (steps[-1], last.step, last.works) == ("identity", "direct connection", True)


def test_server_with_a_single_place_is_examined_over_both():
    with cartpole_server(max_sessions=1) as server:
        steps, last = examined(server.port)
        assert (steps[-1], last.step, last.works) == ("step", "direct connection", True)
        assert server.session_count == 0


@pytest.mark.parametrize(("connection", "needed"), [("auto", False), ("direct", True)])
def test_server_without_direct_connections(connection, needed):
    with cartpole_server(direct=False) as server:
        _, last = examined(server.port, connection=connection)
    assert (last.step, last.works, last.needed) == ("direct connection", False, needed)
    assert "offers no direct" in last.found
    assert "ServerOptions.direct" in last.mend
    assert ("slower" in last.mend) is not needed


def test_direct_connections_that_something_in_between_ends(monkeypatch):
    monkeypatch.setattr(grpc_frontend, "_name_place", lambda answer, context: None)
    with cartpole_server() as server, socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        server._service._live._routes._direct.port = reserved.getsockname()[1]
        steps, last = examined(server.port)
    assert (steps[-1], last.step, last.works, last.needed) == ("step", "direct connection", False, False)
    assert "what is between this machine and the server's port" in last.mend


def test_plaintext_to_another_machine_is_refused_as_an_environment_would_be():
    address = address_of_this_machine()
    if address is None:
        pytest.skip("this machine has no address but loopback")
    with cartpole_server(address, 0, allow_insecure=True) as server:
        steps, last = examined(server.port, url=address)
        assert (steps[-1], last.step, last.works) == ("plaintext", "encryption", False)
        assert "allow_insecure" in last.mend
        assert examined(server.port, url=address, allow_insecure=True)[1].works


def address_of_this_machine():
    """An address that is not loopback; None if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect(("192.0.2.1", 9))  # nothing is sent: it only chooses the way
        return sock.getsockname()[0]
    return None


def test_unix_socket(tmp_path):
    url = f"unix:{tmp_path}/socket"
    assert examined(0, url=url)[1].step == "Unix socket"
    with cartpole_server(url, 0):
        assert examined(0, url=url)[1].works


def test_summary_is_the_failed_step_and_its_mend(plain_port):
    port = closed_port()
    summary = summarise(diagnose("localhost", port, None, timeout=scaled(TIMEOUT)))
    assert summary.startswith("TCP:")
    assert "start the server" in summary
    assert "each step by itself works" in summarise(diagnose("localhost", plain_port, None, timeout=scaled(TIMEOUT)))


def test_an_error_says_by_its_reason_what_stands_in_the_way(secure_port, plain_port, files):
    def reason(port, **arguments):
        place = {} if "addresses" in arguments else {"port": port}
        with pytest.raises(ConnectError) as caught:
            RemoteEnvironment(**place, connect_timeout=scaled(0.5), **arguments).close()
        return caught.value.reason

    closed = closed_port()
    assert reason(closed) is ConnectReason.UNREACHABLE
    several = [("localhost", closed), ("localhost", closed_port())]
    assert reason(closed, addresses=several, tls=files) is ConnectReason.UNREACHABLE
    assert reason(secure_port) is ConnectReason.TLS
    assert reason(secure_port, tls=TlsFiles(ca=files.ca)) is ConnectReason.TLS
    assert reason(plain_port, tls=files) is ConnectReason.TLS
    with http_port() as port:
        assert reason(port) is ConnectReason.NO_SERVER
    with silent_port() as port:
        assert reason(port) is ConnectReason.UNANSWERED
    with cartpole_server(direct=False) as server:
        assert reason(server.port, connection="direct") is ConnectReason.NOT_DIRECT
