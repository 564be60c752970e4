"""The state of a server's sessions: who owns which, how many there may be, and when a deserted one ends.

Pure: no input or output, and time comes from the clock that is passed in.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from remote_gym.errors import DenialReason, FullReason, NotPermitted, ServerFull, SessionLost
from remote_gym.ipc.close_reasons import lost, taken_over

MAX_WAITING = 256
"""Openings that may wait for a place, at most."""

REMEMBERED = 4096
"""How many ended sessions are remembered, so that their clients can be told why they ended."""


@dataclass(kw_only=True, eq=False)
class Session:
    """One client's claim on one environment.

    Attributes:
        id: Names the session; no secret.
        token: Whoever holds it, and is the identity, may use the session.
        identity: Identity of the client that opened it.
        env_id: Lowest number that no other environment had, nor the numbers that follow it where there are several.
        num_envs: How many environments it holds.
        environment: Name by which the server offers them; empty for the default one, None for a client's own.
        has_env_ids: Whether they are its own still, rather than those of its environment, which outlives it.
        epoch: Grows with each attachment; what an older one asks is refused.
        users: Attachments, and calls by themselves, that are in progress; the lease runs while there are none.
        expires: When the lease is over, on the registry's clock.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(8))
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    identity: str
    env_id: int
    num_envs: int = 1
    environment: str | None = ""
    has_env_ids: bool = True
    epoch: int = 0
    users: int = 0
    expires: float


@dataclass(frozen=True)
class Ended:
    """Record of a session that has ended: who may learn the reason, and the reason."""

    token: str = field(repr=False)
    identity: str
    reason: str


class EnvIds:
    """Numbers of environments, of which each that lives has one of its own."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self, count: int) -> int:
        """The first of the lowest `count` numbers in a row that are free."""
        first = 0
        for taken in sorted(self._taken):
            if taken >= first + count:
                break
            first = taken + 1
        self._taken.update(range(first, first + count))
        return first

    def give_back(self, first: int, count: int) -> None:
        """Environments are gone that had these."""
        self._taken.difference_update(range(first, first + count))


class Turn:
    """A place in the queue of those who wait for a place."""


class Sessions:
    """The registry.

    Args:
        max_sessions: How many may be open at once.
        lease: Seconds that a session lives on unattended.
        clock: Monotonic seconds.
        env_ids: Numbers of environments, which those that no session has take, too.
    """

    def __init__(
        self, *, max_sessions: int, lease: float, clock: Callable[[], float], env_ids: EnvIds | None = None
    ) -> None:
        self._max_sessions = max_sessions
        self._lease = lease
        self._clock = clock
        self._open: dict[str, Session] = {}
        self._places = 0  # of open sessions, and of those whose environments are still closing
        self._waiting: dict[Turn, None] = {}  # in order
        self._env_ids = env_ids or EnvIds()
        self._ended: OrderedDict[str, Ended] = OrderedDict()  # by id, the first to end first

    def __len__(self) -> int:
        return len(self._open)

    @property
    def places(self) -> int:
        """How many are taken, by open sessions and by those that are closing."""
        return self._places

    @property
    def waiting(self) -> int:
        """How many queue for a place."""
        return len(self._waiting)

    def has_place(self, turn: Turn | None = None) -> bool:
        """Whether a place is free for whoever has this turn, or has none: nobody overtakes those who wait.

        Args:
            turn: Of the queue.
        """
        first = next(iter(self._waiting), None)
        # One whose environment is still closing counts: it holds its memory as before.
        return self._places < self._max_sessions and first is turn

    def wait(self) -> Turn:
        """Take the last place in the queue, until `stop_waiting`.

        Raises:
            ServerFull: If it is too long already.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise self.full()
        turn = Turn()
        self._waiting[turn] = None
        return turn

    def stop_waiting(self, turn: Turn) -> None:
        """Leave the queue."""
        del self._waiting[turn]

    def full(self) -> ServerFull:
        """The error for who gets no place now."""
        closing = self._places - len(self._open)
        count = len(self._waiting)
        queue = f", and {count} {'client waits' if count == 1 else 'clients wait'} for a place" if count else ""
        return ServerFull(
            f"the server holds {len(self._open)} sessions, and {closing} more are closing, "
            f"as many as its max_sessions of {self._max_sessions} allows{queue}; close one, or raise it. "
            f"Sessions of clients that vanished without closing end after {self._lease:g} s",
            reason=FullReason.SESSIONS,
        )

    def open(self, identity: str, num_envs: int = 1, turn: Turn | None = None) -> Session:
        """Claim a place, for one environment or for several.

        Raises:
            ServerFull: If all are taken, or others wait for one.
        """
        if not self.has_place(turn):
            raise self.full()
        self._places += 1
        env_id = self._env_ids.take(num_envs)
        session = Session(identity=identity, env_id=env_id, num_envs=num_envs, expires=self._clock() + self._lease)
        self._open[session.id] = session
        return session

    def find(self, session_id: str, token: str, identity: str) -> Session:
        """The open session of that id, for the one who may use it.

        Raises:
            SessionLost: If there is none, with the reason where it ended a while ago.
            NotPermitted: If the token is not the session's, or another identity opened it, be it open or ended.
        """
        session = self._open.get(session_id) or self._ended.get(session_id)
        if session is None:
            raise SessionLost(f"session {session_id}: the server knows no such session; it may have restarted")
        # Compared in constant time, so that a token cannot be guessed byte by byte; as bytes, because
        # compare_digest takes no str beyond ASCII, and a peer may send one.
        if not hmac.compare_digest(session.token.encode(), token.encode("utf-8", "surrogatepass")):
            raise NotPermitted(f"session {session_id}: this is not its token", reason=DenialReason.SESSION)
        if session.identity != identity:
            raise NotPermitted(
                f"session {session_id}: it was opened by another identity than {identity!r}",
                reason=DenialReason.SESSION,
            )
        if isinstance(session, Ended):  # its reason can tell what its client did, and the environment said
            raise lost(session_id, session.reason)
        return session

    def enter(self, session: Session) -> None:
        """Somebody begins to use the session: its lease stands still."""
        session.users += 1

    def leave(self, session: Session, silence: float = 0.0) -> None:
        """One user less; with the last one the lease starts anew.

        Args:
            session: Whose user it was.
            silence: Seconds since the user's last sign of life, from which the lease is counted.
        """
        session.users -= 1
        session.expires = max(session.expires, self._clock() + self._lease - silence)

    def attach(self, session: Session) -> int:
        """Enter, and begin a new epoch, which cuts off older attachments."""
        self.enter(session)
        session.epoch += 1
        return session.epoch

    def explain(self, session: Session, error: SessionLost) -> SessionLost:
        """Why a session's worker did not answer: it went because the session was ended, or it is the cause itself."""
        ended = self._ended.get(session.id)
        return error if ended is None else lost(session.id, ended.reason)

    def check_epoch(self, session: Session, epoch: int) -> None:
        """Refuse what an older attachment asks.

        Raises:
            SessionLost: If the session has ended.
            OutOfSequence: If a newer attachment stands.
        """
        if session.id not in self._open:
            raise self.explain(session, SessionLost(f"session {session.id}: it has ended"))
        if session.epoch != epoch:
            raise taken_over(session.id)

    def expired(self) -> list[Session]:
        """Sessions that nobody uses and whose lease is over."""
        now = self._clock()
        return [session for session in self._open.values() if not session.users and session.expires <= now]

    def end(self, session: Session, reason: str) -> bool:
        """Remember why. Its place and its env_id stay taken until `release`.

        Returns:
            Whether it was open until now.
        """
        if self._open.pop(session.id, None) is None:
            return False
        self._ended[session.id] = Ended(session.token, session.identity, reason)
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        return True

    def release(self, session: Session) -> None:
        """Let another session have its place, now that its environments are gone, or are its own no more."""
        self._give_env_ids_back(session)
        self._places -= 1

    def take_over(self, session: Session, env_id: int) -> None:
        """Have the numbers of an environment that was there before the session, in place of its own."""
        self._give_env_ids_back(session)
        session.env_id, session.has_env_ids = env_id, True

    def _give_env_ids_back(self, session: Session) -> None:
        if session.has_env_ids:
            self._env_ids.give_back(session.env_id, session.num_envs)
            session.has_env_ids = False


def shown_identity(identity: str) -> str:
    """An identity as logs show it."""
    return identity or "an anonymous client"
