"""The benchmarks' own parts, and one row of them for real."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import against
import publish
from catalogue import PEERS
from comparison import Comparison, interval_of_median
from report import page, target_values
from results import NotMeasured, Results, Spread
from targets import TARGETS
from waiting import scaled

ROOT = Path(__file__).resolve().parent.parent
PEER_SCRIPTS = ROOT / "benchmarks" / "peers"


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
            with socket.create_connection(("127.0.0.2", port), timeout=scaled(10)) as client:
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
            assert proxy.wait(scaled(10)) == 0
        finally:
            proxy.kill()


def test_a_peer_measures_what_it_is_asked_and_tells_why_it_cannot():
    cases = [
        {"name": "zero", "workload": "zero", "seconds": 0.01},
        {"name": "unknown", "workload": "halfcheetah", "num_envs": 2, "options": {"vector": "neither"}},
    ]
    command = [sys.executable, str(PEER_SCRIPTS / "in_process.py"), "run"]
    job = json.dumps({"certificates": "", "cases": cases})
    done = subprocess.run([*command, job], capture_output=True, text=True, timeout=scaled(60), check=True)
    zero, unknown = map(json.loads, done.stdout.splitlines())
    assert zero["name"] == "zero"
    assert zero["p50_us"] <= zero["p99_us"]
    assert zero["steps"] >= 8
    assert unknown["failed"] == "KeyError: 'neither'"


def measured(p50: float) -> dict[str, float]:
    return {"p50_us": p50, "client_cpu_ms_per_step": p50 / 2e3, "server_cpu_ms_per_step": p50 / 2e3}


def compared(ratios: list[float]) -> Comparison:
    """Of pairs whose level changes from one to the next far more than what is compared."""
    found = Comparison()
    for number, ratio in enumerate(ratios):
        before = 10.0 * (1 + number % 5)
        found.add("direct", measured(before), measured(before * ratio))
    return found


NOISE = [0.97, 1.02, 0.99, 1.01, 1.04, 0.96, 1.0, 1.03, 0.98, 1.0]


@pytest.mark.parametrize(("times", "verdict"), [(1.0, "the same"), (1.1, "slower"), (0.9, "quicker")])
def test_a_comparison_is_of_ratios_within_pairs(times, verdict):
    found = compared([times * each for each in NOISE])
    for figure in ("p50_us", "cpu_us"):
        ratio = found.ratio("direct", figure)
        assert (ratio.verdict, ratio.pairs) == (verdict, 10)
        assert ratio.median == pytest.approx(times)
        assert (ratio.least, ratio.most) == pytest.approx((0.96 * times, 1.04 * times))
        assert ratio.least < ratio.low < ratio.median < ratio.high < ratio.most
    assert found.slower() == (["direct"] if verdict == "slower" else [])
    assert verdict in found.table({"direct": "the direct one"})


def test_few_pairs_prove_nothing_and_none_is_no_success():
    few = compared([2.0] * 5)
    assert few.ratio("direct", "p50_us").verdict == "too few pairs"
    assert compared([2.0] * 6).ratio("direct", "p50_us").verdict == "slower"
    few.add("grpc", {"failed": "crashed"}, measured(1.0))
    assert few.slower() == ["grpc"]
    assert "not measured: before: crashed" in few.table({"direct": "direct", "grpc": "gRPC"})


def test_the_interval_holds_the_median_as_often_as_it_says():
    draw = random.Random(1)
    samples = (sorted(draw.random() for _ in range(16)) for _ in range(2000))
    held = sum(low <= 0.5 <= high for low, high in map(interval_of_median, samples))
    assert 0.95 <= held / 2000 < 0.99


def test_rows_that_are_compared_exist():
    assert {row.name for row in against.OUR_PEER.rows} >= set(against.ROWS)


@pytest.mark.development
def test_this_checkout_can_be_compared_with_itself(capsys):
    assert against.run(ROOT, ["grpc-thread"], pairs=1, seconds=0.02) == 0
    printed = capsys.readouterr().out
    assert "| remote_gym, gRPC, thread | " in printed
    assert printed.count("too few pairs") == 3
    assert "Beware" not in printed


@pytest.mark.development
def test_a_folder_that_cannot_be_compared_is_refused_with_the_reason(tmp_path, capsys):
    assert against.run(tmp_path, [], pairs=1, seconds=0.02) == 2
    assert f"{tmp_path} has no .venv" in capsys.readouterr().out
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    assert against.run(tmp_path, [], pairs=1, seconds=0.02) == 2
    assert "imports " in capsys.readouterr().out
