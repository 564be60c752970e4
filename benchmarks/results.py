"""What was measured: each figure of each case, once for every repeat, and what is made of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Figures = dict[str, Any]


class NotMeasured(Exception):
    """A figure that is not there, and why."""


@dataclass(frozen=True)
class Spread:
    """A figure's median over the repeats, its least and its most."""

    median: float
    least: float
    most: float


@dataclass
class Results:
    """All that one run of the benchmarks found.

    Attributes:
        repeats: For each repeat the figures by peer and case, such as ``repeats[0]["ours"]["direct"]["p50_us"]``.
    """

    repeats: list[dict[str, dict[str, Figures]]] = field(default_factory=list)

    def spread(self, peer: str, case: str, figure: str) -> Spread:
        """A figure over all repeats that have it.

        Raises:
            NotMeasured: If none has it.
        """
        return self.over_repeats(lambda repeat: lookup(repeat, peer, case, figure))

    def over_repeats(self, compute: Callable[[Mapping[str, dict[str, Figures]]], float]) -> Spread:
        """Compute something, such as a ratio, within each repeat, since conditions drift from one to the next.

        Raises:
            NotMeasured: If it cannot be computed in any of them.
        """
        values: list[float] = []
        reason = "nothing was measured"
        for repeat in self.repeats:
            try:
                values.append(compute(repeat))
            except NotMeasured as missing:
                reason = str(missing)
        if not values:
            raise NotMeasured(reason)
        return Spread(statistics.median(values), min(values), max(values))


def lookup(repeat: Mapping[str, dict[str, Figures]], peer: str, case: str, figure: str) -> float:
    """One figure of one repeat.

    Raises:
        NotMeasured: If it is not there, with the peer's reason where it gave one.
    """
    figures = repeat.get(peer, {}).get(case, {})
    if figure not in figures:
        reason = figures.get("skipped") or figures.get("failed") or "not part of this run"
        raise NotMeasured(f"{peer}, {case}: {reason}")
    return float(figures[figure])
