"""Servers under faults start: their ports are theirs, and whoever cannot start says why."""

from __future__ import annotations

import socket
import sys

import pytest

from faults.meanwhile import meanwhile
from faults.serving import SERVER, Certificates, NotStarted, Server, hold_ports

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: all of 127.0.0.0/8, and who shares ports")


def test_held_port_is_given_to_nobody_else_even_while_its_server_is_not_there():
    [held] = hold_ports(SERVER, 1)
    [other] = hold_ports(SERVER, 1)
    with held, other:
        mine, theirs = held.getsockname()[1], other.getsockname()[1]
        assert mine != theirs
        assert hold_ports(SERVER, 1, iter([mine, mine])) == []
        for _ in range(2):  # as for a server that is started again, of which a connection is left
            with socket.create_server((SERVER, mine)) as server:
                assert hold_ports(SERVER, 1, iter([mine])) == []
                with socket.create_connection((SERVER, mine)), server.accept()[0]:
                    pass


def test_server_that_cannot_start_says_why_through_what_went_on_meanwhile(tmp_path):
    server = Server(tmp_path, Certificates.create(tmp_path / "certificates"))
    try:
        with socket.create_server((SERVER, server.port)):
            with pytest.raises(NotStarted, match=r"in use by another program"), meanwhile(server.start):
                raise AssertionError("nobody answered")
        server.start()
        assert server.stop() == []
    finally:
        server.kill()
        server.let_go()
