"""The oracle complains about every kind of wrong, and of nothing else."""

from __future__ import annotations

import pytest

from faults.ledger_environment import checksum, next_chain, observation_of
from faults.oracle import Asked, Executed, judge


def ledger(*actions: str, instance: str = "one") -> list[Executed]:
    return [Executed(instance, number, action) for number, action in enumerate(actions, 1)]


def answered(*actions: str, instance: str = "one") -> list[Asked]:
    """As a client sees it whose actions are executed in this order, and no others."""
    asked, chain = [], 0
    for number, action in enumerate(actions, 1):
        chain = next_chain(chain, action)
        asked.append(Asked(action, "answered", instance, checksum(observation_of(number, chain, 0))))
    return asked


def test_what_was_answered_and_executed_once_is_right():
    verdict = judge(ledger("a", "b", "c"), [answered("a", "b", "c")], {})
    assert verdict.complaints == []
    assert (verdict.executed, verdict.acknowledged) == (3, 3)


@pytest.mark.parametrize("outcome", ["lost", "unknown"])
@pytest.mark.parametrize("executed", [["a", "b"], ["a", "b", "c"]])
def test_last_step_may_be_executed_without_an_answer_or_not_at_all(executed, outcome):
    assert judge(ledger(*executed), [[*answered("a", "b"), Asked("c", outcome)]], {}).complaints == []


def test_missed_answer_is_no_fault_where_the_step_was_executed_once():
    asked = answered("a", "b", "c")
    asked[1] = Asked("b", "missed")
    assert judge(ledger("a", "b", "c"), [asked], {}).complaints == []


def test_new_environment_after_a_loss_begins_anew():
    asked = [*answered("a"), Asked("b", "lost"), *answered("c", "d", instance="two")]
    assert judge([*ledger("a", "b"), *ledger("c", "d", instance="two")], [asked], {}).complaints == []


def test_environment_that_raised_has_executed():
    asked = [*answered("a"), Asked("b", "raised")]
    assert judge(ledger("a", "b"), [asked], {}).complaints == []
    assert judge(ledger("a"), [asked], {}).gaps == ["b was answered and never executed"]


def test_duplicate_is_found():
    verdict = judge(ledger("a", "b", "b", "c"), [answered("a", "b", "c")], {})
    assert verdict.duplicates == ["b was executed 2 times"]


def test_duplicate_in_another_environment_is_found():
    verdict = judge([*ledger("a", "b"), *ledger("b", instance="two")], [answered("a", "b")], {})
    assert verdict.duplicates == ["b was executed 2 times"]


def test_acknowledgement_without_execution_is_found():
    assert judge(ledger("a"), [answered("a", "b")], {}).gaps == ["b was answered and never executed"]


@pytest.mark.parametrize("outcome", ["lost", "missed", "unknown"])
def test_skipped_step_is_found(outcome):
    asked = [*answered("a"), Asked("b", outcome), Asked("c", "raised")]
    assert judge(ledger("a", "c"), [asked], {}).gaps == ["b was skipped by one"]


def test_wrong_order_is_found():
    asked = [Asked(action, "raised", "one") for action in "abc"]
    [complaint] = judge(ledger("a", "c", "b"), [asked], {}).complaints
    assert "another order" in complaint


def test_wrong_result_is_found():
    asked = answered("a", "b")
    asked[1].checksum = asked[0].checksum
    assert judge(ledger("a", "b"), [asked], {}).complaints == [
        "b was answered by another observation than it should",
    ]


def test_answer_to_another_step_is_found():
    """Two clients of one session that use the same number: the second hears the first's answer."""
    asked = answered("a", "b")
    asked[1].action = "x"
    assert "x was answered and never executed" in judge(ledger("a", "b"), [asked], {}).gaps


def test_answer_of_another_environment_is_found():
    verdict = judge([*ledger("a"), *ledger("b", instance="two")], [answered("a", "b")], {})
    assert verdict.complaints == ["b was answered by one, executed by two"]


def test_two_steps_without_acknowledgement_are_found():
    asked = [*answered("a"), Asked("b", "lost"), Asked("c", "lost")]
    [complaint] = judge(ledger("a", "b", "c"), [asked], {}).complaints
    assert "['b', 'c'] without acknowledgement" in complaint


def test_session_that_went_on_after_its_loss_was_told_is_found():
    asked = [*answered("a"), Asked("b", "lost"), Asked("c", "raised", "one")]
    [complaint] = judge(ledger("a", "b", "c"), [asked], {}).complaints
    assert "['b'] without acknowledgement" in complaint


def test_step_that_nobody_asked_for_is_found():
    assert judge(ledger("a", "b"), [answered("a")], {}).complaints == ["b was executed and never asked for"]


def test_ledger_that_skips_a_number_is_found():
    records = [Executed("one", 1, "a"), Executed("one", 3, "b")]
    asked = [Asked("a", "raised"), Asked("b", "raised")]
    assert judge(records, [asked], {}).complaints == ["the ledger of one is numbered [1, 3]"]
