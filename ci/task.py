"""Run the tasks of Taskfile.md, with nothing but Python and a shell.

``python3 ci/task.py`` lists them; ``python3 ci/task.py test -k cartpole`` runs one, after those that it
requires, and hands ``-k cartpole`` to its block as ``"$@"``. The file is in the form of the xc runner
(https://xcfile.dev), of which this understands headings, ``Requires:`` and one block a task.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TASKFILE = ROOT / "Taskfile.md"
# What xc would act on and this would not: better refused than silently different.
UNSUPPORTED = re.compile(r"(dir|directory|env|environment|inputs|run|rundeps|interactive)\s*:", re.IGNORECASE)


class TaskError(Exception):
    """Taskfile.md, or what was asked of it, does not work; the message says where and why."""


@dataclass(frozen=True)
class Task:
    """One section of Taskfile.md."""

    name: str
    why: str
    requires: tuple[str, ...]
    script: str | None

    @property
    def takes_arguments(self) -> bool:
        """Whether its block says what to do with arguments."""
        return self.script is not None and '"$@"' in self.script


def _sections(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Line number, name and body of each ``###`` section below ``## Tasks``."""
    inside = fenced = False
    section: tuple[int, str, list[str]] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#{1,3}) +(.+?) *$", line)
        if heading is None:
            if section is not None:
                section[2].append(line)
            continue
        if section is not None:
            yield section
        section = None
        if len(heading[1]) < 3:
            inside = heading[0].strip() == "## Tasks"
        elif inside:
            section = number, heading[2], []
    if section is not None:
        yield section


def _read_section(line: int, name: str, body: Sequence[str]) -> Task:
    where = f"Taskfile.md:{line}: task {name!r}"
    prose: list[str] = []
    requires: list[str] = []
    scripts: list[list[str]] = []
    fenced = False
    for text in body:
        if text.startswith("```"):
            fenced = not fenced
            if fenced:
                scripts.append([])
        elif fenced:
            scripts[-1].append(text)
        elif UNSUPPORTED.match(text):
            raise TaskError(f"{where}: found {text!r}; ci/task.py knows 'Requires:' only, so put it into the block")
        elif text.lower().startswith("requires:"):
            requires += [part.strip() for part in text.partition(":")[2].split(",") if part.strip()]
        elif text.strip():
            prose.append(text.strip())
    if fenced:
        raise TaskError(f"{where}: its block has no end; close it with ```")
    if len(scripts) > 1:
        raise TaskError(f"{where} has {len(scripts)} blocks; use one, or two tasks")
    if not scripts and not requires:
        raise TaskError(f"{where} does nothing; give it a block or a 'Requires:' line")
    return Task(name, " ".join(prose), tuple(requires), "\n".join(scripts[0]) if scripts else None)


def parse(text: str) -> dict[str, Task]:
    """Read the tasks below the heading ``## Tasks``, in their order.

    Raises:
        TaskError: If a section cannot be understood, or requires a task that is not there.
    """
    tasks: dict[str, Task] = {}
    for line, name, body in _sections(text):
        if name in tasks:
            raise TaskError(f"Taskfile.md:{line}: a second task {name!r}; names must differ")
        tasks[name] = _read_section(line, name, body)
    for task in tasks.values():
        for name in task.requires:
            if name not in tasks:
                raise TaskError(f"Taskfile.md: task {task.name!r} requires {name!r}; there is {', '.join(tasks)}")
    return tasks


def plan(tasks: Mapping[str, Task], name: str) -> list[Task]:
    """The task of that name, preceded by all that it requires, each once.

    Raises:
        TaskError: If there is no such task, or it requires itself by some way.
    """
    if name not in tasks:
        raise TaskError(f"no task {name!r}; there is {', '.join(tasks)}")
    ordered: dict[str, Task] = {}

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise TaskError(f"Taskfile.md: tasks require each other: {' -> '.join((*path, name))}")
        if name not in ordered:
            for required in tasks[name].requires:
                visit(required, (*path, name))
            ordered[name] = tasks[name]

    visit(name, ())
    return list(ordered.values())


def run(task: Task, arguments: Sequence[str], folder: Path) -> int:
    """Run a task's block in ``folder`` and return its exit status; 0 for a task without one."""
    if task.script is None:
        return 0
    print(f"== {shlex.join([task.name, *arguments])}", flush=True)
    # Blocks that need a Python before there is an environment use the one that runs this.
    environment = {**os.environ, "PYTHON": sys.executable}
    shell = ["sh", "-eu", "-c", task.script, task.name, *arguments]
    return subprocess.run(shell, cwd=folder, env=environment).returncode


def listing(tasks: Mapping[str, Task]) -> str:
    """One line for each task: its name and why one would run it."""
    width = max(map(len, tasks), default=0)
    return "\n".join(f"{task.name:{width}}  {task.why}" for task in tasks.values())


def main(arguments: Sequence[str], taskfile: Path = TASKFILE) -> int:
    """Run the named task, or list all; returns the exit status."""
    try:
        tasks = parse(taskfile.read_text(encoding="utf-8"))
        if not arguments:
            print("python3 ci/task.py NAME [ARGUMENT...]\n")
            print(listing(tasks))
            return 0
        *required, last = plan(tasks, arguments[0])
        if arguments[1:] and not last.takes_arguments:
            raise TaskError(f"task {last.name!r} takes no arguments; found {shlex.join(arguments[1:])}")
    except TaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for task in required:
        if status := run(task, (), taskfile.parent):
            return status
    return run(last, arguments[1:], taskfile.parent)


if __name__ == "__main__":
    if sys.version_info < (3, 10):  # noqa: UP036 - the machine's python3 may be any
        sys.exit(f"error: this is Python {sys.version.split()[0]}; run it with Python 3.10 or newer")
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
