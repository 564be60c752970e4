"""Everybody who is not to get in, by both kinds of connection, and what each is told.

Each attempt knows the owner's session, its token, a routing id that is good, and the next request's number: nothing
but the client's identity stands in between. The owner goes on as if nothing had been, on the connection that it had.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import numpy as np
import pytest

from attacks import ANSWER, SECONDS, Impostor, attack_by_grpc, attack_directly, call_over, recording, replay, tell
from breaking import fresh_address
from certificates import sign, sign_by_leaf
from environments import ACTION
from raw_client import method, step
from remote_gym import RemoteEnvironment, create_remote_environment_server, tls
from remote_gym.certs import CLIENT_IDENTITY, CertificateFiles
from remote_gym.client.connect.connection import GrpcConnection
from remote_gym.client.connect.diagnosis import diagnose, summarise
from remote_gym.client.connect.direct_stream import DirectStream
from remote_gym.config import ClientOptions, Limits, TlsFiles
from remote_gym.errors import ConnectError
from remote_gym.protocol.constants import SESSION_KEY, TOKEN_KEY
from remote_gym.server.serve import RemoteEnvironmentServer
from remote_gym.v1 import remote_gym_pb2 as pb
from waiting import scaled, wait_until

KINDS = ("grpc", "direct")
ENVIRONMENTS = Path(__file__).parents[1]


@dataclass
class Target:
    """A server, its owner's environments, one by each kind of connection, and what was tried on them."""

    server: RemoteEnvironmentServer
    owners: dict[str, RemoteEnvironment]
    log: Path
    ca: Path
    folder: Path
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, number: int) -> None:
        """So many attempts were refused."""
        self.counts[what] = self.counts.get(what, 0) + number

    def session(self, kind: str) -> pb.Session:
        return self.owners[kind]._session._session

    def request(self, kind: str) -> bytes:
        """What the owner would ask next."""
        return step(self.owners[kind]._session._exchange.answered + 1).SerializeToString()

    def address(self, kind: str) -> pb.DirectAddress:
        """One that nobody has come by yet, as whoever is faster than the owner would have it."""
        return fresh_address(self.owners[kind]._session)

    def attack(self, kind: str, files: TlsFiles | None, token: str | None = None) -> list[str]:
        """Use the owner's session with these certificates; None for plaintext."""
        session = self.session(kind)
        token = session.token if token is None else token
        if kind == "grpc":
            credentials = None if files is None else raw_credentials(files)
            return attack_by_grpc(self.server.port, credentials, session.id, token, self.request(kind))
        context = None if files is None else raw_context(files)
        return [attack_directly(self.address(kind), context, token, self.request(kind))]


@pytest.fixture(scope="module")
def target(certificates, tmp_path_factory, request) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("matrix")
    patch = pytest.MonkeyPatch()
    patch.chdir(ENVIRONMENTS)
    paths = (certificates.server, certificates.server_key, certificates.ca)
    arguments = {"entrypoint": "environments.py", "entrypoint_kwargs": {"log": str(folder / "log")}}
    with create_remote_environment_server(arguments, "localhost", 0, paths) as server:
        owners = {}
        for kind in KINDS:
            owners[kind] = open_environment(server, certificates, kind)
        found = Target(server, owners, folder / "log", certificates.ca, folder)
        yield found
        for owner in owners.values():
            owner.close()
    patch.undo()
    told = ", ".join(f"{count} {what}" for what, count in found.counts.items())
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print(f"\nTried and refused: {told}")


def open_environment(server: RemoteEnvironmentServer, certificates, kind: str) -> RemoteEnvironment:
    paths = (certificates.ca, certificates.client, certificates.client_key)
    environment = RemoteEnvironment("localhost", server.port, client_credentials_paths=paths, connection=kind)
    environment.reset()
    environment.step(ACTION["step"])  # attaches, where the reset came with the opening
    return environment


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return request.param


@pytest.fixture
def own(certificates) -> TlsFiles:
    """The owner's."""
    return TlsFiles(ca=certificates.ca, certificate=certificates.client, private_key=certificates.client_key)


@pytest.fixture
def untouched(target, kind) -> Iterator[None]:
    """Nothing of either session changes while the test runs, and the owner goes on."""
    before = target.log.read_text()
    connections = {name: owner._session._carrier.stream for name, owner in target.owners.items()}
    numbers = {name: owner._session._exchange.answered for name, owner in target.owners.items()}
    yield
    assert target.log.read_text() == before  # no step, no reset, no close
    for name, owner in target.owners.items():
        owner.step(ACTION["step"])
        assert owner._session._carrier.stream is connections[name]
        assert owner._session._exchange.answered == numbers[name] + 1
    assert target.log.read_text().count("step") == before.count("step") + len(target.owners)


def raw_credentials(files: TlsFiles) -> grpc.ChannelCredentials:
    """Without the checks that our own client makes of its files."""
    content = [path and path.read_bytes() for path in (files.ca, files.private_key, files.certificate)]
    return grpc.ssl_channel_credentials(*content)


def raw_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files.ca)
    if files.certificate is not None:
        context.load_cert_chain(files.certificate, files.private_key)
    return context


# Certificates


@dataclass(frozen=True)
class Refusal:
    """How somebody is refused.

    Attributes:
        answer: What comes back, by either connection, where the handshake does not fail.
        handshake: What OpenSSL says of it in the server's log, where it does.
        told: What our client tells its user about that.
    """

    answer: str = ""
    handshake: str = ""
    told: str = ""


NOBODY = Refusal(answer=r"NOT_PERMITTED: the client's certificate names nobody: it has no URI, DNS or email name; make")
REFUSALS = {
    "none": Refusal(handshake="peer did not return a certificate", told="requires a client certificate, and none"),
    "expired": Refusal(
        handshake="certificate has expired", told="it has expired, or is not yet valid|refuses .* expired on"
    ),
    "not_yet_valid": Refusal(handshake="certificate is not yet valid", told="refuses"),
    "wrong_ca": Refusal(handshake="unable to get local issuer certificate", told="refuses"),
    "self_signed": Refusal(handshake="self.signed certificate", told="refuses"),
    "leaf_signed": Refusal(handshake="invalid CA certificate", told="refuses"),
    "server_only": Refusal(
        handshake="unsuitable certificate purpose|unsupported certificate", told="not made for a client"
    ),
    "no_name": NOBODY,
    "address_only": NOBODY,
    "common_name_only": Refusal(
        answer="NOT_PERMITTED: .* common name 'alice' counts only for a server with common_names=True"
    ),
    "other_tenant": Refusal(answer="NOT_PERMITTED: session .*: it was opened by another identity than 'DNS:mallory'"),
}


@pytest.fixture(scope="module")
def strangers(certificates, bad_certificates, tmp_path_factory) -> dict[str, TlsFiles]:
    """Certificates that claim to be the owner's, where they claim anything."""
    folder, authority = tmp_path_factory.mktemp("strangers"), certificates.ca.parent
    own = CertificateFiles(certificate=certificates.client, private_key=certificates.client_key)
    made = {name: getattr(bad_certificates, name) for name in REFUSALS if hasattr(bad_certificates, name)}
    made |= {
        "leaf_signed": sign_by_leaf(own, folder, "leaf-signed", [CLIENT_IDENTITY]),
        "no_name": sign(authority, folder, "no-name", []),
        "address_only": sign(authority, folder, "address-only", ["127.0.0.1"]),
        "common_name_only": sign(authority, folder, "common-name", [], common_name="alice"),
        "other_tenant": sign(authority, folder, "mallory", ["mallory"]),
    }
    files = {
        name: TlsFiles(ca=certificates.ca, certificate=one.certificate, private_key=one.private_key)
        for name, one in made.items()
    }
    return {"none": TlsFiles(ca=certificates.ca), **files}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("stranger", REFUSALS)
def test_a_certificate_that_is_not_the_owners_is_of_no_use(target, strangers, stranger, kind, caplog):
    refusal = REFUSALS[stranger]
    with caplog.at_level("INFO", logger="remote_gym"):
        answers = target.attack(kind, strangers[stranger])
        if refusal.handshake and kind == "direct":
            wait_until(lambda: re.search(f"refused a direct connection: .*{refusal.handshake}", caplog.text))
    handshake = "UNAVAILABLE" if kind == "grpc" else "BROKEN"
    for answer in answers:
        assert re.match(refusal.answer or handshake, answer)
    target.count(f"{kind} by certificate", len(answers))


@pytest.mark.parametrize("stranger", [name for name, refusal in REFUSALS.items() if refusal.told])
def test_its_user_is_told_why(target, strangers, stranger):
    assert re.search(
        REFUSALS[stranger].told,
        summarise(diagnose("localhost", target.server.port, strangers[stranger], timeout=scaled(SECONDS))),
    )


# Tokens


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("token", ["", "other", "almost", "swapped", "of_the_other_session"])
def test_the_owner_itself_needs_the_sessions_token(target, own, token, kind):
    right = target.session(kind).token
    [other] = [target.session(name).token for name in KINDS if name != kind]
    tokens = {"almost": right[:-1], "swapped": right.swapcase(), "of_the_other_session": other}
    answers = target.attack(kind, own, tokens.get(token, token))
    for answer in answers:
        assert re.fullmatch("NOT_PERMITTED: session .*: this is not its token", answer)
    target.count(f"{kind} by token", len(answers))


# Replay


def test_what_an_ended_session_was_used_by_is_of_no_use(target, certificates, own, kind):
    ended = open_environment(target.server, certificates, kind)
    session, request = ended._session._session, step(3).SerializeToString()
    ended.close()
    if kind == "direct":
        answers, expected = [attack_directly(session.direct, raw_context(own), session.token, request)], "BROKEN"
    else:
        answers = attack_by_grpc(target.server.port, raw_credentials(own), session.id, session.token, request)
        expected = f"SESSION_LOST: session {session.id}: its client closed it"
    for answer in answers:
        assert answer.startswith(expected)
    target.count(f"{kind} by replay", len(answers))


def test_a_recorded_connection_is_of_no_use(target, certificates, own, kind):
    """To somebody in between, who repeats what the owner sent."""
    with closing(open_environment(target.server, certificates, kind)) as owner:
        session, request = owner._session._session, step(3).SerializeToString()
        port = session.direct.port if kind == "direct" else target.server.port
        with recording(port) as recorder:
            if kind == "direct":
                address = fresh_address(owner._session)
                address.port, address.same_place = recorder.port, False
                owner._session._carrier._attaching._learn(address)
                owner._session._carrier.detach()
            else:
                credentials = raw_credentials(own)
                [answer] = attack_by_grpc(recorder.port, credentials, session.id, session.token, request, ["Step"])
                assert answer.startswith("GOT")
            owner.step(np.int64(ACTION["step"]))  # over gRPC the same request, which has run
            before, connection = target.log.read_text(), owner._session._carrier.stream
            assert recorder.recorded
            replay(port, recorder.recorded)
            assert target.log.read_text() == before
            owner.step(ACTION["step"])
            assert owner._session._carrier.stream is connection
            assert target.log.read_text() == before + "step 0\n"
    target.count(f"{kind} by replay", 1)


# Versions


def call_by_hand(target: Target, own: TlsFiles, name: str, version: ssl.TLSVersion) -> str:
    """Use the session over that version of TLS."""
    context, session = raw_context(own), target.session("grpc")
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    metadata = {SESSION_KEY: session.id, TOKEN_KEY: session.token}
    with socket.create_connection(("localhost", target.server.port), timeout=scaled(SECONDS)) as sock:
        with context.wrap_socket(sock, server_hostname="localhost") as secure:
            answer = call_over(secure, method(name), metadata, target.request("grpc"))
    return tell(ANSWER[name].FromString(answer))


@pytest.mark.skipif(
    tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 85), reason="this grpcio does not tell the version of TLS"
)
@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("kind", ["grpc"])
@pytest.mark.parametrize("name", ANSWER)
def test_grpc_over_tls_1_2_is_of_no_use_even_to_the_owner(target, own, name, kind):
    try:
        answer = call_by_hand(target, own, name, ssl.TLSVersion.TLSv1_2)
    except ssl.SSLError:  # where this process was told to use no ciphers but those of TLS 1.3
        assert "GRPC_SSL_CIPHER_SUITES" in os.environ
    else:
        assert answer == "NOT_PERMITTED: the connection uses TLSv1.2, and the server takes TLSv1.3"
    target.count(f"{kind} by TLS 1.2", 1)


def test_the_same_call_over_tls_1_3_is_answered(target, own):
    """Else the test before would show nothing."""
    assert call_by_hand(target, own, "Spaces", ssl.TLSVersion.TLSv1_3).startswith("GOT: description")


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("kind", ["direct"])
def test_a_direct_connection_over_tls_1_2_is_of_no_use_even_to_the_owner(target, own, kind):
    context, session = raw_context(own), target.session(kind)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    answer = attack_directly(target.address(kind), context, session.token, target.request(kind))
    assert re.match("BROKEN: .*(?i:protocol.version)", answer)
    target.count(f"{kind} by TLS 1.2", 1)


@pytest.mark.usefixtures("untouched")
def test_plaintext_is_of_no_use(target, kind, caplog):
    with caplog.at_level("INFO", logger="remote_gym"):
        answers = target.attack(kind, None)
        for answer in answers:
            assert re.match("UNAVAILABLE" if kind == "grpc" else "BROKEN", answer)
        if kind == "direct":
            wait_until(lambda: "refused a direct connection: [SSL" in caplog.text)
    assert "it speaks TLS" in summarise(diagnose("localhost", target.server.port, None, timeout=scaled(SECONDS)))
    target.count(f"{kind} by plaintext", len(answers))


# Servers, as a client sees them


IMPOSTORS = {
    "expired": "certificate has expired",
    "not_yet_valid": "certificate is not yet valid",
    "wrong_ca": "unable to get local issuer certificate",
    "self_signed": "self.signed certificate",
    "client_only": "unsuitable certificate purpose|unsupported certificate purpose",
    "wrong_host": "ostname mismatch",
}


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_an_impostor_gets_neither_session_nor_token(
    target, certificates, bad_certificates, own, tmp_path, impostor, kind
):
    if impostor == "wrong_host":
        shown = sign(certificates.ca.parent, tmp_path, "elsewhere", ["elsewhere.example.com"], profile="server")
    else:
        shown = getattr(bad_certificates, impostor)
    session = target.session(kind)
    with Impostor(shown) as server:
        with pytest.raises(ConnectError, match=IMPOSTORS[impostor]):
            CONNECT[kind](server.port, session, own)
    assert server.heard == b""
    target.count(f"{kind} impostors", 1)


def connect_directly(port: int, session: pb.Session, own: TlsFiles) -> None:
    address = pb.DirectAddress(port=port, routing_id=session.direct.routing_id, tls=True)
    limits, context = Limits(), tls.client_context(own)
    DirectStream(
        ("localhost", address.port),
        address,
        session.token,
        context=context,
        limits=limits,
        timeout=scaled(SECONDS),
        poll_us=0,
    )


def connect_by_grpc(port: int, session: pb.Session, own: TlsFiles) -> None:
    with closing(GrpcConnection("localhost", port, own, ClientOptions())) as connection:
        connection.reach(session.id, session.token, 0.3)


CONNECT = {"direct": connect_directly, "grpc": connect_by_grpc}


# And somebody who may


@pytest.mark.parametrize("certificate", ["common_name_only", "other_tenant"])
def test_a_common_name_lets_in_where_the_server_says_so(certificates, strangers, certificate, kind, monkeypatch):
    monkeypatch.chdir(ENVIRONMENTS)
    shown = strangers[certificate]
    paths = (certificates.server, certificates.server_key, certificates.ca)
    arguments = {"entrypoint": "environments.py"}
    with create_remote_environment_server(arguments, "localhost", 0, paths, common_names=True) as server:
        credentials = (shown.ca, shown.certificate, shown.private_key)
        environment = RemoteEnvironment("localhost", server.port, None, credentials, connection=kind)
        with closing(environment):
            environment.reset()
            assert environment.step(ACTION["step"])[0]["count"] == 1
