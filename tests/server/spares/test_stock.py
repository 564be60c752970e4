"""The bookkeeping of environments that no session has, without any."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clocks import Clock
from remote_gym.config import Limits
from remote_gym.server.spares import stock
from remote_gym.server.spares.stock import KEEP_SECONDS, LONGEST_PAUSE, Offer, Recipe, Spare, Stock
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.v1 import worker_pb2
from remote_gym.wire.values import encode_value

PLAIN, OTHER = Recipe(environment=""), Recipe(environment="", render_mode="rgb_array")


def numbers() -> Iterator[int]:
    yield from range(1000)


NUMBERS = numbers()


def put(where: Stock[str], recipe: Recipe = PLAIN, identity: str = "", worker: str | None = "there") -> Spare[str]:
    spare = Spare(name="it", recipe=recipe, env_id=next(NUMBERS), identity=identity, worker=worker)
    where.add(spare)
    return spare


def stocked(clock: Clock, most: int = 10, **offers: Offer) -> Stock[str]:
    return Stock({"": Offer(warm=2, reuse=True), **offers}, most, clock)


def encoded(**kwargs: object) -> bytes:
    message = pb.Value()
    encode_value(kwargs, message, strict=True, limits=Limits())
    return message.SerializeToString()


def test_who_sets_no_keyword_argument_asks_for_what_is_made_ahead():
    asked = worker_pb2.Opening(environment="default", entrypoint_kwargs=encoded(), frames=pb.FRAMES_STEP)
    assert Recipe.of("", asked) == Recipe.of("", worker_pb2.Opening()) == PLAIN


@pytest.mark.parametrize(
    "fields",
    [
        {"entrypoint_kwargs": encoded(task=1)},
        {"render_mode": "rgb_array"},
        {"num_envs": 1},
        {"num_envs": 1, "autoreset_mode": pb.SAME_STEP},
    ],
)
def test_a_recipe_says_what_it_was_made_from(fields):
    request = worker_pb2.Opening(**fields)
    recipe = Recipe.of("easy", request)
    assert recipe != Recipe.of("easy", worker_pb2.Opening())
    assert Recipe.of("easy", recipe.request()) == recipe
    assert recipe != Recipe.of("hard", request)


def test_as_many_are_missing_as_are_not_there_or_being_made(clock):
    found = stocked(clock)
    assert found.missing(0, {}) == [PLAIN, PLAIN]
    put(found, worker=None)
    assert found.missing(0, {}) == [PLAIN]
    put(found, OTHER)
    put(found, identity="alice")
    assert found.missing(0, {}) == [PLAIN]
    spare = put(found)
    assert found.missing(0, {}) == []
    spare.is_ending = True
    assert found.missing(0, {}) == [PLAIN]


def test_they_leave_sessions_their_places(clock):
    found = stocked(clock, most=3, hard=Offer(warm=2, most=2))
    assert found.missing(0, {}) == [PLAIN, PLAIN, Recipe(environment="hard")]
    assert found.missing(2, {}) == [PLAIN]
    assert found.missing(3, {}) == []
    assert found.missing(0, {"hard": 2}) == [PLAIN, PLAIN]


def test_few_are_made_at_once(clock):
    found: Stock[str] = Stock({"": Offer(warm=20)}, 100, clock)
    for _ in range(stock.MAKES_AT_ONCE - 1):
        put(found, worker=None)
    assert found.missing(0, {}) == [PLAIN]


def test_one_is_given_to_one_session_and_only_when_it_is_there(clock):
    found = stocked(clock)
    put(found, worker=None)
    assert found.take(PLAIN, "alice") is None
    spare = put(found)
    assert found.take(OTHER, "alice") is None
    assert found.take(PLAIN, "alice") is spare
    assert found.take(PLAIN, "alice") is None


def test_a_kept_one_is_its_clients_alone(clock):
    found = stocked(clock)
    kept = put(found, identity="alice")
    assert found.take(PLAIN, "bob") is None
    assert found.take(PLAIN, "") is None
    ahead = put(found)
    assert found.take(PLAIN, "alice") is kept
    assert found.take(PLAIN, "alice") is ahead


def test_one_that_ends_is_given_to_nobody(clock):
    found = stocked(clock)
    put(found).is_ending = True
    put(found, identity="alice").is_ending = True
    assert found.take(PLAIN, "alice") is None


def test_none_is_kept_of_who_has_no_identity_or_where_it_is_not_asked_for(clock):
    found = stocked(clock, other=Offer(warm=1))
    assert found.keeps("", "alice")
    assert not found.keeps("", "")
    assert not found.keeps("other", "alice")
    assert not found.keeps(None, "alice")


def test_two_in_a_row_say_what_is_made_ahead_beside_the_servers_own(clock):
    found = stocked(clock)
    old, newer = put(found), put(found, worker=None)
    for recipe in (OTHER, PLAIN, OTHER):
        found.opened(recipe, "")
        assert not found.surplus()
    found.opened(OTHER, "")
    assert found.surplus() == [newer]
    newer.is_ending = True
    assert found.missing(0, {}) == [OTHER]
    third = Recipe(environment="", num_envs=2)
    learnt = put(found, OTHER)
    found.opened(third, "")
    found.opened(third, "")
    assert found.surplus() == [learnt]
    assert found.missing(0, {}) == [third]
    assert old not in found.surplus()
    found.opened(Recipe(environment="not made ahead"), "")


def test_of_the_servers_own_form_one_is_made_ahead_whatever_clients_ask_for(clock):
    found: Stock[str] = Stock({"": Offer(warm=1), "many": Offer(warm=4)}, 10, clock)
    for name in ("", "many"):
        for _ in range(3):
            found.opened(Recipe(environment=name, render_mode="rgb_array"), "")
    many, learnt = (Recipe(environment="many", render_mode=mode) for mode in ("", "rgb_array"))
    assert found.missing(0, {}) == [PLAIN, many, learnt, learnt]  # as many as are made at once
    assert found.missing(8, {}) == [PLAIN, many]


def test_one_client_of_several_says_nothing_of_what_is_made_ahead(clock):
    found = stocked(clock)
    found.opened(PLAIN, "bob")
    for _ in range(3):
        found.opened(OTHER, "alice")
    assert found.missing(0, {}) == [PLAIN, PLAIN]
    found.opened(OTHER, "bob")
    assert found.missing(0, {}) == [PLAIN, OTHER]


def test_what_one_client_alone_has_asked_for_is_forgotten_when_another_asks_for_something_else(clock):
    found, same = stocked(clock), stocked(clock)
    for each in (found, same):
        each.opened(OTHER, "alice")
        each.opened(OTHER, "alice")
        assert each.missing(0, {}) == [PLAIN, OTHER]
    found.opened(PLAIN, "bob")
    assert found.missing(0, {}) == [PLAIN, PLAIN]
    same.opened(OTHER, "bob")
    assert same.missing(0, {}) == [PLAIN, OTHER]
    same.opened(PLAIN, "bob")
    assert same.missing(0, {}) == [PLAIN, OTHER]


def test_what_clients_ask_for_fails_by_itself(clock):
    found = stocked(clock)
    found.opened(OTHER, "")
    found.opened(OTHER, "")
    assert found.failed(OTHER)
    assert found.missing(0, {}) == [PLAIN]
    found.give_up(OTHER)
    assert found.missing(0, {}) == [PLAIN, PLAIN]


def test_a_kept_one_goes_after_a_while(clock):
    found = stocked(clock)
    kept = put(found, identity="alice")
    assert found.next_change() == KEEP_SECONDS
    clock.now += KEEP_SECONDS - 1
    assert not found.surplus()
    clock.now += 1
    assert found.surplus() == [kept]


def test_of_too_many_kept_ones_the_oldest_go(clock, monkeypatch):
    monkeypatch.setattr(stock, "MOST_KEPT", 2)
    found = stocked(clock)
    spares = [put(found, identity=name) for name in ("alice", "bob", "alice")]
    assert found.surplus() == spares[:1]


def test_one_client_does_not_fill_what_is_kept(clock, monkeypatch):
    monkeypatch.setattr(stock, "MOST_KEPT_OF_ONE", 2)
    found = stocked(clock)
    spares = [put(found, identity=name) for name in ("alice", "bob", "alice", "alice", "alice")]
    assert found.surplus() == [spares[0], spares[2]]


def test_kept_ones_are_in_the_way_before_those_made_ahead_and_the_servers_own_form_last(clock):
    found = stocked(clock, most=5)
    ahead, learnt = put(found), put(found, OTHER)
    first, second = put(found, identity="alice"), put(found, identity="bob")
    assert found.in_the_way("", 1, {"": 1}) == []
    assert found.in_the_way("", 2, {"": 2}) == [first]
    assert found.in_the_way(None, 4, {}) == [first, second, learnt]
    assert found.in_the_way(None, 5, {}) == [first, second, learnt, ahead]


def test_those_that_end_are_waited_for_and_not_ended_again(clock):
    found = stocked(clock, most=2)
    first, second = put(found), put(found)
    assert found.in_the_way("", 1, {"": 1}) == [first]
    first.is_ending = True
    assert found.in_the_way("", 1, {"": 1}) == []
    assert found.is_crowded("", 1, {"": 1})
    found.remove(first)
    assert not found.is_crowded("", 1, {"": 1})
    assert len(found) == 1
    assert list(found) == [second]


def test_an_environments_own_bound_has_its_own_go(clock):
    easy, hard = Recipe(environment="easy"), Recipe(environment="hard")
    found = stocked(clock, easy=Offer(warm=1, most=2), hard=Offer(warm=1))
    others = put(found, hard)
    own = put(found, easy)
    assert found.in_the_way("easy", 2, {"easy": 2}) == [own]
    assert found.is_crowded("easy", 2, {"easy": 2})
    assert not found.is_crowded("hard", 2, {"easy": 2})
    assert others not in found.in_the_way("easy", 2, {"easy": 2})


def test_after_failures_it_waits_longer_and_longer_until_one_is_used(clock):
    found = stocked(clock)
    pauses = []
    for expected in (True, *[False] * 9):
        assert found.failed(PLAIN) is expected
        assert found.missing(0, {}) == []
        pause = found.next_change()
        assert pause is not None
        pauses.append(pause)
        clock.now += pause
        assert found.missing(0, {}) == [PLAIN, PLAIN]
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert pauses[-1] == LONGEST_PAUSE
    put(found)
    found.take(PLAIN, "")
    assert found.failed(PLAIN) is True
    assert found.next_change() == 1.0


def test_a_failure_of_what_nobody_asks_for_any_more_counts_for_nothing(clock):
    found = stocked(clock)
    assert not found.failed(OTHER)
    assert found.missing(0, {}) == [PLAIN, PLAIN]


def test_what_clients_have_to_say_more_of_is_not_made_until_they_have(clock):
    found = stocked(clock)
    found.tried("", None)
    assert found.missing(0, {}) == []
    found.opened(OTHER, "")
    found.opened(OTHER, "")
    assert found.missing(0, {}) == [OTHER, OTHER]
    found.tried("nothing of that name", None)
