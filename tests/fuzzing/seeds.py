"""Write the corpus: small inputs for each target, made of real messages. Run it after a change of the protocol.

`python tests/fuzzing/seeds.py`, with ``tests`` on the path. Inputs that once found something are kept beside these, as
``found-...``, and are not written here.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.serialization import Encoding
from gymnasium import spaces

from fuzzing.decoders import BATCHES, LAYOUTS
from fuzzing.ends import ROUTING_ID, TOKEN, joined
from fuzzing.entrypoint import Meek
from hellos import client_hello, in_records
from remote_gym.certs.cfssl import CertificateRequest, KeyRequest
from remote_gym.certs.signing import certificate_pem, generate_key, sign_authority
from remote_gym.config import Limits
from remote_gym.guest import program
from remote_gym.protocol.hub import DIAL_BACK, REGISTER, pack
from remote_gym.server.frontends.sniffing import HTTP2_PREFACE
from remote_gym.transport.direct_socket import PREAMBLE
from remote_gym.transport.preamble import write_preamble
from remote_gym.v1 import hub_pb2
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.compression import JpegCompressor, ZstdCompressor
from remote_gym.wire.errors import encode_error
from remote_gym.wire.frames import encode_frame
from remote_gym.wire.parts import cut
from remote_gym.wire.spaces.elements import encode_action, encode_observation
from remote_gym.wire.spaces.encoding import encode_space
from remote_gym.wire.splice import splice
from remote_gym.wire.values import encode_value
from remote_gym.wire.values.named import Member, Record, mark_tuple, marked
from remote_gym.worker.host import Host
from wire.examples import SPACES, seeded

CORPUS = Path(__file__).parent / "corpus"
LIMITS = Limits()

VALUES: dict[str, Any] = {
    "plain": [None, True, -3, 2**70, 0.5, "text", "\udc80", b"bytes", (1, 2)],
    "dict": {"a": 1, "b": {"c": [1, 2]}},
    "keys": {1: "one", (2, "x"): 2.0, None: np.int8(3)},
    "arrays": [np.arange(6, dtype=np.int16).reshape(2, 3), np.array("ab"), np.array(True), np.float32(1.5)],
    "objects": np.array([1, "a", None], dtype=object),
    "standard": [{1}, frozenset({"a"}), deque([1], 2), 1j, bytearray(b"a"), range(3), PurePosixPath("a/b")],
    "numbers": [Decimal("-1.50E+7"), Fraction(1, 3), np.longdouble(1.5), np.array([1j], np.clongdouble), np.void(b"a")],
    "times": [datetime(2026, 1, 2, 3, tzinfo=timezone.utc), date(2026, 1, 2), time(1, fold=1), timedelta(-1, 2, 3)],
    "numpy-times": [np.array(["2026-01-02", "NaT"], "M8[ns]"), np.timedelta64(3, "25s")],
    "structured": np.array([(1, [2.0, 3.0])], [("a", "i1"), ("b", "f4", (2,))]),
    "masked": [np.ma.array([1.0, 2.0], mask=[True, False], fill_value=3.0), np.ma.masked],
    "named": [mark_tuple((1, "a"), "a.B", ("x", "y")), Record("a.C", {"x": 1}), Member("a.D", "RED", 1)],
    "subclass": [marked(int, 1, "a.E", {}), marked(dict, {"a": 1}, "a.F", {}), OrderedDict(a=1)],
}
INFO = {"a": np.array([1, 0]), "_a": np.array([True, False]), "b": {"c": np.zeros((2, 2)), "_c": np.ones(2, bool)}}


def value(content: Any) -> pb.Value:
    message = pb.Value()
    encode_value(content, message, strict=True, limits=LIMITS)
    return message


def decoders() -> Iterator[tuple[str, str, bytes]]:
    """Target, name and content of the inputs for decoders."""
    for name, content in VALUES.items():
        yield "value", name, value(content).SerializeToString()
    for array in (np.arange(6, dtype=">i4").reshape(2, 3), np.array(["ab", "c"]), np.array(1.5)):
        yield "array", array.dtype.name, value(array).array.SerializeToString()
    for name in ("box-bounds", "text-order", "dict-nested", "dict-keys", "sequence", "graph", "tuple", "one-of"):
        yield "space", name, encode_space(SPACES[name], LIMITS).SerializeToString()
    for number, name in enumerate(SPACES):
        if name in ("dict-order", "sequence-dict", "graph", "box-image"):
            transition, request = pb.Transition(), pb.StepRequest()
            element = seeded(SPACES[name]).sample()
            encode_observation(LAYOUTS[number], element, transition, LIMITS)
            encode_action(LAYOUTS[number], element, request, LIMITS)
            yield "observation", name, bytes([number]) + transition.SerializeToString()
            yield "action", name, bytes([number]) + request.SerializeToString()
    for name, compressor in (("array", None), ("zstd", ZstdCompressor(probes=False)), ("jpeg", JpegCompressor())):
        frame = pb.Frame()
        image = np.zeros((4, 4, 3) if compressor is None else (64, 64, 3), np.uint8)
        encode_frame(image, frame, LIMITS, compressor)
        yield "frame", name, frame.SerializeToString()
        if compressor is not None and (compressed := compressor.compress_image(image, image.tobytes())):
            # Two bytes tell the size of what is to come out, or height and width.
            yield "compressed", name, (b"\x30\x00" if name == "zstd" else b"\x40\x40") + compressed
    kwargs = pb.OpenRequest(protocol_version=1, versions={"a": "b"}, entrypoint_kwargs=value({"a": [1, 2]}))
    yield "bounds", "value", b"\x00" + value([1, {"a": (2, 3)}]).SerializeToString()
    yield "bounds", "space", b"\x01" + encode_space(SPACES["dict-nested"], LIMITS).SerializeToString()
    yield "bounds", "opening", b"\x05" + kwargs.SerializeToString()
    yield "parts", "three", joined(*cut(bytes(range(100)), 80))
    yield "parts", "small", joined(*cut(bytes(range(60)), 50))
    yield "error", "ours", encode_error(ValueError("wrong")).SerializeToString()
    transition = pb.Transition(reward_float=1.0, terminated_bool=False, info=value({"a": 1}))
    for name in ("reset", "step"):
        response = pb.Response(sequence=300)
        getattr(response, name).CopyFrom(transition)
        yield "large", name, b"".join(splice(response, bytes(range(40))))
    for number, batch in enumerate(BATCHES[2:], 2):
        rows = batch._layout(2)
        parts = []
        for _ in range(2):
            transition = pb.Transition()
            encode_observation(rows, seeded(rows.space).sample(), transition, LIMITS)
            parts.append(transition.SerializeToString())
        yield "batch", str(number), bytes([number, len(parts[0])]) + b"".join(parts)
    one, other = value(INFO).SerializeToString(), value({"a": [1, "x"], "b": {}}).SerializeToString()
    yield "infos", "alike", bytes([len(one)]) + one + one
    yield "infos", "mixed", bytes([len(one)]) + one + other


def files() -> Iterator[tuple[str, str, bytes]]:
    """Inputs for what reads files."""
    request = {"CN": "x", "hosts": ["a", "::1"], "key": {"algo": "rsa", "size": 2048}, "names": [{"C": "DE"}]}
    yield "cfssl", "request", json.dumps({**request, "ca": {"expiry": "8760h", "pathlen": 1}}).encode()
    profile = {"expiry": "87600h30m", "usages": ["signing", "server auth"]}
    yield "cfssl", "config", json.dumps({"signing": {"default": profile, "profiles": {"server": profile}}}).encode()
    key = generate_key(KeyRequest(algorithm="ecdsa", size=256))
    asked = CertificateRequest(common_name="fuzz", hosts=("localhost",))
    certificate = sign_authority(asked, key, datetime.now(timezone.utc))
    # No key of any use: one in a repository would set off whatever looks for secrets there.
    no_key = b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"
    yield "pem", "pair", certificate_pem(certificate) + no_key
    yield "der", "certificate", certificate.public_bytes(Encoding.DER)
    yield "peer", "certificate", certificate.public_bytes(Encoding.DER)


def ends() -> Iterator[tuple[str, str, bytes]]:
    """Inputs for what waits at a socket, a host, a service or a client."""
    attach = pb.Attach(token=TOKEN).SerializeToString()
    framed = len(attach).to_bytes(4, "big") + attach
    yield "framing", "two", framed + framed
    yield "framing", "announced", b"\x00\x01\x00\x00" + bytes(100)
    yield "framing", "too-long", b"\xff\xff\xff\xff"
    yield "link", "answer", framed
    yield "link", "two", framed + framed
    yield "preamble", "right", PREAMBLE + ROUTING_ID + b"more"
    yield "preamble", "short", PREAMBLE + ROUTING_ID[:5]
    yield "preamble", "named", write_preamble(ROUTING_ID, "sim-home") + b"more"
    yield "hub", "registers", REGISTER
    yield "hub", "dials-back", DIAL_BACK + bytes(range(32))
    yield "hub", "preamble", write_preamble(ROUTING_ID, "sim-home")
    yield "hub", "hello", client_hello("h2", name="sim-home")
    yield "hub", "hello-small-records", in_records(client_hello("h2", name="sim-home"), 40)
    yield "hub", "registration", pack(hub_pb2.Registration(protocol_version=1))
    yield "hub", "registered", pack(hub_pb2.Registered(names=["sim-home"]))
    yield "hub", "dial back", pack(hub_pb2.DialBack(id=bytes(32), peer="ipv6:[::1]:4321"))
    yield "preamble", "hello-h2", client_hello("h2")
    yield "preamble", "hello-both", client_hello("h2", "http/1.1")
    yield "preamble", "hello-no-alpn", client_hello()
    yield "preamble", "hello-http1", client_hello("http/1.1")
    yield "preamble", "hello-small-records", in_records(client_hello("h2"), 40)
    yield "preamble", "http2", HTTP2_PREFACE
    yield "preamble", "http1", b"GET / HTTP/1.1\r\n\r\n"
    yield "admission", "right", framed
    yield "admission", "wrong", b"\x00\x00\x00\x04\x0a\x02no"
    action = pb.StepRequest(value=value({"push": np.zeros(2, np.float32), "word": "ab"}))
    operations = {
        "reset": pb.Request(sequence=1, reset=pb.ResetRequest(seed=value(3), options=value({"x": 1}))),
        "step": pb.Request(sequence=1, step=action),
        "many": pb.Request(sequence=1, step_many=pb.StepManyRequest(steps=[action, action])),
        "render": pb.Request(sequence=1, render=pb.RenderRequest()),
        "call": pb.Request(sequence=1, call=pb.CallRequest(name="add", args=value((1,)), kwargs=value({"b": 2}))),
        "assign": pb.Request(sequence=1, call=pb.CallRequest(name="level", assign=value(5))),
        "close": pb.Request(sequence=1, close=pb.CloseRequest()),
    }
    messages = {name: operation.SerializeToString() for name, operation in operations.items()}
    for name, message in messages.items():
        yield "host", name, joined(messages["reset"], message)
    opening = pb.OpenRequest(protocol_version=1, entrypoint_kwargs=value({"level": 2}), render_mode="rgb_array")
    yield "launch", "one", opening.SerializeToString()
    opening.num_envs, opening.autoreset_mode, opening.frames = 2, pb.SAME_STEP, pb.FRAMES_STEP
    opening.frame_encoding = opening.observation_encoding = pb.ENCODING_ZSTD
    yield "launch", "vector", opening.SerializeToString()
    yield "service", "open", joined(b"open", b"", b"", opening.SerializeToString())
    yield "service", "ask", joined(b"ask", b"=", b"=", messages["reset"])
    yield "service", "stranger", joined(b"ask", b"=", b"guess", messages["step"])
    yield "service", "close", joined(b"close", b"nobody", b"=")
    yield "service", "spaces", joined(b"spaces", b"=", b"=")
    yield "client", "whole", conversation(action)
    for name, messages in guests().items():
        yield "guest", name, joined(*messages)


def guests() -> dict[str, list[bytes]]:
    """What guests say that are created, reset, stepped twice, rendered, and asked for attributes; and then again."""
    guest, environment = program.Guest(), Meek("rgb_array")
    guest.hosted[0] = program.Hosted(environment, "rgb_array")
    found = {}
    for name, space in {"box": spaces.Box(-1, 1, (2,)), "dict": spaces.Dict({"a": spaces.Text(3)})}.items():
        description = {
            "observation_space": program.write_space(space, guest.writer),
            "action_space": program.write_space(spaces.Discrete(2), guest.writer),
            "observation_size": 8 if name == "box" else None,
            "action_size": 8,
            "metadata": {"render_modes": ["rgb_array"]},
            "render_mode": "rgb_array",
            "spec": ("CartPole-v1", None, False, 500),
            "exposed": [("level", False), ("add", True)],
        }
        space.seed(1)
        observation = space.sample()
        hosted = program.Hosted(environment, None)
        hosted.observation = program.packing(space)
        answers = [
            guest.lax({}),
            guest.lax(description),
            guest.returned([observation], {"seed": 3}),
            guest.stepped(hosted, (observation, 1.0, False, True, {})),
            guest.stepped(hosted, (observation, np.float64(1), np.bool_(True), False, {"a": [1, object()]})),
            (bytes([program.IS_ARRAY]), b"\6\0\0\0\x08\x06\x12\x02\x01\x03", b"abc"),
            guest.value(3),
            guest.error(KeyError("no fuel")),
            guest.value(None),
        ]
        messages = [b"".join(pieces) for pieces in answers]
        found[name] = messages + messages[2:4] + messages[5:6]
        two = [messages[1], messages[1], messages[2], messages[2]]
        found[f"several_{name}"] = [*found[name], *two, *several(guest, messages[2], messages[3])]
        vector = {
            **description,
            **dict.fromkeys(("observation_space", "action_space")),
            "single_observation_space": description["observation_space"],
            "single_action_space": description["action_space"],
            "observation_size": None if name == "dict" else 16,
            "action_size": 16,
            "num_envs": 2,
            "autoreset_mode": "SameStep",
            "tried": [("A", description["action_space"], [guest.writer.write(1)])],
        }
        together = [guest.lax({}), guest.lax(vector), *stepped_together(guest, observation)]
        found[f"vector_{name}"] = [b"".join(pieces) for pieces in together]
    return found


def several(guest: program.Guest, reset: bytes, stepped: bytes) -> list[bytes]:
    """What a guest says to vector steps of two environments: whole, in two messages, and up to an error."""
    error = b"".join(guest.error(KeyError("no fuel")))
    first, first_again, second, second_again, failed = (
        program.ENTRY.pack(operation, index, len(answer)) + answer
        for operation, index, answer in (
            (program.STEP_PACKED, 0, stepped),
            (program.RESET, 0, reset),
            (program.STEP_PACKED, 1, stepped),
            (program.RESET, 1, reset),
            (program.STEP_PACKED, 1, error),
        )
    )
    whole = b"n\0" + first + first_again + second + second_again
    return [whole, b"n\1" + first + first_again, b"n\0" + second + second_again, b"n\0" + first + first_again + failed]


def stepped_together(guest: program.Guest, observation: Any) -> list[tuple[bytes, ...]]:
    """What a guest says whose entrypoint makes a vector environment, that is reset and stepped."""
    infos = [{"final_observation": observation, "final_info": {"a": 1}}, {"a": 2}]
    rest = (np.ones(2), np.array([True, False]), np.zeros(2, bool))
    _, content = guest.returned(rest, infos)
    return [
        guest.returned([np.zeros((2, 2), np.float32)], infos),
        (bytes([program.IS_BATCH]), bytes(16), content),
        guest.returned((np.zeros((2, 2), np.float32), *rest), {"a": np.ones(2)}),
    ]


def conversation(action: pb.StepRequest) -> bytes:
    """What a client hears that opens, resets, steps, renders, calls, and steps twice more."""
    host = Host(Meek("rgb_array"), exposed=("level",), send_frames=True, limits=LIMITS)
    opened = pb.OpenResponse(session=pb.Session(id="a", token="b", lease=60.0, description=host.describe()))
    requests = (
        pb.Request(sequence=1, reset=pb.ResetRequest(seed=value(1))),
        pb.Request(sequence=2, step=action),
        pb.Request(sequence=3, call=pb.CallRequest(name="level")),
        pb.Request(sequence=4, step_many=pb.StepManyRequest(steps=[action, action])),
    )
    return joined(opened.SerializeToString(), *(host.answer(request.SerializeToString()) for request in requests))


def main() -> None:
    """Write all of them."""
    for target, name, content in (*decoders(), *files(), *ends()):
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


if __name__ == "__main__":
    main()
