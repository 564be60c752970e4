"""For tests, yours and ours: a server on this machine, and checks that remote and local environments agree."""

from __future__ import annotations

import contextlib
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from remote_gym.certs import create_all
from remote_gym.client.environment import RemoteEnvironment
from remote_gym.client.vector import RemoteVectorEnv
from remote_gym.server.serve import RemoteEnvironmentServer, create_remote_environment_server


@dataclass
class LoopbackServer:
    """A server that only this machine can reach, and the clients that were made for it.

    Attributes:
        server: The server itself.
        client_credentials_paths: What its clients connect with; None without TLS.
        client_arguments: Further arguments of every client.
    """

    server: RemoteEnvironmentServer
    client_credentials_paths: tuple[Path, Path, Path] | None
    client_arguments: dict[str, Any] = field(default_factory=dict)
    _clients: list[RemoteEnvironment | RemoteVectorEnv] = field(default_factory=list)

    def environment(self, **arguments: Any) -> RemoteEnvironment:
        """A client, closed with the server.

        Args:
            **arguments: Of `RemoteEnvironment`, where it is to connect aside.
        """
        defaults = {"client_credentials_paths": self.client_credentials_paths, **self.client_arguments}
        client = RemoteEnvironment(self.server.url, self.server.port, **(defaults | arguments))
        self._clients.append(client)
        return client

    def vector_environment(self, num_envs: int, **arguments: Any) -> RemoteVectorEnv:
        """A client of several environments, closed with the server.

        Args:
            num_envs: How many.
            **arguments: Of `RemoteVectorEnv`, where it is to connect aside.
        """
        defaults = {"client_credentials_paths": self.client_credentials_paths, **self.client_arguments}
        client = RemoteVectorEnv(self.server.url, self.server.port, num_envs=num_envs, **(defaults | arguments))
        self._clients.append(client)
        return client


@contextlib.contextmanager
def loopback_server(
    default_args: Mapping[str, Any] | str | None, *, secure: bool = True, url: str = "localhost", **options: Any
) -> Iterator[LoopbackServer]:
    """Serve on a free port of this machine, with mutual TLS, until the block ends.

    Args:
        default_args: As for `create_remote_environment_server`, or a Gymnasium id.
        secure: Use mutual TLS, with certificates made for the occasion.
        url: Where to listen.
        **options: Further arguments of `create_remote_environment_server`.
    """
    if isinstance(default_args, str):
        default_args = {"entrypoint_kwargs": {"id": default_args}}
    with contextlib.ExitStack() as stack:
        server_paths = client_paths = None
        if secure:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="remote_gym-")))
            files = create_all(folder, ["localhost", "127.0.0.1"])
            ca = files.ca.certificate
            server_paths = (files.server.certificate, files.server.private_key, ca)
            client_paths = (ca, files.client.certificate, files.client.private_key)
        server = create_remote_environment_server(default_args, url, 0, server_paths, **options)
        stack.enter_context(server)
        loopback = LoopbackServer(server, client_paths)
        try:
            yield loopback
        finally:
            for client in loopback._clients:
                client.close()


def find_difference(expected: Any, found: Any, path: str = "value") -> str | None:
    """Where and how two values differ, in value or in kind; None if they do not.

    NaNs are equal where their bits are. Kinds have to be the same: ``1``, ``1.0``, ``True``, ``np.int64(1)`` and
    ``np.array(1)`` all differ.
    """
    if type(expected) is OrderedDict:  # which travels as a dict, and which gymnasium < 1.0 samples
        expected = dict(expected)
    if type(expected) is not type(found):
        return f"{path}: expected a {type(expected).__name__}, found a {type(found).__name__}: {expected!r}, {found!r}"
    if isinstance(expected, (np.ndarray, np.generic)):
        return _find_array_difference(expected, found, path)
    if isinstance(expected, Mapping):
        if list(expected) != list(found):
            return f"{path}: expected the keys {list(expected)}, found {list(found)}"
        parts = [(expected[key], found[key], f"{path}[{key!r}]") for key in expected]
    elif isinstance(expected, (tuple, list)):
        if len(expected) != len(found):
            return f"{path}: expected {len(expected)} items, found {len(found)}"
        parts = [(one, other, f"{path}[{n}]") for n, (one, other) in enumerate(zip(expected, found, strict=True))]
    elif isinstance(expected, float):
        same = np.float64(expected).tobytes() == np.float64(found).tobytes()
        return None if same else f"{path}: expected {expected!r}, found {found!r}"
    else:
        return None if expected == found else f"{path}: expected {expected!r}, found {found!r}"
    return next((difference for part in parts if (difference := find_difference(*part))), None)


def _find_array_difference(expected: Any, found: Any, path: str) -> str | None:
    if expected.dtype != found.dtype or expected.shape != found.shape:
        kinds = f"{expected.dtype} of shape {expected.shape}", f"{found.dtype} of shape {found.shape}"
        return f"{path}: expected {kinds[0]}, found {kinds[1]}"
    if expected.dtype == object:
        return find_difference(expected.tolist(), found.tolist(), path)
    if expected.tobytes() != found.tobytes():
        differing = np.flatnonzero(np.ravel(expected != found))
        return f"{path}: {differing.size} of {expected.size} elements differ in value (or NaNs, zeros in their bits)"
    return None


def play_in_lockstep(
    local: gym.Env[Any, Any], remote: gym.Env[Any, Any], *, steps: int, seed: int = 0, frames: bool = False
) -> None:
    """Step two environments with the same seeds and actions, and compare all that they return, value and kind.

    Args:
        local: The reference.
        remote: What should not differ from it.
        steps: How many to take; after the end of an episode both are reset with the next seed.
        seed: Of the first reset, and of the actions, which are sampled from the local environment's space.
        frames: Compare what `render` returns, too.

    Raises:
        AssertionError: At the first difference, saying at which step and where.
    """
    local.action_space.seed(seed)
    returned: tuple[Any, ...] = ()

    def compare(what: str, expected: Any, found: Any) -> None:
        difference = find_difference(expected, found, what)
        if difference is not None:
            raise AssertionError(difference)

    done = True
    for number in range(steps):
        if done:
            compare(f"step {number}: reset()", local.reset(seed=seed), remote.reset(seed=seed))
            seed += 1
        action = local.action_space.sample()
        returned = local.step(action)
        compare(f"step {number}: step({action!r})", returned, remote.step(action))
        if frames:
            compare(f"step {number}: render()", local.render(), remote.render())
        done = bool(returned[2] or returned[3])
