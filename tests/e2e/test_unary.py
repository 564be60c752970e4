"""Every call by itself, as a client of any gRPC library makes them."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from raw_client import RawSession, channel_to, method, reset, step
from remote_gym import create_remote_environment_server
from remote_gym.certs import create_certificate
from remote_gym.config import Limits
from remote_gym.protocol.constants import SESSION_KEY, TAKEN_KEY, TOKEN_KEY
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import decode_value
from waiting import scaled

KIND = pb.ErrorDetail


@pytest.fixture(params=["process", "thread"])
def session(servers, obedient, request):
    with servers.lend(obedient, use_thread=request.param == "thread") as server:
        with channel_to(server) as channel:
            session = RawSession.open(channel, render_mode="rgb_array", frames=pb.FRAMES_STEP)
            yield session
            session.close()


def test_an_opening_says_before_its_answer_that_it_has_begun(servers, obedient):
    with servers.lend(obedient, use_thread=True) as server, channel_to(server) as channel:
        opening = channel.unary_unary("/remote_gym.v1.RemoteGym/Open")
        _, call = opening.with_call(pb.OpenRequest().SerializeToString(), timeout=scaled(20.0))
        assert dict(call.initial_metadata())[TAKEN_KEY] == "1"


def test_a_whole_session_of_calls_by_themselves(session):
    assert session.spaces().description == session.session.description

    answer = session.ask("Reset", reset(1))
    assert (answer.sequence, answer.WhichOneof("result")) == (1, "reset")
    assert answer.reset.frame.array.shape == [4, 6, 3]

    answer = session.ask("Step", step(2))
    assert (answer.sequence, answer.WhichOneof("result")) == (2, "step")
    # In the order of the space: the count as an int64, the position as two float32.
    assert np.frombuffer(answer.step.packed[:8], "<i8") == 1
    assert len(answer.step.packed) == 16
    assert (answer.step.reward_float, answer.step.terminated_bool, answer.step.truncated_bool) == (1.0, False, False)

    answer = session.ask("Render", pb.Request(sequence=3, render=pb.RenderRequest()))
    assert answer.sequence == 3
    assert answer.render.frame.array.shape == [5, 6, 3]

    answer = session.ask("Call", pb.Request(sequence=4, call=pb.CallRequest(name="difficulty")))
    assert answer.sequence == 4
    assert decode_value(answer.call.value, Limits()) == 3

    answer = session.ask("Call", pb.Request(sequence=5, call=pb.CallRequest(name="hidden")))
    assert (answer.sequence, answer.error.kind) == (5, KIND.ENVIRONMENT)
    assert answer.error.remote_type == "builtins.AttributeError"

    assert session.ask("Close", pb.Request(sequence=6, close=pb.CloseRequest())).HasField("close")
    assert session.spaces().error.kind == KIND.SESSION_LOST
    answer = session.ask("Step", step(6))
    assert (answer.sequence, answer.error.kind) == (0, KIND.SESSION_LOST)


def test_a_number_that_was_answered_last_is_answered_alike_and_no_other_is(session):
    session.ask("Reset", reset(1))
    first = session.ask("Step", step(2))
    assert session.ask("Step", step(2)) == first
    assert session.ask("Step", pb.Request(sequence=2)) == first
    assert session.ask("Step", step(2, "raise")).error.kind == KIND.OUT_OF_SEQUENCE  # it is not what was answered
    for wrong in (1, 4, 0, 2**63):
        assert session.ask("Step", step(wrong)).error.kind == KIND.OUT_OF_SEQUENCE
    answer = session.ask("Step", step(3))
    assert np.frombuffer(answer.step.packed[:8], "<i8") == 2


@pytest.mark.parametrize("name", ["Reset", "Step", "Render", "Call", "Close", "Spaces"])
def test_without_the_sessions_token_nothing_is_answered(session, name):
    session.ask("Reset", reset(1))
    call = session.channel.unary_unary(method(name))
    own = dict(session.metadata)
    for metadata, kind in (
        ((), KIND.SESSION_LOST),
        (((SESSION_KEY, own[SESSION_KEY]),), KIND.NOT_PERMITTED),
        (((SESSION_KEY, own[SESSION_KEY]), (TOKEN_KEY, "x")), KIND.NOT_PERMITTED),
        (((SESSION_KEY, "x"), (TOKEN_KEY, own[TOKEN_KEY])), KIND.SESSION_LOST),
    ):
        data = step(2).SerializeToString()
        # Both kinds of response hold their error in the same field.
        response = pb.SpacesResponse if name == "Spaces" else pb.Response
        answer = response.FromString(call(data, metadata=metadata, timeout=scaled(10.0)))
        assert answer.error.kind == kind
    assert session.ask("Step", step(2)).HasField("step")


def test_a_stolen_token_is_of_no_use_to_another_certificate_of_the_same_authority(obedient, certificates, tmp_path):
    request = tmp_path / "csr.json"
    request.write_text('{"CN": "mallory", "hosts": ["mallory"], "key": {"algo": "ecdsa", "size": 256}}')
    made = create_certificate(request, tmp_path, ca=certificates.ca, ca_key=certificates.ca_key, name="mallory")
    paths = (certificates.server, certificates.server_key, certificates.ca)
    with create_remote_environment_server(obedient, "localhost", 0, paths) as server:
        ours = grpc.ssl_channel_credentials(
            certificates.ca.read_bytes(), certificates.client_key.read_bytes(), certificates.client.read_bytes()
        )
        theirs = grpc.ssl_channel_credentials(
            certificates.ca.read_bytes(), made.private_key.read_bytes(), made.certificate.read_bytes()
        )
        with grpc.secure_channel(server.address, ours) as channel, grpc.secure_channel(server.address, theirs) as other:
            session = RawSession.open(channel)
            session.ask("Reset", reset(1))
            stolen = RawSession(other, session.session)
            for name in ("Reset", "Step", "Render", "Call", "Close"):
                answer = stolen.ask(name, step(2))
                assert answer.error.kind == KIND.NOT_PERMITTED, name
                assert "'DNS:mallory'" in answer.error.message
            assert stolen.spaces().error.kind == KIND.NOT_PERMITTED
            interact = other.stream_stream(method("Interact"))
            call = interact(iter([step(2).SerializeToString()]), metadata=session.metadata, timeout=scaled(10.0))
            assert pb.Response.FromString(next(call)).error.kind == KIND.NOT_PERMITTED
            assert session.ask("Step", step(2)).HasField("step")
