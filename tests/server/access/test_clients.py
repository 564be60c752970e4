"""Who a client is, and until when it is answered, whatever way it came."""

from __future__ import annotations

import math
import ssl
import time
from datetime import datetime, timedelta, timezone

import pytest

from remote_gym.auth.tokens import add_token
from remote_gym.config import ServerOptions, TlsFiles
from remote_gym.errors import NotPermitted
from remote_gym.server.access.clients import CertificateExpired, Clients, Credentials
from remote_gym.v1 import worker_pb2
from strange_certificates import sign_strangely

FILES = TlsFiles(certificate="/server.pem", private_key="/server-key.pem", ca="/ca.pem")
HOUR, YEAR = 3600.0, 365 * 86_400.0


@pytest.fixture(scope="module")
def certificate(certificates, tmp_path_factory):
    """Makes one of DNS:alice, in DER, that is over in so many seconds."""

    def make(*, left: float = YEAR) -> bytes:
        end = datetime.now(timezone.utc) + timedelta(seconds=left)
        folder = tmp_path_factory.mktemp("alice")
        files = sign_strangely(certificates.ca.parent, folder, [("DNS", b"alice")], end=end)
        return ssl.PEM_cert_to_DER_cert(files.certificate.read_text())

    return make


def shown(*certificates: bytes, **others) -> Credentials:
    return Credentials(peer="ipv4:10.0.0.1:4321", certificates=certificates, **others)


def test_without_authority_and_tokens_everybody_is_nobody_and_is_answered_without_end():
    client = Clients(None, ServerOptions()).identify(shown())
    assert (client.identity, client.answered_until) == ("", math.inf)


def test_a_certificates_end_is_the_conversations(caplog, certificate):
    client = Clients(FILES, ServerOptions()).identify(shown(certificate(left=YEAR)))
    assert client.identity == "DNS:alice"
    assert client.answered_until == pytest.approx(time.monotonic() + YEAR, abs=60.0)
    assert not caplog.records


def test_half_of_a_certificates_lifetime_is_the_conversations_where_that_is_sooner(certificate):
    """Of the other half the connection has taken new ones."""
    clients = Clients(FILES, ServerOptions(certificate_lifetime=2 * HOUR))
    client = clients.identify(shown(certificate()))
    assert client.answered_until == pytest.approx(time.monotonic() + HOUR, abs=60.0)
    client = clients.identify(shown(certificate(left=HOUR / 2)))
    assert client.answered_until == pytest.approx(time.monotonic() + HOUR / 2, abs=60.0)


def test_of_several_certificates_the_first_that_ends_counts(certificate):
    client = Clients(FILES, ServerOptions()).identify(shown(certificate(), certificate(left=HOUR)))
    assert client.answered_until == pytest.approx(time.monotonic() + HOUR, abs=60.0)


def test_a_certificate_that_is_over_is_refused_without_a_word_about_sessions(caplog, certificate):
    with pytest.raises(CertificateExpired, match="connect anew"):
        Clients(FILES, ServerOptions()).identify(shown(certificate(left=-1.0)))
    assert [record.fields["event"] for record in caplog.records] == ["call_refused"]


def test_a_certificate_that_is_near_its_end_is_warned_about(caplog, certificate):
    Clients(FILES, ServerOptions()).identify(shown(certificate(left=HOUR)))
    assert [record.fields["event"] for record in caplog.records] == ["certificate_near_end"]
    assert "the certificate of DNS:alice expires on" in caplog.text


def test_an_older_tls_is_refused_whoever_comes(caplog, certificate):
    with pytest.raises(NotPermitted, match=r"uses TLSv1.2, and the server takes TLSv1.3"):
        Clients(FILES, ServerOptions()).identify(shown(certificate(), tls_version="TLSv1.2"))
    assert "refused a call from ipv4:10.0.0.1:4321" in caplog.text


@pytest.mark.parametrize("version", ["", "TLSv1.3"])
def test_a_version_that_is_not_told_is_no_reason(version, certificate):
    assert Clients(FILES, ServerOptions()).identify(shown(certificate(), tls_version=version)).identity == "DNS:alice"


def test_a_token_names_its_client_until_it_is_taken_away(tmp_path, certificate):
    path = tmp_path / "tokens"
    token = add_token(path, "bob")
    clients = Clients(FILES, ServerOptions(token_file=path))
    assert clients.identify(shown(certificate(), token=token)).identity == "token:bob"
    assert not clients.is_revoked("token:bob")
    assert clients.is_revoked("token:carol")
    assert not clients.is_revoked("DNS:alice")


def test_a_token_that_counts_for_nothing_is_told(caplog, certificate):
    Clients(FILES, ServerOptions()).identify(shown(certificate(), token="rgt"))
    assert [record.fields["event"] for record in caplog.records] == ["token_ignored"]


def test_whether_any_rule_can_name_a_client(tmp_path):
    path = tmp_path / "tokens"
    add_token(path, "bob")
    nobody = TlsFiles(certificate="/server.pem", private_key="/server-key.pem")
    assert Clients(FILES, ServerOptions()).have_identities
    assert Clients(nobody, ServerOptions(token_file=path)).have_identities
    assert not Clients(nobody, ServerOptions()).have_identities


def test_a_worker_is_told_absolute_paths_and_its_clients_tokens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    add_token(tmp_path / "tokens", "bob")
    files = TlsFiles(certificate="server.pem", private_key="server-key.pem")
    clients = Clients(files, ServerOptions(token_file="tokens", certificate_lifetime=HOUR))
    told = clients.tls_of_worker("token:bob")
    assert told is not None
    assert len(told.token_digests) == 1
    told.ClearField("token_digests")
    assert told == worker_pb2.Tls(
        certificate=str(tmp_path / "server.pem"),
        private_key=str(tmp_path / "server-key.pem"),
        token_file=str(tmp_path / "tokens"),
        certificate_lifetime=HOUR,
    )
    assert Clients(None, ServerOptions()).tls_of_worker("") is None


def test_a_certificate_that_cannot_be_read_is_nobodys(caplog):
    with pytest.raises(NotPermitted, match="certificate cannot be read"):
        Clients(FILES, ServerOptions()).identify(shown(b"rubbish"))
    assert [record.fields["event"] for record in caplog.records] == ["call_refused"]
