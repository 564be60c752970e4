"""Compare remote_gym with its peers and with what the machine can do at best.

Repeats go through all peers in turn, every second one backwards, so that what changes on the machine meanwhile
changes for all of them. ``python3 ci/task.py bench`` runs it.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from catalogue import OURS, PEERS, Peer
from installations import FOLDER, install, versions
from machine import describe, load
from publish import publish
from remote_gym.certs import create_all
from report import write
from results import Figures, Results

SCRIPTS = Path(__file__).with_name("peers")
RESULTS = Path(__file__).with_name("results")
CERTIFICATES = FOLDER / "certificates"


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python3 ci/task.py bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rows, twice, in less than a minute once installed")
    parser.add_argument("--repeats", type=int, help="default: 5, or 2 with --quick")
    parser.add_argument("--seconds", type=float, help="to measure a row for; default: 0.5, or 0.25 with --quick")
    parser.add_argument("--peer", action="append", choices=[peer.name for peer in PEERS], help="only this one, and ...")
    parser.add_argument("--publish", action="store_true", help="show the results in README.md and docs/performance.md")
    return parser.parse_args()


def main() -> None:
    """Install, measure, write."""
    asked = arguments()
    repeats = asked.repeats or (2 if asked.quick else 5)
    seconds = asked.seconds or (0.25 if asked.quick else 0.5)
    peers = [peer for peer in PEERS if not asked.peer or peer.name in asked.peer]
    if asked.quick:
        peers = [peer for peer in peers if any(row.quick for row in peer.rows)]
    print("installing the peers", flush=True)
    # Ours always: it draws the charts.
    missing = install(list(dict.fromkeys([OURS, *(peer.installation for peer in peers)])))
    CERTIFICATES.mkdir(parents=True, exist_ok=True)
    create_all(CERTIFICATES, ["localhost", "127.0.0.1", "127.0.0.2"], force=True)
    results = Results()
    load_before = load()
    begin = time.monotonic()
    for repeat in range(repeats):
        found: dict[str, dict[str, Figures]] = {}
        for peer in peers if repeat % 2 == 0 else reversed(peers):
            names = [row.name for row in peer.rows if row.quick or not asked.quick]
            if peer.installation.name in missing:
                found[peer.name] = {name: {"failed": missing[peer.installation.name]} for name in names}
                continue
            print(f"  {repeat + 1}/{repeats} {peer.name} (after {time.monotonic() - begin:.0f} s)", flush=True)
            found[peer.name] = measure(peer, names, seconds)
        results.repeats.append(found)
    installed = {peer.installation.name: peer.installation for peer in peers}
    about = {
        "date": datetime.date.today().isoformat(),
        "quick": asked.quick,
        "seconds": seconds,
        "machine": describe(),
        "load_before": load_before,
        "load_after": load(),
        "versions": {name: versions(found) for name, found in installed.items() if name not in missing},
        "not_installed": missing,
    }
    # A quick look must not take the place of a day's real results.
    folder = FOLDER / "quick" if asked.quick or asked.peer else RESULTS
    written = write(about, results, folder)
    if asked.publish:
        publish(written)
    print(written.markdown.read_text(encoding="utf-8"))
    print(f"written to {written.json.relative_to(FOLDER.parent.parent)} and beside it")


def measure(peer: Peer, names: Sequence[str], seconds: float) -> dict[str, Figures]:
    """Run a peer's cases in a new process, and end whatever it leaves."""
    rows = [row for row in peer.rows if row.name in names]
    cases = [{"name": row.name, "seconds": seconds, **row.fields} for row in rows]
    command = [str(peer.installation.python), str(SCRIPTS / f"{peer.script}.py"), "run"]
    job = json.dumps({"certificates": str(CERTIFICATES), "cases": cases})
    found: dict[str, Figures] = {}
    # Each finds the packages of its own installation, and no others.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    with (
        (FOLDER / f"{peer.name}.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(
            [*command, job], stdout=subprocess.PIPE, stderr=log, env=environment, start_new_session=True
        ) as process,
    ):
        reason = "it ended before it got there; see its log in build/bench"
        try:
            for row in rows:
                figures = next_figures(process, peer.timeout)
                if figures is None:
                    break
                found[figures.pop("name", row.name)] = figures
        except TimeoutError:
            reason = f"no answer within {peer.timeout:.0f} s"
        finally:
            stop(process, patience=15.0 if len(found) == len(rows) else 0.0)
    return {row.name: found.get(row.name, {"failed": reason}) for row in rows}


def next_figures(process: subprocess.Popen[bytes], timeout: float) -> dict[str, Any] | None:
    """The next line of figures, whatever else is printed; None if there will be no more.

    Raises:
        TimeoutError: If it does not come in time.
    """
    assert process.stdout is not None
    descriptor = process.stdout.fileno()
    deadline = time.monotonic() + timeout
    line = b""
    while True:
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        # One byte at a time, since what is read ahead would hide from select. The lines are few and short.
        byte = os.read(descriptor, 1)
        if not byte:
            return None
        if byte != b"\n":
            line += byte
            continue
        if line.startswith(b'{"name"'):
            figures: dict[str, Any] = json.loads(line)
            return figures
        line = b""


def stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """Wait for a peer to end, then end it and all that it started."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
