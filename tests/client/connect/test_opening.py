"""Openings that a server answers in a way that this client does not know, or does not answer."""

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from awaited import run
from remote_gym import AsyncRemoteEnvironment, ConnectionLost, ProtocolMismatch, RemoteEnvironment, RemoteVectorEnv
from remote_gym.protocol.constants import ATTEMPT_KEY, SERVICE_NAME, TAKEN_KEY
from waiting import scaled

LATER_RESULT = b"\x4a\x03abc"
"""An `OpenResponse` whose only field has the number 9, which no release so far knows."""


@contextlib.contextmanager
def serving(answer: Callable[[bytes, grpc.ServicerContext], bytes]) -> Iterator[int]:
    """The port of a server that answers `Open` so."""
    handler = grpc.unary_unary_rpc_method_handler(answer)
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, {"Open": handler}),))
        found = server.add_insecure_port("localhost:0")
        server.start()
        try:
            yield found
        finally:
            server.stop(None).wait(scaled(5.0))


@pytest.fixture(params=[LATER_RESULT, b""], ids=["unknown", "none"])
def port(request) -> Iterator[int]:
    """The port of a server of a later release."""
    with serving(lambda _request, _context: request.param) as found:
        yield found


@pytest.mark.parametrize(
    "make",
    [
        lambda port: RemoteEnvironment(port=port),
        lambda port: RemoteVectorEnv(port=port, num_envs=2),
        lambda port: run(AsyncRemoteEnvironment(port=port).reset()),
    ],
)
def test_a_result_that_a_client_does_not_know_is_a_mismatch_of_protocols(make, port):
    with pytest.raises(ProtocolMismatch, match=r"does not know.*version 1 of the protocol.*remote-gym.*same release"):
        make(port)


class Dropping:
    """Answers `Open`, and ends the first calls before as gRPC does that drops them.

    Args:
        begins: Whether it says first that it has begun.
    """

    def __init__(self, *, begins: bool) -> None:
        self._begins = begins
        self.attempts: list[str] = []

    def __call__(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        self.attempts.append(dict(context.invocation_metadata())[ATTEMPT_KEY])
        if len(self.attempts) <= 2:
            if self._begins:
                context.send_initial_metadata(((TAKEN_KEY, "1"),))
            context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        return LATER_RESULT


@pytest.mark.parametrize(
    "make", [lambda port: RemoteEnvironment(port=port), lambda port: run(AsyncRemoteEnvironment(port=port).open())]
)
def test_an_opening_that_was_dropped_is_asked_for_again(make):
    dropping = Dropping(begins=False)
    with serving(dropping) as port, pytest.raises(ProtocolMismatch):
        make(port)
    assert len(set(dropping.attempts)) == 3


def test_an_opening_that_had_begun_is_not():
    dropping = Dropping(begins=True)
    with serving(dropping) as port, pytest.raises(ConnectionLost):
        RemoteEnvironment(port=port)
    assert len(dropping.attempts) == 1


def test_openings_that_are_dropped_again_and_again_end_in_time():
    dropping = Dropping(begins=False)
    with serving(dropping) as port, pytest.raises(ConnectionLost, match="CANCELLED"):
        RemoteEnvironment(port=port, connect_timeout=0.05)
    assert len(dropping.attempts) == 1
