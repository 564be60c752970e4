"""The sessions that together hold a vector environment."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded

from remote_gym.address import Place
from remote_gym.client.recovery import LOSSES, leave_what_hangs, open_again
from remote_gym.client.servers import Addresses
from remote_gym.client.session import ClientSession
from remote_gym.client.vector.gather import Failure, in_threads, raise_failures, receive
from remote_gym.client.vector.resume import resume_all
from remote_gym.client.vector.shard import Shard
from remote_gym.config import ClientOptions, TlsFiles
from remote_gym.errors import ConfigError, EncodingError, ProtocolMismatch, RemoteGymError
from remote_gym.logs import get_logger
from remote_gym.protocol.description import check_exposed
from remote_gym.protocol.requests import reset_request
from remote_gym.protocol.ticket import Resumption, SessionTicket
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.frame_parts import FrameJoiner

logger = get_logger(__name__)


class Pool:
    """Workers that hold a slice each, all of the same kind of environment.

    Args:
        num_envs: How many environments.
        workers: How many workers share them out.
        places: Where: pairs of url and port, which share the workers out. A session that is opened in place of a lost
            one is opened on the least loaded of them.
        credentials: PEM files; None for no TLS.
        request: What to open, the number of environments aside.
        options: The client's.
        resume: Tickets of sessions to go on with, one for each worker, in place of opening them.

    Attributes:
        shards: In the order of their environments.
        resumed: Where the sessions of `resume` stand; None without them.

    Raises:
        ConfigError: If the servers offer different environments.
        RemoteGymError: As `ClientSession` does, naming the environments concerned.
    """

    def __init__(
        self,
        num_envs: int,
        workers: int,
        places: Sequence[Place],
        *,
        credentials: TlsFiles | None,
        request: pb.OpenRequest,
        options: ClientOptions,
        resume: Sequence[SessionTicket] | None = None,
    ) -> None:
        self._addresses = Addresses(places, credentials, options)
        self._request = request
        self._options = options
        # None until all are open: what each of the first sessions is like is compared once, rather than as it opens.
        self._first: pb.Description | None = None
        self.shards = [
            Shard(
                num_envs * number // workers,
                num_envs * (number + 1) // workers,
                functools.partial(self._open, places[number * len(places) // workers]),
            )
            for number in range(workers)
        ]
        self.resumed: tuple[Resumption, ...] | None = None
        if resume is not None:
            mode = request.render_mode or None
            self.resumed = resume_all(self.shards, resume, credentials=credentials, render_mode=mode, options=options)
        try:
            if resume is None:
                raise_failures(self._in_threads(self.shards, Shard.open))
            self._first = self._what_all_are()
        except BaseException:
            self.abandon()
            raise

    def reopen(self, shards: Iterable[Shard]) -> dict[Shard, str]:
        """Open a new session for those that have lost theirs, or owe an answer and still do not give it.

        Returns:
            With ``on_session_lost="truncate"``, why sessions were lost that were found so only now.

        Raises:
            ConfigError: If its environments are of another kind.
            RemoteGymError: As `ClientSession` does, naming the environments concerned.
        """
        shards = list(shards)
        # Those that hang first: giving one up makes it lost, and the lost ones are then replaced all at once.
        behind = [each for each in shards if each.is_behind]
        failures = in_threads(behind, lambda each: leave_what_hangs(each.session, self._options, each))
        truncates = self._options.on_session_lost == "truncate"
        ended = {each: str(error) for each, error in failures if truncates and isinstance(error, LOSSES)}
        raise_failures([(each, error) for each, error in failures if each not in ended])
        raise_failures(self._in_threads([each for each in shards if each.is_lost], self._replace))
        return ended

    def restart(self, shards: Sequence[Shard], timeout: float) -> None:
        """Open new sessions for shards, and send each a reset. What goes wrong is raised when it is received."""

        def restart(each: Shard, given_up: threading.Event) -> None:
            try:
                self._replace(each, given_up)
            except RemoteGymError as error:
                each.fail(error)
            else:
                if not given_up.is_set():
                    each.send(reset_request(None, None, self._options.message_limits), timeout)

        if shards:
            self._in_threads(shards, restart)

    def forbid_uneven_steps(self) -> None:
        """Have all be reset before the next step, where some were sent one and others not, as Ctrl-C came between."""
        if any(each.is_waiting for each in self.shards):
            for each in self.shards:
                each.is_waiting, each.needs_reset = False, True

    def render(self, timeout: float) -> list[Any]:
        """Frames of each shard; of those that have ended, the last that were rendered.

        Raises:
            RemoteGymError: As `ClientSession.ask` does, naming the environments concerned.
        """
        alive = [each for each in self.shards if each.frame is None or each.lost_because is None]
        joiners = {each: FrameJoiner(self._options.message_limits) for each in alive}
        while alive:  # until the last parts of what some rendered have come
            requests = [joiners[each].request() for each in alive]
            answers = zip(alive, self.ask(requests, timeout, alive), strict=True)
            alive = [each for each, answer in answers if joiners[each].add(answer.render)]
        for each, joiner in joiners.items():
            each.frame = joiner.rendered
        return [each.frame for each in self.shards]

    def ask(
        self, requests: Sequence[pb.Request], timeout: float, shards: Sequence[Shard] | None = None
    ) -> list[pb.Response]:
        """Ask each worker, or those of some shards, its own request, all at once.

        Raises:
            RemoteGymError: As `ClientSession.ask` does, naming the environments concerned.
        """
        chosen = self.shards if shards is None else shards
        # All are sent before any is received, so that the workers work side by side.
        for each, request in zip(chosen, requests, strict=True):
            each.send(request, timeout)
        answers, failures = receive(chosen)
        raise_failures(failures)
        return [answers[each][0] for each in chosen]

    def check_exposed(self, name: str, *, to_set: bool = False) -> None:
        """Refuse what the environments do not expose, unless they are lost, which asking tells.

        Raises:
            AttributeError: As `remote_gym.protocol.description.check_exposed` does.
        """
        if not self.shards[0].is_lost:
            check_exposed(self.shards[0].session.description, name, to_set=to_set)

    @property
    def tickets(self) -> tuple[SessionTicket, ...]:
        """Tickets, one of each worker's session.

        Raises:
            gymnasium.error.ResetNeeded: If one was lost.
        """
        if lost := [str(each) for each in self.shards if each.is_lost]:
            raise ResetNeeded(f"There are no tickets before a reset of {', '.join(lost)}, which were lost")
        return tuple(each.session.ticket for each in self.shards)

    def detach(self) -> None:
        """Leave all sessions that are open for their leases."""
        for each in self.shards:
            if not each.is_lost:
                each.session.let_go()

    def abandon(self) -> None:
        """Give up what cannot be used: close what was opened, and leave what was resumed to whoever has its tickets."""
        if self.resumed is not None:
            self.detach()
        self.close()

    def close(self) -> None:
        """Close all environments and sessions."""
        in_threads(self.shards, Shard.close)

    def _what_all_are(self) -> pb.Description:
        """The description of all shards' environments.

        Raises:
            ConfigError: If they differ, or are not as was asked for.
        """
        first = self.shards[0].session.description
        for each in self.shards:
            if not _are_alike(each.session.description, first):
                raise ConfigError(f"{each} have other spaces, or another autoreset mode, than {self.shards[0]}")
        asked = self._request.autoreset_mode
        # Where they were opened the server has seen to it.
        if self.resumed is not None and asked not in (pb.AUTORESET_UNSPECIFIED, first.autoreset_mode):
            names = [pb.AutoresetMode.Name(mode) for mode in (first.autoreset_mode, asked)]
            raise ConfigError(
                f"the environments have the autoreset mode {names[0]}, and {names[1]} was asked for",
                field="autoreset_mode",
            )
        return first

    @staticmethod
    def _in_threads(shards: Sequence[Shard], do: Callable[[Shard, threading.Event], None]) -> list[Failure]:
        """Do for all at once what may take as long as ``recover_timeout``, and which Ctrl-C ends at once."""
        given_up = threading.Event()
        return in_threads(shards, lambda each: do(each, given_up), given_up)

    def _replace(self, each: Shard, given_up: threading.Event) -> None:
        if (place := each.place) is not None:
            self._addresses.lost(place)
        each.open(given_up)

    def _open(self, place: Place, num_envs: int, given_up: threading.Event) -> ClientSession:
        """Open a session: the first one of a slice at its own place, later ones wherever there is room."""
        request = pb.OpenRequest()
        request.CopyFrom(self._request)
        request.num_envs = num_envs
        if self._first is None:
            session = self._addresses.open_at(place, request)  # workers are spread evenly over the servers
        else:
            session = open_again(
                lambda: self._addresses.open(request), self._options, sleep=given_up.wait, given_up=given_up.is_set
            )
        url, port = session.place
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


def for_each(shards: Iterable[Shard], answers: Iterable[Any]) -> tuple[Any, ...]:
    """The values of all environments, of a tuple of those of each slice.

    Raises:
        EncodingError: If there is not one for each.
    """
    values: list[Any] = []
    for each, answer in zip(shards, answers, strict=True):
        if not isinstance(answer, tuple | list | np.ndarray) or len(answer) != each.size:
            raise EncodingError(f"{each} gave {answer!r}, which is not a value for each")
        values.extend(answer)
    return tuple(values)
