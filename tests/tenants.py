"""Clients of one server with certificates of their own."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from remote_gym.certs.cfssl import BUILT_IN_PROFILES, CertificateRequest, KeyRequest
from remote_gym.certs.create import load_authority
from remote_gym.certs.hosts import parse_hosts
from remote_gym.certs.signing import certificate_pem, generate_key, key_pem, sign_certificate
from remote_gym.testing import LoopbackServer


def tenant(server: LoopbackServer, name: str) -> tuple[Path, Path, Path]:
    """What the client ``DNS:name`` connects to the server with."""
    ca = server.client_credentials_paths[0]
    certificate, private_key = ca.parent / f"{name}.pem", ca.parent / f"{name}-key.pem"
    if certificate.exists():
        return ca, certificate, private_key
    key = generate_key(KeyRequest())
    authority = load_authority(ca, ca.parent / "ca-key.pem")
    profile, now = BUILT_IN_PROFILES["client"], datetime.now(timezone.utc)
    request = CertificateRequest(common_name=name)
    signed = sign_certificate(request, parse_hosts([name]), key.public_key(), authority, profile, now)
    certificate.write_bytes(certificate_pem(signed))
    private_key.write_bytes(key_pem(key))
    return ca, certificate, private_key
