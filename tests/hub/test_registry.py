"""Which servers a hub knows, and what it lets each have."""

from __future__ import annotations

import pytest

from remote_gym.config import HubOptions
from remote_gym.errors import ConfigError
from remote_gym.hub.registry import RefusedError, Registry
from remote_gym.protocol.hub import names_to_register


def registry(**options: int) -> Registry[str]:
    return Registry(HubOptions(**options), lambda: 0.0)


def test_a_server_is_found_by_each_of_its_names_until_it_is_gone():
    servers = registry()
    home = servers.add(["sim-home", "sim.lan"], b"1", "link")
    other = servers.add(["sim-other"], b"2", "link")
    assert servers.find("sim-home") is servers.find("sim.lan") is home
    assert list(servers) == [home, other]
    assert servers.remove(home)
    assert not servers.remove(home)
    assert servers.find("sim-home") is servers.find("sim.lan") is None
    assert servers.find("sim-other") is other
    assert len(servers) == 1


@pytest.mark.parametrize(("fingerprint", "why"), [(b"1", "^it is registered"), (b"2", "with another certificate")])
def test_a_name_is_one_server_s(fingerprint, why):
    servers = registry()
    first = servers.add(["a", "b"], b"1", "link")
    with pytest.raises(RefusedError, match=why):
        servers.add(["b", "c"], fingerprint, "link")
    assert servers.holders(["c", "b", "a"]) == [first]
    assert servers.find("c") is None
    servers.remove(first)
    servers.add(["b", "c"], fingerprint, "link")


def test_a_server_without_a_name_or_one_too_many_is_refused():
    servers = registry(max_servers=1)
    with pytest.raises(RefusedError, match="has no name") as refused:
        servers.add([], b"1", "link")
    assert refused.value.hopeless
    servers.add(["a"], b"1", "link")
    with pytest.raises(RefusedError, match="max_servers") as refused:
        servers.add(["b"], b"2", "link")
    assert not refused.value.hopeless


def test_one_address_has_half_of_a_server_s_connections_and_all_have_the_whole():
    servers = registry(max_connections=4)
    server = servers.add(["a"], b"1", "link")
    for _ in range(2):
        servers.enter(server, "here")
    with pytest.raises(RefusedError, match="half"):
        servers.enter(server, "here")
    for host in ("there", "elsewhere"):
        servers.enter(server, host)
    with pytest.raises(RefusedError, match="max_connections"):
        servers.enter(server, "nowhere")
    servers.leave(server, "here")
    servers.enter(server, "nowhere")
    for host in ("here", "there", "elsewhere", "nowhere"):
        servers.leave(server, host)
    assert server.count == 0
    assert not server.by_host


def test_names_that_any_machine_could_have_are_not_registered():
    hosts = [
        "localhost",
        "127.0.0.1",
        "::1",
        "*.lab",
        "Sim-Home",
        "sim-home",
        "localhost.localdomain",
        "sim.lan",
        "a\n",
    ]
    assert names_to_register(hosts) == ("sim-home", "sim.lan")


@pytest.mark.parametrize(
    "options",
    [
        {"max_servers": 0},
        {"max_connections": 1},
        {"max_rate": 9},
        {"max_pending": 0},
        {"dial_timeout": 0.0},
        {"x": 1},
    ],
)
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError, match="HubOptions"):
        HubOptions(**options)
