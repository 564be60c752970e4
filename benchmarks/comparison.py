"""Pairs of figures from two checkouts, each pair taken one right after the other, and what their ratios say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from results import Figures

CONFIDENCE = 0.95
FEWEST = 6
"""With fewer pairs not even the least and the most hold the median with that probability."""
TOLERANCE = 1.02
"""Below this a ratio is not told from 1: so much differ two runs of the same code."""

SHOWN = {
    "p50_us": "median step, µs",
    "cpu_us": "processor time of a step, both ends, µs",
    "open_ms": "open and reset, ms",
}
"""Figures that are compared, of which less is better."""


class NoPair(Exception):
    """There is no pair of figures to compare, and why."""


@dataclass(frozen=True)
class Ratio:
    """What a figure here is to the one there, over all pairs.

    Attributes:
        before: The other checkout's median.
        after: This one's.
        median: Of the ratios after / before.
        least: Of the ratios.
        most: Of the ratios.
        low: The median of more such ratios is not below this, with a probability of 97.5 %.
        high: Likewise not above this.
        pairs: How many there are.
    """

    before: float
    after: float
    median: float
    least: float
    most: float
    low: float
    high: float
    pairs: int

    @property
    def verdict(self) -> str:
        """``slower`` and ``quicker`` only where the pairs leave no doubt."""
        if self.pairs < FEWEST:
            return "too few pairs"
        if self.low > TOLERANCE:
            return "slower"
        return "quicker" if self.high < 1 / TOLERANCE else "the same"


@dataclass
class Comparison:
    """The pairs of all rows: figures before and after."""

    pairs: dict[str, list[tuple[Figures, Figures]]] = field(default_factory=dict)

    def add(self, row: str, before: Figures, after: Figures) -> None:
        """Keep one pair."""
        self.pairs.setdefault(row, []).append((with_cpu(before), with_cpu(after)))

    def ratio(self, row: str, figure: str) -> Ratio:
        """Compare a figure over all pairs that have it twice.

        Raises:
            NoPair: If there is none, with the reason that a peer gave.
        """
        found = [
            (before[figure], after[figure]) for before, after in self.pairs[row] if {figure} <= before.keys() & after
        ]
        if not found:
            reasons = [
                f"{checkout}: {figures.get('failed') or figures.get('skipped') or f'no {figure}'}"
                for pair in self.pairs[row]
                for checkout, figures in zip(("before", "after"), pair, strict=True)
                if figure not in figures
            ]
            raise NoPair(reasons[0])
        ratios = sorted(after / before for before, after in found)
        low, high = interval_of_median(ratios)
        return Ratio(
            before=statistics.median(before for before, _ in found),
            after=statistics.median(after for _, after in found),
            median=statistics.median(ratios),
            least=ratios[0],
            most=ratios[-1],
            low=low,
            high=high,
            pairs=len(ratios),
        )

    def table(self, shown: dict[str, str]) -> str:
        """All of it as Markdown, with rows named as `shown` has them."""
        lines = []
        for figure, what in SHOWN.items():
            lines += [
                f"### {what[0].upper()}{what[1:]}",
                "",
                "| | before | after | after / before: median (95 % of it) | least to most | |",
                "|---|---|---|---|---|---|",
            ]
            for row in self.pairs:
                try:
                    found = self.ratio(row, figure)
                except NoPair as reason:
                    lines.append(f"| {shown[row]} | | | not measured: {reason} | | |")
                    continue
                verdict = f"**{found.verdict}**" if found.verdict == "slower" else found.verdict
                lines.append(
                    f"| {shown[row]} | {found.before:.4g} | {found.after:.4g} | "
                    f"{found.median:.3f} ({found.low:.3f} to {found.high:.3f}) | "
                    f"{found.least:.2f} to {found.most:.2f} | {verdict} |"
                )
            lines.append("")
        return "\n".join(lines)

    def slower(self) -> list[str]:
        """The rows whose steps have become slower, and those that could not be compared."""
        found = []
        for row in self.pairs:
            try:
                if self.ratio(row, "p50_us").verdict == "slower":
                    found.append(row)
            except NoPair:
                found.append(row)
        return found


def with_cpu(figures: Figures) -> Figures:
    """The same, and the processor time of both ends together."""
    parts = [figures[name] for name in ("client_cpu_ms_per_step", "server_cpu_ms_per_step") if name in figures]
    return {**figures, "cpu_us": sum(parts) * 1e3} if len(parts) == 2 else dict(figures)


def interval_of_median(values: Sequence[float]) -> tuple[float, float]:
    """Where the median of all values lies that these are a sample of, whatever their distribution.

    Args:
        values: In order.

    Returns:
        The narrowest pair of order statistics that holds it with `CONFIDENCE`; the least and the most where there are
        too few for that.
    """
    count = len(values)
    outside, rank = 0.0, 0
    # A value is below the median with a probability of one half: so ranks are those of coins.
    while rank < count // 2 and 2 * (outside + math.comb(count, rank) / 2**count) <= 1 - CONFIDENCE:
        outside += math.comb(count, rank) / 2**count
        rank += 1
    rank = max(0, rank - 1)
    return values[rank], values[count - 1 - rank]
