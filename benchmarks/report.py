"""Results as files: all figures as JSON, the comparison as Markdown, and charts."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from catalogue import OURS, PEERS, Peer, Row
from machine import sentence
from results import NotMeasured, Results, Spread, lookup
from targets import TARGETS

CHARTS = ("cartpole", "sizes", "vectors")


@dataclass(frozen=True)
class Written:
    """Where results are."""

    json: Path
    markdown: Path
    charts: tuple[Path, ...]


def write(about: dict[str, Any], results: Results, folder: Path) -> Written:
    """Write everything to ``folder/<date>*``, over what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = about["date"]
    path = folder / f"{stem}.json"
    whole = {**about, "targets": target_values(results), "cases": case_values(results), "repeats": results.repeats}
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    markdown = folder / f"{stem}.md"
    markdown.write_text(page(about, results), encoding="utf-8")
    charts = [folder / f"{stem}-{name}.png" for name in CHARTS]
    # matplotlib is there, and nowhere else.
    script = Path(__file__).with_name("charts.py")
    subprocess.run([OURS.python, script, path, *charts], check=True, timeout=120)
    return Written(path, markdown, tuple(chart for chart in charts if chart.exists()))


def target_values(results: Results) -> list[dict[str, Any]]:
    """Each target, with its figure and whether it is reached, or why there is none."""
    values = []
    for target in TARGETS:
        value: dict[str, Any] = {"what": target.what, "wanted": target.wanted, "at_most": target.at_most}
        try:
            spread = results.over_repeats(target.compute)
            value |= {**asdict(spread), "reached": target.reached(spread.median)}
        except NotMeasured as reason:
            value["not_measured"] = str(reason)
        values.append(value)
    return values


def case_values(results: Results) -> list[dict[str, Any]]:
    """Each case, with median, least and most of its figures."""
    values = []
    for peer in PEERS:
        for row in peer.rows:
            runs = [repeat[peer.name][row.name] for repeat in results.repeats if row.name in repeat.get(peer.name, {})]
            if not runs:
                continue
            case = {"peer": peer.name, "name": row.name, "shown": row.shown, **row.fields}
            numbers = dict.fromkeys(key for run in runs for key in run if key not in ("skipped", "failed"))
            case["figures"] = {key: asdict(results.spread(peer.name, row.name, key)) for key in numbers}
            reasons = [run.get("skipped") or run.get("failed") for run in runs if "skipped" in run or "failed" in run]
            if reasons:
                case |= {"missing_repeats": len(reasons), "reason": reasons[0]}
            values.append(case)
    return values


def page(about: dict[str, Any], results: Results) -> str:
    """All of it as Markdown."""
    return (
        "\n\n".join(
            [
                f"{introduction(about, results)}",
                "### What we want, and what is",
                target_table(results),
                "### CartPole-v1, a step",
                step_table(results, lambda row: row.fields.get("workload", "cartpole") == "cartpole"),
                "### Other environments, a step",
                step_table(results, lambda row: row.fields.get("workload", "cartpole") != "cartpole"),
                "### Many environments, steps in a second",
                vector_table(results),
                "### A longer way: CartPole-v1 through a proxy",
                link_table(results),
                missing_list(about, results),
            ]
        ).rstrip()
        + "\n"
    )


def introduction(about: dict[str, Any], results: Results) -> str:
    """Where and how it was measured."""
    return (
        f"Taken on {about['date']} on one machine: {sentence(about['machine'])}. Medians over {len(results.repeats)} "
        f"interleaved repeats of {about['seconds']:g} s each, least and most in brackets. Mutual TLS, worker processes "
        "and cores of the system's choice, unless said otherwise. Other processes' load was "
        f"{about['load_before']:.1f} before, and {about['load_after']:.1f} at the end, ours included."
    )


def target_table(results: Results) -> str:
    """Which targets are reached."""
    lines = ["| | wanted | found | |", "|---|---|---|---|"]
    for target in TARGETS:
        wanted = f"{'≤' if target.at_most else '≥'} {target.wanted:g} {target.unit}".rstrip()
        try:
            spread = results.over_repeats(target.compute)
            found, verdict = with_spread(spread, target.unit), "yes" if target.reached(spread.median) else "**no**"
        except NotMeasured as reason:
            found, verdict = f"not measured: {reason}", ""
        lines.append(f"| {target.what} | {wanted} | {found} | {verdict} |")
    return "\n".join(lines)


def step_table(results: Results, wanted: Any) -> str:
    """Single environments: time, processor time and what it is to the fastest socket."""
    lines = [
        "| | environment | p50, µs | p99, µs | steps/s | CPU, µs: client + server | open, ms | × floor |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for peer, row in _rows(lambda row: not row.fields.get("num_envs") and "rtt_ms" not in row.fields and wanted(row)):
        try:
            p50 = results.spread(peer.name, row.name, "p50_us")
        except NotMeasured:
            continue
        opened = _or_dash(results, peer, row, "open_ms", "{:.0f}")
        cpu = [_or_dash(results, peer, row, f"{end}_cpu_ms_per_step", "{:.0f}", 1e3) for end in ("client", "server")]
        lines.append(
            f"| {row.shown} | {row.fields.get('workload', 'cartpole')} | {with_spread(p50)} | "
            f"{_or_dash(results, peer, row, 'p99_us', '{:,.0f}')} | "
            f"{_or_dash(results, peer, row, 'steps_per_s', '{:,.0f}')} | "
            f"{' + '.join(cpu)} | {opened} | {_times_floor(results, peer, row)} |"
        )
    return "\n".join(lines)


def vector_table(results: Results) -> str:
    """Vector environments."""
    lines = ["| | environment | n | steps/s | p50 of a vector step, µs |", "|---|---|---|---|---|"]
    for peer, row in _rows(lambda row: bool(row.fields.get("num_envs"))):
        try:
            rate = results.spread(peer.name, row.name, "steps_per_s")
        except NotMeasured:
            continue
        fields = row.fields
        lines.append(
            f"| {row.shown} | {fields.get('workload', 'cartpole')} | {fields['num_envs']} | {with_spread(rate)} | "
            f"{_or_dash(results, peer, row, 'p50_us', '{:,.0f}')} |"
        )
    return "\n".join(lines)


def link_table(results: Results) -> str:
    """Steps through the proxy, and bytes."""
    lines = [
        "| | round trip, ms | p50, ms | bytes of a step: to + from the server, TLS included |",
        "|---|---|---|---|",
    ]
    for peer, row in _rows(lambda row: "rtt_ms" in row.fields and not row.fields.get("num_envs")):
        try:
            p50 = results.spread(peer.name, row.name, "p50_us")
        except NotMeasured:
            continue
        sizes = [_or_dash(results, peer, row, f"bytes_{way}_server_per_step", "{:,.0f}") for way in ("to", "from")]
        lines.append(f"| {row.shown} | {row.fields['rtt_ms']:g} | {p50.median / 1e3:.2f} | {' + '.join(sizes)} |")
    return "\n".join(lines)


def missing_list(about: dict[str, Any], results: Results) -> str:
    """What is not in the tables, and why."""
    reasons = [f"- {name}: cannot be installed here: {reason}" for name, reason in about["not_installed"].items()]
    for case in case_values(results):
        if "reason" in case and case["peer"] not in about["not_installed"]:
            often = f"{case['missing_repeats']} of {len(results.repeats)} times"
            reasons.append(f"- {case['shown']} ({case['peer']}, {case['name']}), {often}: {case['reason']}")
    return "\n".join(["### Not measured", "", *reasons]) if reasons else ""


def with_spread(spread: Spread, unit: str = "") -> str:
    """A figure to be read: ``12.3 (11.9 to 14.0) µs``."""
    digits = ",.0f" if spread.median >= 100 else ".1f" if spread.median >= 10 else ".2f"
    return f"{spread.median:{digits}} ({spread.least:{digits}} to {spread.most:{digits}}) {unit}".rstrip()


def _rows(wanted: Any) -> list[tuple[Peer, Row]]:
    return [(peer, row) for peer in PEERS for row in peer.rows if wanted(row)]


def _or_dash(results: Results, peer: Peer, row: Row, figure: str, form: str, factor: float = 1.0) -> str:
    try:
        return form.format(results.spread(peer.name, row.name, figure).median * factor)
    except NotMeasured:
        return "–"


def _times_floor(results: Results, peer: Peer, row: Row) -> str:
    floor = {"pixels": "pixels", "vga": "vga"}.get(row.fields.get("workload", "cartpole"), "polling")
    try:
        ratio = results.over_repeats(
            lambda repeat: (
                lookup(repeat, peer.name, row.name, "p50_us") / lookup(repeat, "floor_socket", floor, "p50_us")
            )
        )
    except NotMeasured:
        return "–"
    return f"{ratio.median:.1f}"
