"""Whether what environments executed is what their clients asked for, and were told.

Pure: it compares two lists of records. Actions are unique, so that each can be followed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from faults.ledger_environment import checksum, next_chain, observation_of


@dataclass(frozen=True)
class Executed:
    """A line of the ledger: an environment did this.

    Attributes:
        instance: Of the environment.
        number: Of the operation, as the environment counts its own, from 1.
        action: Which.
    """

    instance: str
    number: int
    action: str


@dataclass
class Asked:
    """What one client asked for, and what came of it.

    Attributes:
        action: Which.
        outcome: ``"answered"``; ``"raised"`` if the answer was the environment's error; ``"missed"`` if the client gave
            up waiting, and would go on with the same environment; ``"lost"`` if it was told that the session is gone;
            ``"unknown"`` if it never learned, since it was killed.
        instance: Of the environment that answered.
        checksum: Of the observation that came.
    """

    action: str
    outcome: str = "unknown"
    instance: str | None = None
    checksum: int | None = None


@dataclass
class Verdict:
    """What is wrong, by kind, a sentence each; and how much was compared."""

    executed: int = 0
    acknowledged: int = 0
    duplicates: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)

    @property
    def complaints(self) -> list[str]:
        return [*self.duplicates, *self.gaps, *self.others]


ANSWERS = ("answered", "raised")


def judge(ledger: Iterable[Executed], clients: Iterable[list[Asked]], padding: dict[str, int]) -> Verdict:
    """Compare.

    Args:
        ledger: In the order in which it was written.
        clients: What each client asked, in its order. One that took over another's session goes on with its list.
        padding: Of each instance's observations, where it has some.
    """
    ledger = list(ledger)
    verdict = Verdict(executed=len(ledger))
    for action, count in Counter(executed.action for executed in ledger).items():
        if count > 1:
            verdict.duplicates.append(f"{action} was executed {count} times")
    instances: dict[str, list[Executed]] = {}
    for executed in ledger:
        instances.setdefault(executed.instance, []).append(executed)
    _check_numbers(instances, verdict)
    right = _right_checksums(instances, padding)
    where = {executed.action: executed.instance for executed in ledger}
    asked_by_all: set[str] = set()
    for asked in clients:
        asked_by_all.update(each.action for each in asked)
        verdict.acknowledged += sum(each.outcome in ANSWERS for each in asked)
        _check_answers(asked, where, right, verdict)
        _check_order(asked, instances, where, verdict)
    verdict.others += [f"{action} was executed and never asked for" for action in where if action not in asked_by_all]
    return verdict


def _check_numbers(instances: dict[str, list[Executed]], verdict: Verdict) -> None:
    for instance, executed in instances.items():
        numbers = [each.number for each in executed]
        if numbers != list(range(1, len(numbers) + 1)):
            verdict.others.append(f"the ledger of {instance} is numbered {numbers[:20]}")


def _right_checksums(instances: dict[str, list[Executed]], padding: dict[str, int]) -> dict[str, int]:
    right = {}
    for instance, executed in instances.items():
        chain = 0
        for number, each in enumerate(executed, 1):
            chain = next_chain(chain, each.action)
            right[each.action] = checksum(observation_of(number, chain, padding.get(instance, 0)))
    return right


def _check_answers(asked: list[Asked], where: dict[str, str], right: dict[str, int], verdict: Verdict) -> None:
    for each in asked:
        if each.outcome not in ANSWERS:
            continue
        if each.action not in where:
            verdict.gaps.append(f"{each.action} was answered and never executed")
        elif each.instance is not None and each.instance != where[each.action]:
            verdict.others.append(f"{each.action} was answered by {each.instance}, executed by {where[each.action]}")
        elif each.checksum is not None and each.checksum != right[each.action]:
            verdict.others.append(f"{each.action} was answered by another observation than it should")


def _check_order(
    asked: list[Asked], instances: dict[str, list[Executed]], where: dict[str, str], verdict: Verdict
) -> None:
    """Each instance executed a stretch of what its client asked: all of it, in order, but for the last at most."""
    position = {each.action: index for index, each in enumerate(asked)}
    of_this_client = {where[action]: None for action in position if action in where}
    for instance in of_this_client:
        order = [position[each.action] for each in instances[instance] if each.action in position]
        if order != sorted(order):
            verdict.others.append(f"{instance} executed in another order than was asked: {order[:20]}")
            continue
        first, last = order[0], order[-1]
        skipped = sorted(set(range(first, last + 1)) - set(order))
        verdict.gaps += [f"{asked[index].action} was skipped by {instance}" for index in skipped]
        unacknowledged = [index for index in order if asked[index].outcome in ("lost", "unknown")]
        if len(unacknowledged) > 1 or unacknowledged not in ([], [last]):
            actions = [asked[index].action for index in unacknowledged]
            verdict.others.append(f"{instance} executed {actions} without acknowledgement, and went on")
