"""What a run consists of."""

from __future__ import annotations

import functools
from pathlib import Path

from faults.chaos import Chaos, Report, plan
from faults.kinds import KINDS

LANE_TIMEOUT = 540.0


def run_connections(chaos: Chaos, faults: int, lanes: int, names: list[str]) -> Report:
    """Faults that strike one client each, all of one server."""
    server = chaos.server("steady")
    server.start()
    jobs = [
        functools.partial(chaos.run_lane, connection, server, share, number)
        for number, (connection, share) in enumerate(plan(names, faults, lanes, chaos.report.seed))
    ]
    chaos.in_parallel(list(jobs), LANE_TIMEOUT)
    return chaos.finish([server])


def run_all(folder: Path, seed: int, faults: int, lanes: int, kind: str = "") -> Report:
    chaos = Chaos(folder, seed)
    return run_connections(chaos, faults, lanes, [name for name in KINDS if kind in name])
