"""The benchmarks' own parts, and one row of them for real."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import publish
from catalogue import PEERS
from report import page, target_values
from results import NotMeasured, Results, Spread
from targets import TARGETS

PEER_SCRIPTS = Path(__file__).resolve().parent.parent / "benchmarks" / "peers"


def results(*p50s: float) -> Results:
    """Of repeats in which a socket took 10 µs, CartPole itself 5 µs, and ours that long."""
    return Results(
        [
            {
                "ours": {"direct": {"p50_us": p50, "open_ms": 100.0}},
                "floor_socket": {"polling": {"p50_us": 10.0}},
                "in_process": {"cartpole": {"p50_us": 5.0}},
                "ray": {"cartpole": {"skipped": "no rays today"}},
            }
            for p50 in p50s
        ]
    )


ABOUT = {
    "date": "2024-02-29",
    "seconds": 0.5,
    "machine": {
        "processor": "Abacus",
        "cores": 2,
        "memory_gib": 1,
        "virtual": False,
        "system": "Linux",
        "python": "3.10",
    },
    "load_before": 0.0,
    "load_after": 1.0,
    "not_installed": {"envpool": "no wheel"},
}


def test_every_row_has_a_name_of_its_own_and_a_script():
    assert len({peer.name for peer in PEERS}) == len(PEERS)
    for peer in PEERS:
        names = [row.name for row in peer.rows]
        assert len(set(names)) == len(names)
        assert (PEER_SCRIPTS / f"{peer.script}.py").exists()


def test_targets_are_ratios_within_a_repeat():
    beyond = target_values(results(15.0, 25.0, 45.0))[0]
    assert (beyond["median"], beyond["least"], beyond["most"], beyond["reached"]) == (2.0, 1.0, 4.0, True)
    assert target_values(results(26.0))[0]["reached"] is False


def test_every_target_asks_for_rows_that_exist():
    everything = {peer.name: {row.name: {} for row in peer.rows} for peer in PEERS}
    for target in TARGETS:
        with pytest.raises(NotMeasured, match="not part of this run") as reason:
            target.compute(everything)
        peer, case = str(reason.value).partition(":")[0].split(", ")
        assert case in everything[peer]


def test_what_was_not_measured_is_told_with_its_reason():
    text = page(ABOUT, results(15.0))
    assert "no rays today" in text
    assert "envpool: cannot be installed here: no wheel" in text


def test_a_figure_of_some_repeats_only_is_of_those():
    found = results(1.0, 3.0)
    found.repeats.append({"ours": {"direct": {"failed": "crashed"}}})
    assert found.spread("ours", "direct", "p50_us") == Spread(2.0, 1.0, 3.0)


def test_publishing_replaces_what_is_between_the_comments(tmp_path):
    document = tmp_path / "page.md"
    document.write_text(f"before\n{publish.BEGIN}\nold \\1\n{publish.END}\nafter\n", encoding="utf-8")
    publish.replace_between(document, "new \\1\n")
    expected = f"before\n{publish.BEGIN}\n\nnew \\1\n\n{publish.END}\nafter\n"
    assert document.read_text(encoding="utf-8") == expected
    document.write_text("no comments", encoding="utf-8")
    with pytest.raises(SystemExit, match="found 0 times"):
        publish.replace_between(document, "text")


@pytest.fixture
def echo() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems have no 127.0.0.2 without being told")
def test_the_proxy_delays_counts_and_keeps_the_order(echo):
    port = echo.getsockname()[1]
    job = json.dumps({"listen": "127.0.0.2", "to": "127.0.0.1", "ports": [port], "seconds": 0.05})
    command = [sys.executable, str(PEER_SCRIPTS / "delay.py"), job]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as proxy:
        assert proxy.stdout is not None
        assert proxy.stdin is not None
        try:
            assert json.loads(proxy.stdout.readline()) == {"ready": True}
            with socket.create_connection(("127.0.0.2", port), timeout=10) as client:
                server, _ = echo.accept()
                with server:
                    begin = time.perf_counter()
                    for number in range(100):
                        client.sendall(bytes([number]))
                    received = b""
                    while len(received) < 100:
                        received += server.recv(100)
                    assert time.perf_counter() - begin >= 0.05
                    assert received == bytes(range(100))
                    proxy.stdin.write("\n")
                    assert json.loads(proxy.stdout.readline()) == {"bytes": [100, 0]}
            proxy.stdin.close()
            assert proxy.wait(10) == 0
        finally:
            proxy.kill()


def test_a_peer_measures_what_it_is_asked_and_tells_why_it_cannot():
    cases = [
        {"name": "zero", "workload": "zero", "seconds": 0.01},
        {"name": "unknown", "workload": "halfcheetah", "num_envs": 2, "options": {"vector": "neither"}},
    ]
    command = [sys.executable, str(PEER_SCRIPTS / "in_process.py"), "run"]
    job = json.dumps({"certificates": "", "cases": cases})
    done = subprocess.run([*command, job], capture_output=True, text=True, timeout=60, check=True)
    zero, unknown = map(json.loads, done.stdout.splitlines())
    assert zero["name"] == "zero"
    assert zero["p50_us"] <= zero["p99_us"]
    assert zero["steps"] >= 8
    assert unknown["failed"] == "KeyError: 'neither'"
