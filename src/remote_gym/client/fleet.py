"""The sessions that together hold a vector environment."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from remote_gym.client.opening import CredentialPaths, choose_encodings, connect
from remote_gym.client.session import ClientSession
from remote_gym.client.slices import Slice
from remote_gym.client.waiting import in_threads, raise_failures, receive
from remote_gym.config import ClientOptions
from remote_gym.errors import ConfigError, ProtocolMismatch
from remote_gym.v1 import remote_gym_pb2 as pb


class Fleet:
    """Workers that hold a slice each, all of the same kind of environment.

    Args:
        num_envs: How many environments.
        workers: How many workers share them out.
        places: Where: pairs of url and port, which share the workers out.
        credentials: PEM files; None for no TLS.
        request: What to open, the number of environments aside.
        options: The client's.

    Attributes:
        slices: In the order of their environments.

    Raises:
        ConfigError: If the servers offer different environments.
        RemoteGymError: As `ClientSession` does, naming the environments concerned.
    """

    def __init__(
        self,
        num_envs: int,
        workers: int,
        places: Sequence[tuple[str, int]],
        *,
        credentials: CredentialPaths | None,
        request: pb.OpenRequest,
        options: ClientOptions,
    ) -> None:
        self._credentials = credentials
        self._request = request
        self._options = options
        self._first: pb.Description | None = None
        self.slices = [
            Slice(
                num_envs * number // workers,
                num_envs * (number + 1) // workers,
                functools.partial(self._open, *places[number * len(places) // workers]),
            )
            for number in range(workers)
        ]
        try:
            raise_failures(in_threads(self.slices, Slice.open))
            first = self.slices[0].session.description
            for each in self.slices:
                if not _are_alike(each.session.description, first):
                    raise ConfigError(f"{each} have other spaces, or another autoreset mode, than {self.slices[0]}")
        except BaseException:
            self.close()
            raise
        self._first = first

    def reopen(self, slices: Iterable[Slice]) -> None:
        """Open a new session for those that have lost theirs.

        Raises:
            ConfigError: If its environments are of another kind.
            RemoteGymError: As `ClientSession` does, naming the environments concerned.
        """
        raise_failures(in_threads([each for each in slices if each.is_lost], Slice.open))

    def ask(self, requests: Sequence[pb.Request], timeout: float) -> list[pb.Response]:
        """Ask each worker its own request, all at once.

        Raises:
            RemoteGymError: As `ClientSession.ask` does, naming the environments concerned.
        """
        for each, request in zip(self.slices, requests, strict=True):
            each.send(request, timeout)
        answers, failures = receive(self.slices)
        raise_failures(failures)
        return [answers[each] for each in self.slices]

    def close(self) -> None:
        """Close all environments and sessions."""
        in_threads(self.slices, Slice.close)

    def _open(self, url: str, port: int, num_envs: int) -> ClientSession:
        request = pb.OpenRequest()
        request.CopyFrom(self._request)
        request.num_envs = num_envs
        choose_encodings(request, self._options, url)
        session = ClientSession(connect(url, port, self._credentials, self._options), request, self._options)
        found = session.description
        try:
            if found.num_envs != num_envs:
                raise ProtocolMismatch(
                    f"the server at {url} port {port} has no vector environments ({dict(found.versions)}, here "
                    f"{dict(request.versions)}); install the same release at both ends"
                )
            if self._first is not None and not _are_alike(found, self._first):
                raise ConfigError(
                    f"the server at {url} port {port} has other spaces, or another autoreset mode, by now"
                )
        except BaseException:
            session.close()
            raise
        return session


def _are_alike(one: pb.Description, other: pb.Description) -> bool:
    return (
        one.single_observation_space == other.single_observation_space
        and one.single_action_space == other.single_action_space
        and one.autoreset_mode == other.autoreset_mode
    )
