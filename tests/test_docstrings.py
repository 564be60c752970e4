"""Docstrings stand by themselves: each begins with a verb or a noun phrase."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "remote_gym"
FRAGMENTS = ("What", "Who", "Whom", "Whose", "Of", "Those")
"""First words of a docstring that leans on a name or a sentence before it."""
NOT_YET = ()
"""Rooms that still have such docstrings; each leaves this list with its last one."""


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each, those after an attribute included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement.lineno, value.value


def test_no_docstring_begins_with_a_fragment():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE)
        if name.parts[0] not in ("v1", *NOT_YET):
            for line, text in docstrings(path):
                first, *_ = text.split(maxsplit=1) or [""]
                if first in FRAGMENTS:
                    found.append(f"{name}:{line}: {text.splitlines()[0]}")
    assert found == []
