"""Certificates with one fault each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509

from remote_gym.certs import CLIENT_IDENTITY, CertificateFiles, create_all
from remote_gym.certs.cfssl import BUILT_IN_PROFILES, CertificateRequest, KeyRequest, Profile
from remote_gym.certs.create import load_authority
from remote_gym.certs.hosts import parse_hosts
from remote_gym.certs.signing import Authority, certificate_pem, generate_key, key_pem, sign_authority, sign_certificate

HOSTS = ["localhost", "127.0.0.1", "::1", CLIENT_IDENTITY]


@dataclass(frozen=True, kw_only=True)
class BadCertificates:
    """Certificates under the authority of the ``certificates`` fixture, unless said otherwise, all for both roles."""

    expired: CertificateFiles
    not_yet_valid: CertificateFiles
    wrong_ca: CertificateFiles
    """From another authority, ``other_ca``."""
    self_signed: CertificateFiles
    server_only: CertificateFiles
    """Not for clients."""
    client_only: CertificateFiles
    """Not for servers."""
    other_ca: Path
    expired_ca: Path


@pytest.fixture(scope="session")
def bad_certificates(certificates, tmp_path_factory) -> BadCertificates:
    directory = tmp_path_factory.mktemp("bad")
    now = datetime.now(timezone.utc)
    both = BUILT_IN_PROFILES["default"]
    authority = load_authority(certificates.ca, certificates.ca_key)
    other = create_all(directory / "other", ["localhost"])
    other_authority = load_authority(other.ca.certificate, other.ca.private_key)

    def write(name: str, certificate: x509.Certificate, key: bytes) -> CertificateFiles:
        files = CertificateFiles(certificate=directory / f"{name}.pem", private_key=directory / f"{name}-key.pem")
        files.certificate.write_bytes(certificate_pem(certificate))
        files.private_key.write_bytes(key)
        return files

    def leaf(name: str, profile: Profile = both, by: Authority = authority, at: datetime = now) -> CertificateFiles:
        key = generate_key(KeyRequest())
        request = CertificateRequest(common_name=name)
        return write(
            name, sign_certificate(request, parse_hosts(HOSTS), key.public_key(), by, profile, at), key_pem(key)
        )

    def by_itself(name: str) -> CertificateFiles:
        key = generate_key(KeyRequest())
        request = CertificateRequest(common_name=name)
        itself = Authority(certificate=sign_authority(request, key, now), private_key=key)
        return write(
            name, sign_certificate(request, parse_hosts(HOSTS), key.public_key(), itself, both, now), key_pem(key)
        )

    def expired_authority() -> Path:
        key = generate_key(KeyRequest())
        long_ago = now - timedelta(days=3000)
        return write(
            "old-ca", sign_authority(CertificateRequest(common_name="old"), key, long_ago), key_pem(key)
        ).certificate

    return BadCertificates(
        expired=leaf("expired", replace(both, expiry=timedelta(hours=1)), at=now - timedelta(days=2)),
        not_yet_valid=leaf("not-yet-valid", at=now + timedelta(days=2)),
        wrong_ca=leaf("wrong-ca", by=other_authority),
        self_signed=by_itself("self-signed"),
        server_only=leaf("server-only", BUILT_IN_PROFILES["server"]),
        client_only=leaf("client-only", BUILT_IN_PROFILES["client"]),
        other_ca=other.ca.certificate,
        expired_ca=expired_authority(),
    )
