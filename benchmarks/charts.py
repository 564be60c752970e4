"""Draw the charts: charts.py RESULTS.json CARTPOLE.png SIZES.png VECTORS.png, where matplotlib is installed."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot

OURS_COLOUR, FLOOR_COLOUR, PEER_COLOUR = "#0b6e4f", "#9aa0a6", "#c1666b"


def main(results: str, *charts: str) -> None:
    """Draw each chart of which there are figures."""
    matplotlib.use("Agg")
    pyplot.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    whole = json.loads(Path(results).read_text(encoding="utf-8"))
    machine = whole["machine"]
    note = f"{whole['date']}, {machine['processor']}, {machine['cores']} cores; medians, least and most"
    cases = [case for case in whole["cases"] if "p50_us" in case["figures"]]
    for draw, path in zip((draw_cartpole, draw_sizes, draw_vectors), charts, strict=True):
        figure = draw(cases)
        if figure is not None:
            figure.text(0.01, 0.01, note, fontsize=7, color="#5f6368")
            figure.savefig(path, dpi=130)
            pyplot.close(figure)


def draw_cartpole(cases: list[dict[str, Any]]) -> Any:
    """A step of CartPole, by who carries it."""
    shown = [
        case
        for case in cases
        if case.get("workload", "cartpole") == "cartpole"
        and not case.get("num_envs")
        and "rtt_ms" not in case
        and "placement" not in case
    ]
    shown.sort(key=lambda case: case["figures"]["p50_us"]["median"], reverse=True)
    if not shown:
        return None
    return bars(shown, "CartPole-v1: median time of a step, µs (logarithmic)")


def draw_sizes(cases: list[dict[str, Any]]) -> Any:
    """A step that returns an image."""
    shown = [case for case in cases if case.get("workload") in ("pixels", "vga") and "rtt_ms" not in case]
    shown.sort(key=lambda case: (case["workload"] == "pixels", case["figures"]["p50_us"]["median"]), reverse=True)
    if not shown:
        return None
    sizes = {"pixels": "84×84×4", "vga": "640×480×3"}
    labelled = [{**case, "shown": f"{case['shown']}, {sizes[case['workload']]}"} for case in shown]
    return bars(labelled, "uint8 images as observations: median time of a step, µs (logarithmic)")


def draw_vectors(cases: list[dict[str, Any]]) -> Any:
    """Steps in a second, by the number of CartPoles."""
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for case in cases:
        if case.get("num_envs", 0) > 1 and case.get("workload", "cartpole") == "cartpole":
            lines[case["shown"]].append((case["num_envs"], case["figures"]["steps_per_s"]["median"]))
    if not lines:
        return None
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for shown, points in lines.items():
        numbers, rates = zip(*sorted(points), strict=True)
        axes.loglog(numbers, rates, marker="o", label=shown)
    axes.set_xticks([8, 32, 128, 512], labels=["8", "32", "128", "512"])
    axes.minorticks_off()
    axes.set_xlabel("environments")
    axes.set_title("CartPole-v1: steps in a second", loc="left")
    axes.legend(frameon=False)
    figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))
    return figure


def bars(cases: list[dict[str, Any]], title: str) -> Any:
    """Horizontal bars with the range of the repeats."""
    figure, axes = pyplot.subplots(figsize=(7, 0.9 + 0.26 * len(cases)), layout="constrained")
    spreads = [case["figures"]["p50_us"] for case in cases]
    medians = [spread["median"] for spread in spreads]
    around = [
        [spread["median"] - spread["least"] for spread in spreads],
        [spread["most"] - spread["median"] for spread in spreads],
    ]
    colours = [colour(case["peer"]) for case in cases]
    # Labels may repeat, places may not.
    axes.barh(range(len(cases)), medians, xerr=around, color=colours, error_kw={"lw": 0.8})
    axes.set_yticks(range(len(cases)), labels=[case["shown"] for case in cases])
    axes.set_xscale("log")
    for place, spread in enumerate(spreads):
        axes.text(spread["most"] * 1.08, place, f"{spread['median']:,.3g}", va="center", fontsize=8)
    axes.set_xlim(right=max(spread["most"] for spread in spreads) * 2)
    axes.set_title(title, loc="left")
    figure.get_layout_engine().set(rect=(0, 0.04, 1, 0.96))
    return figure


def colour(peer: str) -> str:
    """Ours, the least that can be, or another's."""
    if peer == "ours":
        return OURS_COLOUR
    return FLOOR_COLOUR if peer.startswith(("floor", "in_process")) else PEER_COLOUR


if __name__ == "__main__":
    main(*sys.argv[1:])
