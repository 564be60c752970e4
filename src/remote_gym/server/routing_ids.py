"""For which session a direct connection comes, told by ids that are good for one connection each.

Pure: no input or output, and time comes from the clock that is passed in.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable

from remote_gym.transport.direct_socket import ROUTING_ID_BYTES, ROUTING_ID_LIFETIME
from remote_gym.v1 import remote_gym_pb2 as pb

ROUTES_AT_ONCE = 4
"""Ids of one session that are good at the same time; a further one takes the place of the oldest."""


class RoutingIds:
    """The ids that clients have been told, and have not come by yet.

    An id travels before TLS, so that whoever listens on the network reads it: but not before it is used up.

    Args:
        direct: Where direct connections are accepted, routing id aside; None if nowhere.
        clock: Monotonic seconds.
    """

    def __init__(self, direct: pb.DirectAddress | None, clock: Callable[[], float]) -> None:
        self._direct = direct
        self._clock = clock
        self._sessions: dict[bytes, str] = {}
        self._good_until: dict[str, OrderedDict[bytes, float]] = {}  # by session, the oldest id first

    def address(self, session_id: str) -> pb.DirectAddress | None:
        """Where the session's worker can be reached, once, within `ROUTING_ID_LIFETIME`; None if nowhere."""
        if self._direct is None:
            return None
        address = pb.DirectAddress()
        address.CopyFrom(self._direct)
        address.routing_id = secrets.token_bytes(ROUTING_ID_BYTES)
        self._sessions[address.routing_id] = session_id
        routes = self._good_until.setdefault(session_id, OrderedDict())
        routes[address.routing_id] = self._clock() + ROUTING_ID_LIFETIME
        if len(routes) > ROUTES_AT_ONCE:
            oldest, _ = routes.popitem(last=False)
            del self._sessions[oldest]
        return address

    def take(self, routing_id: bytes) -> str | None:
        """The session of an id, which is good no more; None if it was not."""
        session_id = self._sessions.pop(routing_id, None)
        if session_id is None:
            return None
        good_until = self._good_until[session_id].pop(routing_id)
        return session_id if self._clock() < good_until else None

    def forget(self, session_id: str) -> None:
        """Nobody reaches that session any more."""
        for routing_id in self._good_until.pop(session_id, ()):
            del self._sessions[routing_id]
