"""A client made of gRPC and the messages alone, for what `RemoteEnvironment` would not do."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import grpc

from environments import ACTION
from remote_gym.protocol.constants import PROTOCOL_VERSION, SERVICE_NAME, SESSION_KEY, TOKEN_KEY
from remote_gym.testing import LoopbackServer
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from waiting import scaled


def method(name: str) -> str:
    return f"/{SERVICE_NAME}/{name}"


def open_request(**fields: Any) -> bytes:
    return pb.OpenRequest(**{"protocol_version": PROTOCOL_VERSION, **fields}).SerializeToString()


def opening(**fields: Any) -> worker_pb2.Opening:
    """The same, as the server reads it."""
    return worker_pb2.Opening.FromString(open_request(**fields))


def reset(sequence: int) -> pb.Request:
    return pb.Request(sequence=sequence, reset=pb.ResetRequest())


def step(sequence: int, behaviour: str = "step") -> pb.Request:
    return pb.Request(sequence=sequence, step=pb.StepRequest(packed=ACTION[behaviour].to_bytes(8, "little")))


def channel_to(server: LoopbackServer, **options: int) -> grpc.Channel:
    paths, settings = server.client_credentials_paths, [(f"grpc.{name}", value) for name, value in options.items()]
    if paths is None:
        return grpc.insecure_channel(server.server.address, settings)
    ca, certificate, key = (path.read_bytes() for path in paths)
    return grpc.secure_channel(server.server.address, grpc.ssl_channel_credentials(ca, key, certificate), settings)


@dataclass
class RawSession:
    """An open session, used by unary calls."""

    channel: grpc.Channel
    session: pb.Session

    @classmethod
    def open(cls, channel: grpc.Channel, **fields: Any) -> RawSession:
        answer = channel.unary_unary(method("Open"))(open_request(**fields), timeout=scaled(30.0))
        response = pb.OpenResponse.FromString(answer)
        assert response.HasField("session"), response.error
        return cls(channel, response.session)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ((SESSION_KEY, self.session.id), (TOKEN_KEY, self.session.token))

    def ask(self, name: str, request: pb.Request) -> pb.Response:
        """One unary call of that name."""
        data = request.SerializeToString()
        return pb.Response.FromString(
            self.channel.unary_unary(method(name))(data, timeout=scaled(30.0), metadata=self.metadata)
        )

    def begin(self, name: str, request: pb.Request) -> grpc.Future:
        """A call that is not waited for."""
        data = request.SerializeToString()
        return self.channel.unary_unary(method(name)).future(data, timeout=scaled(60.0), metadata=self.metadata)

    def spaces(self) -> pb.SpacesResponse:
        answer = self.channel.unary_unary(method("Spaces"))(b"", timeout=scaled(30.0), metadata=self.metadata)
        return pb.SpacesResponse.FromString(answer)

    def close(self) -> None:
        """End it, whatever state it is in."""
        with contextlib.suppress(grpc.RpcError):  # it has ended
            self.channel.unary_unary(method("Close"))(b"", timeout=scaled(30.0), metadata=self.metadata)
