"""Every fault of a certificate file is told by name, before any handshake."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from remote_gym import tls
from remote_gym.config import TlsFiles
from remote_gym.errors import ConfigError
from waiting import scaled


@pytest.fixture
def server(certificates):
    return TlsFiles(ca=certificates.ca, certificate=certificates.server, private_key=certificates.server_key)


@pytest.fixture
def client(certificates):
    return TlsFiles(ca=certificates.ca, certificate=certificates.client, private_key=certificates.client_key)


def refusal(role, **files):
    with pytest.raises(ConfigError) as caught:
        tls.check_files(TlsFiles(**files), role)
    return str(caught.value)


# The forms of the public interface


def test_server_paths_are_certificate_key_and_authority():
    assert tls.server_files(("server.pem", "key.pem", "ca.pem")) == TlsFiles(
        certificate=Path("server.pem").absolute(), private_key=Path("key.pem").absolute(), ca=Path("ca.pem").absolute()
    )
    assert tls.server_files([Path("server.pem"), "key.pem", None]) == TlsFiles(
        certificate=Path("server.pem").absolute(), private_key=Path("key.pem").absolute()
    )


def test_client_paths_are_authority_certificate_and_key():
    assert tls.client_files(("ca.pem", "client.pem", "key.pem")) == TlsFiles(
        certificate=Path("client.pem").absolute(), private_key=Path("key.pem").absolute(), ca=Path("ca.pem").absolute()
    )
    assert tls.client_files(("ca.pem", None, None)) == TlsFiles(ca=Path("ca.pem").absolute())


@pytest.mark.parametrize("read", [tls.server_files, tls.client_files])
@pytest.mark.parametrize("nothing", [None, (None, None, None), [None] * 3])
def test_nothing_is_none(read, nothing):
    assert read(nothing) is None


@pytest.mark.parametrize(
    ("read", "form"),
    [
        (tls.server_files, "server_credentials_paths has the form (certificate, private key, certificate authority or"),
        (tls.client_files, "client_credentials_paths has the form (certificate authority, certificate or None,"),
    ],
)
@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (("a", "b"), "found 2 instead of 3"),
        (("a", "b", "c", "d"), "found 4 instead of 3"),
        ((), "found 0 instead of 3"),
        ("abc", "found 'abc'"),
        (Path("abc"), "found PosixPath('abc')"),
        ({"a": 1, "b": 2, "c": 3}, "found {'a': 1"),
        (("a", 5, "c"), "found 5 in ('a', 5, 'c')"),
        (("a", "", "c"), "found '' in ('a', '', 'c')"),
        (("a", b"b", "c"), "found b'b' in"),
    ],
)
def test_other_forms_are_refused_with_the_right_one(read, form, paths, found):
    with pytest.raises(ConfigError) as caught:
        read(paths)
    assert form in str(caught.value)
    assert found in str(caught.value)


# What is given


@pytest.mark.parametrize("with_ca", [True, False])
def test_good_files_pass(with_ca, certificates, server, client):
    ca = certificates.ca if with_ca else None
    tls.check_files(TlsFiles(ca=ca, certificate=server.certificate, private_key=server.private_key), "server")
    tls.check_files(TlsFiles(ca=ca, certificate=client.certificate, private_key=client.private_key), "client")
    tls.check_files(TlsFiles(ca=ca), "client")


def test_server_needs_certificate_and_key(certificates):
    assert "there is no certificate" in refusal("server", ca=certificates.ca, private_key=certificates.server_key)
    assert "there is no private key" in refusal("server", ca=certificates.ca, certificate=certificates.server)
    assert "there is no certificate" in refusal("server", ca=certificates.ca)


def test_client_gives_certificate_and_key_or_neither(certificates):
    said = refusal("client", ca=certificates.ca, certificate=certificates.client)
    assert said == f"{certificates.client} is given without its private key; give both or neither"
    said = refusal("client", ca=certificates.ca, private_key=certificates.client_key)
    assert said == f"{certificates.client_key} is given without its certificate; give both or neither"


# What is in the files

PLACES = {"ca": "ca", "certificate": "certificate", "private_key": "private key"}


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is not PEM"),
        (b"\x30\x82\x01\x0a\xff", "is not PEM"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n", "holds no "),
        (b"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n", "holds a "),
        (b"-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n", "holds a "),
    ],
)
def test_file_that_cannot_be_used_is_named_with_its_place(role, place, content, said, certificates, tmp_path):
    path = tmp_path / "it.pem"
    if content is not None:
        path.write_bytes(content)
    own = {
        "certificate": getattr(certificates, role),
        "private_key": getattr(certificates, f"{role}_key"),
        "ca": certificates.ca,
    }
    assert refusal(role, **{**own, place: path}).startswith(f"{path}, given as the {PLACES[place]}, {said}")


def test_folder_instead_of_a_file_is_named(tmp_path):
    assert refusal("client", ca=tmp_path) == f"{tmp_path}, given as the ca, cannot be read: Is a directory"


def test_certificate_and_key_swapped(certificates):
    said = refusal("server", certificate=certificates.server_key, private_key=certificates.server)
    assert said == (
        f"{certificates.server_key}, given as the certificate, holds a private key; is it swapped with the certificate?"
    )


def test_certificate_as_its_own_key(certificates):
    said = refusal("server", certificate=certificates.server, private_key=certificates.server)
    assert said.startswith(f"{certificates.server}, given as the private key, holds a certificate; is it swapped")


def test_certificate_and_authority_swapped(certificates):
    said = refusal("client", ca=certificates.client, certificate=certificates.ca, private_key=certificates.client_key)
    assert said.startswith(f"{certificates.ca} does not belong to {certificates.client_key}")
    assert "is it swapped with the ca?" in said


def test_certificate_in_place_of_the_authority(certificates):
    said = refusal("client", ca=certificates.server)
    assert said.startswith(f"{certificates.server}, given as the ca, is not an authority's certificate")


def test_authority_in_place_of_a_certificate(certificates):
    said = refusal("server", certificate=certificates.ca, private_key=certificates.ca_key)
    assert said.startswith(f"{certificates.ca} may not sign, which TLS needs of a server; it is an authority's")


def test_files_of_the_other_role(certificates):
    said = refusal("server", certificate=certificates.client, private_key=certificates.client_key)
    assert said.startswith(f"{certificates.client} is not made for a server: its usages lack 'server auth'")
    said = refusal("client", certificate=certificates.server, private_key=certificates.server_key)
    assert said.startswith(f"{certificates.server} is not made for a client: its usages lack 'client auth'")


def test_key_of_another_certificate(certificates):
    said = refusal("server", certificate=certificates.server, private_key=certificates.client_key)
    assert said.startswith(f"{certificates.server} does not belong to {certificates.client_key}; use the two")


@pytest.mark.parametrize(
    ("fault", "said"), [("expired", r"expired on {} \d\d:\d\d UTC"), ("not_yet_valid", "is not valid before {}")]
)
@pytest.mark.parametrize("role", ["server", "client"])
def test_certificate_out_of_its_time_is_told_with_the_date(fault, said, role, bad_certificates):
    files = getattr(bad_certificates, fault)
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    date = certificate.not_valid_after_utc if fault == "expired" else certificate.not_valid_before_utc
    message = refusal(role, certificate=files.certificate, private_key=files.private_key)
    assert re.match(re.escape(str(files.certificate)) + " " + said.format(f"{date:%Y-%m-%d}"), message)


def test_expired_authority(bad_certificates):
    assert refusal("client", ca=bad_certificates.expired_ca).startswith(f"{bad_certificates.expired_ca} expired on 20")


@pytest.mark.parametrize("form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL])
def test_encrypted_key_is_told_with_the_remedy(form, certificates, tmp_path):
    key = serialization.load_pem_private_key(certificates.server_key.read_bytes(), None)
    path = tmp_path / "secret.pem"
    encryption = serialization.BestAvailableEncryption(b"word")
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    said = refusal("server", certificate=certificates.server, private_key=path)
    assert said == f"{path} is encrypted; decrypt it first: openssl pkey -in {path} -out key.pem"


def self_signed(key, directory):
    """A certificate without any extension, and its key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    now = datetime.now(timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    certificate = builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256())
    pem = serialization.Encoding.PEM
    (directory / "it.pem").write_bytes(certificate.public_bytes(pem))
    (directory / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return directory / "it.pem", directory / "key.pem"


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP521R1()), ed25519.Ed25519PrivateKey.generate()])
def test_key_that_grpc_refuses(key, tmp_path):
    certificate, private_key = self_signed(key, tmp_path)
    said = refusal("server", certificate=certificate, private_key=private_key)
    assert said.startswith(f"{private_key} is of a kind that gRPC refuses")


# What is fine


def test_certificate_that_signed_itself_serves_and_is_trusted_directly(tmp_path):
    certificate, private_key = self_signed(ec.generate_private_key(ec.SECP256R1()), tmp_path)
    tls.check_files(TlsFiles(certificate=certificate, private_key=private_key), "server")
    tls.check_files(TlsFiles(ca=certificate), "client")


def test_authority_file_may_hold_several_of_which_some_expired(certificates, bad_certificates, tmp_path):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(bad_certificates.expired_ca.read_bytes() + certificates.ca.read_bytes())
    tls.check_files(TlsFiles(ca=bundle), "client")


def test_certificate_file_may_hold_the_key_and_the_chain_too(certificates, tmp_path):
    everything = tmp_path / "all.pem"
    parts = (certificates.server, certificates.server_key, certificates.ca)
    everything.write_bytes(b"text before\n" + b"".join(path.read_bytes() for path in parts))
    files = TlsFiles(ca=certificates.ca, certificate=everything, private_key=everything)
    tls.check_files(files, "server")
    tls.server_context(files)


def test_each_way_to_use_the_files_checks_them_first(certificates):
    files = TlsFiles(ca=certificates.server, certificate=certificates.server, private_key=certificates.server_key)
    for use in (tls.server_credentials, tls.channel_credentials, tls.server_context, tls.client_context):
        with pytest.raises(ConfigError, match=r"server\.pem"):
            use(files)


def test_importing_tls_loads_neither_cryptography_nor_grpc():
    code = "import sys, remote_gym.tls; assert not {'cryptography', 'grpc'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=scaled(60))
