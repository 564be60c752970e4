"""Identifies clients by what they show: decided here, once, for every way in."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from remote_gym.auth.expiry import near_from, seconds_left, warn_of_clients
from remote_gym.auth.identity import IdentityRule
from remote_gym.auth.tokens import TokenFile
from remote_gym.config import ServerOptions, TlsFiles
from remote_gym.errors import DenialReason, NotPermitted
from remote_gym.logs import get_logger, host_of
from remote_gym.server.access.keys import FrontendKeys
from remote_gym.tls.peer import PeerCertificate, read_peer_certificate
from remote_gym.v1 import worker_pb2

logger = get_logger(__name__)

TLS_VERSION = "TLSv1.3"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Credentials of a client, as the frontend found them on its connection.

    Attributes:
        peer: Its address, for the log.
        tls_version: Of its connection, such as ``"TLSv1.3"``; empty without TLS, and where that is not known.
        certificates: Those that TLS has verified, in DER, its own first.
        token: The one that came with what it asks; empty without.
        frontend: Name of a protocol that may have a key of its own; empty for others.
    """

    peer: str
    tls_version: str = ""
    certificates: Sequence[bytes] = ()
    token: str = ""
    frontend: str = ""


@dataclass(frozen=True)
class Client:
    """A client that is known, and may ask.

    Attributes:
        identity: Such as ``"DNS:alice"``; empty where the server asks for none.
        answered_until: When a conversation that begins now has to be begun anew, since its certificate is over or its
            connection too old; on `time.monotonic`.
    """

    identity: str
    answered_until: float = math.inf


class CertificateExpired(Exception):
    """The certificate that a connection was made with is over. Its client is to make another, with a new one."""


class Clients:
    """Knows a server's clients.

    Args:
        files: The server's; None without TLS.
        options: The server's.

    Raises:
        ConfigError: If the token file cannot be read.
    """

    def __init__(self, files: TlsFiles | None, options: ServerOptions) -> None:
        self._files = files
        self._options = options
        tokens = None
        if options.token_file is not None:
            tokens = TokenFile(Path(options.token_file).absolute()).get
            tokens()  # says so, if they cannot be read
        self._keys = FrontendKeys(options)
        self._rule = IdentityRule(
            certificates=files is not None and files.ca is not None, common_names=options.common_names, tokens=tokens
        )

    @property
    def have_identities(self) -> bool:
        """Whether any rule can name one of them: they show certificates, tokens, or a frontend's key."""
        return self._rule.certificates or self._rule.tokens is not None or self._keys.are_there

    def identify(self, credentials: Credentials) -> Client:
        """Decide who a client is, and until when it is answered.

        Raises:
            NotPermitted: If it cannot be known, or does not use TLS 1.3 where there is TLS.
            CertificateExpired: If its certificate is over.
        """
        try:
            certificates = [_read(der) for der in credentials.certificates]
            identity = self._identify(credentials, certificates)
        except NotPermitted as error:
            peer = credentials.peer
            logger.warning(
                "refused a call from %s: %s", peer, error, repeats=host_of(peer), event="call_refused", peer=peer
            )
            raise
        if not identity.startswith("key:"):
            self._look_at_token(credentials)
        now = time.time()
        expires = min((each.not_after for each in certificates), default=math.inf)
        if expires <= now:
            logger.warning(
                "refused a call of %s: its certificate has expired",
                identity,
                repeats=identity,
                event="call_refused",
                identity=identity,
            )
            # No word about the session, which goes on when the client comes with a new certificate.
            raise CertificateExpired("the client's certificate has expired; connect anew")
        if any(near_from(each.not_before, each.not_after) <= now for each in certificates):
            warn_of_clients(identity, expires)
        return Client(identity, time.monotonic() + seconds_left(self._conversation, expires))

    def tls_of_worker(self, identity: str) -> worker_pb2.Tls | None:
        """Settings by which a worker admits its session's client, which comes to it directly; None without TLS."""
        files, options = self._files, self._options
        if files is None:
            return None
        return worker_pb2.Tls(
            certificate=_absolute(files.certificate),
            private_key=_absolute(files.private_key),
            ca=_absolute(files.ca),
            common_names=options.common_names,
            token_file=_absolute(options.token_file),
            token_digests=self._rule.digests_of(identity),
            certificate_lifetime=options.certificate_lifetime or 0.0,
        )

    def look(self) -> None:
        """See what has gone from the file of tokens, though nobody calls: it counts no more a while after that."""
        self._rule.look()

    def is_revoked(self, identity: str) -> bool:
        """Whether it was a token's, and the last token of that name has been taken away."""
        return self._rule.is_revoked(identity)

    @property
    def _conversation(self) -> float | None:
        """Seconds that one may last. The connection that carries it takes new ones for the first half of its time."""
        lifetime = self._options.certificate_lifetime
        return None if lifetime is None else lifetime / 2

    def _identify(self, credentials: Credentials, certificates: Sequence[PeerCertificate]) -> str:
        if credentials.tls_version not in ("", TLS_VERSION):
            raise NotPermitted(
                f"the connection uses {credentials.tls_version}, and the server takes {TLS_VERSION}",
                reason=DenialReason.IDENTITY,
            )
        if by_key := self._keys.identity(credentials.frontend, credentials.token):
            return by_key
        names = [name for certificate in certificates for name in certificate.names]
        identity = self._rule.identify(names, credentials.token)
        self._keys.check(credentials.frontend, identity)
        return identity

    def _look_at_token(self, credentials: Credentials) -> None:
        if credentials.token and self._rule.tokens is None:
            logger.warning(
                "a client at %s sends a token, which counts for nothing: ServerOptions.token_file is not set",
                credentials.peer,
                repeats=host_of(credentials.peer),
                lines=1,
                event="token_ignored",
                peer=credentials.peer,
            )


_read = functools.lru_cache(maxsize=1024)(read_peer_certificate)


def _absolute(path: object) -> str:
    """As a worker needs it, which changes its working directory."""
    return "" if path is None else str(Path(str(path)).absolute())
