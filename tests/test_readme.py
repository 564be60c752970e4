"""Every code block of the README runs, and every link in the documentation leads somewhere.

A document's blocks are one story, told in a temporary folder, from top to bottom:

- ``python`` runs as a script, ``sh`` as a shell script, of ``console`` the lines after ``$ ``; each must succeed.
- A comment above a block says more: ``<!-- test: file=env.py -->`` saves it under that name without running it;
  ``<!-- test: background -->`` lets it run on until the next such block, and waits until it accepts connections;
  ``<!-- test: skip: REASON -->`` leaves it out. ``file=server.py background`` does both.
- Wherever a block says port 56789, it gets a free one, so that what runs there on this machine does not matter.
- Of lines that prepare a machine (`PREPARATION`) it is checked only that what they name exists.

Pages of docs/ are told likewise if they hold such a comment.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import install
import task
from waiting import scaled

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
STORIES = [path for path in DOCUMENTS if path.name == "README.md" or "<!-- test:" in path.read_text(encoding="utf-8")]
LINKED = [*DOCUMENTS, *sorted(ROOT.glob("[A-Z]*.md")), *sorted(ROOT.glob("*/README.md"))]
LONG = {"resources.md", "text.md"}
"""Pages whose stories start servers of their own."""
PORT = "56789"
PYTHON = {"python", "py"}
SHELL = {"sh", "bash", "console"}
NOT_RUN = {"", "text", "txt", "json", "toml", "yaml", "proto", "mermaid", "diff"}
PREPARATION = re.compile(r"(git clone|cd|pip install|python3 -m (pip|venv)|source|\.|python3 ci/task\.py)\b")
BLOCK = re.compile(
    r"(?:^<!-- *test: *(?P<directive>.*?) *-->\n+)?^```(?P<language>[\w-]*).*?\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
BLOCK_TIMEOUT = 120.0
START_TIMEOUT = 30.0
STOP_TIMEOUT = 15.0


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    where: str
    language: str
    code: str
    file: str | None = None
    background: bool = False
    skip: str | None = None


def read_blocks(name: str, text: str) -> Iterator[Block]:
    """The blocks of a document, with what their comments say."""
    for match in BLOCK.finditer(text):
        where = f"{name}:{text.count(chr(10), 0, match.start('code'))}"
        language, directive = match["language"], match["directive"] or ""
        assert language in PYTHON | SHELL | NOT_RUN, f"{where}: cannot run {language!r}; say so here, or use 'text'"
        if directive.startswith("skip:"):
            reason = directive.removeprefix("skip:").strip()
            assert reason, f"{where}: give a reason: skip: REASON"
            yield Block(where, language, match["code"], skip=reason)
            continue
        words = directive.split()
        files = [word.removeprefix("file=") for word in words if word.startswith("file=")]
        understood = len(words) == len(files[:1]) + words.count("background")
        assert understood, f"{where}: cannot follow {directive!r}"
        yield Block(where, language, match["code"], files[0] if files else None, "background" in words)


def check_preparation(where: str, line: str) -> None:
    """Check that the task or extras which a line names exist."""
    if name := re.match(r"python3 ci/task\.py (\S+)", line):
        tasks = task.parse((ROOT / "Taskfile.md").read_text(encoding="utf-8"))
        assert name[1] in tasks, f"{where}: Taskfile.md has no task {name[1]!r}"
    for extras in re.findall(r"(?:remote[-_]gym|'\.)\[([\w,-]+)\]", line):
        project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        optional = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = ", optional, re.MULTILINE), f"{where}: no extra {extra!r}"


def commands(block: Block) -> str:
    """What there is to run of a shell block, its preparations checked and left out."""
    lines = block.code.splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    for line in lines:
        if PREPARATION.match(line):
            check_preparation(block.where, line)
    return "\n".join(line for line in lines if not PREPARATION.match(line))


def free_port() -> int:
    """A port that nothing has on any address, since a server of localhost takes both 127.0.0.1 and ::1."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    with socket.create_server(("", 0), family=family, dualstack_ipv6=family == socket.AF_INET6) as probe:
        return int(probe.getsockname()[1])


def poll(condition: Callable[[], bool], timeout: float) -> bool:
    """Whether ``condition`` came true within ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not (met := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return met


@dataclass
class Story:
    """Runs a document's blocks in ``folder``."""

    folder: Path
    python: Path = Path(sys.executable)
    port: int = field(default_factory=free_port)
    background: list[tuple[Block, subprocess.Popen[bytes]]] = field(default_factory=list)

    def tell(self, block: Block) -> None:
        """Run a block, or leave it running; fails the test if it fails."""
        if block.skip is not None or (block.language in NOT_RUN and block.file is None):
            return
        if block.language in SHELL:
            command = ["sh", "-eu", "-c", commands(block).replace(PORT, str(self.port))]
        else:
            script = self.folder / (block.file or f"block_{block.where.rpartition(':')[2]}.py")
            script.write_text(block.code.replace(PORT, str(self.port)), encoding="utf-8")
            if block.language in PYTHON:
                compile(block.code, block.where, "exec")
            command = [str(self.python), script.name]
        if block.background:
            self._start(block, command)
        elif block.file is None:
            output = self._output(block)
            with output.open("wb") as file:
                done = subprocess.run(command, **self._options(file), timeout=scaled(BLOCK_TIMEOUT))
            assert done.returncode == 0, f"{block.where}: exit status {done.returncode}\n{output.read_text()}"

    def stop(self) -> None:
        """End what runs in the background, and fail if it will not end."""
        while self.background:
            block, process = self.background.pop()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(scaled(STOP_TIMEOUT))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                pytest.fail(
                    f"{block.where}: still ran {STOP_TIMEOUT} s after SIGTERM\n{self._output(block).read_text()}"
                )

    def _start(self, block: Block, command: list[str]) -> None:
        assert PORT in block.code, f"{block.where}: a block in the background has to name its port, {PORT}"
        self.stop()
        # The shell of a block before may have ended sooner than the server that it ran.
        freed = poll(lambda: not self._accepts(), scaled(STOP_TIMEOUT))
        assert freed, f"{block.where}: port {self.port}, which was to stand for {PORT}, is in use by now"
        output = self._output(block)
        with output.open("wb") as file:
            process = subprocess.Popen(command, **self._options(file), start_new_session=True)
        self.background.append((block, process))
        poll(lambda: process.poll() is not None or self._accepts(), scaled(START_TIMEOUT))
        serves = process.poll() is None and self._accepts()
        assert serves, f"{block.where}: does not serve port {self.port}, which stands for {PORT}\n{output.read_text()}"

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _output(self, block: Block) -> Path:
        return self.folder / f"output_{block.where.rpartition(':')[2]}.txt"

    def _options(self, output: object) -> dict[str, object]:
        path = os.pathsep.join([str(self.python.parent), os.environ.get("PATH", "")])
        # Blocks that show a window shall run on machines that have none.
        environment = {**os.environ, "PATH": path, "SDL_VIDEODRIVER": "dummy", "PYTHONUNBUFFERED": "1"}
        return {"cwd": self.folder, "env": environment, "stdout": output, "stderr": subprocess.STDOUT}


def tell(name: str, text: str, folder: Path, python: Path = Path(sys.executable)) -> None:
    """Run the story of a document to its end, with the Python of an environment."""
    story = Story(folder, python)
    try:
        for block in read_blocks(name, text):
            story.tell(block)
    finally:
        story.stop()


def anchors(text: str) -> set[str]:
    """The fragments that the headings of a page can be linked by, as GitHub makes them."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path) -> list[str]:
    """Relative links of a page to what is not there."""
    prose = re.sub(r"`[^`\n]*`", "", BLOCK.sub("", page.read_text(encoding="utf-8")))
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)[^)]*\)|(?:src|href|srcset)=\"([^\"]+)\"", prose):
        link = "".join(link)
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (fragment and fragment not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.long] if page.name in LONG else []) for page in STORIES],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_blocks_run(page, tmp_path):
    if page.name == "dm-env-rpc.md":
        pytest.importorskip("dm_env_rpc", reason="needs dm-env-rpc: pip install 'remote-gym[dm-env-rpc]'")
    tell(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8"), tmp_path)


@pytest.mark.long
@pytest.mark.development
@pytest.mark.timeout(900)
def test_readme_runs_on_what_its_install_line_installs(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [extras] = re.findall(r"^pip install '\.(\[[\w,]+\])'$", text, re.MULTILINE)
    # What the tests themselves run on shall not help.
    monkeypatch.delenv("PYTHONPATH", raising=False)
    python = tmp_path / "environment" / "bin" / "python"
    uv = [sys.executable, "-m", "uv"]
    environment = install.environment_for_uv()
    for arguments in (
        ["venv", "--python", sys.executable, str(python.parent.parent)],
        ["pip", "install", "--python", str(python), f"{ROOT}{extras}"],
    ):
        done = subprocess.run([*uv, *arguments], env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
    folder = tmp_path / "story"
    folder.mkdir()
    tell("README.md", text, folder, python)


@pytest.mark.parametrize("page", dict.fromkeys(LINKED), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert broken_links(page) == []


def test_readme_shows_the_two_commands():
    blocks = "".join(block.code for block in read_blocks("README.md", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert "python3 ci/task.py demo\n" in blocks
    assert "python3 ci/task.py test\n" in blocks


def test_blocks_build_on_each_other(tmp_path):
    text = f"""
<!-- test: file=server.py background -->
```python
import socket
with socket.create_server(("127.0.0.1", {PORT})) as server:
    while True:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"hello")
```

```python
import socket
with socket.create_connection(("127.0.0.1", {PORT})) as connection:
    open("heard", "wb").write(connection.recv(5))
```

```console
$ python3 ci/task.py test
$ cp heard again
this is not run
```

<!-- test: skip: it would fail -->
```sh
false
```
"""
    tell("story.md", text, tmp_path)
    assert (tmp_path / "again").read_bytes() == b"hello"
    assert "socket" in (tmp_path / "server.py").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n```python\nraise KeyError(7)\n```\n", "story.md:2: exit status 1"),
        ("```sh\nfalse\ntrue\n```\n", "story.md:1: exit status 1"),
        ("```sh\npython3 ci/task.py tset\n```\n", "no task 'tset'"),
        ("```sh\npip install 'remote-gym[nothing]'\n```\n", "no extra 'nothing'"),
        ("```sh\npip install '.[nothing]'\n```\n", "no extra 'nothing'"),
        ("```rust\n```\n", "cannot run 'rust'"),
        ("<!-- test: skip: -->\n```sh\n```\n", "give a reason"),
        ("<!-- test: backgruond -->\n```sh\n```\n", "cannot follow 'backgruond'"),
        ("<!-- test: background -->\n```sh\ntrue\n```\n", "has to name its port"),
        (f"<!-- test: background -->\n```sh\necho {PORT} >&2; exit 3\n```\n", "does not serve"),
    ],
)
def test_faulty_block_fails_and_is_named(text, message, tmp_path):
    with pytest.raises(AssertionError, match=re.escape(message)):
        tell("story.md", text, tmp_path)


def test_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One: two\n[a](#one-two) [b](#three) [c](page.md#one-two) [d](gone.md) [e](https://x.example)\n")
    assert broken_links(page) == ["#three", "gone.md"]
