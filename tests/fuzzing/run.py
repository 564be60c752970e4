"""Fuzz every target for its share of the time, one after the other, and print what came of it.

`python3 ci/task.py atheris --minutes 20 [TARGET...]`. What is found lies under ``build/fuzzing/TARGET`` and goes, made
small, into ``tests/fuzzing/corpus/TARGET/found-...`` together with what mends it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
CORPUS = Path(__file__).parent / "corpus"
LONGEST = 4096
"""Bytes of an input, at most."""


class Outcome(NamedTuple):
    """What one target's run came to."""

    executions: int
    edges: int
    inputs: int
    findings: list[Path]
    words: str


def fuzz(target: str, seconds: int) -> Outcome:
    """Run one target for so many seconds, or until it finds something."""
    found = BUILD / "fuzzing" / target
    grown = found / "corpus"
    grown.mkdir(parents=True, exist_ok=True)
    before = set(found.glob("*-*"))
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST}",
        "-timeout=20",
        "-rss_limit_mb=1500",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
    ]
    path = os.pathsep.join(map(str, (BUILD / "atheris", ROOT / "src", ROOT / "tests")))
    command = [sys.executable, Path(__file__).with_name("one.py"), target, *options, grown, CORPUS / target]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, timeout=seconds + 300, check=False
    )
    words = (done.stdout + done.stderr).decode(errors="replace")
    statuses = re.findall(r"^#(\d+)\s.*cov: (\d+).*corp: (\d+)", words, re.MULTILINE) or [("0", "0", "0")]
    executions = re.search(r"number_of_executed_units: (\d+)", words)
    findings = sorted(set(found.glob("*-*")) - before)
    if done.returncode and not findings:
        findings = [found / "did-not-run"]
    return Outcome(int(executions[1] if executions else statuses[-1][0]), *map(int, statuses[-1][1:]), findings, words)


def main() -> None:
    """Fuzz, print a line for each target, and end with status 1 if anything was found."""
    names = sorted(path.name for path in CORPUS.iterdir())
    parser = argparse.ArgumentParser(description="Fuzz the decoders, and both ends, guided by coverage.")
    parser.add_argument("targets", nargs="*", default=names, metavar="TARGET", help=", ".join(names))
    parser.add_argument("--minutes", type=float, default=5.0, help="for all targets together")
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(names):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there is {', '.join(names)}")
    seconds = max(1, round(60 * chosen.minutes / len(chosen.targets)))
    total, found = 0, 0
    print(f"{'target':12} {'executions':>11} {'edges':>6} {'inputs':>6}  findings", flush=True)
    for name in chosen.targets:
        outcome = fuzz(name, seconds)
        total, found = total + outcome.executions, found + len(outcome.findings)
        where = ", ".join(str(path.relative_to(ROOT)) for path in outcome.findings) or "0"
        print(f"{name:12} {outcome.executions:11,} {outcome.edges:6} {outcome.inputs:6}  {where}", flush=True)
        if outcome.findings:
            print("\n".join(f"    {line[:200]}" for line in _told(outcome.words)), flush=True)
    print(f"{total:,} executions, {found} findings", flush=True)
    raise SystemExit(bool(found))


def _told(words: str) -> list[str]:
    """The lines of the exception that ended a run, or the last there are."""
    lines = words.splitlines()
    begin = next((number for number, line in enumerate(lines) if "Uncaught Python exception" in line), None)
    if begin is None:
        return lines[-8:]
    end = next((number for number, line in enumerate(lines) if number > begin and not line.strip()), len(lines))
    return lines[begin + 1 : end]


if __name__ == "__main__":
    main()
