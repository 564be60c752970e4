"""Clients on their way into a worker: none of them is waited for, so whoever is silent holds nobody up."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

from remote_gym.errors import RemoteGymError
from remote_gym.logs import get_logger
from remote_gym.transport.direct_socket import DirectSocket
from remote_gym.worker.environment.texts.waiting import Poll
from remote_gym.worker.handshake import Admitting, Handshake

logger = get_logger(__name__)

ADMISSION_TIMEOUT = 5.0
"""Seconds that a worker waits for a client, from its arrival to its `Attach`.

Those in which it answers requests do not count: it does not hear the client meanwhile.
"""

ARRIVALS_AT_ONCE = 4
"""A further one takes the place of the first."""


@dataclass(kw_only=True, eq=False)
class PendingClient:
    """One client.

    Attributes:
        number: Which of the session's direct connections it has, as the server counts them.
        remaining: Seconds for which it is waited for yet.
        outdated: Whether the session was taken over meanwhile, by a newer connection than this one.
    """

    admitting: Admitting
    number: int
    remaining: float
    outdated: bool = False


@dataclass(frozen=True, kw_only=True)
class AdmittedClient:
    """One that was let in.

    Attributes:
        direct: Its connection.
        answered_until: When that is too old to be answered, on `time.perf_counter`.
        number: As the arrival's.
        outdated: As the arrival's.
    """

    direct: DirectSocket
    answered_until: float
    number: int
    outdated: bool


class PendingClients:
    """All who are on their way in.

    Args:
        admission: Decides who may.
        poll: Where their descriptors are registered, for whoever waits.

    Attributes:
        pending: They, by descriptor, in the order in which they came.
    """

    def __init__(self, admission: Handshake, poll: Poll) -> None:
        self._admission = admission
        self._poll = poll
        self.pending: dict[int, PendingClient] = {}

    def begin(self, sock: socket.socket, number: int, poll_us: int) -> AdmittedClient | None:
        """Let a client come in.

        Args:
            sock: The client's, which is taken over.
            number: Which one it is.
            poll_us: Told to it.

        Returns:
            The client, if it has said all that it has to already.
        """
        if len(self.pending) >= ARRIVALS_AT_ONCE:
            self._refuse(next(iter(self.pending)), "too many came after it")
        descriptor = sock.fileno()
        self.pending[descriptor] = PendingClient(
            admitting=self._admission.admit(sock, poll_us),
            number=number,
            remaining=ADMISSION_TIMEOUT,
        )
        return self.go_on(descriptor)

    def go_on(self, descriptor: int) -> AdmittedClient | None:
        """See what a client has sent.

        Returns:
            The client, if that was the last of it.
        """
        arrival = self.pending[descriptor]
        try:
            self._poll.register(descriptor, next(arrival.admitting))
            return None
        except StopIteration as end:
            direct, answered_until = end.value
        except (OSError, ValueError, RemoteGymError) as error:
            # ConnectionError and ssl.SSLError are OSErrors; of a certificate that it cannot read Python's ssl raises a
            # ValueError. Whoever it was, the session goes on without.
            self._refuse(descriptor, error)
            return None
        self._forget(descriptor)
        for other in self.pending.values():
            other.outdated |= other.number < arrival.number
        return AdmittedClient(
            direct=direct, answered_until=answered_until, number=arrival.number, outdated=arrival.outdated
        )

    def outdate(self) -> None:
        """The session has been taken over, by a newer connection than all of these."""
        for arrival in self.pending.values():
            arrival.outdated = True

    def seconds(self) -> float:
        """For which the first of them is waited for yet, of whom there is one at least."""
        return max(0.0, min(arrival.remaining for arrival in self.pending.values()))

    def wait(self, seconds: float) -> None:
        """They have been waited for that long."""
        for arrival in self.pending.values():
            arrival.remaining -= seconds

    def drop_late(self) -> None:
        """Refuse who has been waited for long enough, once what came of it has been looked at."""
        for descriptor, arrival in list(self.pending.items()):
            if arrival.remaining <= 0.0:
                self._refuse(descriptor, f"it has not attached within {ADMISSION_TIMEOUT:g} s")

    def close(self) -> None:
        """Close all of them out, without a word."""
        for descriptor in list(self.pending):
            self._forget(descriptor).admitting.close()

    def _refuse(self, descriptor: int, why: object) -> None:
        # Each reason is counted by itself: an operator who debugs one of them is not to miss it among others.
        logger.warning("refused a direct connection: %s", why, repeats=f"{why!s:.80}")
        self._forget(descriptor).admitting.close()

    def _forget(self, descriptor: int) -> PendingClient:
        arrival = self.pending.pop(descriptor)
        with contextlib.suppress(KeyError):  # it was never waited for
            self._poll.unregister(descriptor)
        return arrival
