"""Reads a client's credentials from a gRPC call: its metadata, and the connection that carries it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from remote_gym.errors import DenialReason, NotPermitted
from remote_gym.server.access.clients import Credentials
from remote_gym.server.frontends.relay.peers import peer_of


def credentials_of(context: Any) -> Credentials:
    """Read the credentials of the client that makes a call.

    Args:
        context: A `grpc.aio.ServicerContext`.

    Raises:
        NotPermitted: If it shows more than one token.
    """
    properties: Mapping[str, Sequence[bytes]] = context.auth_context()
    # gRPC accepts TLS 1.2 as well, and Python has no setting for that. Before grpcio 1.85 it does not tell either.
    versions = [version.decode(errors="replace") for version in properties.get("ssl_tls_version", ())]
    return Credentials(
        peer=peer_of(context).address,
        tls_version=versions[0] if versions else "",
        certificates=[_to_der(pem) for pem in properties.get("x509_pem_cert", ())],
        token=_bearer_token(context.invocation_metadata() or ()),
    )


def _bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    tokens = []
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer":
                tokens.append(token.strip(" "))
    if len(tokens) > 1:
        # What stands in between might check the one and leave the other to count here.
        raise NotPermitted(f"the call has {len(tokens)} tokens; send one", reason=DenialReason.IDENTITY)
    return tokens[0] if tokens else ""


def _to_der(pem: bytes) -> bytes:
    """A certificate as gRPC has it, in DER; what is none stays as it is, for who reads it to refuse."""
    try:
        return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
    except ValueError:
        return pem
