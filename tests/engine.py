"""A container engine for tests: a daemon in this process, and programs ``docker``, ``podman`` and ``apptainer``.

It knows the words that are to be expected, no others, and runs a container in namespaces of its own: of processes,
mounts and the network. As with the real ones a container is the daemon's child, has nothing of the client's environment
but what is named, and lives on when its client dies, until its own end or its removal.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_CLIENT = """#!{python} -SE
import array, json, os, socket, sys
with socket.socket(socket.AF_UNIX) as daemon:
    daemon.connect({path!r})
    asked = {{"argv": [os.path.basename(sys.argv[0]), *sys.argv[1:]], "environ": dict(os.environ), "cwd": os.getcwd()}}
    data = json.dumps(asked).encode()
    passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
    daemon.sendmsg([len(data).to_bytes(4, "big")], passed)
    daemon.sendall(data)
    answer = b""
    while not answer.endswith(b"\\n"):
        piece = daemon.recv(4096)
        if not piece:
            sys.exit(125)
        answer += piece
sys.exit(int(answer))
"""
_NAMESPACES = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child", "--mount")
_OWN_RUN = 'mount -t tmpfs none /run && exec "$@"'
_MOUNT = 'mkdir -p "$2" && mount --bind "$1" "$2" && shift 2 && exec "$@"'
_MOUNT_READ_ONLY = 'mkdir -p "$2" && mount --bind "$1" "$2" && mount -o remount,bind,ro "$2" && shift 2 && exec "$@"'


@dataclass
class Container:
    """One that runs.

    Attributes:
        options: Those that it was started with, by name; of ``--mount`` and ``--env`` all.
        words: Image and command.
        process: The first in its namespaces.
        published: Ports of this machine by those there.
    """

    options: dict[str, Any]
    words: list[str]
    process: subprocess.Popen[bytes]
    published: dict[str, Relay] = field(default_factory=dict)

    def inner(self) -> list[int]:
        """Its process 1, as this machine counts; none once that has ended."""
        with contextlib.suppress(FileNotFoundError):
            path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            return [int(pid) for pid in path.read_text().split()]
        return []


class Relay:
    """A port of loopback that leads to another one. As with the real engines, it listens before anything does there."""

    def __init__(self, inside: int) -> None:
        self._inside = inside
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._inside), 10)
                except OSError:
                    client.close()
                    continue
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=pair, daemon=True).start()

    def _copy(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@dataclass
class Engine:
    """The daemon.

    Attributes:
        folder: Of the programs, for ``PATH``.
        containers: Those that there are, by name.
        started: All that there have been.
        called: The words of each call of a program.
        faults: Words that were not to be expected.
    """

    folder: Path
    containers: dict[str, Container] = field(default_factory=dict)
    started: list[Container] = field(default_factory=list)
    called: list[list[str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, client: socket.socket) -> None:
        """Do what a program was asked, and return its exit status to it."""
        with client:
            head, passed, _, _ = socket.recv_fds(client, 4, 3)
            size, data = int.from_bytes(head, "big"), b""
            while len(data) < size:
                data += client.recv(size - len(data))
            asked = json.loads(data)
            program, operation, *words = asked["argv"]
            self.called.append(asked["argv"])
            try:
                if program == "apptainer":
                    assert operation == "exec", operation
                    status = self._run(*_read_apptainer(words, asked["environ"]), passed, None)
                elif operation == "run":
                    options, rest = _read_docker(words)
                    assert options.pop("--stop-timeout", None) == ("0" if program == "podman" else None), words
                    environ = {name: asked["environ"][name] for name in options.get("--env", []) if "=" not in name}
                    environ |= dict(name.split("=", 1) for name in options.get("--env", []) if "=" in name)
                    status = self._run(options, rest, environ, passed, options["--name"])
                elif operation == "port":
                    status = self._show_port(*words, passed[1])
                elif operation == "stop":
                    status = self._stop(*words)
                elif operation == "rm":
                    status = self._remove(program, words, passed[1], passed[2])
                else:
                    status = self._list(program, [operation, *words], passed[1])
            except Exception as error:  # noqa: BLE001 - the test reads it
                self.faults.append(f"{asked['argv']}: {error!r}")
                status = 125
            finally:
                for descriptor in passed:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
            with contextlib.suppress(OSError):
                client.sendall(b"%d\n" % status)

    def _run(
        self, options: dict[str, Any], words: list[str], environ: dict[str, str], passed: list[int], name: str | None
    ) -> int:
        assert name not in self.containers, f"{name} is there"
        command = [*_NAMESPACES, *(["--net"] if options.get("--network") == "none" else [])]
        if any(target.startswith("/run/") for _, target, _ in options.get("mounts", [])):
            command += ["sh", "-c", _OWN_RUN, "sh"]
        for source, target, is_read_only in options.get("mounts", []):
            command += ["sh", "-c", _MOUNT_READ_ONLY if is_read_only else _MOUNT, "sh", source, target]
        stdin, stdout, stderr = passed
        with self.lock:
            process = subprocess.Popen(
                [*command, *words[1:]],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env={"PATH": os.environ["PATH"], **environ},
                cwd="/",
            )
            container = Container(options, words, process)
            if "--publish" in options:
                address, port, inside = options["--publish"].split(":")
                assert (address, port) == ("127.0.0.1", ""), options
                container.published = {f"{inside}/tcp": Relay(int(inside))}
            self.started.append(container)
            if name is not None:
                self.containers[name] = container
        for descriptor in passed:  # whose ends are the container's alone
            os.close(descriptor)
        passed.clear()
        status = process.wait()
        for relay in container.published.values():
            relay.close()
        if name is not None:
            self.containers.pop(name, None)  # as --rm has it
        return status if status >= 0 else 128 - status

    def _show_port(self, name: str, port: str, output: int) -> int:
        container = self.containers.get(name)
        if container is None:
            return 1
        os.write(output, f"127.0.0.1:{container.published[port].port}\n".encode())
        return 0

    def _stop(self, option: str, seconds: str, name: str) -> int:
        assert option == "-t", option
        container = self.containers[name]
        for pid in container.inner():
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            container.process.wait(float(seconds))
        container.process.kill()
        return 0

    def _remove(self, program: str, words: list[str], output: int, errors: int) -> int:
        assert words[0] == "--force", words
        status = 0
        for name in words[1:]:
            container = self.containers.get(name)
            if container is None:
                if program == "podman":  # which from 4 on takes it for removed
                    continue
                os.write(errors, f"Error response from daemon: No such container: {name}\n".encode())
                status = 1
            else:
                container.process.kill()
                container.process.wait()
                self.containers.pop(name, None)
                os.write(output, f"{name}\n".encode())
        return status

    def _list(self, program: str, words: list[str], output: int) -> int:
        expected = ["ps", "--all", "--filter", "label=remote_gym.owner", "--format", "{{.Names}} {{.Labels}}"]
        assert words == expected, words
        for name, container in list(self.containers.items()):
            label = container.options["--label"]
            shown = f"map[{label.replace('=', ':')}]" if program == "podman" else label
            os.write(output, f"{name} {shown}\n".encode())
        return 0

    def kill_all(self) -> None:
        """Leave nothing."""
        for container in self.started:
            with contextlib.suppress(ProcessLookupError):
                container.process.send_signal(signal.SIGKILL)
            container.process.wait(30)


def _read_docker(words: list[str]) -> tuple[dict[str, Any], list[str]]:
    options: dict[str, Any] = {}
    rest = list(words)
    while rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("-i", "--rm"):
            options[option] = True
        elif option in (
            "--name",
            "--label",
            "--network",
            "--gpus",
            "--device",
            "--cpuset-cpus",
            "--stop-timeout",
            "--publish",
        ):
            assert option not in options, option
            options[option] = rest.pop(0)
        elif option == "--env":
            options.setdefault(option, []).append(rest.pop(0))
        else:
            assert option == "--mount", option
            kind, source, target, *end = rest.pop(0).split(",")
            assert kind == "type=bind", kind
            assert end in ([], ["readonly"]), end
            names = [part.partition("=")[::2] for part in (source, target)]
            assert [name for name, _ in names] == ["source", "target"]
            options.setdefault("mounts", []).append((*(path for _, path in names), bool(end)))
    assert {"--rm", "--name", "--label"} <= options.keys(), options
    assert ("-i" in options and "--network" in options) or "--publish" in options, options
    return options, rest


def _read_apptainer(words: list[str], environ: dict[str, str]) -> tuple[dict[str, Any], list[str], dict[str, str]]:
    options: dict[str, Any] = {"--network": "host"}
    rest = list(words)
    while rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("--containall", "--net", "--nv"):
            options[option] = True
        elif option == "--network":
            options[option] = rest.pop(0)
        else:
            assert option == "--bind", option
            source, target, *end = rest.pop(0).split(":")
            options.setdefault("mounts", []).append((source, target, end == ["ro"]))
    assert options.pop("--containall")
    prefix = "APPTAINERENV_"
    inside = {name[len(prefix) :]: value for name, value in environ.items() if name.startswith(prefix)}
    return options, rest, inside


@contextlib.contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """Run a daemon until the block ends; skips loudly where there are no namespaces to be had."""
    if shutil.which("unshare") is None or os.getuid() != 0:
        pytest.skip("needs util-linux's unshare, and root, which may use it")
    tried = subprocess.run([*_NAMESPACES, "--net", "true"], capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode != 0:
        pytest.skip(f"needs namespaces, which this system refuses: {tried.stderr}")
    programs = folder / "engines"
    programs.mkdir()
    path = str(folder / "daemon")
    for name in ("docker", "podman", "apptainer"):
        program = programs / name
        program.write_text(_CLIENT.format(python=sys.executable, path=path))
        program.chmod(0o755)
    daemon = Engine(programs)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)

    def serve() -> None:
        with contextlib.suppress(OSError):  # it was closed
            while True:
                client, _ = listener.accept()
                threading.Thread(target=daemon.answer, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield daemon
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(30)
        daemon.kill_all()
