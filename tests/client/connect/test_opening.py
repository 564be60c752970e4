"""Openings that a server answers in a way that this client does not know."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from remote_gym import ProtocolMismatch, RemoteEnvironment, RemoteVectorEnv
from remote_gym.protocol.constants import SERVICE_NAME
from waiting import scaled

LATER_RESULT = b"\x4a\x03abc"
"""An `OpenResponse` whose only field has the number 9, which no release so far knows."""


@pytest.fixture(params=[LATER_RESULT, b""], ids=["unknown", "none"])
def port(request) -> Iterator[int]:
    """The port of a server of a later release."""
    handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: request.param)
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, {"Open": handler}),))
        found = server.add_insecure_port("localhost:0")
        server.start()
        yield found
        server.stop(None).wait(scaled(5.0))


@pytest.mark.parametrize(
    "make", [lambda port: RemoteEnvironment(port=port), lambda port: RemoteVectorEnv(port=port, num_envs=2)]
)
def test_a_result_that_a_client_does_not_know_is_a_mismatch_of_protocols(make, port):
    with pytest.raises(ProtocolMismatch, match=r"does not know.*version 1 of the protocol.*remote-gym.*same release"):
        make(port)
