"""PEM files turned into gRPC credentials and ssl contexts, with every fault of the files told before a handshake.

A failed handshake looks the same to gRPC whatever the reason, so each function here first runs `check_files`.
"""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from remote_gym.config import TlsFiles
from remote_gym.errors import ConfigError
from remote_gym.tls.reloading import Reloaded

# Both are loaded where they are used: the ssl contexts need no grpc, and what serves without TLS no cryptography.
if TYPE_CHECKING:
    import grpc

    from remote_gym.tls.pem import Role

_SERVER_FORM = "(certificate, private key, certificate authority or None)"
_CLIENT_FORM = "(certificate authority, certificate or None, private key or None)"

PathOrNone = str | os.PathLike[str] | None


def server_files(paths: Sequence[PathOrNone] | None, tls: TlsFiles | None = None) -> TlsFiles | None:
    """Read what a server was given: ``server_credentials_paths``, or ``tls``.

    Args:
        paths: Certificate, private key, certificate authority or None.
        tls: The same by names.

    Returns:
        None for None and for three times None.

    Raises:
        ConfigError: If one has another form, or both are given.
    """
    if tls is not None:
        return _only_tls(tls, paths, "server_credentials_paths")
    members = _three_paths(paths, "server_credentials_paths", _SERVER_FORM)
    if members is None:
        return None
    certificate, private_key, ca = members
    return TlsFiles(ca=ca, certificate=certificate, private_key=private_key)


def client_files(paths: Sequence[PathOrNone] | None, tls: TlsFiles | None = None) -> TlsFiles | None:
    """Read what a client was given: ``client_credentials_paths``, or ``tls``.

    Args:
        paths: Certificate authority, certificate or None, private key or None.
        tls: The same by names.

    Returns:
        None for None and for three times None.

    Raises:
        ConfigError: If one has another form, or both are given.
    """
    if tls is not None:
        return _only_tls(tls, paths, "client_credentials_paths")
    members = _three_paths(paths, "client_credentials_paths", _CLIENT_FORM)
    if members is None:
        return None
    ca, certificate, private_key = members
    return TlsFiles(ca=ca, certificate=certificate, private_key=private_key)


def check_files(files: TlsFiles, role: Role, *, check_time: bool = True) -> None:
    """Check that files can serve one end of a TLS connection.

    Args:
        files: A server needs certificate and key; a client without an authority trusts those of the system.
        role: ``"server"`` or ``"client"``.
        check_time: Whether the certificate has to be valid now, by this machine's clock.

    Raises:
        ConfigError: Naming the file that is missing, cannot be read, is not PEM, is of another kind than its place
            (swapped), does not belong to its key, is encrypted, not yet or no more valid, or made for the other role.
    """
    from remote_gym.tls import pem

    if role == "server" and (files.certificate is None or files.private_key is None):
        missing = "certificate" if files.certificate is None else "private key"
        raise ConfigError(
            f"a server needs a certificate and its private key; there is no {missing}", field="certificate"
        )
    if files.certificate is not None and files.private_key is None:
        raise ConfigError(
            f"{files.certificate} is given without its private key; give both or neither", field="private_key"
        )
    if files.private_key is not None and files.certificate is None:
        raise ConfigError(
            f"{files.private_key} is given without its certificate; give both or neither", field="certificate"
        )
    if files.certificate is not None and files.private_key is not None:
        pem.check_pair(files.certificate, files.private_key, role, check_time=check_time)
    if files.ca is not None:
        pem.check_authority(files.ca)


class ServerCertificates:
    """A gRPC server's certificates, read again when their files change; what then does not fit, leaves the old in use.

    With an authority, clients must show a certificate that it signed.

    Args:
        files: The server's.

    Raises:
        ConfigError: As `check_files`.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._require_client_auth = files.ca is not None
        self._loaded = Reloaded(file_paths(files), functools.partial(_certificate_configuration, files))
        self._loaded.get()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for one port. Each port needs its own, since gRPC is told only of changes, and port by port."""
        import grpc

        used = self._loaded.get()

        def fetch() -> Any:
            """Called by gRPC before each handshake; None for no change."""
            nonlocal used
            newest = self._loaded.get()
            if newest is used:
                return None
            used = newest
            return newest

        return grpc.dynamic_ssl_server_credentials(used, fetch, self._require_client_auth)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Make a gRPC server's credentials, for one port, as `ServerCertificates` does.

    Raises:
        ConfigError: As `check_files`.
    """
    return ServerCertificates(files).credentials()


def file_paths(files: TlsFiles) -> list[Path]:
    """Paths of the files that are given."""
    return [path for path in (files.ca, files.certificate, files.private_key) if path is not None]


def channel_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Make a gRPC client's credentials. Without an authority, gRPC's own list of public ones is trusted.

    Raises:
        ConfigError: As `check_files`.
    """
    import grpc

    # Whether the certificate is valid now is the server's to say, by its own clock.
    check_files(files, "client", check_time=False)
    return grpc.ssl_channel_credentials(
        root_certificates=_content(files.ca),
        private_key=_content(files.private_key),
        certificate_chain=_content(files.certificate),
    )


def server_context(files: TlsFiles, *, check: bool = True) -> ssl.SSLContext:
    """Make a server's context: TLS 1.3; with an authority, clients must show a certificate that it signed.

    Args:
        files: The server's.
        check: Look for what is wrong with them first; else OpenSSL says so in its words.

    Raises:
        ConfigError: As `check_files`.
    """
    if check:
        check_files(files, "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if files.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return _loaded(context, files)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Make a client's context: TLS 1.3; the server's certificate and host name are verified.

    Raises:
        ConfigError: As `check_files`.
    """
    # Whether the certificate is valid now is the server's to say, by its own clock.
    check_files(files, "client", check_time=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if files.ca is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    return _loaded(context, files)


def _loaded(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        if files.certificate is not None:
            # Without the password, OpenSSL would ask at the terminal if the key were replaced by an encrypted one.
            context.load_cert_chain(files.certificate, files.private_key, password="")
        if files.ca is not None:
            context.load_verify_locations(files.ca)
    except (OSError, ValueError) as error:  # SSLError is an OSError.
        raise ConfigError(f"TLS does not accept {files}: {error}") from error
    return context


def _certificate_configuration(files: TlsFiles) -> Any:
    import grpc

    check_files(files, "server")
    pair = (_content(files.private_key), _content(files.certificate))
    return grpc.ssl_server_certificate_configuration([pair], _content(files.ca))


def _content(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


def absolute_paths(paths: Any) -> Any:
    """The same paths, from the root on, so that they remain those of the files whatever the working directory becomes.

    Args:
        paths: Three of them; what has another form is returned as it is, for `client_files` to refuse.
    """
    if not isinstance(paths, tuple | list):
        return paths
    return tuple(_absolute(path) for path in paths)


def _absolute(path: Any) -> Any:
    if isinstance(path, str):
        return str(Path(path).absolute()) if path else path
    return Path(path).absolute() if isinstance(path, os.PathLike) else path


def _only_tls(tls: TlsFiles, paths: object, name: str) -> TlsFiles:
    if not isinstance(tls, TlsFiles):
        role = name.partition("_")[0]
        folder = os.fspath(tls) if isinstance(tls, str | os.PathLike) else "certificates"
        raise ConfigError(
            f"is {tls!r}; use TlsFiles(ca=..., certificate=..., private_key=...), or, for a folder, "
            f"TlsFiles.from_folder({folder!r}, {role!r})",
            field="tls",
            where="tls",
        )
    if paths is not None:
        raise ConfigError(f"and {name} are both given; leave one of the two out", field="tls", where="tls")
    return TlsFiles(**{name: _absolute(path) for name, path in vars(tls).items()})


def _three_paths(
    paths: Sequence[PathOrNone] | None, name: str, form: str
) -> tuple[Path | None, Path | None, Path | None] | None:
    form = f"{name} has the form {form}"
    if paths is None:
        return None
    if not isinstance(paths, tuple | list):
        raise ConfigError(f"{form}; found {paths!r}", field=name)
    if len(paths) != 3:
        raise ConfigError(f"{form}; found {len(paths)} instead of 3: {tuple(paths)!r}", field=name)
    for path in paths:
        if path == "" or not isinstance(path, str | os.PathLike | None):
            raise ConfigError(f"{form}, each a path; found {path!r} in {tuple(paths)!r}", field=name)
    # From the root on: they are read again, whatever the working directory is by then.
    first, second, third = (None if path is None else Path(path).absolute() for path in paths)
    return (first, second, third) if first or second or third else None
