"""Making certificates and writing them to files.

From the JSON files of cfssl come the certificates that cfssl makes; `create_all` does without any. A client is known to
servers by the names in its certificate, so each client should have its own: ``hosts`` of its request, a DNS name
such as ``"alice"``, as every version of cfssl can write it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from remote_gym.certs.cfssl import BUILT_IN_PROFILES, CertificateRequest, read_profile, read_request
from remote_gym.certs.hosts import parse_hosts
from remote_gym.certs.signing import (
    Authority,
    PrivateKey,
    certificate_pem,
    check_authority,
    generate_key,
    key_pem,
    sign_authority,
    sign_certificate,
)
from remote_gym.config.tls import HUB
from remote_gym.errors import ConfigError
from remote_gym.logs import get_logger

log = get_logger(__name__)

CLIENT_IDENTITY = "remote-gym-client"
"""The DNS name by which servers know the client that `create_all` makes."""


@dataclass(frozen=True, kw_only=True)
class CertificateFiles:
    """A certificate and its private key, as PEM files."""

    certificate: Path
    private_key: Path


@dataclass(frozen=True, kw_only=True)
class AllFiles:
    """The files of `create_all`."""

    ca: CertificateFiles
    server: CertificateFiles
    client: CertificateFiles
    hub: CertificateFiles | None = None


def create_authority(csr: Path, directory: Path, *, name: str = "ca", force: bool = False) -> CertificateFiles:
    """Make a certificate authority from a request such as ``ca-csr.json``.

    Args:
        csr: The request.
        directory: Where ``<name>.pem`` and ``<name>-key.pem`` go. Made where it is missing.
        name: Of the files.
        force: Replace files that are there.

    Raises:
        ConfigError: If the request does not work, or a file is there already or cannot be written.
    """
    request = read_request(csr)
    files = _files(directory, name)
    _refuse_existing([files], force=force)
    with _blame(csr):
        authority = _authority(request)
    _write((files, authority.certificate, authority.private_key))
    return files


def create_certificate(
    csr: Path,
    directory: Path,
    *,
    ca: Path,
    ca_key: Path,
    config: Path | None = None,
    profile: str | None = None,
    name: str,
    hosts: Sequence[str] | None = None,
    force: bool = False,
) -> CertificateFiles:
    """Make the certificate of a server or a client from a request such as ``server-csr.json``.

    Args:
        csr: The request.
        directory: Where ``<name>.pem`` and ``<name>-key.pem`` go. Made where it is missing.
        ca: The certificate of the authority that signs.
        ca_key: Its private key.
        config: Signing profiles, a file such as ``ca-config.json``. None for the built-in ones: ``server``, ``client``
            and ``default``, which is good for both.
        profile: Which of them; None for the default.
        name: Of the files.
        hosts: Replaces the request's: names and addresses under which a server is reached, or by which a client
            is known.
        force: Replace files that are there.

    Raises:
        ConfigError: If one of the files does not work, is there already or cannot be written.
    """
    request = read_request(csr)
    chosen = read_profile(config, profile)
    authority = load_authority(ca, ca_key)
    files = _files(directory, name)
    _refuse_authority(files, (ca, ca_key))
    _refuse_existing([files], force=force)
    key = generate_key(request.key)
    with _blame(csr if hosts is None else None):
        names = parse_hosts(request.hosts if hosts is None else hosts)
    if not request.hosts and not hosts:
        log.warning("%s: has no hosts; no client will accept it, and only a server with common_names=True", csr)
    with _blame(csr):
        certificate = sign_certificate(request, names, key.public_key(), authority, chosen, _now())
    if certificate.not_valid_after_utc > authority.certificate.not_valid_after_utc:
        log.warning(
            "%s: will work until %s only, when its authority expires",
            files.certificate,
            authority.certificate.not_valid_after_utc,
        )
    _write((files, certificate, key))
    return files


def create_all(
    directory: Path, hosts: Sequence[str], *, hub_hosts: Sequence[str] = (), force: bool = False
) -> AllFiles:
    """Make an authority, a server's and a client's certificate, with ECDSA keys on P-256, without any JSON file.

    Args:
        directory: Where ``ca.pem``, ``ca-key.pem``, ``server.pem``, ``server-key.pem``, ``client.pem`` and
            ``client-key.pem`` go. Made where it is missing.
        hosts: Names and addresses under which clients reach the server.
        hub_hosts: Names and addresses under which the server reaches a hub, for which ``hub.pem`` and ``hub-key.pem``
            are made, too; none without a hub.
        force: Replace files that are there.

    Raises:
        ConfigError: If there is no host, one that cannot work, or a file is there already or cannot be written.
    """
    names = parse_hosts(hosts)
    if not hosts:
        raise ConfigError("a server's certificate needs a host: the name or address under which clients reach it")
    for host in (*hosts, *hub_hosts):
        if "://" in host:  # which a request may have: it can name a client
            raise ConfigError(f"{host!r} is a URI, by which no client reaches a server; use the host's name alone")
    files = AllFiles(
        ca=_files(directory, "ca"),
        server=_files(directory, "server"),
        client=_files(directory, "client"),
        hub=_files(directory, "hub") if hub_hosts else None,
    )
    wanted = [
        ("server", "server", files.server, names),
        ("client", "client", files.client, parse_hosts([CLIENT_IDENTITY])),
    ]
    if files.hub is not None:
        # To servers, which dial out to it, it is a client: see `remote_gym.tls.hub`.
        wanted.append(("hub", "client", files.hub, parse_hosts([*hub_hosts, HUB])))
    _refuse_existing([files.ca, *(its_files for _, _, its_files, _ in wanted)], force=force)
    authority = _authority(CertificateRequest(common_name="remote-gym authority"))
    made = [(files.ca, authority.certificate, authority.private_key)]
    for role, profile, its_files, its_names in wanted:
        request = CertificateRequest(common_name=f"remote-gym {role}")
        key = generate_key(request.key)
        its_profile = BUILT_IN_PROFILES[profile]
        certificate = sign_certificate(request, its_names, key.public_key(), authority, its_profile, _now())
        made.append((its_files, certificate, key))
    _write(*made)
    return files


def load_authority(ca: Path, ca_key: Path) -> Authority:
    """Read an authority's certificate and private key, and check that they can sign.

    Raises:
        ConfigError: Naming the file, if it cannot be read, is of another kind, has expired, or the two do not match.
    """
    ca_pem, ca_key_pem = _read(ca), _read(ca_key)
    try:
        certificate = x509.load_pem_x509_certificate(ca_pem)
    except ValueError as error:
        raise ConfigError(f"{ca} is not a certificate in PEM form; use the authority's, such as ca.pem") from error
    try:
        key = load_pem_private_key(ca_key_pem, password=None)
    except TypeError as error:
        raise ConfigError(
            f"{ca_key} is encrypted; decrypt it first: openssl pkey -in {ca_key} -out ca-key.pem"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{ca_key} is not a private key in PEM form; use the authority's, such as ca-key.pem"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) or key.key_size == 521:
        raise ConfigError(
            f"{ca_key} is of a kind that gRPC refuses; make an authority with ecdsa 256, ecdsa 384 or rsa"
        )
    authority = Authority(certificate=certificate, private_key=key)
    try:
        check_authority(authority, _now())
    except ConfigError as error:
        raise ConfigError(f"{ca} {error}") from None
    return authority


def _authority(request: CertificateRequest) -> Authority:
    key = generate_key(request.key)
    return Authority(certificate=sign_authority(request, key, _now()), private_key=key)


def _now() -> datetime:
    return datetime.now(timezone.utc)


@contextmanager
def _blame(path: Path | None) -> Iterator[None]:
    """Put the file at fault in front of an error's message."""
    try:
        yield
    except ConfigError as error:
        if path is None:
            raise
        raise ConfigError(f"{path}: {error}") from None


def _files(directory: Path, name: str) -> CertificateFiles:
    if Path(name).name != name or name in ("", ".."):
        raise ConfigError(f"name is {name!r}; use a plain file name without ending, such as 'server'")
    return CertificateFiles(certificate=directory / f"{name}.pem", private_key=directory / f"{name}-key.pem")


def _refuse_authority(files: CertificateFiles, authority: Sequence[Path]) -> None:
    """Whatever is forced: with its key, all that it has signed would be lost."""
    for path in (files.certificate, files.private_key):
        if path.exists() and any(path.samefile(its) for its in authority):
            raise ConfigError(f"{path} is the authority's, which is to sign; choose another directory or name")


def _refuse_existing(pairs: Sequence[CertificateFiles], *, force: bool) -> None:
    for path in (path for files in pairs for path in (files.private_key, files.certificate)):
        if path.exists() and not force:
            raise ConfigError(
                f"{path} is there already; choose another directory or name, or replace it by --force (force=True)"
            )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def _write(*made: tuple[CertificateFiles, x509.Certificate, PrivateKey]) -> None:
    contents = {files.private_key: (key_pem(key), 0o600) for files, _, key in made}
    contents |= {files.certificate: (certificate_pem(certificate), 0o644) for files, certificate, _ in made}
    directory = made[0][0].certificate.parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Complete, in a folder that only we can read, before any gets its name: nobody sees half a file, a key that
        # others may read, or a new certificate beside an old key because the disk was full.
        with tempfile.TemporaryDirectory(dir=directory, prefix=".certs-") as staging:
            for path, (content, mode) in contents.items():
                staged = Path(staging, path.name)
                staged.touch(mode=mode)
                staged.write_bytes(content)
            for path in contents:
                Path(staging, path.name).replace(path)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be written to: {error.strerror}") from error
