"""Messages on a stream of asyncio's, each preceded by its length, as `remote_gym.transport.framing` has them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl

from remote_gym.errors import ConnectionLost
from remote_gym.transport.framing import HEADER_BYTES, frame, read_length
from remote_gym.transport.waiting import within

MOST_UNSENT = 2**16
"""Bytes that may wait for the other end to read before it is taken for stuck."""


class AsyncMessages:
    """One end of a TLS connection. Its owner closes it.

    Attributes:
        tls: What was agreed on, the other end's certificate among it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> None:
        self._reader = reader
        self._writer = writer
        self._limit = limit
        self.tls: ssl.SSLObject = writer.get_extra_info("ssl_object")

    @classmethod
    async def over_tls(
        cls, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool, timeout: float, limit: int
    ) -> AsyncMessages:
        """Take a connected socket through TLS.

        Args:
            sock: Taken over; closed where this raises.
            context: This end's.
            server_side: Whether this is TLS's server, whichever end has connected.
            timeout: Seconds for the handshake.
            limit: Bytes of the largest message.

        Raises:
            OSError: If the handshake fails; `asyncio.TimeoutError` if it does not end in time.
        """
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        try:
            if server_side:
                making = loop.connect_accepted_socket(lambda: protocol, sock, ssl=context)
            else:
                making = loop.create_connection(lambda: protocol, sock=sock, ssl=context, server_hostname="")
            transport, _ = await within(timeout, making, discard=lambda made: _abort(made[0]))
        except BaseException:
            sock.close()
            raise
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop), limit)

    async def receive(self, timeout: float) -> bytes | None:
        """Wait for a message; None where the other end closed after the last one.

        Raises:
            ConnectionLost: If the connection breaks, or none came in time.
            EncodingError: If its length is over the limit.
        """
        try:
            return await within(timeout, self._receive())
        except asyncio.TimeoutError as error:
            raise ConnectionLost(f"nothing came for {timeout:g} s") from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise ConnectionLost(f"receiving failed: {error}") from error

    async def _receive(self) -> bytes | None:
        try:
            header = await self._reader.readexactly(HEADER_BYTES)
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                return None
            raise
        return await self._reader.readexactly(read_length(header, self._limit))

    def send(self, data: bytes) -> None:
        """Send a message, without waiting.

        Raises:
            ConnectionLost: If the other end is gone, or does not read.
        """
        transport = self._writer.transport
        if transport.is_closing():
            raise ConnectionLost("it is closed")
        try:
            unsent = transport.get_write_buffer_size()
        except AttributeError as error:  # of Python 3.10, which takes one for open that the other end has closed
            raise ConnectionLost("it is closed") from error
        if unsent > MOST_UNSENT:
            raise ConnectionLost("the other end does not read")
        self._writer.write(frame(data, self._limit))

    async def close(self, timeout: float = 1.0) -> None:
        """Send what has not been sent, for as long as the timeout allows, and close."""
        try:
            self._writer.close()
            with contextlib.suppress(OSError, asyncio.TimeoutError):
                await within(timeout, self._writer.wait_closed())
        finally:
            self.abort()

    def abort(self) -> None:
        """Close at once."""
        _abort(self._writer.transport)


def _abort(transport: asyncio.WriteTransport) -> None:
    transport.abort()
    transport.close()  # else Python 3.10 takes it for open, and warns of that
