"""Names of certificates: read from their bytes, by one rule for gRPC and for direct connections."""

from __future__ import annotations

import contextlib
import ssl
from datetime import datetime, timezone
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from attacks import attack_directly, tell
from raw_client import method, open_request
from remote_gym.certs import CertificateFiles
from remote_gym.errors import NotPermitted
from remote_gym.testing import LoopbackServer, loopback_server
from remote_gym.tls.peer import read_peer_certificate
from remote_gym.v1 import remote_gym_pb2 as pb
from strange_certificates import BMP, PRINTABLE, TELETEX, UTF8, sign_strangely


@pytest.fixture(scope="module")
def server():
    with loopback_server("CartPole-v1", use_thread=True, common_names=True) as running:
        yield running


@pytest.fixture(scope="module")
def authority(server) -> Path:
    return server.client_credentials_paths[0].parent


def der_of(files: CertificateFiles) -> bytes:
    return ssl.PEM_cert_to_DER_cert(files.certificate.read_text())


def test_names_are_read_in_order_with_the_time_of_expiry(authority, tmp_path):
    end = datetime(2049, 12, 31, 23, 59, 59, tzinfo=timezone.utc)
    names = [
        ("DNS", b"alice"),
        ("IP", b"\x7f\0\0\1"),
        ("URI", b"spiffe://lab/alice"),
        ("email", b"a@b.c"),
        ("DNS", b"b"),
    ]
    found = read_peer_certificate(der_of(sign_strangely(authority, tmp_path, names, (UTF8, b"Alice"), end)))
    assert found.names == (
        ("DNS", "alice"),
        ("URI", "spiffe://lab/alice"),
        ("email", "a@b.c"),
        ("DNS", "b"),
        ("CN", "Alice"),
    )
    assert found.not_after == end.timestamp()


@pytest.mark.parametrize("year", [2030, 2049, 2050, 2200])
def test_expiry_is_what_cryptography_reads(authority, tmp_path, year):
    end = datetime(year, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
    data = der_of(sign_strangely(authority, tmp_path, [("DNS", b"alice")], end=end))
    assert read_peer_certificate(data).not_after == x509.load_der_x509_certificate(data).not_valid_after_utc.timestamp()


@pytest.mark.parametrize(
    ("common_name", "expected"),
    [
        ((UTF8, b"alice"), "alice"),
        ((PRINTABLE, b"alice"), "alice"),
        ((BMP, "alice".encode("utf-16-be")), "alice"),
        ((BMP, b"\xd8\0\0a"), "\ufffda"),
        ((UTF8, "\xe4".encode()), "\xc3\xa4"),
    ],
)
def test_common_names_of_several_kinds_of_text(authority, tmp_path, common_name, expected):
    found = read_peer_certificate(der_of(sign_strangely(authority, tmp_path, common_name=common_name)))
    assert found.names == (("CN", expected),)


def test_certificates_of_this_package_and_of_the_authority_are_read(authority):
    for name in ("client.pem", "server.pem", "ca.pem"):
        pem = (authority / name).read_text()
        certificate = x509.load_pem_x509_certificate(pem.encode())
        found = read_peer_certificate(ssl.PEM_cert_to_DER_cert(pem))
        assert found.not_after == certificate.not_valid_after_utc.timestamp()


@given(data=st.data())
def test_what_is_damaged_is_refused(authority, data):
    original = ssl.PEM_cert_to_DER_cert((authority / "client.pem").read_text())
    position = data.draw(st.integers(0, len(original) - 1))
    damaged = bytearray(original[: data.draw(st.integers(position, len(original)))])
    if position < len(damaged):
        damaged[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NotPermitted):
        read_peer_certificate(bytes(damaged))


@given(st.binary(max_size=300))
def test_rubbish_is_refused(data):
    with pytest.raises(NotPermitted, match="cannot be read"):
        read_peer_certificate(data)


# --------------------------------------------------------------------------------------------------------------
# By real handshakes

STRANGE = {
    "a NUL in a DNS name": ([("DNS", b"alice\0.evil")], None),
    "a NUL in a URI": ([("URI", b"spiffe://lab/alice\0/evil")], None),
    "a NUL in an address": ([("email", b"alice@lab\0.evil")], None),
    "a NUL in a common name": ([], (UTF8, b"alice\0.evil")),
    "a newline": ([("DNS", b"alice\nDNS:root")], None),
    "an escape": ([("DNS", b"\x1b[2Jalice")], None),
    "letters beyond ASCII": ([("DNS", "älice".encode())], None),
    "letters beyond ASCII in a common name": ([], (UTF8, "älice".encode())),
    "no UTF-8": ([("DNS", b"\xff\xfe")], None),
    "letters of another alphabet in a common name": ([], (TELETEX, b"\xff\xfe")),
    "no UTF-8 beside a good name": ([("URI", b"good"), ("DNS", b"\xff\xfe")], None),
}


def open_by(server: LoopbackServer, files: CertificateFiles) -> str:
    ca = server.client_credentials_paths[0].read_bytes()
    credentials = grpc.ssl_channel_credentials(ca, files.private_key.read_bytes(), files.certificate.read_bytes())
    with grpc.secure_channel(server.server.address, credentials) as channel:
        answer = channel.unary_unary(method("Open"))(open_request(), timeout=20)
    return tell(pb.OpenResponse.FromString(answer))


@pytest.mark.parametrize("what", STRANGE)
def test_a_certificate_with_a_strange_name_is_refused_over_grpc_with_the_name(server, authority, tmp_path, what):
    names, common_name = STRANGE[what]
    found = open_by(server, sign_strangely(authority, tmp_path, names, common_name))
    assert found.startswith("NOT_PERMITTED: the client's certificate has the ")
    assert "no printable ASCII" in found
    kind, strange = (names[-1]) if names else ("CN", common_name[1])
    assert f"the {kind} name {strange.decode('latin-1')!a}" in found


@pytest.mark.parametrize("what", STRANGE)
def test_a_strange_name_is_refused_directly_and_the_worker_lives_on(server, authority, tmp_path, what):
    names, common_name = STRANGE[what]
    files = sign_strangely(authority, tmp_path, names, common_name)
    context = ssl.create_default_context(cafile=server.client_credentials_paths[0])
    context.load_cert_chain(files.certificate, files.private_key)
    environment = server.environment(connection="grpc")
    environment.reset()
    session = environment._session
    address = session._connection.reach(session.id, session.ticket.token, 10.0).direct
    found = attack_directly(address, context, session.ticket.token, b"")
    assert found.startswith("NOT_PERMITTED: the client's certificate has the ")
    assert "no printable ASCII" in found
    assert environment.step(0)[1] == 1.0
    environment.close()
