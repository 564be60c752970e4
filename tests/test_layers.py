"""Who may import whom, and what never loads gRPC."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import imports as imports_picture
from waiting import scaled

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "remote_gym"
EVERYTHING = {"*"}
BOTH_ENDS = {
    "address",
    "config",
    "errors",
    "launched",
    "logs",
    "protocol",
    "tls",
    "transport",
    "user_folder",
    "v1",
    "validation",
    "wire",
}
WORKERS = {*BOTH_ENDS, "auth", "ipc"}
# A room, which is a module or folder of the package -> the rooms that it may import from, beside itself.
MAY_IMPORT: dict[str, set[str]] = {
    "v1": set(),
    "errors": set(),
    "logs": set(),
    "address": {"errors"},
    "user_folder": {"errors"},
    "validation": {"errors"},
    "config": {"errors", "validation"},
    "certs": {"errors", "config", "logs"},
    "tls": {"errors", "config", "logs"},
    "transport": {"errors", "config", "address", "logs"},
    "wire": {"v1", "errors", "config", "logs"},
    "protocol": {"v1", "errors", "config", "address", "wire"},
    "launched": {"v1", "errors", "config", "logs", "protocol", "transport", "user_folder", "wire"},
    "auth": {"errors", "config", "logs", "tls"},
    "ipc": {"v1", "errors", "logs", "protocol", "user_folder"},
    "client": BOTH_ENDS,
    "hub": {*BOTH_ENDS, "auth"},
    "guest": set(),  # of which nothing is there where it runs
    "worker": {*WORKERS, "guest"},
    "server": {*WORKERS, "certs", "worker"},
    "registration": {"client", "errors", "config"},
    "peers": {*BOTH_ENDS, "client"},
    "play": {*BOTH_ENDS, "client"},
    "demo": {*BOTH_ENDS, "certs", "client", "play"},
    "testing": EVERYTHING,
    "cli": EVERYTHING,
    "__main__": {"cli"},
    "__init__": EVERYTHING,
}
STARTS_WORKERS = ("server.launch", "server.offer", "server.preflight")
"""The only parts of the server that know what runs in a worker."""
HTTP = {"starlette", "uvicorn", "websockets"}
"""What the extra "http" installs, which is loaded where HTTP is served or others' servers are asked, nowhere else."""
MOST_MODULES = 16
MOST_LINES = 400
UNBOUNDED = {"v1", "guest"}
"""Folders of generated code, and of what has to be one file."""
GRPC = {"grpc", "grpc_health", "grpc_reflection"}
# A worker forks, so it has none of gRPC's threads; and servers of other protocols shall be able to use the service.
WITHOUT_GRPC = ("wire", "transport", "protocol", "auth", "ipc", "worker", "server.sessions", "server.service")


def module_name(path: Path) -> str:
    """``wire.values`` for ``wire/values/__init__.py``, ``wire`` for ``wire/__init__.py``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
ROOMS = {name.partition(".")[0] for name in MODULES}


def imports(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of each import, those inside functions and ``TYPE_CHECKING`` included.

    ``from a import b`` gives ``a.b``, whether that is a module or a name in one.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from ((node.lineno, argument.value) for argument in node.args if isinstance(argument, ast.Constant))


def room_of(name: str) -> str:
    """The room that an imported name of ours comes from; public names come from ``__init__``."""
    first = f"{name}.".split(".")[1]
    return first if first in ROOMS else "__init__"


def violations(module: str, source: str) -> list[str]:
    """The imports that the module's room may not make, each with line and reason."""
    path = MODULES[module].relative_to(PACKAGE)
    own = module.partition(".")[0]
    allowed = {own} | MAY_IMPORT[own]
    ours = [
        (line, name)
        for line, name in imports(source, ("remote_gym", *path.parts[:-1]))
        if name.partition(".")[0] == "remote_gym"
    ]
    if own == "server" and not is_in(module, STARTS_WORKERS):
        allowed -= {"worker"}
    return [
        f"{path}:{line}: imports {name}; {own} may import from {', '.join(sorted(allowed))}"
        for line, name in ours
        if "*" not in allowed and room_of(name) not in allowed
    ]


def is_in(module: str, rooms: tuple[str, ...]) -> bool:
    return any(f"{module}.".startswith(f"{room}.") for room in rooms)


def without_grpc() -> list[str]:
    return [name for name in MODULES if is_in(name, WITHOUT_GRPC)]


def test_no_folder_has_more_modules_than_one_takes_in_at_a_glance():
    counts = Counter(path.parent.relative_to(PACKAGE) for path in MODULES.values() if path.name != "__init__.py")
    assert {str(folder): count for folder, count in counts.items() if count > MOST_MODULES} == {}


def test_no_module_is_longer_than_it_takes_to_read_in_one_go():
    lengths = {
        name: len(path.read_text("utf-8").splitlines())
        for name, path in MODULES.items()
        if path.parent.name not in UNBOUNDED
    }
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}


def test_every_room_has_its_rule():
    assert MAY_IMPORT.keys() >= ROOMS, "say in MAY_IMPORT what the new room may import, and tell docs/architecture.md"


def test_modules_import_only_what_their_rooms_may():
    found = [violation for name, path in MODULES.items() for violation in violations(name, path.read_text("utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import remote_gym.server.service",
        "from remote_gym import server",
        "from remote_gym.server import service",
        "from ..server import service",
        "from ..server.service import Service",
        "def lazily():\n    from remote_gym.server import service",
        "import importlib\nimportlib.import_module('remote_gym.server.service')",
        "from remote_gym import RemoteEnvironment",
    ],
)
def test_client_may_not_import_the_server_by_any_way(source):
    [violation] = violations("client", source)
    assert violation.startswith("client/__init__.py:")


def test_client_may_import_what_it_is_made_of():
    source = "import grpc\nfrom remote_gym.wire import values\nfrom . import session\nfrom ..errors import ConfigError"
    assert violations("client", source) == []


def test_modules_that_a_worker_needs_name_no_grpc():
    assert without_grpc()
    found = [
        f"{MODULES[module].relative_to(PACKAGE)}:{line}: imports {name}"
        for module in without_grpc()
        for line, name in imports(MODULES[module].read_text("utf-8"), ())
        if name.partition(".")[0] in GRPC
    ]
    assert not found, "\n".join(found)


def test_what_a_worker_imports_loads_no_grpc():
    names = [f"remote_gym.{name}" for name in without_grpc()]
    code = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = {GRPC} & sys.modules.keys()\n"
        "    assert not loaded, f'importing {name} has loaded {loaded}'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=scaled(60))


def test_only_the_http_frontend_and_what_asks_others_names_what_they_are_made_of():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: imports {name}"
        for module, path in MODULES.items()
        if not is_in(module, ("server.frontends.http", "peers"))
        for line, name in imports(path.read_text("utf-8"), ())
        if name.partition(".")[0] in HTTP
    ]
    assert not found, "\n".join(found)


def test_the_picture_of_imports_is_drawn_from_them():
    page = imports_picture.PAGE.read_text("utf-8")
    assert imports_picture.draw(PACKAGE) in page, "python3 ci/imports.py --write"
