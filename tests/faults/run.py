"""Make many faults and print what came of them: ``run.py --faults 300 --seed 1``."""

from __future__ import annotations

import argparse
import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults.runs import run_all


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=320, help="how many, about")
    parser.add_argument("--seed", type=int, default=None, help="the same seed chooses the same faults")
    parser.add_argument("--lanes", type=int, default=8, help="clients at once")
    parser.add_argument("--kind", default="", help="only those whose name holds this")
    parser.add_argument("--keep", action="store_true", help="keep ledgers, journals and logs")
    chosen = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="remote_gym-faults-"))
    logging.basicConfig(filename=folder / "clients.log", level=logging.INFO)
    report = run_all(folder, seed, chosen.faults, chosen.lanes, chosen.kind)
    print("\n".join(report.table()))
    if report.complaints or chosen.keep:
        print(f"ledger, journals and logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if report.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
