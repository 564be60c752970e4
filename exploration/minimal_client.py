"""A client made of grpcio and the proto file alone, as one in another language would be made.

It plays one episode of CartPole at random, as ``remote-gym serve CartPole-v1`` offers it. Its arguments are an
address, such as localhost:56789, and for TLS ca.pem, client.pem and client-key.pem. grpcio-tools compiles the proto
file while this starts; docs/protocol.md tells what the messages mean.
"""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path
from typing import Any

import grpc

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "proto"))
pb: Any = grpc.protos("remote_gym/v1/remote_gym.proto")


def connect(address: str, pem_files: list[str]) -> grpc.Channel:
    """A channel by mutual TLS; without files, in plaintext."""
    options = [("grpc.enable_retries", 0)]  # gRPC's own retries would step twice
    if not pem_files:
        return grpc.insecure_channel(address, options)
    ca, certificate, key = (Path(name).read_bytes() for name in pem_files)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca, key, certificate), options)


def play(channel: grpc.Channel) -> float:
    """Open a session, play an episode, close the session; returns the sum of the rewards."""

    def call(method: str, request: Any, response: Any, session: tuple[tuple[str, str], ...] = ()) -> Any:
        path, encode = f"/remote_gym.v1.RemoteGym/{method}", type(request).SerializeToString
        answer = channel.unary_unary(path, encode, response.FromString)(request, timeout=60, metadata=session)
        if answer.HasField("error"):
            raise RuntimeError(f"{method}: {answer.error.message or answer.error.remote_message}")
        return answer

    session = call("Open", pb.OpenRequest(protocol_version=1), pb.OpenResponse).session
    keys = (("remote-gym-session", session.id), ("remote-gym-token", session.token))
    actions = session.description.action_space.discrete
    call("Reset", pb.Request(sequence=1, reset=pb.ResetRequest()), pb.Response, keys)
    total, sequence, over = 0.0, 1, False
    while not over:
        sequence += 1
        # A Discrete action travels as one integer of the space's type, which for CartPole is int64.
        action = struct.pack("<q", actions.start + random.randrange(actions.n))
        request = pb.Request(sequence=sequence, step=pb.StepRequest(packed=action))
        step = call("Step", request, pb.Response, keys).step
        print(struct.unpack("<4f", step.packed), step.reward_float)  # CartPole observes four float32
        total += step.reward_float
        over = step.terminated_bool or step.truncated_bool
    call("Close", pb.Request(sequence=sequence + 1, close=pb.CloseRequest()), pb.Response, keys)
    return total


if __name__ == "__main__":
    with connect(sys.argv[1], sys.argv[2:]) as channel:
        print("return", play(channel))
