"""What nobody is told: tokens and keys occur in no log, no output and no error, at either end, whatever goes wrong."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from environments import ACTION
from raw_client import RawSession, step
from remote_gym import RemoteEnvironment, RemoteGymError
from remote_gym.certs import create_all
from remote_gym.v1 import remote_gym_pb2 as pb
from waiting import scaled, wait_until

SHOWN = 4
"""How many characters of a token may be told."""


class Told:
    """All that was said, and what should not have been."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.secrets: set[str] = set()

    def hide(self, session: pb.Session) -> None:
        self.secrets |= {session.token, session.direct.routing_id.hex(), repr(session.direct.routing_id)[2:-1]}

    def hide_key(self, path: Path) -> None:
        self.secrets |= {line for line in path.read_text().splitlines() if "-----" not in line}

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Something that raises an error of ours, which is told in all its forms."""
        with pytest.raises(RemoteGymError) as caught:
            yield
        error = caught.value
        self.texts += [str(error), repr(error), "".join(traceback.format_exception(error))]

    def found(self) -> list[str]:
        assert all(len(secret) > 4 * SHOWN for secret in self.secrets)
        everything = "\n".join(self.texts)
        return [secret for secret in self.secrets if secret[: SHOWN + 4] in everything]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def serving(tmp_path, told) -> Iterator[tuple[int, tuple[Path, Path, Path], Path]]:
    """A server in a process of its own that tells all it can: its port, its clients' files, and its log."""
    files = create_all(tmp_path, ["localhost"])
    for each in (files.ca, files.server, files.client):
        told.hide_key(each.private_key)
    tls = ("--certificate", files.server.certificate, "--key", files.server.private_key, "--ca", files.ca.certificate)
    command = [
        sys.executable,
        "-m",
        "remote_gym",
        "serve",
        "--entrypoint",
        "environments.py",
        "--port",
        "0",
        "-v",
        *tls,
    ]
    log = tmp_path / "log"
    talkative = {**os.environ, "GRPC_VERBOSITY": "debug", "PYTHONASYNCIODEBUG": "1", "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, env=talkative) as process:
        try:
            wait_until(lambda: "Listens on: " in log.read_text() and "Connect with" in log.read_text(), timeout=60.0)
            port = int(log.read_text().partition("Listens on: ")[2].split()[0].rpartition(":")[2])
            yield port, (files.ca.certificate, files.client.certificate, files.client.private_key), log
        finally:
            process.terminate()
            process.wait(scaled(30.0))


def raw_session(environment: RemoteEnvironment, **changed: str) -> RawSession:
    session = pb.Session()
    session.CopyFrom(environment._session._session)
    for name, value in changed.items():
        setattr(session, name, value)
    return RawSession(environment._session._connection._channel._channel, session)


@pytest.mark.parametrize("connection", ["direct", "grpc"])
def test_no_token_and_no_key_is_told_by_a_busy_session_that_fails_in_every_way(serving, told, caplog, connection):
    port, paths, log = serving
    caplog.set_level(logging.DEBUG)  # of the root logger, and so of all that have no level of their own
    for name in ("remote_gym", "grpc", "asyncio"):
        caplog.set_level(logging.DEBUG, name)

    def opened() -> RemoteEnvironment:
        environment = RemoteEnvironment("localhost", port, None, paths, connection=connection)
        told.hide(environment._session._session)
        environment.reset()
        return environment

    with contextlib.ExitStack() as stack:
        environment = stack.enter_context(contextlib.closing(opened()))
        environment.step(ACTION["step"])
        with told.failing():
            environment.step(ACTION["raise"])
        with told.failing():
            environment.step(ACTION["raise_unprintable"])
        with told.failing():
            RemoteEnvironment("localhost", port, {"environment": "none"}, paths)
        with told.failing():
            RemoteEnvironment("localhost", port, {"entrypoint_kwargs": {"none": 1}}, paths)
        # Refused with a part of the token, and of a session that there is not; numbers that do not follow; nonsense.
        token = environment._session._session.token
        for stranger in (raw_session(environment, token=token[:-1]), raw_session(environment, id="none")):
            told.texts += [str(stranger.ask("Step", step(99))), str(stranger.spaces())]
        told.texts.append(str(raw_session(environment).ask("Step", step(99))))
        # The connection breaks, and another takes the session over.
        environment._session._carrier.detach()
        environment.step(ACTION["step"])
        # The worker dies; then a session ends by its client, and what it asks after that.
        lost = stack.enter_context(contextlib.closing(opened()))
        with told.failing():
            lost.step(ACTION["kill"])
        closed = opened()
        after = raw_session(closed)
        closed.close()
        with contextlib.suppress(ValueError):  # its channel is closed
            told.texts.append(str(after.ask("Step", step(3))))
        told.texts.append(caplog.text)
    told.texts.append(log.read_text(errors="replace"))
    assert told.found() == []
    # All of that has been told of, at both ends.
    assert "ended by SIGKILL" in "".join(told.texts)
    assert "this is not its token" in "".join(told.texts)
    assert "remote_gym.server.session_log: session" in told.texts[-1]
