"""Who makes a gRPC call, by what gRPC tells of its connection and metadata."""

from __future__ import annotations

import functools
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from remote_gym.auth.expiry import near_from
from remote_gym.auth.identity import IdentityRule
from remote_gym.errors import NotPermitted
from remote_gym.logs import get_logger, host_of
from remote_gym.server.frontends.relay.peers import peer_of
from remote_gym.tls.peer import PeerCertificate, read_peer_certificate

logger = get_logger(__name__)


@dataclass(frozen=True)
class Caller:
    """A client that may call.

    Attributes:
        identity: Empty where the server asks for none.
        expires: When its certificate is over, in seconds since the epoch; infinity without one.
        near_from: From when that is near.
    """

    identity: str
    expires: float
    near_from: float = math.inf


def caller(context: Any, rule: IdentityRule) -> Caller:
    """Who calls.

    Args:
        context: A `grpc.aio.ServicerContext`.
        rule: The server's.

    Raises:
        NotPermitted: If the client cannot be known, or does not use TLS 1.3 where there is TLS.
    """
    properties: Mapping[str, Sequence[bytes]] = context.auth_context()
    # gRPC accepts TLS 1.2 as well, and Python has no setting for that. Before grpcio 1.85 it does not tell either.
    for version in properties.get("ssl_tls_version", ()):
        if version != b"TLSv1.3":
            raise NotPermitted(f"the connection uses {version.decode(errors='replace')}, and the server takes TLSv1.3")
    token = _bearer_token(context.invocation_metadata() or ()) if rule.tokens is not None else ""
    certificates = [_read(pem) for pem in properties.get("x509_pem_cert", ())]
    names = [name for certificate in certificates for name in certificate.names]
    return Caller(
        rule.identify(names, token),
        min((each.not_after for each in certificates), default=math.inf),
        min((near_from(each.not_before, each.not_after) for each in certificates), default=math.inf),
    )


async def known_caller(context: Any, rule: IdentityRule) -> Caller:
    """Who calls, while its certificate is good.

    Raises:
        NotPermitted: As `caller` does.
    """
    try:
        client = caller(context, rule)
    except NotPermitted as error:
        peer = peer_of(context).address
        logger.warning(
            "refused a call from %s: %s", peer, error, repeats=host_of(peer), event="call_refused", peer=peer
        )
        raise
    if rule.tokens is None and _bearer_token(context.invocation_metadata() or ()):
        peer = peer_of(context).address
        logger.warning(
            "a client at %s sends a token, which counts for nothing: ServerOptions.token_file is not set",
            peer,
            repeats=host_of(peer),
            lines=1,
            event="token_ignored",
            peer=peer,
        )
    if client.expires <= time.time():
        logger.warning(
            "refused a call of %s: its certificate has expired",
            client.identity,
            repeats=client.identity,
            event="call_refused",
            identity=client.identity,
        )
        # No word about the session, which goes on when the client comes with a new certificate.
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the client's certificate has expired; connect anew")
    return client


def _bearer_token(metadata: Any) -> str:
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer":
                return token.strip()
    return ""


@functools.lru_cache(maxsize=1024)
def _read(pem: bytes) -> PeerCertificate:
    try:
        der = ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
    except ValueError as error:
        raise NotPermitted(f"the client's certificate cannot be read: {error}") from error
    return read_peer_certificate(der)
