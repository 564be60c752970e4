"""The version matrix, and what else needs an environment of its own: python3 ci/task.py matrix."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent / "ci"))
from install import environment_for_uv

nox.needs_version = ">=2025.10.16"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["tests", "mixed"]
# Sessions whose interpreter is not here are skipped, and nox says so; nothing is fetched from outside the registry.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

# Where pyenv is, its interpreters are there but not on PATH.
VERSIONS = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
os.environ["PATH"] = os.pathsep.join([*map(str, sorted(VERSIONS.glob("3.*/bin"))), os.environ["PATH"]])

os.environ.update(environment_for_uv())

PROJECT = nox.project.load_toml("pyproject.toml")
TEST = nox.project.dependency_groups(PROJECT, "test")


def gymnasium(version: str) -> str:
    """That version, with what its own small environments need."""
    return f"gymnasium[classic-control,toy-text]=={version}"


OLDEST = (
    gymnasium("0.29.1"),
    "click==8.1.*",
    "cryptography==42.*",
    "grpcio==1.62.*",
    "grpcio-health-checking==1.62.*",
    "grpcio-reflection==1.62.*",
    "jsonschema==4.18.*",
    "msgpack==1.0.*",
    "numpy==1.26.*",
    "pillow==10.1.*",
    "protobuf==4.25.*",
    "starlette==0.40.*",
    "uvicorn==0.46.*",
    "websockets==13.*",
    "zstandard==0.22.*",
)
NEWEST = (gymnasium("1.4.0"),)


@nox.session
@nox.parametrize(
    ("python", "pins"),
    [
        nox.param("3.10", OLDEST, id="oldest"),
        nox.param("3.11", (gymnasium("1.1.1"),), id="gymnasium-1.1"),
        nox.param("3.12", (gymnasium("1.2.3"),), id="gymnasium-1.2"),
        nox.param("3.13", NEWEST, id="newest"),
    ],
)
def tests(session: nox.Session, pins: tuple[str, ...]) -> None:
    """Run the default tests on the package as it installs, under other versions."""
    session.install(".[http,jpeg,policy,record,reflection,zstd]", *TEST, *pins)
    parallel = ("-n", "4", "--dist", "loadfile")
    session.run("python", "-m", "pytest", *parallel, "-m", "not long and not development", *session.posargs)


@nox.session(python="3.11")
def mixed(session: nox.Session) -> None:
    """Let the oldest and the newest versions play with each other, in both directions."""
    session.install(".", *NEWEST)
    other = Path(session.create_tmp()) / "oldest"
    session.run("python", "-m", "venv", "--clear", str(other))
    python = str(other / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", ".", *OLDEST, external=True)
    session.run("python", "tests/compat/mixed.py", python, *session.posargs)


# pip rather than uv: where torch comes from is usually a matter of pip's configuration.
@nox.session(venv_backend="venv")
def sb3(session: nox.Session) -> None:
    """Run the tests that train with stable-baselines3."""
    session.install(".", *TEST, *nox.project.dependency_groups(PROJECT, "sb3"))
    session.run("python", "-m", "pytest", "-m", "long or not long", "-k", "sb3", *session.posargs)


@nox.session
def publish(session: nox.Session) -> None:
    """Check and upload what the task ``build`` made."""
    session.install("twine>=6")
    files = [str(path) for path in sorted(Path("dist").iterdir())]
    session.run("twine", "check", "--strict", *files)
    session.run("twine", "upload", *session.posargs, *files)
