"""Put results where readers find them: between two comments of a document, and into docs/images."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from install import ROOT
from report import CHARTS, Written

IMAGES = ROOT / "docs" / "images"
README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def publish(written: Written) -> None:
    """Show these results in docs/performance.md, and their charts there and in README.md."""
    for path in written.charts:
        name = next(name for name in CHARTS if path.stem.endswith(f"-{name}"))
        shutil.copyfile(path, IMAGES / f"benchmark-{name}.png")
    alternatives = {
        "cartpole": "Bars: the time of a step of CartPole by each package",
        "sizes": "Bars: the time of a step that returns an image",
        "vectors": "Lines: steps in a second by the number of environments",
    }
    charts = [f"![{text}](images/benchmark-{name}.png)" for name, text in alternatives.items()]
    replace_between(PERFORMANCE, "\n\n".join([*charts, written.markdown.read_text(encoding="utf-8")]))
    replace_between(README, f"![{alternatives['cartpole']}](docs/images/benchmark-cartpole.png)\n")


def replace_between(document: Path, text: str) -> None:
    """Replace what stands between the two comments.

    Raises:
        SystemExit: If they are not there, each once and in this order.
    """
    old = document.read_text(encoding="utf-8")
    new, count = re.subn(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n\n{text}\n{END}", old, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"error: {document.name} needs {BEGIN} and {END}, once; found {count} times")
    document.write_text(new, encoding="utf-8")
