"""Generate src/remote_gym/v1/ from proto/, and SOURCES.sha256 beside it, by which a test sees when to do so again.

The generator is an old one on purpose: generated code needs a protobuf at least as new as its generator, and
remote_gym supports protobuf 4.25. That generator exists for Python 3.10 to 3.12 and so gets an environment of its own.
"""

from __future__ import annotations

import hashlib
import subprocess

from install import ROOT, VENV, environment_for_uv

GENERATED = ROOT / "src" / "remote_gym" / "v1"
SOURCES = GENERATED / "SOURCES.sha256"
# grpcio-tools 1.62 imports pkg_resources, which setuptools 81 dropped.
GENERATOR = ("grpcio-tools==1.62.3", "protobuf==4.25.8", "setuptools<81")
ENVIRONMENT = ROOT / "build" / "proto"


def digests() -> str:
    """What SOURCES.sha256 should hold, in the form of ``sha256sum``: the specification and all made from it."""
    paths = [*(ROOT / "proto").rglob("*.proto"), *GENERATED.glob("*_pb2.py"), *GENERATED.glob("*_pb2.pyi")]
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT).as_posix()}\n"
        for path in sorted(paths)
    )


def _uv(*arguments: str) -> int:
    return subprocess.run([str(VENV / "bin" / "uv"), *arguments], cwd=ROOT, env=environment_for_uv()).returncode


def _make_environment() -> str:
    where = str(ENVIRONMENT)
    if _uv("venv", "--quiet", "--clear", "--no-python-downloads", "--python", ">=3.10,<3.13", where):
        raise SystemExit(
            "error: the generator runs under Python 3.10, 3.11 or 3.12, and uv found none; put one on PATH, "
            "such as by 'uv python install 3.12', and try again"
        )
    if _uv("pip", "install", "--quiet", "--python", where, *GENERATOR):
        raise SystemExit(f"error: could not install {' '.join(GENERATOR)}; uv says above why")
    return str(ENVIRONMENT / "bin" / "python")


def main() -> None:
    """Replace the generated files."""
    python = _make_environment()
    protos = [str(path.relative_to(ROOT / "proto")) for path in sorted((ROOT / "proto").rglob("*.proto"))]
    out = str(ROOT / "src")
    protoc = [python, "-m", "grpc_tools.protoc", "--proto_path=proto", f"--python_out={out}", f"--pyi_out={out}"]
    for stale in GENERATED.glob("*_pb2.py*"):
        stale.unlink()
    if subprocess.run([*protoc, *protos], cwd=ROOT).returncode:
        raise SystemExit(
            "error: protoc refused the files; it says above where. 'git checkout src/remote_gym/v1' undoes"
        )
    SOURCES.write_text(digests(), encoding="utf-8")


if __name__ == "__main__":
    main()
