"""Dials out to a hub, so that clients reach the server through it, and back to it for each of them."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import random
import re
import socket
from collections.abc import Callable
from typing import Any

from remote_gym.address import address_of_socket, host_in, parse_address
from remote_gym.config import TlsFiles
from remote_gym.config.tls import HUB
from remote_gym.errors import ConfigError, ConnectionLost, RemoteGymError
from remote_gym.logs import get_logger
from remote_gym.protocol.hub import (
    APPLICATION_PROTOCOL,
    DIAL_BACK,
    HEARTBEAT_TO_HUB,
    MESSAGE_BYTES,
    PROTOCOL_VERSION,
    REGISTER,
    SILENCE,
    names_to_register,
    pack,
    unpack,
)
from remote_gym.tls import Reloaded, file_paths
from remote_gym.tls.hub import dialler_context, names_host
from remote_gym.tls.peer import read_peer_certificate
from remote_gym.transport.async_messages import AsyncMessages
from remote_gym.transport.direct_socket import set_options
from remote_gym.transport.waiting import end_tasks, within
from remote_gym.v1 import hub_pb2

logger = get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds until a further attempt to register, at first and at most; the pause doubles with each that fails. A random
part of it is left out, so that the servers of a hub that comes back do not all come at once."""

STEADY = 5.0
"""Seconds for which a registration has stood after which pauses begin anew."""

CONNECT_TIMEOUT = 5.0
"""Seconds to connect to the hub, and for TLS with it."""

MOST_AT_ONCE = 256
"""Connections that are being made to the hub. Clients beyond that are not dialled back for."""

_draw = random.SystemRandom().uniform  # of its own: environments in threads seed the shared one


class _HopelessError(Exception):
    """The hub refuses this server, and will until something is changed at either end."""


class HubDialler:
    """Keeps a server registered at its hub. Runs on the server's event loop.

    Args:
        address: Of the hub, ``host:port``.
        files: The server's, with an authority.
        adopt: Takes a client's connection, and the client's address, as if it had been accepted.
    """

    def __init__(self, address: str, files: TlsFiles, adopt: Callable[[socket.socket, str], None]) -> None:
        self._address = address
        self._host, self._port = parse_address(address)
        self._context = Reloaded(file_paths(files), functools.partial(dialler_context, files, APPLICATION_PROTOCOL))
        self._adopt = adopt
        self._keeping: asyncio.Task[None] | None = None
        self._dialling: set[asyncio.Task[None]] = set()
        self._stood = False
        self._refused_for = ""  # what has to be changed before it can register

    def start(self) -> None:
        """Register, and again whenever that is lost."""
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Be registered no more. Clients that have come stay."""
        await end_tasks(task for task in (self._keeping, *self._dialling) if task is not None)

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while True:
            begun = loop.time()
            is_hopeless = False
            try:
                why = await self._be_registered()
            except _HopelessError as error:
                why, is_hopeless, pause = str(error), True, LONGEST_PAUSE
            except asyncio.TimeoutError:
                why = f"it did not answer within {CONNECT_TIMEOUT:g} s"
            except (OSError, RemoteGymError) as error:
                why = str(error) or type(error).__name__
            except Exception:  # a fault of ours must not be the last attempt
                logger.exception("could not register at the hub %s", self._address, repeats="")
                why = "of a fault"
            if self._stood and loop.time() - begun >= STEADY:
                pause = FIRST_PAUSE
            self._log_lost(why, is_hopeless)
            await asyncio.sleep(pause if is_hopeless else _draw(0.1, 1.0) * pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _log_lost(self, why: str, is_hopeless: bool) -> None:
        if is_hopeless:
            if why != self._refused_for:
                text = "not registered at the hub %s: %s; trying again every %g s, until that is changed"
                logger.error(text, self._address, why, LONGEST_PAUSE, event="hub_lost")
            self._refused_for = why
            return
        self._refused_for = ""
        verb = "registered no more" if self._stood else "not registered"
        logger.warning("%s at the hub %s: %s; trying again", verb, self._address, why, repeats="", event="hub_lost")

    async def _be_registered(self) -> str:
        """Register, and dial back for clients until that ends. Returns why it did."""
        self._stood = False
        sock = await self._connect_by_name()
        try:
            target, family = sock.getpeername(), sock.family  # raises if the hub has left already
            await asyncio.get_running_loop().sock_sendall(sock, REGISTER)
            context = self._context.get()
        except BaseException:
            sock.close()
            raise
        try:
            messages = await AsyncMessages.over_tls(
                sock, context, server_side=True, timeout=CONNECT_TIMEOUT, limit=MESSAGE_BYTES
            )
        except OSError as error:  # the other end says no more than that it leaves
            raise ConnectionLost(
                f"it ended TLS ({error or type(error).__name__}): see that its authority is this server's, and that it "
                "is a hub; its log has the reason"
            ) from error
        try:
            self._check_hub(messages)
            messages.send(pack(hub_pb2.Registration(protocol_version=PROTOCOL_VERSION)))
            while (data := await messages.receive(SILENCE)) is not None:
                message = unpack(hub_pb2.ToServer, data)
                kind = message.WhichOneof("message")
                if kind == "refused":
                    why = f"it refuses this server: {message.refused.reason}"
                    if message.refused.hopeless:
                        raise _HopelessError(why)
                    return why
                if kind == "registered":
                    self._stood = True
                    names = ", ".join(message.registered.names)
                    logger.info("registered at the hub %s as %s", self._address, names, event="hub_registered")
                elif kind == "dial_back":
                    self._begin_dialling(message.dial_back, family, target)
                elif kind == "heartbeat":
                    messages.send(HEARTBEAT_TO_HUB)
        finally:
            messages.abort()
        return "it has ended the connection"

    async def _connect_by_name(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        found = await within(CONNECT_TIMEOUT, loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))
        for number, (family, _, _, _, target) in enumerate(found, start=1):
            try:
                return await _connect(family, target)
            except (OSError, asyncio.TimeoutError):
                if number == len(found):
                    raise
        raise ConnectionLost(f"{self._host!r} has no address")

    def _check_hub(self, messages: AsyncMessages) -> None:
        """See that the other end is the hub that was dialled, and not another client of the authority's.

        Raises:
            ConfigError: If it is not.
        """
        from remote_gym.tls.facts import decode_certificate  # cryptography, which only servers with a hub need here

        if messages.tls.selected_alpn_protocol() != APPLICATION_PROTOCOL:
            raise ConfigError(f"its TLS does not speak {APPLICATION_PROTOCOL}")
        der = messages.tls.getpeercert(binary_form=True) or b""
        hosts = tuple(host for host in decode_certificate(der).hosts if host != HUB)
        if ("URI", HUB) not in read_peer_certificate(der).names:
            raise ConfigError(
                f"its certificate is a client's, and no hub's: it lacks the URI {HUB}; make one that has it, by "
                f"'remote-gym certs client hub-csr.json --host {self._host} --host {HUB}'"
            )
        if not names_host(hosts, self._host):
            raise ConfigError(
                f"its certificate names {', '.join(hosts) or 'nobody'}, and not {self._host}; make one that does, by "
                f"'remote-gym certs client hub-csr.json --host {self._host} --host {HUB}'"
            )

    def _begin_dialling(self, dial_back: hub_pb2.DialBack, family: int, target: Any) -> None:
        if len(self._dialling) >= MOST_AT_ONCE:
            logger.warning("%d clients wait for a connection to the hub; refusing one", MOST_AT_ONCE, repeats="")
            return
        # To where the hub was found, which its name may not lead to each time.
        task = asyncio.get_running_loop().create_task(self._dial_back(dial_back, family, target))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _dial_back(self, dial_back: hub_pb2.DialBack, family: int, target: Any) -> None:
        try:
            sock = await _connect(family, target)
            try:
                await asyncio.get_running_loop().sock_sendall(sock, DIAL_BACK + dial_back.id)
            except BaseException:
                sock.close()
                raise
        except (OSError, asyncio.TimeoutError) as error:
            logger.warning("could not dial back to the hub %s: %s", self._address, error, repeats="")
            return
        self._adopt(sock, dial_back.peer if is_peer(dial_back.peer) else address_of_socket(target))


_PEER = re.compile(r"ipv4:[0-9.]{7,15}:[0-9]{1,5}|ipv6:\[[0-9a-fA-F:.]{2,45}(%[A-Za-z0-9_.-]{1,15})?\]:[0-9]{1,5}")


def is_peer(text: str) -> bool:
    """Whether it is a client's address as gRPC writes it, so that limits can go by it."""
    if not _PEER.fullmatch(text):  # which is stricter than `ipaddress` is with zones and digits
        return False
    kind, _, host = host_in(text).partition(":")
    try:
        version = ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host).version
    except ValueError:
        return False
    return kind == f"ipv{version}"


def check_names(files: TlsFiles) -> tuple[str, ...]:
    """By which names clients reach a server through its hub.

    Raises:
        ConfigError: If its certificate has none.
    """
    from remote_gym.tls.facts import read_certificate

    assert files.certificate is not None
    names = names_to_register(read_certificate(files.certificate).hosts)
    if not names:
        raise ConfigError(
            f"needs a certificate with a name for the server, and {files.certificate} has none but those of any "
            "machine; make one by 'remote-gym certs server CSR --host sim-home'",
            field="hub",
            where="ServerOptions.hub",
        )
    return names


async def _connect(family: int, target: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        await within(CONNECT_TIMEOUT, asyncio.get_running_loop().sock_connect(sock, target))
        set_options(sock)
    except BaseException:
        sock.close()
        raise
    return sock
