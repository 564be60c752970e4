"""Real handshakes over loopback, by gRPC and by ssl, on files that we and cfssl made."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from remote_gym import tls
from remote_gym.certs import CLIENT_IDENTITY
from remote_gym.config import TlsFiles
from waiting import scaled

SSL = Path(__file__).parents[2] / "ssl"
SECONDS = 10
BAD_FOR_CLIENTS = ["expired", "not_yet_valid", "wrong_ca", "self_signed", "server_only"]
BAD_FOR_SERVERS = ["expired", "not_yet_valid", "wrong_ca", "self_signed", "client_only"]
ADDRESSES = ["localhost", "127.0.0.1", "::1"]


@pytest.fixture(scope="session")
def made_step_by_step(tmp_path_factory) -> Path:
    return run_readme(tmp_path_factory.mktemp("step-by-step"), "remote-gym certs ca")


@pytest.fixture(scope="session")
def made_by_cfssl(tmp_path_factory) -> Path:
    if not (shutil.which("cfssl") and shutil.which("cfssljson")):
        pytest.skip("needs cfssl and cfssljson on the PATH (Debian: golang-cfssl)")
    return run_readme(tmp_path_factory.mktemp("cfssl"), "cfssl ")


def run_readme(folder: Path, start: str) -> Path:
    """Run the commands in the README of ``ssl/`` as they stand, in a copy of that folder; returns the copy."""
    shutil.copytree(SSL, folder / "ssl", ignore=shutil.ignore_patterns("*.pem", "*.csr"))
    [block] = re.findall(rf"```sh\n({start}.*?)```", (SSL / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    # But for the names, which do not lead to this machine.
    commands = re.sub(r" --?host(name)? [a-z.]+", "", block)
    ours = f'remote-gym() {{ {shlex.quote(sys.executable)} -m remote_gym "$@"; }}'
    script = f"set -eo pipefail\n{ours}\n{commands}"
    subprocess.run(["bash", "-c", script], cwd=folder / "ssl", check=True, capture_output=True, timeout=scaled(60))
    return folder / "ssl"


@pytest.fixture(params=["made_at_once", "made_step_by_step", "made_by_cfssl"])
def ends(request, certificates) -> tuple[TlsFiles, TlsFiles]:
    """Files of a server and of a client."""
    at_once = request.param == "made_at_once"
    folder = certificates.ca.parent if at_once else request.getfixturevalue(request.param)
    return files(folder, "server"), files(folder, "client")


@pytest.fixture
def good(certificates) -> tuple[TlsFiles, TlsFiles]:
    return files(certificates.ca.parent, "server"), files(certificates.ca.parent, "client")


def files(folder: Path, role: str) -> TlsFiles:
    return TlsFiles(ca=folder / "ca.pem", certificate=folder / f"{role}.pem", private_key=folder / f"{role}-key.pem")


# gRPC


@contextmanager
def grpc_server(credentials: grpc.ServerCredentials, address: str = "127.0.0.1") -> Iterator[int]:
    """Serve one method, which answers by who asks; yields the port."""

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        identities = context.peer_identities() or []
        # grpcio tells the version of TLS since 1.85; both of its ends have offered 1.3 for longer.
        return b" ".join([*identities, *context.auth_context().get("ssl_tls_version", [b"TLSv1.3"])])

    handler = grpc.method_handlers_generic_handler("it", {"Who": grpc.unary_unary_rpc_method_handler(answer)})
    server = grpc.server(ThreadPoolExecutor(2), handlers=[handler], options=[("grpc.so_reuseport", 0)])
    host = f"[{address}]" if ":" in address else address
    port = server.add_secure_port(f"{host}:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait(scaled(SECONDS))


def who(port: int, credentials: grpc.ChannelCredentials, address: str = "127.0.0.1", name: str | None = None) -> bytes:
    host = f"[{address}]" if ":" in address else address
    options = [("grpc.ssl_target_name_override", name)] if name else []
    with grpc.secure_channel(f"{host}:{port}", credentials, options) as channel:
        return channel.unary_unary("/it/Who")(b"", timeout=scaled(SECONDS))


def assert_refused(port: int, credentials: grpc.ChannelCredentials, name: str | None = None) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        who(port, credentials, name=name)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def raw_channel_credentials(ca: Path, certificate: Path, private_key: Path) -> grpc.ChannelCredentials:
    """What a client sends that does not check its files."""
    return grpc.ssl_channel_credentials(ca.read_bytes(), private_key.read_bytes(), certificate.read_bytes())


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("address", ADDRESSES)
def test_grpc_knows_the_client_by_its_identity_over_tls_1_3(address, ends):
    if address == "::1" and not has_ipv6():
        pytest.skip("needs IPv6 on the loopback interface")
    server, client = ends
    with grpc_server(tls.server_credentials(server), address) as port:
        answer = who(port, tls.channel_credentials(client), address)
    assert answer == f"{CLIENT_IDENTITY} TLSv1.3".encode()


def test_grpc_without_an_authority_lets_anyone_in(good):
    server, client = good
    without = TlsFiles(certificate=server.certificate, private_key=server.private_key)
    with grpc_server(tls.server_credentials(without)) as port:
        assert who(port, tls.channel_credentials(TlsFiles(ca=client.ca))) == b"TLSv1.3"


def test_grpc_refuses_a_client_without_a_certificate(good):
    server, client = good
    with grpc_server(tls.server_credentials(server)) as port:
        assert_refused(port, tls.channel_credentials(TlsFiles(ca=client.ca)))


@pytest.mark.parametrize("fault", BAD_FOR_CLIENTS)
def test_grpc_refuses_a_bad_client_certificate(fault, good, bad_certificates):
    server, client = good
    bad = getattr(bad_certificates, fault)
    with grpc_server(tls.server_credentials(server)) as port:
        assert_refused(port, raw_channel_credentials(client.ca, bad.certificate, bad.private_key))
        assert who(port, tls.channel_credentials(client))


@pytest.mark.parametrize("fault", BAD_FOR_SERVERS)
def test_grpc_client_refuses_a_bad_server_certificate(fault, good, bad_certificates):
    server, client = good
    bad = getattr(bad_certificates, fault)
    pair = (bad.private_key.read_bytes(), bad.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], server.ca.read_bytes(), require_client_auth=True)
    with grpc_server(credentials) as port:
        assert_refused(port, tls.channel_credentials(client))


def test_grpc_client_refuses_a_server_of_another_name(good):
    server, client = good
    with grpc_server(tls.server_credentials(server)) as port:
        assert_refused(port, tls.channel_credentials(client), name="other.example.com")


def test_grpc_client_refuses_a_server_of_another_authority(good, bad_certificates):
    server, client = good
    own = {"certificate": client.certificate, "private_key": client.private_key}
    with grpc_server(tls.server_credentials(server)) as port:
        assert_refused(port, tls.channel_credentials(TlsFiles(ca=bad_certificates.other_ca, **own)))


# ssl


def exchange(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> tuple[str | None, list[str]]:
    """Connect, and let the server send back what the client sends.

    Returns:
        The version of TLS, and the DNS names by which the server knows the client.
    """

    def echo() -> list[str]:
        connection, _ = listener.accept()
        connection.settimeout(scaled(SECONDS))
        with connection, server.wrap_socket(connection, server_side=True) as secure:
            secure.sendall(secure.recv(100))
            certificate = secure.getpeercert() or {}
            return [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(scaled(SECONDS))
        served = pool.submit(echo)
        with (
            socket.create_connection(listener.getsockname(), timeout=scaled(SECONDS)) as connection,
            client.wrap_socket(connection, server_hostname=name) as secure,
        ):
            secure.sendall(b"ping")
            if secure.recv(100) != b"ping":
                raise ConnectionResetError("closed without an answer")
            version = secure.version()
        return version, served.result(scaled(SECONDS))


def raw_context(role: str, ca: Path, certificate: Path, private_key: Path) -> ssl.SSLContext:
    """What a peer uses that does not check its files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if role == "server" else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(certificate, private_key)
    context.load_verify_locations(ca)
    return context


def test_ssl_knows_the_client_by_its_identity_over_tls_1_3(ends):
    server, client = ends
    assert exchange(tls.server_context(server), tls.client_context(client)) == ("TLSv1.3", [CLIENT_IDENTITY])


@pytest.mark.parametrize("name", ADDRESSES)
def test_ssl_client_accepts_each_of_the_servers_names(name, good):
    server, client = good
    assert exchange(tls.server_context(server), tls.client_context(client), name)[0] == "TLSv1.3"


def test_ssl_without_an_authority_lets_anyone_in(good):
    server, client = good
    without = TlsFiles(certificate=server.certificate, private_key=server.private_key)
    assert exchange(tls.server_context(without), tls.client_context(TlsFiles(ca=client.ca))) == ("TLSv1.3", [])


def test_ssl_refuses_a_client_without_a_certificate(good):
    server, client = good
    with pytest.raises((ssl.SSLError, ConnectionError)):
        exchange(tls.server_context(server), tls.client_context(TlsFiles(ca=client.ca)))


@pytest.mark.parametrize("fault", BAD_FOR_CLIENTS)
def test_ssl_refuses_a_bad_client_certificate(fault, good, bad_certificates):
    server, client = good
    bad = getattr(bad_certificates, fault)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        exchange(tls.server_context(server), raw_context("client", client.ca, bad.certificate, bad.private_key))


@pytest.mark.parametrize("fault", BAD_FOR_SERVERS)
def test_ssl_client_refuses_a_bad_server_certificate(fault, good, bad_certificates):
    server, client = good
    bad = getattr(bad_certificates, fault)
    with pytest.raises(ssl.SSLCertVerificationError):
        exchange(raw_context("server", server.ca, bad.certificate, bad.private_key), tls.client_context(client))


def test_ssl_client_refuses_a_server_of_another_name(good):
    server, client = good
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        exchange(tls.server_context(server), tls.client_context(client), "other.example.com")


@pytest.mark.parametrize("old_end", ["server", "client"])
def test_ssl_speaks_nothing_older_than_tls_1_3(old_end, good):
    contexts = {"server": tls.server_context(good[0]), "client": tls.client_context(good[1])}
    old = contexts[old_end]
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)version"):
        exchange(contexts["server"], contexts["client"])


def test_ssl_client_without_an_authority_trusts_the_systems(good):
    server, _ = good
    context = tls.client_context(TlsFiles())
    assert context.verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(ssl.SSLCertVerificationError):
        exchange(tls.server_context(server), context)
