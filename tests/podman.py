"""The real podman, and an image made of this very Python without a registry; skips loudly where they cannot be had."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import remote_gym
from waiting import scaled

_SETTINGS = """
[containers]
default_ulimits = []
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""What podman needs on machines without systemd, or with both versions of control groups."""

_NOT_NEEDED = re.compile(r"/(__pycache__|site-packages|test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3)(/|$)")
IMAGE = "localhost/remote_gym-test"


@dataclass(frozen=True)
class Podman:
    """The engine, as tests look at it.

    Attributes:
        image: Name of an image with this Python as ``python3``, and this release of ours.
    """

    image: str

    def run(self, *words: str, check: bool = True) -> str:
        """Run podman, and return what it prints."""
        done = subprocess.run(["podman", *words], capture_output=True, text=True, timeout=scaled(60), check=False)
        assert not check or done.returncode == 0, f"podman {words}: {done.stderr}"
        return done.stdout

    def containers(self) -> list[dict[str, Any]]:
        """Those of ours that there are, running or not, as ``podman inspect`` shows them."""
        names = self.run("ps", "--all", "--quiet", "--filter", "label=remote_gym.owner").split()
        # One may be gone by now, which is an error, while the others are shown.
        return list(json.loads(self.run("inspect", *names, check=False) or "[]")) if names else []


def podman_with_image(folder: Path) -> Iterator[Podman]:
    """Make the image, and remove it at the end. For a fixture.

    Args:
        folder: For settings, which are left in the environment until then where podman needs them.
    """
    if shutil.which("podman") is None:
        pytest.skip("needs podman: apt-get install podman runc")
    with pytest.MonkeyPatch.context() as patch:
        image = f"{IMAGE}:{os.getpid()}"
        _import(image)
        try:
            fault = _try(image)
            if fault and "CONTAINERS_CONF" not in os.environ:
                (folder / "containers.conf").write_text(_SETTINGS)
                patch.setenv("CONTAINERS_CONF", str(folder / "containers.conf"))
                fault = _try(image)
            if fault:
                pytest.skip(f"podman runs no container here: {fault}")
            yield Podman(image)
        finally:
            subprocess.run(["podman", "rmi", image], capture_output=True, timeout=scaled(60), check=False)


def _try(image: str) -> str:
    """Run a container. Returns what was wrong; empty for nothing."""
    command = ["podman", "run", "--rm", "--network", "none", image, "python3", "-c", "import numpy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)
    return done.stderr or f"status {done.returncode}" if done.returncode else ""


def _import(image: str) -> None:
    """Make an image of this Python, what our release needs of its packages, and the libraries of all these."""
    base = Path(sys.base_prefix)
    python = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": str(base), "base": str(base)}))
    packages = library / ("dist-packages" if str(base) == "/usr" else "site-packages")
    contents = {str(python): python}
    for path in library.rglob("*"):
        if path.is_file() and not _NOT_NEEDED.search(str(path)):
            contents[str(path)] = path
    for name in _needed("remote_gym"):
        for file in metadata.files(name) or []:
            path = Path(str(file.locate()))
            if path.is_file() and ".." not in file.parts and not file.name.endswith(".pth"):
                contents[str(packages / file)] = path
    ours = Path(remote_gym.__file__).parent
    for path in ours.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            contents[str(packages / "remote_gym" / path.relative_to(ours))] = path
    binaries = [python, Path("/bin/sh"), *(path for path in contents.values() if path.suffix == ".so")]
    contents["/bin/sh"] = Path("/bin/sh").resolve()
    contents |= {str(path): path.resolve() for path in _libraries(binaries)}
    words = ["podman", "import", "--change", "ENV PATH=/usr/bin:/bin", "-", image]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as podman:
        assert podman.stdin is not None
        assert podman.stdout is not None
        with tarfile.open(fileobj=podman.stdin, mode="w|", dereference=True) as archive:
            for name, path in contents.items():
                information = archive.gettarinfo(path, name.lstrip("/"))
                information.uid = information.gid = 0
                with path.open("rb") as file:
                    archive.addfile(information, file)
            link = tarfile.TarInfo("usr/bin/python3")
            link.type, link.linkname = tarfile.SYMTYPE, str(python)
            archive.addfile(link)
            temporary = tarfile.TarInfo("tmp")
            temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
            archive.addfile(temporary)
            users = b"root:x:0:0::/:/bin/sh\nsim:x:1234:1234::/tmp:/bin/sh\n"
            entry = tarfile.TarInfo("etc/passwd")
            entry.size = len(users)
            archive.addfile(entry, io.BytesIO(users))
        podman.stdin.close()
        printed = podman.stdout.read().decode()
        if podman.wait(scaled(120)) != 0:
            pytest.skip(f"podman does not import an image here: {printed}")


def _needed(name: str) -> set[str]:
    """A distribution and all that it needs, as far as it is installed."""
    found, left = set(), [name]
    while left:
        each = left.pop().lower().replace("_", "-")
        try:
            requirements = metadata.requires(each) or []
        except metadata.PackageNotFoundError:  # of another Python or system
            continue
        if each not in found:
            found.add(each)
            left += [re.split(r"[^\w.-]", text)[0] for text in requirements if "extra ==" not in text]
    return found


def _libraries(binaries: list[Path]) -> set[Path]:
    """Shared libraries that binaries are linked with, and the loader."""
    done = subprocess.run(["ldd", *binaries], capture_output=True, text=True, timeout=scaled(60), check=False)
    found = {Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(", done.stdout, re.MULTILINE)}
    # A package's own libraries are found beside it.
    return {path for path in found if path.is_file() and "-packages" not in str(path)}
