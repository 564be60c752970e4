"""What a direct step is made of, counted rather than timed: calls, messages, system calls, bytes and copies.

Times depend on the machine and its mood; these causes of them do not.
"""

from __future__ import annotations

import ast
import re
import sys
import threading
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from catalogue import CARTPOLE_BYTES
from remote_gym.config import Limits
from remote_gym.testing import loopback_server
from remote_gym.transport.busy_poll import Wakefulness
from remote_gym.transport.direct_socket import DirectSocket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.worker.host import Host
from workloads import create

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "remote_gym"
PEERS = PACKAGE.parent.parent / "benchmarks" / "peers"
STEPS = 20
FRAME_BYTES = 480 * 640 * 3
IO = Path("/proc/self/io")


class Recorder:
    """Counts what functions threads call, by thread, once it is told to."""

    def __init__(self) -> None:
        self.recording = False
        self.calls: dict[int, Counter[str]] = {}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if not self.recording or event not in ("call", "c_call"):
            return
        counter = self.calls.setdefault(threading.get_ident(), Counter())
        if event == "call":
            counter[f"{frame.f_globals.get('__name__')}.{frame.f_code.co_name}"] += 1
        else:
            owner = getattr(argument, "__self__", None)
            module = argument.__module__ or type(owner).__name__
            counter[f"{module}:{argument.__name__}"] += 1

    def total(self) -> Counter[str]:
        """Of all threads."""
        return sum(self.calls.values(), Counter())


@pytest.fixture(scope="module")
def calls() -> Iterator[Recorder]:
    """All that is called for `STEPS` direct steps of CartPole, by client and worker, each a thread of this process."""
    recorder = Recorder()
    before = sys.getprofile()
    threading.setprofile(recorder)
    try:
        # Without polling, which looks as often as there is time for.
        with loopback_server("CartPole-v1", use_thread=True, poll_us=0) as server:
            environment = server.environment(connection="direct", poll_us=0)
            environment.reset(seed=1)
            environment.step(np.int64(0))
            sys.setprofile(recorder)
            recorder.recording = True
            for number in range(STEPS):
                _, _, terminated, _, _ = environment.step(np.int64(number % 2))
                assert not terminated, "a reset would be counted as well"
            recorder.recording = False
            sys.setprofile(before)
            yield recorder
    finally:
        sys.setprofile(before)
        threading.setprofile(before)  # type: ignore[arg-type]


def test_a_step_is_one_message_each_way(calls):
    client = calls.calls[threading.get_ident()]
    (worker,) = [counter for ident, counter in calls.calls.items() if counter["remote_gym.worker.host.answer_in_parts"]]
    for end in (client, worker):
        assert end["remote_gym.transport.direct_socket.send"] == STEPS
        assert end["_SSLSocket:write"] == STEPS
    assert client["remote_gym.transport.direct_socket.receive"] == STEPS
    # In vain at first, where it looks before it waits.
    assert client["_SSLSocket:read"] <= 2 * STEPS
    assert worker["_SSLSocket:read"] <= 2 * STEPS


def taking_part(calls) -> set[int]:
    """Threads that call something of ours in every step, rather than now and then beside it."""
    return {
        ident
        for ident, counter in calls.calls.items()
        if any(name.startswith("remote_gym") and count >= STEPS for name, count in counter.items())
    }


def test_nobody_but_client_and_worker_takes_part_in_a_step(calls):
    assert len(taking_part(calls)) == 2
    assert threading.get_ident() in taking_part(calls)


@pytest.mark.parametrize("what", ["space", "compile_layout", "_array_part", "describe"])
def test_no_step_looks_at_a_specification(calls, what):
    assert not [name for name in calls.total() if name.startswith("remote_gym") and what in name.rpartition(".")[2]]


def test_no_step_pickles_logs_formats_or_compiles(calls):
    modules = {re.split("[.:]", name)[0] for name in calls.total()}
    assert not modules & {"pickle", "_pickle", "marshal", "json", "logging", "importlib", "inspect", "copy"}


@pytest.mark.parametrize(("end", "most"), [("client", 25), ("worker", 23)])
def test_a_step_makes_few_python_calls(calls, end, most):
    """Each costs some 0.1 µs. A bound that is in the way of something worth its cost may be raised."""
    chosen = [
        calls.calls[ident] for ident in taking_part(calls) if (ident == threading.get_ident()) == (end == "client")
    ]
    made = Counter(
        {
            name: count
            for counter in chosen
            for name, count in counter.items()
            if name.startswith("remote_gym") and ":" not in name
        }
    )
    assert made.total() / STEPS <= most, made.most_common()


def test_a_step_of_cartpole_is_as_small_as_the_benchmarks_say(monkeypatch):
    sizes: dict[str, set[int]] = {"send": set(), "receive": set()}
    send, receive = DirectSocket.send, DirectSocket.receive

    def spying_send(self: DirectSocket, data: bytes, deadline: float) -> None:
        sizes["send"].add(len(data))
        send(self, data, deadline)

    def spying_receive(self: DirectSocket, deadline: float, wakefulness: Wakefulness | None = None) -> bytes | None:
        data = receive(self, deadline, wakefulness)
        sizes["receive"].add(len(data or b""))
        return data

    with loopback_server("CartPole-v1") as server:
        environment = server.environment(connection="direct")
        environment.reset(seed=1)
        for _ in range(2**7):  # numbers take a byte more from there on
            environment.step(np.int64(0))
        monkeypatch.setattr(DirectSocket, "send", spying_send)
        monkeypatch.setattr(DirectSocket, "receive", spying_receive)
        environment.step(np.int64(0))
    header = 4
    assert min(sizes["send"]) + header <= CARTPOLE_BYTES["request"]
    assert max(sizes["receive"]) + header <= CARTPOLE_BYTES["response"]


def system_calls(path: Path) -> tuple[int, int]:
    """How often a process has read and written, sockets under TLS included."""
    found = dict(line.split(": ") for line in path.read_text().splitlines())
    return int(found["syscr"]), int(found["syscw"])


@pytest.mark.skipif(not IO.exists(), reason="counts system calls in Linux's /proc")
def test_a_worker_writes_once_for_each_step_and_reads_a_record(monkeypatch):
    monkeypatch.chdir(Path(__file__).parent)
    with loopback_server({"entrypoint": "environments.py"}) as server:
        environment = server.environment(connection="direct")
        _, info = environment.reset()
        counts = Path(f"/proc/{info['pid']}/io")
        environment.step(0)
        reads, writes = system_calls(counts)
        for _ in range(STEPS):
            environment.step(0)
        reads, writes = (now - then for now, then in zip(system_calls(counts), (reads, writes), strict=True))
    assert writes == STEPS
    # OpenSSL reads a record's header, then the rest.
    assert reads <= 2 * STEPS


@contextmanager
def peak_memory() -> Iterator[Callable[[], float]]:
    """The most that Python and NumPy had at once since the last look, in frames. What protobuf has is not in it."""
    tracemalloc.start()
    try:
        base = tracemalloc.get_traced_memory()[0]
        yield lambda: (tracemalloc.get_traced_memory()[1] - base) / FRAME_BYTES
    finally:
        tracemalloc.stop()


def test_a_worker_makes_one_copy_of_an_image():
    host = Host(create("vga"), limits=Limits())
    host.answer_in_parts(pb.Request(sequence=1, reset=pb.ResetRequest()).SerializeToString())
    host.answer_in_parts(step_request(2))
    with peak_memory() as peak:
        host.answer_in_parts(step_request(3))
        # The response that is kept, past protobuf, whose copies would not be seen here.
        assert peak() < 1.1


def test_a_client_makes_no_copy_of_an_image(monkeypatch):
    monkeypatch.chdir(PEERS)
    with loopback_server({"entrypoint": "workloads.py", "entrypoint_kwargs": {"workload": "vga"}}) as server:
        environment = server.environment(connection="direct")
        environment.reset()
        environment.step(0)
        with peak_memory() as peak:
            environment.step(0)
            # What was received is what is returned.
            assert peak() < 1.1


def step_request(sequence: int) -> bytes:
    action = np.int64(0).tobytes()
    return pb.Request(sequence=sequence, step=pb.StepRequest(packed=action)).SerializeToString()


def test_nothing_of_ours_imports_what_runs_code_from_bytes():
    forbidden = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & forbidden, f"{path.name}:{node.lineno}"
