"""Certificates with names that no honest authority signs, down to their bytes."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtensionOID, NameOID

from remote_gym.certs import CertificateFiles
from remote_gym.certs.signing import key_pem

TAGS = {"email": 0x81, "DNS": 0x82, "URI": 0x86, "IP": 0x87}
UTF8, PRINTABLE, TELETEX, BMP = 0x0C, 0x13, 0x14, 0x1E
DAY = timedelta(days=1)


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) < 0x80:
        return bytes((tag, len(content))) + content
    size = len(content).to_bytes(2, "big")
    return bytes((tag, 0x82)) + size + content


def sign_strangely(
    authority: Path,
    folder: Path,
    names: Sequence[tuple[str, bytes]] = (),
    common_name: tuple[int, bytes] | None = None,
    end: datetime | None = None,
) -> CertificateFiles:
    """Write ``strange.pem`` and ``strange-key.pem``.

    Args:
        authority: Folder of ``ca.pem`` and ``ca-key.pem``.
        folder: Where the files go.
        names: Each after its kind, as its bytes.
        common_name: Its tag and its bytes.
        end: When it expires; None for tomorrow.
    """
    issuer = x509.load_pem_x509_certificate((authority / "ca.pem").read_bytes())
    signer = load_pem_private_key((authority / "ca-key.pem").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    stand_in = "" if common_name is None else "x" * len(common_name[1])
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, stand_in)] if stand_in else []))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(end or now + DAY)
    )
    if names:
        listed = der(0x30, *(der(TAGS[kind], name) for kind, name in names))
        unread = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, listed)
        builder = builder.add_extension(unread, critical=not stand_in)
    signed = builder.sign(signer, hashes.SHA256())
    data = signed.public_bytes(Encoding.DER)
    if common_name is not None:
        content = signed.tbs_certificate_bytes.replace(der(UTF8, stand_in.encode()), der(*common_name))
        algorithm = der(0x30, der(0x06, bytes.fromhex("2a8648ce3d040302")))  # ecdsa-with-SHA256
        signature = signer.sign(content, ec.ECDSA(hashes.SHA256()))
        data = der(0x30, content, algorithm, der(0x03, b"\0" + signature))
    made = CertificateFiles(certificate=folder / "strange.pem", private_key=folder / "strange-key.pem")
    made.certificate.write_text(ssl.DER_cert_to_PEM_cert(data))
    made.private_key.write_bytes(key_pem(key))
    return made
