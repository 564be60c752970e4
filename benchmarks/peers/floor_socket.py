"""The least that a message over mutual TLS and back costs in Python: two sockets, and nothing said of what it means.

Options: ``request``, ``response`` (bytes), ``poll_us`` (microseconds to look before sleeping), ``secure`` (True).
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

from case import Case, Figures
from measuring import measure_steps
from peer import main
from serving import HOST, Servers, way_to


class Socket:
    """A non-blocking socket that is looked at again and again for a while, then waited for."""

    def __init__(self, sock: socket.socket, poll_us: float) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._socket = sock
        self._seconds = poll_us / 1e6
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._poll.modify(self._socket, select.POLLOUT)
                self._poll.poll()
                self._poll.modify(self._socket, select.POLLIN)

    def receive(self, into: memoryview) -> bool:
        """Fill it; False at the end of the stream."""
        end = time.perf_counter() + self._seconds
        while into:
            try:
                count = self._socket.recv_into(into)
            except (BlockingIOError, ssl.SSLWantReadError):
                while not self._poll.poll(0):
                    if time.perf_counter() >= end:
                        self._poll.poll()
                        break
                    # Where both ends are on one core, the other could not answer for as long as this one looks.
                    os.sched_yield()
                continue
            if not count:
                return False
            into = into[count:]
        return True


@contextlib.contextmanager
def serve(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Answer every request of ``job["request"]`` bytes with ``job["response"]`` bytes, on each connection."""

    def answer(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            connection = Socket(sock, job["poll_us"])
            request, response = memoryview(bytearray(job["request"])), bytes(job["response"])
            while connection.receive(request):
                connection.send(response)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listening.accept()
                if job["pem"]:
                    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                    context.minimum_version = ssl.TLSVersion.TLSv1_3
                    context.load_cert_chain(job["pem"][0], job["pem"][1])
                    context.load_verify_locations(job["pem"][2])
                    context.verify_mode = ssl.CERT_REQUIRED
                    context.num_tickets = 0
                    sock = context.wrap_socket(sock, server_side=True)
                threading.Thread(target=answer, args=(sock,), daemon=True).start()

    with socket.create_server((HOST, 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield {"port": listening.getsockname()[1]}


def measure(case: Case, servers: Servers) -> Figures:
    """Ask and be answered."""
    options = {"request": 16, "response": 48, "poll_us": 0, "secure": True, **case.options}
    pem = [case.pem("server"), case.pem("server-key"), case.pem("ca")] if options["secure"] else None
    job = {**options, "pem": pem}
    told = servers.start(job)
    with way_to(case, told["port"]) as way, socket.create_connection((way.host, told["port"])) as plain:
        sock: socket.socket = plain
        if pem is not None:
            context = ssl.create_default_context(cafile=case.pem("ca"))
            context.load_cert_chain(case.pem("client"), case.pem("client-key"))
            sock = context.wrap_socket(plain, server_hostname=way.host)
        with sock:
            connection = Socket(sock, options["poll_us"])
            request, response = bytes(options["request"]), memoryview(bytearray(options["response"]))

            def step(number: int) -> bool:
                connection.send(request)
                return not connection.receive(response)

            return measure_steps(case, step, way=way)


if __name__ == "__main__":
    main(measure, serve)
