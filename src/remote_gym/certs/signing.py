"""X.509 certificates made from requests and profiles, equal to cfssl's to the byte except for keys and serial numbers.

Everything here is in memory; `remote_gym.certs.create` has the files.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from remote_gym.certs.cfssl import EXTENDED_USAGES, AuthorityRequest, CertificateRequest, KeyRequest, Profile
from remote_gym.certs.hosts import Hosts, parse_hosts
from remote_gym.errors import ConfigError
from remote_gym.logs import get_logger

log = get_logger(__name__)

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_PRINTABLE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?")


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A certificate that signs others, and its key."""

    certificate: x509.Certificate
    private_key: PrivateKey


def generate_key(request: KeyRequest) -> PrivateKey:
    """Make a private key."""
    if request.algorithm == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=request.size)
    return ec.generate_private_key(ec.SECP256R1() if request.size == 256 else ec.SECP384R1())


def key_pem(key: PrivateKey) -> bytes:
    """Encode a private key, unencrypted, as PKCS#1 (RSA) or SEC 1 (elliptic curves)."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Encode a certificate."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def sign_authority(request: CertificateRequest, key: PrivateKey, now: datetime) -> x509.Certificate:
    """Make an authority's own certificate, signed by itself.

    Of ``request.hosts`` only the IP addresses get in, as in cfssl.

    Raises:
        ConfigError: If the request has no name at all, or another field that does not work.
    """
    settings = request.authority or AuthorityRequest()
    subject = _subject(request)
    if not list(subject):
        raise ConfigError("CN is missing; an authority needs a name, such as 'My authority'")
    addresses = Hosts(addresses=parse_hosts(request.hosts).addresses)
    if len(addresses.addresses) < len(request.hosts):
        log.warning("an authority is not for hosts: of %s only IP addresses go into its certificate", request.hosts)
    builder = _builder(subject, subject, key.public_key(), settings.expiry, settings.backdate, now)
    builder = builder.add_extension(_key_usage(["cert sign", "crl sign"]), critical=True)
    builder = builder.add_extension(x509.BasicConstraints(True, settings.path_length), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return _add_hosts(builder, addresses, subject).sign(key, _hash(key))


def sign_certificate(
    request: CertificateRequest, hosts: Hosts, key: PublicKey, authority: Authority, profile: Profile, now: datetime
) -> x509.Certificate:
    """Make the certificate of a server or a client.

    Args:
        request: The subject; its own ``hosts`` and ``key`` do not count here.
        hosts: The names that it is valid for.
        key: The public key that it vouches for.
        authority: Who vouches.
        profile: For what, and for how long.
        now: With a time zone.

    Raises:
        ConfigError: If the request is for an authority, or it or the profile has a field that does not work.
    """
    if request.authority is not None:
        raise ConfigError("ca is only for an authority's request; leave it out of a server's or client's")
    issuer = authority.certificate
    subject = _subject(request)
    builder = _builder(subject, _name_of(issuer), key, profile.expiry, profile.backdate, now)
    extended = [x509.ObjectIdentifier(EXTENDED_USAGES[usage]) for usage in profile.usages if usage in EXTENDED_USAGES]
    simple = [usage for usage in profile.usages if usage not in EXTENDED_USAGES]
    if simple:
        builder = builder.add_extension(_key_usage(simple), critical=True)
    if extended:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    builder = _add_issuer_key(builder, issuer)
    return _add_hosts(builder, hosts, subject).sign(authority.private_key, _hash(authority.private_key))


def check_authority(authority: Authority, now: datetime) -> None:
    """Refuse what cannot sign for others.

    Raises:
        ConfigError: If the certificate is not an authority's, not valid at present, or belongs to another key.
    """
    certificate = authority.certificate
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if not is_authority:
        raise ConfigError("is not an authority's certificate (CA:TRUE is missing); use the one named ca.pem or alike")
    if certificate.public_key() != authority.private_key.public_key():
        raise ConfigError("belongs to another private key; use the certificate and key that were made together")
    if certificate.not_valid_after_utc < now:
        raise ConfigError(f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}; make a new authority")
    if certificate.not_valid_before_utc > now:
        raise ConfigError(f"is valid only from {certificate.not_valid_before_utc}; check this machine's clock")


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, expiry: timedelta, backdate: timedelta, now: datetime
) -> x509.CertificateBuilder:
    # To the minute and half up, then backdated for peers whose clock is late: cfssl's rule.
    start = (now + timedelta(seconds=30)).replace(second=0, microsecond=0) - backdate
    if expiry < backdate + timedelta(minutes=1):
        raise ConfigError(f"expiry is {expiry}, of which {backdate} lie in the past; use at least a minute more")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start.astimezone(timezone.utc))
        .not_valid_after((start + expiry).astimezone(timezone.utc))
    )


def _subject(request: CertificateRequest) -> x509.Name:
    if len(request.common_name.encode()) > 64:  # RFC 5280's bound, which not every version of cryptography checks.
        raise ConfigError(f"CN is {request.common_name!r}; use at most 64 bytes")
    names = request.names
    attributes = [
        (NameOID.COUNTRY_NAME, [name.country for name in names]),
        (NameOID.STATE_OR_PROVINCE_NAME, [name.state for name in names]),
        (NameOID.LOCALITY_NAME, [name.locality for name in names]),
        (NameOID.ORGANIZATION_NAME, [name.organization for name in names]),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, [name.unit for name in names]),
        (NameOID.COMMON_NAME, [request.common_name]),
        (NameOID.SERIAL_NUMBER, [request.serial_number]),
        (NameOID.EMAIL_ADDRESS, [name.email for name in names]),
    ]
    try:
        return x509.Name(
            x509.RelativeDistinguishedName([_attribute(oid, value) for value in values if value])
            for oid, values in attributes
            if any(values)
        )
    except ValueError as error:
        raise ConfigError(f"CN or names cannot go into a certificate: {error}") from error


def _name_of(certificate: x509.Certificate) -> x509.Name:
    with warnings.catch_warnings():
        # Existing authorities may have a country of more than two letters. That cannot be mended here, and works.
        warnings.simplefilter("ignore", UserWarning)
        return certificate.subject


def _attribute(oid: x509.ObjectIdentifier, value: str) -> x509.NameAttribute[str]:
    # Only this parameter chooses the string type, and two names are the same to some verifiers only if it is the same:
    # an authority made anew by either tool has to match the certificates made under the old one.
    printable = oid != NameOID.EMAIL_ADDRESS and _PRINTABLE.issuperset(value)
    return x509.NameAttribute(oid, value, _ASN1Type.PrintableString if printable else _ASN1Type.UTF8String)


def _key_usage(usages: Sequence[str]) -> x509.KeyUsage:
    try:
        return x509.KeyUsage(
            digital_signature="signing" in usages or "digital signature" in usages,
            content_commitment="content commitment" in usages,
            key_encipherment="key encipherment" in usages,
            data_encipherment="data encipherment" in usages,
            key_agreement="key agreement" in usages,
            key_cert_sign="cert sign" in usages,
            crl_sign="crl sign" in usages,
            encipher_only="encipher only" in usages,
            decipher_only="decipher only" in usages,
        )
    except ValueError as error:
        raise ConfigError(f"usages are {', '.join(usages)}: {error}") from error


def _add_issuer_key(builder: x509.CertificateBuilder, issuer: x509.Certificate) -> x509.CertificateBuilder:
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return builder
    key = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    return builder.add_extension(key, critical=False)


def _add_hosts(builder: x509.CertificateBuilder, hosts: Hosts, subject: x509.Name) -> x509.CertificateBuilder:
    names: list[x509.GeneralName] = [
        *(x509.DNSName(name) for name in hosts.dns),
        *(x509.RFC822Name(email) for email in hosts.emails),
        *(x509.IPAddress(address) for address in hosts.addresses),
        *(x509.UniformResourceIdentifier(uri) for uri in hosts.uris),
    ]
    if not names:
        return builder
    # Critical where nothing else says whose certificate it is: RFC 5280, 4.2.1.6.
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=not list(subject))


def _hash(key: PrivateKey) -> hashes.SHA256 | hashes.SHA384 | hashes.SHA512:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return hashes.SHA256() if key.key_size <= 256 else hashes.SHA384()
    if key.key_size >= 4096:
        return hashes.SHA512()
    return hashes.SHA384() if key.key_size >= 3072 else hashes.SHA256()
