"""The protocol between the benchmarks' runner and a peer: cases as JSON in, one JSON line of figures for each out.

A peer is a script beside this file. It runs in the virtual environment of what it measures, so it imports from here
nothing but what any of them has: Python, NumPy and some version of Gymnasium.

    python PEER.py run '{"certificates": "folder", "cases": [{"name": ..., "workload": ...}, ...], "paced": false}'
    python PEER.py serve '{...}'        # started by the first, where the peer has a server of its own
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from case import Case, Figures, NotHere
from serving import Servers

Measure = Callable[[Case, Servers], Figures]
Serve = Callable[[dict[str, Any]], contextlib.AbstractContextManager[dict[str, Any]]]


def main(measure: Measure, serve: Serve | None = None) -> None:
    """Be a peer: measure the cases of the command line, or serve until standard input ends."""
    what, job = sys.argv[1], json.loads(sys.argv[2])
    if what == "serve":
        assert serve is not None
        with serve(job) as told:
            print(json.dumps(told), flush=True)
            sys.stdin.read()
        return
    with Servers() as servers:
        for fields in job["cases"]:
            # Who takes turns with others waits for each.
            if job.get("paced") and not sys.stdin.readline():
                return
            case = Case(**fields, certificates=job["certificates"])
            begin = time.perf_counter()
            figures = _measure(measure, case, servers)
            print(json.dumps({"name": case.name, "took_s": time.perf_counter() - begin, **figures}), flush=True)


def _measure(measure: Measure, case: Case, servers: Servers) -> Figures:
    try:
        return measure(case, servers)
    except NotHere as reason:
        return {"skipped": str(reason)}
    except Exception as error:  # noqa: BLE001 - whatever another package raises is this case's result
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
