"""The code under src/remote_gym/v1/ is what the .proto files say."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from remote_gym.v1 import remote_gym_pb2, worker_pb2

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "src" / "remote_gym" / "v1" / "SOURCES.sha256"
REMEDY = "run the task 'proto': python3 ci/task.py proto"
GENERATED = {"remote_gym": remote_gym_pb2, "worker": worker_pb2}


def listed() -> dict[str, str]:
    """Path below the root -> SHA-256, as the task ``proto`` left them."""
    lines = SOURCES.read_text(encoding="utf-8").splitlines()
    return {path: digest for digest, path in (line.split("  ") for line in lines)}


def without_json_names(
    message: descriptor_pb2.FileDescriptorProto | descriptor_pb2.DescriptorProto,
) -> descriptor_pb2.FileDescriptorProto | descriptor_pb2.DescriptorProto:
    """Drop what ``--descriptor_set_out`` adds and ``--python_out`` does not."""
    nested = message.message_type if isinstance(message, descriptor_pb2.FileDescriptorProto) else message.nested_type
    for inner in nested:
        without_json_names(inner)
    for field in () if isinstance(message, descriptor_pb2.FileDescriptorProto) else message.field:
        field.ClearField("json_name")
    return message


@pytest.mark.parametrize("path", sorted(listed()))
def test_file_is_as_the_task_proto_left_it(path):
    found = hashlib.sha256((ROOT / path).read_bytes()).hexdigest()
    assert found == listed()[path], f"{path} has changed since the code was generated; {REMEDY}"


def test_no_file_is_missing_from_the_list():
    generated = SOURCES.parent.glob("*_pb2.py*")
    there = {path.relative_to(ROOT).as_posix() for path in [*(ROOT / "proto").rglob("*.proto"), *generated]}
    assert set(listed()) == there, REMEDY


def test_every_specification_has_its_code_and_stub():
    for proto in (ROOT / "proto").rglob("*.proto"):
        for suffix in ("py", "pyi"):
            path = f"src/{proto.relative_to(ROOT / 'proto').parent.as_posix()}/{proto.stem}_pb2.{suffix}"
            assert path in listed(), REMEDY


@pytest.mark.parametrize("name", GENERATED)
def test_code_loads_under_the_oldest_protobuf_that_we_support(name):
    text = (SOURCES.parent / f"{name}_pb2.py").read_text(encoding="utf-8")
    assert "# Protobuf Python Version: 4.25." in text, f"made by another generator than ci/generate.py's; {REMEDY}"


@pytest.mark.development
@pytest.mark.parametrize("name", GENERATED)
def test_code_describes_what_the_specification_says(name, tmp_path):
    out = tmp_path / "descriptors.bin"
    proto = f"remote_gym/v1/{name}.proto"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT / 'proto'}"]
    subprocess.run([*protoc, f"--descriptor_set_out={out}", proto], check=True)
    [specified] = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    generated = descriptor_pb2.FileDescriptorProto.FromString(GENERATED[name].DESCRIPTOR.serialized_pb)
    assert without_json_names(generated) == without_json_names(specified), REMEDY
