"""Draw which room imports which, as Mermaid shows it, from the source; `--write` puts it into docs/architecture.md."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- imports: begin (ci/imports.py) -->\n", "<!-- imports: end -->\n"
ROOMS_LEFT_OUT = {"cli", "logs", "testing", "v1"}
EVERYBODYS = {"protocol.constants"}
"""What nearly every room imports, or imports nearly every room: nothing could be seen with it in the picture."""


def edges(package: Path) -> dict[str, set[str]]:
    """For each room of a package, which is a folder, the rooms that it imports."""
    room_of: dict[str, str] = {}
    source_of: dict[str, Path] = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        room_of[name] = ".".join(parts[:-1])
        source_of[name] = path
    found: dict[str, set[str]] = defaultdict(set)
    for name, path in source_of.items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("remote_gym."):
                base = (node.module or "").removeprefix("remote_gym.")
                for alias in node.names:
                    target = f"{base}.{alias.name}" if f"{base}.{alias.name}" in room_of else base
                    if not is_left_out(name) and not is_left_out(target) and room_of[name] != room_of[target]:
                        found[room_of[name]].add(room_of[target])
    return found


def is_left_out(name: str) -> bool:
    """Whether the picture does without that module."""
    return "." not in name or name in EVERYBODYS or name.partition(".")[0] in ROOMS_LEFT_OUT


def draw(package: Path) -> str:
    """Mermaid's text."""
    found = edges(package)
    names = sorted({*found, *(each for targets in found.values() for each in targets)})
    lines = ["graph TD"]
    lines += [f'  {name.replace(".", "_")}["{name.replace(".", "/")}"]' for name in names]
    lines += [f"  {a.replace('.', '_')} --> {b.replace('.', '_')}" for a in sorted(found) for b in sorted(found[a])]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the picture, or put it into the page."""
    picture = draw(ROOT / "src" / "remote_gym")
    if "--write" not in sys.argv:
        print(picture, end="")
        return
    text = PAGE.read_text("utf-8")
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:begin]}```mermaid\n{picture}```\n{text[end:]}", "utf-8")


if __name__ == "__main__":
    main()
