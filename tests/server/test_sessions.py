from __future__ import annotations

import pytest

from clocks import Clock
from remote_gym.errors import NotPermitted, OutOfSequence, ServerFull, SessionLost
from remote_gym.server.sessions import MAX_WAITING, REMEMBERED, Sessions


@pytest.fixture
def sessions(clock: Clock) -> Sessions:
    return Sessions(max_sessions=3, lease=60.0, clock=clock)


def test_a_session_is_found_by_its_id_token_and_owner(sessions):
    session = sessions.open("alice")
    assert sessions.find(session.id, session.token, "alice") is session


def test_an_unknown_session_is_lost(sessions):
    with pytest.raises(SessionLost, match="no such session"):
        sessions.find("nobody", "token", "alice")


@pytest.mark.parametrize("token", ["", "x", "ü", "\udcff"])
def test_a_wrong_token_is_refused(sessions, token):
    session = sessions.open("alice")
    with pytest.raises(NotPermitted, match="token"):
        sessions.find(session.id, token, "alice")


def test_another_identity_is_refused_even_with_the_token(sessions):
    session = sessions.open("alice")
    with pytest.raises(NotPermitted, match="'mallory'"):
        sessions.find(session.id, session.token, "mallory")


def test_a_token_does_not_show_in_the_repr(sessions):
    session = sessions.open("alice")
    assert session.token not in repr(session)


def test_one_more_than_max_sessions_is_refused_until_an_environment_is_gone(sessions):
    first, _, _ = (sessions.open("alice") for _ in range(3))
    with pytest.raises(ServerFull, match="3 sessions, and 0 more are closing"):
        sessions.open("alice")
    sessions.end(first, "closed")
    with pytest.raises(ServerFull, match="2 sessions, and 1 more are closing"):
        sessions.open("alice")
    sessions.release(first)
    sessions.open("alice")
    assert len(sessions) == 3


def test_several_environments_have_env_ids_in_a_row_which_end_together(sessions):
    first, vector, last = sessions.open("alice"), sessions.open("alice", 3), sessions.open("alice")
    assert [each.env_id for each in (first, vector, last)] == [0, 1, 4]
    sessions.end(first, "closed")
    sessions.release(first)
    assert sessions.open("alice", 2).env_id == 5
    sessions.end(vector, "closed")
    sessions.release(vector)
    assert sessions.open("alice", 4).env_id == 0


def test_env_ids_are_the_lowest_free_and_wait_for_the_old_environment(sessions):
    zero, one = sessions.open("alice"), sessions.open("alice")
    assert (zero.env_id, one.env_id) == (0, 1)
    sessions.end(zero, "closed")
    assert sessions.open("alice").env_id == 2
    sessions.release(zero)
    assert sessions.open("alice").env_id == 0


def test_a_session_that_nobody_uses_expires_after_its_lease(sessions, clock):
    session = sessions.open("alice")
    clock.now += 59.9
    assert sessions.expired() == []
    clock.now += 0.1
    assert sessions.expired() == [session]


def test_the_lease_stands_still_while_somebody_uses_the_session(sessions, clock):
    session = sessions.open("alice")
    sessions.enter(session)
    sessions.attach(session)
    clock.now += 1000
    sessions.leave(session)
    assert sessions.expired() == []
    sessions.leave(session)
    assert sessions.expired() == []
    clock.now += 60
    assert sessions.expired() == [session]


def test_a_newer_attachment_cuts_off_the_older(sessions):
    session = sessions.open("alice")
    older = sessions.attach(session)
    newer = sessions.attach(session)
    sessions.check_epoch(session, newer)
    with pytest.raises(OutOfSequence, match="newer connection"):
        sessions.check_epoch(session, older)


def test_what_asks_of_an_ended_session_is_told_why_it_ended(sessions):
    session = sessions.open("alice")
    epoch = sessions.attach(session)
    assert sessions.end(session, "its worker was ended by SIGKILL")
    with pytest.raises(SessionLost, match="SIGKILL"):
        sessions.check_epoch(session, epoch)
    with pytest.raises(SessionLost, match="SIGKILL"):
        sessions.find(session.id, session.token, "alice")


@pytest.mark.parametrize(("token", "identity"), [("x", "alice"), ("", ""), (None, "mallory")])
def test_strangers_are_told_of_an_ended_session_what_they_were_told_while_it_was_open(sessions, token, identity):
    session = sessions.open("alice")
    told = []
    for _ in range(2):
        with pytest.raises(NotPermitted) as refused:
            sessions.find(session.id, session.token if token is None else token, identity)
        told.append(str(refused.value))
        sessions.end(session, "what its environment said")
    assert told[0] == told[1]


def test_the_token_of_an_ended_session_does_not_show_in_the_repr(sessions):
    session = sessions.open("alice")
    sessions.end(session, "first")
    assert session.token not in repr(sessions._ended)


def test_a_session_ends_once(sessions):
    session = sessions.open("alice")
    assert sessions.end(session, "first")
    assert not sessions.end(session, "second")
    with pytest.raises(SessionLost, match="first"):
        sessions.find(session.id, session.token, "alice")


def test_memory_of_ended_sessions_is_bounded(clock):
    sessions = Sessions(max_sessions=1, lease=60.0, clock=clock)
    first = sessions.open("alice")
    sessions.end(first, "long ago")
    sessions.release(first)
    for _ in range(REMEMBERED):
        session = sessions.open("alice")
        sessions.end(session, "recently")
        sessions.release(session)
    with pytest.raises(SessionLost, match="no such session"):
        sessions.find(first.id, first.token, "alice")


def test_who_waits_gets_a_place_in_turn_and_is_not_overtaken(sessions):
    held = [sessions.open("alice") for _ in range(3)]
    first, second = sessions.wait(), sessions.wait()
    assert sessions.waiting == 2
    assert not sessions.has_place(first)
    with pytest.raises(ServerFull, match="2 clients wait"):
        sessions.open("bob")
    sessions.end(held[0], "closed")
    sessions.release(held[0])
    assert sessions.has_place(first)
    assert not sessions.has_place(second)
    assert not sessions.has_place()
    sessions.open("bob", turn=first)
    sessions.stop_waiting(first)
    assert not sessions.has_place(second)


def test_who_gives_up_waiting_makes_way_for_the_next(sessions):
    held = [sessions.open("alice") for _ in range(3)]
    first, second = sessions.wait(), sessions.wait()
    sessions.end(held[0], "closed")
    sessions.release(held[0])
    sessions.stop_waiting(first)
    assert sessions.has_place(second)
    sessions.stop_waiting(second)
    assert sessions.has_place()


def test_the_queue_is_bounded(sessions):
    for _ in range(MAX_WAITING):
        sessions.wait()
    with pytest.raises(ServerFull, match=f"{MAX_WAITING} clients wait"):
        sessions.wait()


def test_a_lease_is_counted_from_the_last_sign_of_life(sessions, clock):
    session = sessions.open("alice")
    sessions.enter(session)
    clock.now += 1000.0
    sessions.leave(session, silence=8.0)
    clock.now += 51.9
    assert sessions.expired() == []
    clock.now += 0.1
    assert sessions.expired() == [session]


def test_a_silent_client_does_not_shorten_the_lease_of_one_that_left_later(sessions, clock):
    session = sessions.open("alice")
    sessions.enter(session)
    sessions.enter(session)
    clock.now += 10.0
    sessions.leave(session)
    sessions.leave(session, silence=8.0)
    clock.now += 59.9
    assert sessions.expired() == []
