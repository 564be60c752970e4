"""Compare remote_gym with its peers and with what the machine can do at best.

Repeats go through all peers in turn, every second one backwards, so that what changes on the machine meanwhile
changes for all of them. With ``--against`` it compares with another checkout instead: see `against`.
``python3 ci/task.py bench`` runs it.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import against
from catalogue import OUR_PEER, OURS, PEERS, Peer
from installations import FOLDER, install, versions
from machine import describe, load
from peer_process import next_figures, start, stop
from publish import publish
from remote_gym.certs import create_all
from report import write
from results import Figures, Results

RESULTS = Path(__file__).with_name("results")
CERTIFICATES = FOLDER / "certificates"


def arguments() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(prog="python3 ci/task.py bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rows, twice, in less than a minute once installed")
    parser.add_argument("--repeats", type=int, help=f"default: 5, or 2 with --quick, or {against.PAIRS} with --against")
    parser.add_argument("--seconds", type=float, help="to measure a row for; default: 0.5, 0.25 or 0.4 likewise")
    parser.add_argument("--peer", action="append", choices=[peer.name for peer in PEERS], help="only this one, and ...")
    parser.add_argument("--publish", action="store_true", help="show the results in README.md and docs/performance.md")
    parser.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="compare with another checkout, which has a .venv of its own"
    )
    parser.add_argument(
        "--row", action="append", choices=[row.name for row in OUR_PEER.rows], help="with --against: only this, and ..."
    )
    return parser.parse_args()


def main() -> None:
    """Install, measure, write."""
    asked = arguments()
    if asked.against is not None:
        sys.exit(
            against.run(
                asked.against, asked.row or [], asked.repeats or against.PAIRS, asked.seconds or against.SECONDS
            )
        )
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
    job = {"certificates": str(CERTIFICATES), "cases": cases}
    found: dict[str, Figures] = {}
    with (
        (FOLDER / f"{peer.name}.log").open("w", encoding="utf-8") as log,
        start(peer.installation.python, peer.script, job, log) as process,
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


if __name__ == "__main__":
    main()
