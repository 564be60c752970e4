"""Facts of a certificate, for people to read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509

from remote_gym.errors import ConfigError

UNREADABLE = (
    ValueError,
    TypeError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""Errors of cryptography for a damaged certificate: not when it is loaded, but when the damaged part is read."""


@dataclass(frozen=True, kw_only=True)
class CertificateFacts:
    """The parts of a certificate that decide whether it fits.

    Attributes:
        subject: Whose it is, such as ``"CN=remote-gym server"``.
        issuer: Who signed it.
        hosts: Names and addresses that it is good for; of a client, its names.
        not_before: When it begins to be valid.
        not_after: When it expires.
        key: Identifier of its key, in hexadecimal; empty where it does not say.
        issuer_key: That of the key that signed it; likewise.
    """

    subject: str
    issuer: str
    hosts: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    key: str = ""
    issuer_key: str = ""

    @property
    def has_expired(self) -> bool:
        """Whether its time is over."""
        return self.not_after < datetime.now(timezone.utc)

    def __str__(self) -> str:
        names = ", ".join(self.hosts) or "no host"
        verb = "expired" if self.has_expired else "expires"
        return (
            f"{self.subject or 'without a subject'}, names {names}, from {self.issuer}, "
            f"{verb} on {self.not_after:%Y-%m-%d}"
        )


def read_certificate(path: Path) -> CertificateFacts:
    """The facts of the first certificate in a PEM file.

    Raises:
        ConfigError: If it cannot be read, or is no certificate.
    """
    try:
        return _facts(x509.load_pem_x509_certificate(path.read_bytes()))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except UNREADABLE as error:
        raise ConfigError(f"{path} is not a certificate in PEM form: {error}") from error


def decode_certificate(der: bytes) -> CertificateFacts:
    """The facts of a certificate as TLS carries it.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return _facts(x509.load_der_x509_certificate(der))
    except UNREADABLE as error:
        raise ConfigError(f"a damaged certificate: {error}") from error


def _facts(certificate: x509.Certificate) -> CertificateFacts:
    return CertificateFacts(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        hosts=_hosts(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        key=_key(certificate),
        issuer_key=_issuer_key(certificate),
    )


def _key(certificate: x509.Certificate) -> str:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
    except (x509.ExtensionNotFound, *UNREADABLE):
        return ""


def _issuer_key(certificate: x509.Certificate) -> str:
    try:
        found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (x509.ExtensionNotFound, *UNREADABLE):
        return ""
    return (found or b"").hex()


def _hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return ()
    return tuple(str(name.value) for name in names if not isinstance(name, x509.OtherName | x509.DirectoryName))
