"""Certificates for mutual TLS: an authority of one's own, and what it signs for servers and clients."""

from remote_gym.certs.create import (
    CLIENT_IDENTITY,
    AllFiles,
    CertificateFiles,
    create_all,
    create_authority,
    create_certificate,
)

__all__ = [
    "CLIENT_IDENTITY",
    "AllFiles",
    "CertificateFiles",
    "create_all",
    "create_authority",
    "create_certificate",
]
