"""Certificates of any name and any time, under an authority of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from remote_gym.certs import CertificateFiles
from remote_gym.certs.cfssl import BUILT_IN_PROFILES, CertificateRequest, KeyRequest
from remote_gym.certs.create import load_authority
from remote_gym.certs.hosts import parse_hosts
from remote_gym.certs.signing import Authority, certificate_pem, generate_key, key_pem, sign_certificate

DAY = timedelta(days=1)


def sign(
    authority: Path,
    folder: Path,
    name: str,
    hosts: Sequence[str],
    *,
    common_name: str = "",
    profile: str = "default",
    begin: timedelta = -DAY,
    end: timedelta = DAY,
) -> CertificateFiles:
    """Write ``<name>.pem`` and ``<name>-key.pem``, over what is there.

    Args:
        authority: Folder of ``ca.pem`` and ``ca-key.pem``.
        folder: Where the files go.
        name: Of the files.
        hosts: Its names.
        common_name: Its subject's; empty for an empty subject.
        profile: What it is for: ``"server"``, ``"client"``, or ``"default"`` for both.
        begin: When it is valid, from now.
        end: Until when.
    """
    key = generate_key(KeyRequest())
    # What is signed begins at a full minute, and its end is counted from there.
    now = datetime.now(timezone.utc)
    start = (now + begin + timedelta(seconds=30)).replace(second=0, microsecond=0)
    lifetime = replace(BUILT_IN_PROFILES[profile], backdate=timedelta(0), expiry=now + end - start)
    request = CertificateRequest(common_name=common_name)
    names = parse_hosts(list(hosts))
    by = load_authority(authority / "ca.pem", authority / "ca-key.pem")
    certificate = sign_certificate(request, names, key.public_key(), by, lifetime, now + begin)
    made = CertificateFiles(certificate=folder / f"{name}.pem", private_key=folder / f"{name}-key.pem")
    made.certificate.write_bytes(certificate_pem(certificate))
    made.private_key.write_bytes(key_pem(key))
    return made


def sign_by_leaf(leaf: CertificateFiles, folder: Path, name: str, hosts: Sequence[str]) -> CertificateFiles:
    """What the holder of a certificate that is no authority's can make with it: a chain, its own included."""
    key = generate_key(KeyRequest())
    itself = Authority(
        certificate=x509.load_pem_x509_certificate(leaf.certificate.read_bytes()),
        private_key=load_pem_private_key(leaf.private_key.read_bytes(), None),  # type: ignore[arg-type]
    )
    now = datetime.now(timezone.utc)
    certificate = sign_certificate(
        CertificateRequest(), parse_hosts(list(hosts)), key.public_key(), itself, BUILT_IN_PROFILES["default"], now
    )
    made = CertificateFiles(certificate=folder / f"{name}.pem", private_key=folder / f"{name}-key.pem")
    made.certificate.write_bytes(certificate_pem(certificate) + leaf.certificate.read_bytes())
    made.private_key.write_bytes(key_pem(key))
    return made
