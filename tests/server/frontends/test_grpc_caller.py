"""What a gRPC call shows of its client."""

from __future__ import annotations

import ssl

import pytest

from remote_gym import NotPermitted
from remote_gym.server.frontends.grpc_caller import credentials_of


class Context:
    """As much of a `grpc.aio.ServicerContext` as tells who calls."""

    def __init__(self, *metadata, **properties):
        self._metadata = metadata
        self._properties = {name: [value] for name, value in properties.items()}

    def auth_context(self):
        return self._properties

    def invocation_metadata(self):
        return self._metadata

    def peer(self):
        return "ipv4:10.0.0.1:4321"


def test_without_tls_only_the_address_is_known():
    credentials = credentials_of(Context())
    assert credentials.peer == "ipv4:10.0.0.1:4321"
    assert (credentials.tls_version, tuple(credentials.certificates), credentials.token) == ("", (), "")


def test_the_version_of_tls_is_told_as_grpc_has_it():
    assert credentials_of(Context(ssl_tls_version=b"TLSv1.2")).tls_version == "TLSv1.2"


def test_what_is_no_certificate_is_left_to_be_refused():
    assert credentials_of(Context(x509_pem_cert=b"rubbish")).certificates == [b"rubbish"]


def test_a_certificate_comes_in_der(certificates):
    pem = certificates.client.read_bytes()
    assert credentials_of(Context(x509_pem_cert=pem)).certificates == [ssl.PEM_cert_to_DER_cert(pem.decode())]


@pytest.mark.parametrize("header", ["Bearer rgt", "bearer rgt", "Bearer  rgt "])
def test_a_token_comes_in_the_metadata(header):
    assert credentials_of(Context(("user-agent", "x"), ("authorization", header))).token == "rgt"


@pytest.mark.parametrize("header", ["Basic rgt", "rgt", b"Bearer rgt"])
def test_what_is_no_bearers_token_is_none(header):
    assert credentials_of(Context(("authorization", header))).token == ""


def test_of_two_tokens_none_counts():
    bearers = [("authorization", f"Bearer {token}") for token in ("rgt", "other")]
    with pytest.raises(NotPermitted, match="2 tokens"):
        credentials_of(Context(*bearers))
    assert credentials_of(Context(bearers[0], ("authorization", "Basic other"))).token == "rgt"


def test_only_spaces_surround_a_token():
    assert credentials_of(Context(("authorization", "Bearer \x1frgt\u2003"))).token == "\x1frgt\u2003"
