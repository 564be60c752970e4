"""Checks of PEM files of certificates and keys, whose errors name the file."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from remote_gym.errors import ConfigError
from remote_gym.tls.facts import UNREADABLE

Role: TypeAlias = Literal["server", "client"]
Extension = TypeVar("Extension", bound=x509.ExtensionType)

_CERTIFICATE = re.compile(rb"-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----")
_KEY = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL)
_PURPOSES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


def check_pair(certificate_path: Path, key_path: Path, role: Role, *, check_time: bool) -> None:
    """Check one end's own certificate and private key.

    Raises:
        ConfigError: Naming the file at fault.
    """
    certificate = _certificates(certificate_path, "certificate")[0]
    key = _private_key(key_path)
    if _public_key(certificate, certificate_path) != key.public_key():
        hint = "; it is an authority's: is it swapped with the ca?" if _is_authority(certificate) else ""
        raise ConfigError(
            f"{certificate_path} does not belong to {key_path}{hint or '; use the two that were made together'}"
        )
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or key.key_size == 521:
        raise ConfigError(f"{key_path} is of a kind that gRPC refuses; use a key of ecdsa 256, ecdsa 384 or rsa")
    if check_time:
        _check_time(certificate, certificate_path)
    _check_purpose(certificate, certificate_path, role)


def check_authority(path: Path) -> None:
    """Check the certificates that the other end's has to come from; one that works is enough.

    Raises:
        ConfigError: Naming the file.
    """
    certificates = _certificates(path, "ca")
    authorities = [certificate for certificate in certificates if _is_authority(certificate)]
    # A server's certificate that it signed itself may be trusted directly.
    trusted = authorities or [certificate for certificate in certificates if _is_self_signed(certificate)]
    if not trusted:
        raise ConfigError(
            f"{path}, given as the ca, is not an authority's certificate; is it swapped with the certificate?"
        )
    now = datetime.now(timezone.utc)
    if not any(one.not_valid_before_utc <= now <= one.not_valid_after_utc for one in trusted):
        _check_time(trusted[0], path)


def _check_time(certificate: x509.Certificate, path: Path) -> None:
    now = datetime.now(timezone.utc)
    if certificate.not_valid_after_utc < now:
        raise ConfigError(f"{path} expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; make a new one")
    if certificate.not_valid_before_utc > now:
        raise ConfigError(
            f"{path} is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; "
            f"here it is {now:%Y-%m-%d %H:%M} UTC: is that right?"
        )


def _check_purpose(certificate: x509.Certificate, path: Path, role: Role) -> None:
    extended = _extension(certificate, x509.ExtendedKeyUsage)
    if extended is not None and _PURPOSES[role] not in extended:  # without the extension it is good for everything
        raise ConfigError(f"{path} is not made for a {role}: its usages lack '{role} auth'; use the {role}'s own")
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        hint = "it is an authority's; use one that it signed" if _is_authority(certificate) else "add 'signing'"
        raise ConfigError(f"{path} may not sign, which TLS needs of a {role}; {hint}")


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    """None too where the extensions cannot be read: what TLS makes of them, TLS will tell."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return None


def _read(path: Path, place: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}, given as the {place}, cannot be read: {error.strerror}") from error
    if b"-----BEGIN " not in content:
        raise ConfigError(f"{path}, given as the {place}, is not PEM, text that starts with '-----BEGIN'")
    return content


def _certificates(path: Path, place: str) -> list[x509.Certificate]:
    content = _read(path, place)
    if not _CERTIFICATE.search(content):
        found = "a private key; is it swapped with the certificate?" if _KEY.search(content) else "no certificate"
        raise ConfigError(f"{path}, given as the {place}, holds {found}")
    try:
        certificates = x509.load_pem_x509_certificates(content)
        for certificate in certificates:
            str((certificate.subject, certificate.not_valid_before_utc, certificate.not_valid_after_utc))
        return certificates
    except UNREADABLE as error:
        raise ConfigError(f"{path}, given as the {place}, holds a damaged certificate: {error}") from error


def _private_key(path: Path) -> PrivateKeyTypes:
    content = _read(path, "private key")
    block = _KEY.search(content)
    if block is None:
        found = "a certificate; is it swapped with the key?" if _CERTIFICATE.search(content) else "no private key"
        raise ConfigError(f"{path}, given as the private key, holds {found}")
    try:
        return load_pem_private_key(block[0], password=None)
    except TypeError as error:
        raise ConfigError(f"{path} is encrypted; decrypt it first: openssl pkey -in {path} -out key.pem") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path}, given as the private key, holds a damaged or unknown key: {error}") from error


def _public_key(certificate: x509.Certificate, path: Path) -> object:
    try:
        return certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} has a key of an unknown kind; use one of ecdsa 256, ecdsa 384 or rsa") from error


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = _extension(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _is_self_signed(certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
