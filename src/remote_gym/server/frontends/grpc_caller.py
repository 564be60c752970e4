"""What a client shows of itself by a gRPC call: in the metadata, and on the connection that carries it."""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from remote_gym.errors import DenialReason, NotPermitted
from remote_gym.server.access.clients import Credentials
from remote_gym.server.frontends.relay.peers import peer_of
from remote_gym.tls.peer import PeerCertificate, read_peer_certificate


def credentials_of(context: Any) -> Credentials:
    """What the client that makes a call shows of itself.

    Args:
        context: A `grpc.aio.ServicerContext`.

    Raises:
        NotPermitted: If its certificate cannot be read.
    """
    properties: Mapping[str, Sequence[bytes]] = context.auth_context()
    # gRPC accepts TLS 1.2 as well, and Python has no setting for that. Before grpcio 1.85 it does not tell either.
    versions = [version.decode(errors="replace") for version in properties.get("ssl_tls_version", ())]
    return Credentials(
        peer=peer_of(context).address,
        tls_version=versions[0] if versions else "",
        certificates=[_read(pem) for pem in properties.get("x509_pem_cert", ())],
        token=_bearer_token(context.invocation_metadata() or ()),
    )


def _bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
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
        raise NotPermitted(f"the client's certificate cannot be read: {error}", reason=DenialReason.IDENTITY) from error
    return read_peer_certificate(der)
