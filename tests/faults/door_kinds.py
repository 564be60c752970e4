"""Faults of a server's doors: whoever is let in is shut out while he steps, and let in again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from faults.kinds import Lane, Unexpected
from faults.serving import PATIENCE, Server
from remote_gym import NotPermitted, SessionLost
from waiting import wait_until


def revoke_token(server: Server, lanes: Sequence[Lane]) -> None:
    """One client's token is deleted, and written down again later: it is shut out meanwhile, and others are not."""
    _shut_out_each(server, lanes, server.doors.revoke, server.doors.give_back, NotPermitted)


def withdraw_policy(server: Server, lanes: Sequence[Lane]) -> None:
    """The policy names one client no more, and then again: its environment ends, and it opens no other meanwhile."""
    names = [lane.connection for lane in lanes]

    def withdraw(name: str) -> None:
        server.doors.allow(*(other for other in names if other != name))

    _shut_out_each(server, lanes, withdraw, lambda: server.doors.allow(*names), SessionLost)


def _shut_out_each(
    server: Server,
    lanes: Sequence[Lane],
    shut_out: Callable[[str], None],
    let_in: Callable[[], None],
    told_by: type[Exception],
) -> None:
    for lane in lanes:
        others = [other for other in lanes if other is not lane]
        shut_out(lane.connection)
        try:
            _play_until(lane, others, lambda lane=lane: lane.expect("answered", "lost") == "lost")
            _see(lane, told_by)
            lane.check(lane.player.reset(), ("lost",))
            _see(lane, NotPermitted)
            for other in others:
                other.expect("answered")
        finally:
            let_in()
        before = lane.player.instance
        _play_until(lane, others, lambda lane=lane: lane.check(lane.player.reset(), ("answered", "lost")) == "answered")
        if lane.player.instance == before:
            raise Unexpected("the environment of who was shut out is the old one")


def _play_until(lane: Lane, others: Sequence[Lane], condition: Callable[[], bool]) -> None:
    def holds() -> bool:
        for other in others:
            other.expect("answered")
        return condition()

    try:
        wait_until(holds, PATIENCE)
    except AssertionError as error:
        raise Unexpected(f"the {lane.connection} client is not shut out, or not let in again: {error}") from error


def _see(lane: Lane, kind: type[Exception]) -> None:
    if not isinstance(lane.player.error, kind):
        raise Unexpected(f"{lane.player.error!r} instead of {kind.__name__}")


def rewrite_tokens(server: Server, lanes: Sequence[Lane]) -> None:
    """The file of tokens is empty for a moment, and nobody is shut out who does not come just then."""
    for _ in range(10):
        server.doors.rewrite_tokens()
        for lane in lanes:
            lane.expect("answered")


def break_policy(server: Server, lanes: Sequence[Lane]) -> None:
    """The policy becomes one that is none, which changes nothing, and then one that is."""
    told = server.stderr.read_text().count(_STAYS)
    server.doors.break_policy()
    try:
        _play_until(lanes[0], lanes, lambda: server.stderr.read_text().count(_STAYS) > told)
        for lane in lanes:
            lane.player.close()
            lane.begin_anew()
    finally:
        server.doors.allow(*(lane.connection for lane in lanes))


_STAYS = "what was loaded before stays in use"
