"""What is written, what is never overwritten, and who may sign."""

from __future__ import annotations

import json
import stat
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from remote_gym.certs import CLIENT_IDENTITY, create_all, create_authority, create_certificate
from remote_gym.certs.cfssl import CertificateRequest, Profile, read_request
from remote_gym.certs.hosts import Hosts
from remote_gym.certs.signing import Authority, generate_key, sign_authority, sign_certificate
from remote_gym.config import TlsFiles
from remote_gym.errors import ConfigError
from remote_gym.tls import check_files
from remote_gym.tls.facts import read_certificate

SSL = Path(__file__).parents[2] / "ssl"
NAMES = ("ca-key.pem", "ca.pem", "client-key.pem", "client.pem", "server-key.pem", "server.pem")


def load(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(certificate):
    return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


# create_all


def test_all_makes_six_files_and_leaves_no_other(tmp_path):
    create_all(tmp_path / "new" / "folder", ["localhost"])
    assert sorted(contents(tmp_path / "new" / "folder")) == list(NAMES)


def test_all_is_for_the_hosts_and_the_client_has_an_identity(tmp_path):
    files = create_all(tmp_path, ["a.example.com", "192.0.2.1"])
    ca, server, client = (load(each.certificate) for each in (files.ca, files.server, files.client))
    server.verify_directly_issued_by(ca)
    client.verify_directly_issued_by(ca)
    assert names(server) == [x509.DNSName("a.example.com"), x509.IPAddress(ip_address("192.0.2.1"))]
    assert names(client) == [x509.DNSName(CLIENT_IDENTITY)]
    for certificate, usage in ((server, ExtendedKeyUsageOID.SERVER_AUTH), (client, ExtendedKeyUsageOID.CLIENT_AUTH)):
        assert list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [usage]


def test_a_hub_s_is_that_of_a_client_which_names_its_host(tmp_path):
    assert create_all(tmp_path / "without", ["localhost"]).hub is None
    files = create_all(tmp_path, ["localhost"], hub_hosts=["trainer", "10.0.0.1"])
    assert len(list(tmp_path.glob("*.pem"))) == 8
    tls = TlsFiles.from_folder(tmp_path, "hub")
    assert (tls.certificate, tls.private_key) == (files.hub.certificate, files.hub.private_key)
    check_files(tls, "client")
    assert read_certificate(tls.certificate).hosts == ("trainer", "10.0.0.1", "urn:remote-gym:hub")
    with pytest.raises(ConfigError, match="URI"):
        create_all(tmp_path / "more", ["localhost"], hub_hosts=["https://trainer"])


def test_a_servers_host_is_no_uri(tmp_path):
    with pytest.raises(ConfigError, match="'https://here:1' is a URI"):
        create_all(tmp_path, ["localhost", "https://here:1"])
    assert contents(tmp_path) == {}


def test_keys_are_for_their_owner_only(tmp_path):
    create_all(tmp_path, ["localhost"])
    for name in NAMES:
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) & 0o077 == (0 if "key" in name else 0o044)


@pytest.mark.parametrize("name", NAMES)
def test_all_refuses_to_overwrite_any_and_writes_nothing(name, tmp_path):
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match=f"{name} is there already; .*--force"):
        create_all(tmp_path, ["localhost"])
    assert contents(tmp_path) == {name: b"precious"}


def test_force_replaces_everything_keys_with_their_modes_too(tmp_path):
    create_all(tmp_path, ["localhost"])
    before = contents(tmp_path)
    (tmp_path / "server-key.pem").chmod(0o644)
    files = create_all(tmp_path, ["localhost"], force=True)
    after = contents(tmp_path)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)
    assert stat.S_IMODE(files.server.private_key.stat().st_mode) == 0o600


@pytest.mark.parametrize(("hosts", "said"), [([], "needs a host"), (["localhost:80"], "has a port")])
def test_all_refuses_hosts_of_no_use(hosts, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        create_all(tmp_path / "new", hosts)
    assert not (tmp_path / "new").exists()


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"{tmp_path}/file/x cannot be written to: Not a directory"):
        create_all(tmp_path / "file" / "x", ["localhost"])


# create_authority, create_certificate


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return create_authority(SSL / "ca-csr.json", tmp_path_factory.mktemp("authority"))


def certify(authority, csr, directory, **options):
    return create_certificate(csr, directory, ca=authority.certificate, ca_key=authority.private_key, **options)


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "csr.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("role", ["server", "client"])
def test_shipped_requests_make_working_files_without_a_configuration(role, authority, tmp_path):
    files = certify(authority, SSL / f"{role}-csr.json", tmp_path, profile=role, name=role)
    assert files.certificate == tmp_path / f"{role}.pem"
    assert files.private_key == tmp_path / f"{role}-key.pem"
    load(files.certificate).verify_directly_issued_by(load(authority.certificate))
    key = serialization.load_pem_private_key(files.private_key.read_bytes(), None)
    assert key.public_key() == load(files.certificate).public_key()


@pytest.mark.parametrize("existing", ["it.pem", "it-key.pem"])
def test_certificate_is_not_overwritten_unless_forced(existing, authority, tmp_path):
    (tmp_path / existing).write_text("precious")
    with pytest.raises(ConfigError, match=f"{existing} is there already"):
        certify(authority, SSL / "client-csr.json", tmp_path, name="it")
    with pytest.raises(ConfigError, match=f"{existing} is there already"):
        create_authority(SSL / "ca-csr.json", tmp_path, name="it")
    assert contents(tmp_path) == {existing: b"precious"}
    certify(authority, SSL / "client-csr.json", tmp_path, name="it", force=True)
    assert b"precious" not in contents(tmp_path).values()


@pytest.mark.parametrize("force", [False, True])
def test_the_authority_that_signs_is_not_overwritten_even_where_forced(force, tmp_path):
    authority = create_authority(SSL / "ca-csr.json", tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"ca\.pem is the authority's"):
        certify(authority, SSL / "client-csr.json", tmp_path, name="ca", force=force)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a"])
def test_name_cannot_lead_out_of_the_folder(name, tmp_path):
    with pytest.raises(ConfigError, match="use a plain file name"):
        create_authority(SSL / "ca-csr.json", tmp_path, name=name)


def test_placeholder_among_the_hosts_is_refused_unless_replaced(authority, tmp_path, write):
    csr = write({"CN": "server", "hosts": ["ENTER_ENVIRONMENT_HOSTING_SERVER_IP_HERE", "localhost"]})
    with pytest.raises(ConfigError, match=r"csr\.json: host 'ENTER_.*' is a placeholder; write the name"):
        certify(authority, csr, tmp_path, name="it")
    with pytest.raises(ConfigError, match=r"^host '192\.0\.2\.7:80' has a port"):
        certify(authority, csr, tmp_path, name="it", hosts=["192.0.2.7:80"])
    files = certify(authority, csr, tmp_path, name="it", hosts=["192.0.2.7"])
    assert names(load(files.certificate)) == [x509.IPAddress(ip_address("192.0.2.7"))]


def test_certificate_without_hosts_is_made_with_a_warning(authority, tmp_path, write, caplog):
    certify(authority, write({"CN": "x"}), tmp_path, name="it")
    assert "has no hosts" in caplog.text


def test_certificate_that_outlives_its_authority_is_made_with_a_warning(tmp_path, write, caplog):
    authority = create_authority(write({"CN": "x", "ca": {"expiry": "1h"}}), tmp_path)
    certify(authority, SSL / "client-csr.json", tmp_path, name="it")
    assert "when its authority expires" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "CN is missing; an authority needs a name"),
        ({"names": [{}]}, "CN is missing; an authority needs a name"),
        ({"CN": "x" * 65}, f"CN is '{'x' * 65}'; use at most 64 bytes"),
        ({"names": [{"O": "x"}, {"O": "x"}]}, "CN or names cannot go into a certificate"),
        ({"CN": "x", "ca": {"expiry": "5m"}}, "expiry is 0:05:00, of which 0:05:00 lie in the past"),
        ({"CN": "x", "hosts": ["<host>"]}, "host '<host>' is a placeholder"),
    ],
)
def test_authority_that_cannot_be_is_refused(content, said, tmp_path, write):
    with pytest.raises(ConfigError) as caught:
        create_authority(write(content), tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/csr.json: {said}")
    assert list(contents(tmp_path)) == ["csr.json"]


def test_request_for_an_authority_makes_no_other_certificate(authority, tmp_path, write):
    with pytest.raises(ConfigError, match=r"csr\.json: ca is only for an authority"):
        certify(authority, write({"CN": "x", "ca": {}}), tmp_path, name="it")


def test_usages_that_contradict_each_other_are_refused(authority, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"signing": {"default": {"usages": ["encipher only"], "expiry": "1h"}}}))
    with pytest.raises(ConfigError, match="usages are encipher only: "):
        certify(authority, SSL / "client-csr.json", tmp_path, config=config, name="it")


# The authority that signs


def write_key(path, key, password=None):
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(pem, form, encryption))
    return path


def write_certificate(path, certificate):
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(scope="module")
def key():
    return generate_key(CertificateRequest().key)


def refusal(ca, ca_key, directory):
    with pytest.raises(ConfigError) as caught:
        create_certificate(SSL / "client-csr.json", directory, ca=ca, ca_key=ca_key, name="it")
    assert not (directory / "it.pem").exists()
    return str(caught.value)


def test_only_an_authority_signs(certificates, tmp_path):
    said = refusal(certificates.server, certificates.server_key, tmp_path)
    assert said.startswith(f"{certificates.server} is not an authority's certificate")


def test_authority_needs_its_own_key(certificates, authority, tmp_path):
    said = refusal(authority.certificate, certificates.ca_key, tmp_path)
    assert said.startswith(f"{authority.certificate} belongs to another private key")


@pytest.mark.parametrize(
    ("shift", "said"), [(timedelta(days=-3000), "expired on 20"), (timedelta(days=1), "is valid only from 20")]
)
def test_authority_signs_only_while_it_is_valid(shift, said, key, tmp_path):
    certificate = sign_authority(CertificateRequest(common_name="x"), key, datetime.now(timezone.utc) + shift)
    ca = write_certificate(tmp_path / "ca.pem", certificate)
    assert f"{ca} {said}" in refusal(ca, write_key(tmp_path / "key.pem", key), tmp_path)


def test_encrypted_key_is_told_with_the_remedy(authority, key, tmp_path):
    path = write_key(tmp_path / "key.pem", key, b"secret")
    assert f"{path} is encrypted; decrypt it first: openssl pkey" in refusal(authority.certificate, path, tmp_path)


def test_key_that_grpc_refuses_is_refused(authority, tmp_path):
    path = write_key(tmp_path / "key.pem", ec.generate_private_key(ec.SECP521R1()))
    assert f"{path} is of a kind that gRPC refuses" in refusal(authority.certificate, path, tmp_path)


def test_swapped_and_missing_files_are_named(authority, tmp_path):
    ca, ca_key, none = authority.certificate, authority.private_key, tmp_path / "none.pem"
    assert refusal(ca_key, ca, tmp_path).startswith(f"{ca_key} is not a certificate in PEM form")
    assert refusal(ca, ca, tmp_path).startswith(f"{ca} is not a private key in PEM form")
    assert refusal(none, ca_key, tmp_path) == f"{none} cannot be read: No such file or directory"
    assert refusal(ca, none, tmp_path) == f"{none} cannot be read: No such file or directory"


# Signing, in memory


@pytest.mark.parametrize(("seconds", "minute"), [(0, 0), (29.9, 0), (30, 1), (59, 1)])
def test_validity_starts_at_the_nearest_minute_backdated_by_five(seconds, minute, key):
    now = datetime(2030, 1, 1, 12, tzinfo=timezone.utc)
    certificate = sign_authority(CertificateRequest(common_name="x"), key, now + timedelta(seconds=seconds))
    assert certificate.not_valid_before_utc == now + timedelta(minutes=minute - 5)
    assert certificate.not_valid_after_utc == certificate.not_valid_before_utc + timedelta(hours=43800)


def test_email_in_a_name_is_last_and_always_utf8(key, write):
    request = read_request(write({"CN": "x", "serialnumber": "1", "names": [{"E": "a@example.com", "C": "DE"}]}))
    [country, common, serial, email] = sign_authority(request, key, datetime.now(timezone.utc)).subject.rdns
    assert [next(iter(rdn)).oid for rdn in (country, common, serial)] == [
        NameOID.COUNTRY_NAME,
        NameOID.COMMON_NAME,
        NameOID.SERIAL_NUMBER,
    ]
    assert bytes([0x0C, 13]) + b"a@example.com" in x509.Name([email]).public_bytes()


def test_content_commitment_and_uris_get_in(key):
    now = datetime.now(timezone.utc)
    authority = Authority(certificate=sign_authority(CertificateRequest(common_name="x"), key, now), private_key=key)
    profile = Profile(usages=("content commitment",))
    hosts = Hosts(dns=("a",), uris=("spiffe://x/y",))
    made = sign_certificate(CertificateRequest(), hosts, key.public_key(), authority, profile, now)
    assert made.extensions.get_extension_for_class(x509.KeyUsage).value.content_commitment
    assert names(made) == [x509.DNSName("a"), x509.UniformResourceIdentifier("spiffe://x/y")]


def test_authority_without_a_key_identifier_signs_as_well(key):
    now = datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bare")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    bare = builder.add_extension(x509.BasicConstraints(True, None), critical=True).sign(key, SHA256())
    authority = Authority(certificate=bare, private_key=key)
    made = sign_certificate(
        CertificateRequest(common_name="x"), Hosts(), key.public_key(), authority, Profile(usages=("signing",)), now
    )
    made.verify_directly_issued_by(bare)
    with pytest.raises(x509.ExtensionNotFound):
        made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)


def test_certificate_without_extensions_does_not_sign(key, tmp_path):
    now = datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bare")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    ca = write_certificate(tmp_path / "ca.pem", builder.sign(key, SHA256()))
    assert f"{ca} is not an authority's" in refusal(ca, write_key(tmp_path / "key.pem", key), tmp_path)
