"""The whole of remote_gym at work on one machine: certificates, a server in a process of its own, and a client."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from remote_gym.certs import AllFiles, create_all
from remote_gym.client.environment import RemoteEnvironment
from remote_gym.errors import ConfigError, RemoteEnvironmentError, RemoteGymError
from remote_gym.play import Episode, MessageSizes, Policy, Recording, Step, play_episodes
from remote_gym.transport.readable import readable

START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
_ADDRESS = re.compile(rb"^Listens on: localhost:(\d+)\r?$", re.MULTILINE)


def _swing_up(observation: Any) -> int:
    """Push Acrobot's lower link the way it already turns; random actions would hardly move it."""
    return 2 if observation[5] > 0 else 0


_POLICIES: dict[str, Policy] = {"Acrobot-v1": _swing_up}


class Server(NamedTuple):
    """A server in a process of its own."""

    port: int
    files: AllFiles


@contextlib.contextmanager
def running_server(environment_id: str, imports: Sequence[str] = ()) -> Iterator[Server]:
    """Serve an environment over mutual TLS on a free port of this machine, with certificates made for the occasion.

    Raises:
        RemoteGymError: If it does not start; with what it said.
    """
    with tempfile.TemporaryDirectory(prefix="remote_gym-demo-") as folder:
        files = create_all(Path(folder, "certificates"), ["localhost"])
        command = [sys.executable, "-m", "remote_gym", "serve", environment_id, "--port", "0", "--no-check"]
        command += ["--certificate", str(files.server.certificate), "--key", str(files.server.private_key)]
        command += ["--ca", str(files.ca.certificate)]
        command += [f"--import={name}" for name in imports]
        log = Path(folder, "server.log")
        with log.open("wb") as stderr:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr)
        try:
            yield Server(_read_port(process, log), files)
        finally:
            _stop(process)


def connect(server: Server, environment_id: str) -> tuple[RemoteEnvironment, str]:
    """Open the environment with its frames; without them where it cannot render.

    Returns:
        The environment, reset once, and why there are no frames; empty if there are.

    Raises:
        RemoteGymError: If it cannot be opened, or reset, either way.
    """
    files = server.files
    credentials = (files.ca.certificate, files.client.certificate, files.client.private_key)
    environment = None
    try:
        environment = RemoteEnvironment("localhost", server.port, {}, credentials, "rgb_array", frames="step")
        environment.reset()
    except (ConfigError, RemoteEnvironmentError) as error:
        if environment is not None:
            environment.close()
        reason = f"{environment_id} does not render here: {_first_line(error)}"
        if isinstance(error, RemoteEnvironmentError) and error.remote_type.endswith("DependencyNotInstalled"):
            reason = f"{environment_id} cannot render: {error.remote_message}. pip install 'remote-gym[demo]'"
    else:
        return environment, ""
    environment = RemoteEnvironment("localhost", server.port, {}, credentials)
    return environment, reason


class Demonstration:
    """Plays in an environment, measures its messages and records the last episode.

    Args:
        environment: As `connect` returned it.
        environment_id: A few have a policy that makes them worth watching; the others act at random.
        recording: Where the last episode goes; None for nowhere.

    Attributes:
        message_bytes: Size of the messages of each step.
    """

    def __init__(self, environment: RemoteEnvironment, environment_id: str, recording: Path | None) -> None:
        self.message_bytes: list[int] = []
        self._environment = environment
        self._policy = _POLICIES.get(environment_id)
        self._path = recording
        self._sizes = MessageSizes(environment)
        self._recording: Recording | None = None

    def play(self, episodes: int, seed: int | None = None) -> Iterator[Episode]:
        """Play so many episodes, one by one."""
        environment, policy = self._environment, self._policy
        yield from play_episodes(environment, episodes - 1, policy=policy, seed=seed, watch=self._watch)
        with contextlib.ExitStack() as stack:
            if self._path is not None:
                fps = float(environment.metadata.get("render_fps") or 30)
                self._recording = stack.enter_context(Recording(self._path, fps))
            seed = seed if episodes == 1 else None
            yield from play_episodes(environment, 1, policy=policy, seed=seed, watch=self._watch)

    @property
    def bytes_per_step(self) -> float:
        """Mean size of the request and the response of a step."""
        return float(np.mean(self.message_bytes))

    def _watch(self, step: Step | None) -> None:
        frame = self._environment.render()
        if step is not None:
            self.message_bytes.append(self._sizes.measure(step, frame))
        if self._recording is not None:
            self._recording.add(frame)


def _read_port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait for the line by which the server tells its port."""
    assert process.stdout is not None
    deadline, printed = time.monotonic() + START_TIMEOUT, b""
    while readable([process.stdout], deadline - time.monotonic()):
        chunk = os.read(process.stdout.fileno(), 65536)
        printed += chunk
        if address := _ADDRESS.search(printed):
            return int(address[1])
        if not chunk:
            break
    said = (printed + log.read_bytes()).decode(errors="replace").strip()
    raise RemoteGymError(f"the server did not start within {START_TIMEOUT:g} s; it said: {said}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    process.terminate()
    process.stdout.close()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
