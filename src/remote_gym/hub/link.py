"""A hub's connection to a server that has registered: by it the server is asked to dial back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import time

from remote_gym.errors import ConnectionLost, EncodingError, NotPermitted
from remote_gym.hub.registry import RefusedError
from remote_gym.protocol.hub import (
    APPLICATION_PROTOCOL,
    HEARTBEAT_TO_SERVER,
    MESSAGE_BYTES,
    PING_EVERY,
    PROTOCOL_VERSION,
    SILENCE,
    names_to_register,
    pack,
    unpack,
)
from remote_gym.tls.peer import read_peer_certificate
from remote_gym.transport.async_messages import AsyncMessages
from remote_gym.transport.waiting import within
from remote_gym.v1 import hub_pb2

HANDSHAKE_TIMEOUT = 5.0
"""Seconds that a server has for TLS, and for its first message."""

PROBE_TIMEOUT = 2.0
"""Seconds in which a server has to answer whose name another one with the same certificate claims."""


class ServerLink:
    """One server's. Made by `meet`.

    Attributes:
        names: By which the server is reached, as its certificate has them.
        fingerprint: Digest of the certificate.
    """

    def __init__(self, messages: AsyncMessages, version: int) -> None:
        self._messages = messages
        self._version = version
        self._heard = asyncio.Event()
        der = messages.tls.getpeercert(binary_form=True) or b""
        certificate = read_peer_certificate(der)
        self.names = names_to_register(name for kind, name in certificate.names if kind == "DNS")
        self.fingerprint = hashlib.sha256(der).digest()
        self._good_until = certificate.not_after

    @classmethod
    async def meet(cls, sock: socket.socket, context: ssl.SSLContext) -> ServerLink:
        """Shake hands with a server that wants to register.

        Args:
            sock: Taken over.
            context: The hub's, which is TLS's client here.

        Raises:
            RefusedError: If the server is not one of the hub's authority, or speaks something else.
        """
        try:
            messages = await AsyncMessages.over_tls(
                sock, context, server_side=False, timeout=HANDSHAKE_TIMEOUT, limit=MESSAGE_BYTES
            )
        except asyncio.TimeoutError as error:
            raise RefusedError(f"no TLS within {HANDSHAKE_TIMEOUT:g} s") from error
        except OSError as error:
            raise RefusedError(f"TLS failed: {error}") from error
        try:
            if messages.tls.selected_alpn_protocol() != APPLICATION_PROTOCOL:
                raise RefusedError(f"its TLS does not speak {APPLICATION_PROTOCOL}")
            data = await messages.receive(HANDSHAKE_TIMEOUT)
            version = 0 if data is None else unpack(hub_pb2.ToHub, data).registration.protocol_version
            if not version:
                raise RefusedError("it does not register")
            return cls(messages, version)
        except (ConnectionLost, EncodingError, NotPermitted) as error:
            messages.abort()
            raise RefusedError(str(error)) from error
        except BaseException:
            messages.abort()
            raise

    def check_version(self) -> None:
        """See that it can be understood.

        Raises:
            RefusedError: If it speaks another version of the protocol.
        """
        if self._version != PROTOCOL_VERSION:
            raise RefusedError(
                f"the server speaks version {self._version} of the protocol between servers and hubs, the hub version "
                f"{PROTOCOL_VERSION}; install the same version of remote_gym for both",
                hopeless=True,
            )

    async def refuse(self, why: RefusedError) -> None:
        """Say why it is not registered, and close."""
        with contextlib.suppress(ConnectionLost):
            self._messages.send(pack(hub_pb2.RegistrationRefused(reason=str(why), hopeless=why.hopeless)))
        await self._messages.close()

    def call(self, dial_back_id: bytes, peer: str) -> None:
        """Ask it to dial back for a client.

        Raises:
            RefusedError: If it does not listen.
        """
        try:
            self._messages.send(pack(hub_pb2.DialBack(id=dial_back_id, peer=peer)))
        except ConnectionLost as error:
            raise RefusedError(f"the server cannot be told: {error}") from error

    async def is_alive(self) -> bool:
        """Whether it answers."""
        self._heard.clear()
        try:
            self._messages.send(HEARTBEAT_TO_SERVER)
            await within(PROBE_TIMEOUT, self._heard.wait())
        except (ConnectionLost, asyncio.TimeoutError):
            return False
        return True

    async def listen(self) -> str:
        """Follow it until it is gone. Returns why."""
        loop = asyncio.get_running_loop()
        expiry = loop.call_later(max(0.0, self._good_until - time.time()), self._messages.abort)
        pinging = loop.create_task(self._ping())
        try:
            # It may have left since it was met, as while another holder of its name was probed.
            self._messages.send(pack(hub_pb2.Registered(names=self.names)))
            while (data := await self._messages.receive(SILENCE)) is not None:
                unpack(hub_pb2.ToHub, data)
                self._heard.set()
        except (ConnectionLost, EncodingError) as error:
            return str(error)
        finally:
            pinging.cancel()
            expiry.cancel()
        return "its certificate has expired" if time.time() >= self._good_until else "it has left"

    def end(self) -> None:
        """Close the connection at once, which ends `listen`."""
        self._messages.abort()

    async def _ping(self) -> None:
        try:
            while True:
                await asyncio.sleep(PING_EVERY)
                self._messages.send(HEARTBEAT_TO_SERVER)
        except ConnectionLost:
            self._messages.abort()
