"""Compare this checkout with another one, row by row: the same script steps both, one right after the other."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catalogue import OUR_PEER, Row
from comparison import Comparison
from install import ROOT
from installations import FOLDER
from machine import describe, load, sentence
from peer_process import next_figures, start, stop
from remote_gym.certs import create_all
from results import Figures

ROWS = (
    "direct",
    "direct-thread",
    "grpc",
    "grpc-port",
    "grpc-thread",
    "pixels",
    "grpc-pixels",
    "vector-8",
    "vector-128",
    "vector-128-2",
)
"""Of `catalogue.OUR_PEER`: single environments by each kind of connection, large observations, and vectors."""
PAIRS = 16
SECONDS = 0.4
PAIRS_A_PROCESS = 4
"""After so many the processes are started anew, since where their memory happens to lie is good for some per cent."""


class NoCheckout(Exception):
    """A folder is no checkout that can be measured, and why."""


@dataclass(frozen=True)
class Checkout:
    """A checkout with an environment of its own.

    Attributes:
        name: ``before`` or ``after``.
        folder: Where it is.
    """

    name: str
    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return self.folder / ".venv" / "bin" / "python"

    def versions(self) -> dict[str, str]:
        """What it measures with.

        Raises:
            NoCheckout: If its environment imports another remote_gym than its own.
        """
        code = (
            "import importlib.metadata as m, json, platform, remote_gym; "
            "print(json.dumps([remote_gym.__file__, {'Python': platform.python_version(), "
            "**{n: m.version(n) for n in ('gymnasium', 'numpy', 'grpcio', 'protobuf')}}]))"
        )
        if not self.python.exists():
            raise NoCheckout(f"{self.folder} has no .venv; make it there by: python3 ci/task.py venv")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        # Not in the current folder, which would be searched first.
        done = subprocess.run(
            [self.python, "-c", code], capture_output=True, text=True, timeout=60, env=environment, cwd="/", check=False
        )
        if done.returncode:
            raise NoCheckout(f"{self.folder}: {done.stderr.strip().rpartition(os.linesep)[2]}")
        place, versions = json.loads(done.stdout)
        if not Path(place).is_relative_to(self.folder / "src"):
            raise NoCheckout(f"the .venv of {self.folder} imports {place}; make it there by: python3 ci/task.py venv")
        found: dict[str, str] = versions
        return found


class Measuring:
    """A checkout's process, which measures a row each time that it is asked to.

    Args:
        checkout: Whose.
        rows: In the order in which they are asked for, again and again.
        seconds: To measure each for.
    """

    def __init__(self, checkout: Checkout, rows: list[Row], seconds: float) -> None:
        cases = [{"name": row.name, "seconds": seconds, **row.fields} for row in rows]
        job = {"certificates": str(FOLDER / "certificates"), "cases": cases}
        self._stack = contextlib.ExitStack()
        log = self._stack.enter_context((FOLDER / f"{checkout.name}.log").open("w", encoding="utf-8"))
        self._process = start(checkout.python, OUR_PEER.script, job, log, paced=True)
        self._stack.enter_context(self._process)
        self._stack.callback(stop, self._process, 15.0)
        assert self._process.stdin is not None
        self._stack.callback(self._process.stdin.close)  # which ends it, also amid its rows

    def next(self) -> Figures:
        """Measure the next row."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
            return next_figures(self._process, OUR_PEER.timeout) or {"failed": "it ended before it got there"}
        except (TimeoutError, BrokenPipeError) as error:
            return {"failed": f"no answer: {type(error).__name__}"}

    def close(self) -> None:
        """End it."""
        self._stack.close()


def compare(before: Checkout, after: Checkout, rows: list[Row], pairs: int, seconds: float) -> Comparison:
    """Measure that many pairs of each row."""
    found = Comparison()
    begin = time.monotonic()
    for first in range(0, pairs, PAIRS_A_PROCESS):
        count = min(PAIRS_A_PROCESS, pairs - first)
        print(f"  pairs {first + 1} to {first + count} of {pairs} (after {time.monotonic() - begin:.0f} s)", flush=True)
        with processes(before, after, rows * count, seconds) as ends:
            for number in range(count):
                for place, row in enumerate(rows):
                    # Each goes first as often as the other: what changes on the machine changes for both.
                    order = ends if (number + place) % 2 == 0 else ends[::-1]
                    figures = {end: end.next() for end in order}
                    found.add(row.name, *(figures[end] for end in ends))
    return found


@contextlib.contextmanager
def processes(
    before: Checkout, after: Checkout, rows: list[Row], seconds: float
) -> Iterator[tuple[Measuring, Measuring]]:
    """Processes of both, which take turns until the block ends."""
    with contextlib.ExitStack() as stack:
        one, other = (
            stack.enter_context(contextlib.closing(Measuring(each, rows, seconds))) for each in (before, after)
        )
        yield one, other


def run(folder: Path, rows: list[str], pairs: int, seconds: float) -> int:
    """Compare this checkout with another one, and show what was found.

    Args:
        folder: The other checkout, which is the one before.
        rows: Their names; none for `ROWS`.
        pairs: Of measurements of each row.
        seconds: Each.

    Returns:
        0 if no row has become slower.
    """
    before, after = Checkout("before", folder.resolve()), Checkout("after", ROOT)
    try:
        versions = {each.name: each.versions() for each in (before, after)}
    except NoCheckout as error:
        print(f"error: {error}")
        return 2
    by_name = {row.name: row for row in OUR_PEER.rows}
    wanted = [by_name[name] for name in rows or ROWS]
    certificates = FOLDER / "certificates"
    certificates.mkdir(parents=True, exist_ok=True)
    create_all(certificates, ["localhost", "127.0.0.1", "127.0.0.2"], force=True)
    load_before = load()
    found = compare(before, after, wanted, pairs, seconds)
    print(introduction(versions, pairs, seconds, load_before))
    print(found.table({row.name: titled(row) for row in wanted}))
    slower = found.slower()
    print(f"slower, or not measured: {', '.join(slower)}" if slower else "nothing is slower")
    return 1 if slower else 0


def introduction(versions: dict[str, dict[str, str]], pairs: int, seconds: float, load_before: float) -> str:
    """Where and how it was measured, and what else differs between the two."""
    differing = {
        name: (version, versions["after"].get(name))
        for name, version in versions["before"].items()
        if versions["after"].get(name) != version
    }
    lines = [
        f"\n{sentence(describe())}. {pairs} pairs of {seconds:g} s, each taken one right after the other.",
        f"Other processes' load was {load_before:.1f} before, and {load():.1f} at the end, ours included.",
        *(f"Beware: {name} is {one} before and {other} after." for name, (one, other) in differing.items()),
    ]
    return "\n".join([*lines, ""])


def titled(row: Row) -> str:
    """What a row is called in a table of nothing but ours."""
    details: list[Any] = [f"{number} environments"] if (number := row.fields.get("num_envs")) else []
    details += [row.fields["workload"]] if "workload" in row.fields else []
    return ", ".join([row.shown, *details])
