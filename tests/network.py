"""A network of its own for a test, in Linux's network namespaces, which can fall silent as a pulled cable does."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from waiting import scaled


class NoNetwork(Exception):
    """Why there can be none here."""


@dataclass(frozen=True)
class Network:
    """Two machines with a router between them.

    Attributes:
        server: Prefix of commands that run on the first.
        client: Prefix of commands that run on the second.
        server_address: Of the first.
        client_address: Of the second.
        router: Prefix of commands that run on the router.
        router_addresses: The router's, as the first and the second machine know it.
    """

    server: Sequence[str]
    client: Sequence[str]
    server_address: str
    client_address: str
    router: Sequence[str]
    router_addresses: tuple[str, str]
    _router: str

    def fall_silent(self) -> None:
        """Drop every packet in both directions, without word to either end."""
        for address in (self.server_address, self.client_address):
            _ip("-n", self._router, "route", "replace", "blackhole", f"{address}/32")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=scaled(30))


@contextlib.contextmanager
def network(*, forwards: bool = True) -> Iterator[Network]:
    """Make one, and take it away at the end.

    Args:
        forwards: Whether the two machines reach each other through the router.

    Raises:
        NoNetwork: If this system, or this user, cannot.
    """
    if sys.platform != "linux" or shutil.which("ip") is None:
        raise NoNetwork("needs Linux and the command ip")
    if os.geteuid() != 0:
        raise NoNetwork("needs to be root, to make network namespaces")
    run = secrets.token_hex(3)
    router, ends = f"router-{run}", {"server": "10.213.1", "client": "10.213.2"}
    with contextlib.ExitStack() as stack:
        try:
            for name in (router, *(f"{end}-{run}" for end in ends)):
                _ip("netns", "add", name)
                stack.callback(_ip, "netns", "del", name)
                _ip("-n", name, "link", "set", "lo", "up")
            for end, prefix in ends.items():
                inner, outer = f"{end[0]}i{run}", f"{end[0]}o{run}"
                _ip("-n", f"{end}-{run}", "link", "add", inner, "type", "veth", "peer", "name", outer, "netns", router)
                for name, link, number in ((f"{end}-{run}", inner, 2), (router, outer, 1)):
                    _ip("-n", name, "address", "add", f"{prefix}.{number}/24", "dev", link)
                    _ip("-n", name, "link", "set", link, "up")
                _ip("-n", f"{end}-{run}", "route", "add", "default", "via", f"{prefix}.1")
            forward = f"echo {int(forwards)} > /proc/sys/net/ipv4/ip_forward"
            subprocess.run(["ip", "netns", "exec", router, "sh", "-c", forward], check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            raise NoNetwork(f"{' '.join(map(str, error.cmd))}: {error.stderr}") from error
        server, client = (("ip", "netns", "exec", f"{end}-{run}") for end in ends)
        inside = ("ip", "netns", "exec", router)
        yield Network(server, client, "10.213.1.2", "10.213.2.2", inside, ("10.213.1.1", "10.213.2.1"), router)
