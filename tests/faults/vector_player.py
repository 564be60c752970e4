"""A client of a vector environment, each of whose environments is held to account by itself."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from faults.ledger_environment import ACTION_WORDS, NUMBER_OF, checksum, observation_of
from faults.player import Journal
from remote_gym import (
    DeadlineExceeded,
    RemoteEnvironmentError,
    RemoteGymError,
    RemoteVectorEnv,
    SessionError,
    TransportError,
)

WORKERS = 2
SIZE = 2
"""Environments of each worker."""
COUNT = WORKERS * SIZE


class WronglyTold(Exception):
    """The vector environment returned what it should not have."""


class VectorPlayer:
    """Plays one vector environment after another, as `Player` does a single one.

    A step's behaviour is that of one environment, the *victim*, the last of its worker, so that those beside it have
    stepped before it; the outcome is that of whatever failed. Steps are taken by `step` and by `send` and `recv`, and
    resets are of all, of some, and, where that resets what was lost, by a step.

    Args:
        name: Begins the numbers of its actions, which so are unique.
        journals: One for each environment.
        seed: Of its actions' payloads, and of its other choices.
        padding: Of the environments' observations.
        environment: What `RemoteVectorEnv` takes.
    """

    def __init__(self, name: int, journals: Sequence[Journal], seed: int, padding: int, **environment: Any) -> None:
        self._counter = name * 1_000_000
        self._journals = journals
        self._random = random.Random(seed)
        self._arguments = {"num_envs": COUNT, "workers": WORKERS, **environment}
        self._resets_by_steps = (
            environment.get("on_session_lost") == "truncate" and environment.get("autoreset_mode") == "NextStep"
        )
        self._first = checksum(observation_of(0, 0, padding))
        self.error: Exception | None = None
        """Of the last operation, if it raised, or told of a loss in its place."""
        self.environment: RemoteVectorEnv | None = None
        self._victim = SIZE - 1
        self._forget()

    def _forget(self) -> None:
        self._instances: list[str | None] = [None] * COUNT
        self._pids = [0] * COUNT
        self._seen = [0] * COUNT  # checksums of the newest observations
        self._asked = [""] * COUNT  # the last actions
        self._unseen: set[int] = set()  # those that have stepped, and whose observation is still to be returned
        self._failed: set[int] = set()  # those that only a reset brings back
        self._ended: set[int] = set()  # those that the next step resets

    @property
    def instance(self) -> str | None:
        """Of the victim."""
        return self._instances[self._victim]

    @property
    def pid(self) -> int:
        """Of the victim's worker."""
        return self._pids[self._victim]

    def set_patience(self, seconds: float) -> float:
        """Change how long steps may take from now on. Returns what it was."""
        assert self.environment is not None
        before = self.environment._options
        self.environment._options = dataclasses.replace(before, step_timeout=seconds)
        return before.step_timeout

    def reset(self) -> str:
        """Reset some of them, and all that have failed, on new sessions where there are none. Returns the outcome."""
        if self.environment is None:
            self._forget()
            try:
                self.environment = RemoteVectorEnv(**self._arguments)
            except (SessionError, TransportError) as error:
                self.error = error
                return "lost"
            return self._reset(range(COUNT))
        if self._ended and not self._failed and self._random.random() < 0.5:
            return self.step()
        if lost := self._failed | self._ended:
            return self._reset(lost if self._random.random() < 0.5 else range(COUNT))
        self._victim = self._random.randrange(WORKERS) * SIZE + SIZE - 1
        return self._reset(self._random.sample(range(COUNT), self._random.randrange(1, COUNT + 1)))

    def begin_all_anew(self) -> None:
        """Reset until all are reset, where a server has ended, and see that they are others.

        Raises:
            WronglyTold: If they are not, or cannot be reset.
        """
        before = set(self._instances)
        # The loss of each worker may be found by a reset of its own.
        outcomes = [self._reset(range(COUNT)) for _ in range(WORKERS + 1)]
        if outcomes[-1] != "answered":
            raise WronglyTold(f"resets, one after another, were {outcomes}: {self.error!r}")
        if before & set(self._instances):
            raise WronglyTold("an environment of the server that ended is still there")

    def step(self, behaviour: str = "step") -> str:
        """Step once, after a reset of those whose environment raised. Returns the outcome, as `Asked` has it."""
        if self._failed and (outcome := self._reset(self._failed)) != "answered":
            return outcome
        environment = self.environment
        assert environment is not None
        actions = np.zeros((COUNT, ACTION_WORDS), np.int64)
        for index in range(COUNT):
            self._counter += 1
            actions[index, :2] = self._counter, self._random.randrange(2**62)
            if index not in self._ended:
                self._ask(index, f"{actions[index, 0]}-{actions[index, 1]}")
        actions[self._victim, 2] = NUMBER_OF[behaviour]
        self.error = None
        if self._random.random() < 0.5:
            return self._have(range(COUNT), lambda: environment.step(actions))
        environment.send(actions)
        outcomes, missing = [], set(range(COUNT))
        while missing:
            arrived = self._receive(environment, outcomes)
            if not arrived or not arrived <= missing:
                raise WronglyTold(f"recv returned {arrived} where {missing} were missing")
            missing -= arrived
        return max(outcomes, key=_SEVERITY.index)

    def close(self) -> None:
        if self.environment is not None:
            self.environment.close()
            self.environment = None

    def _reset(self, some: Iterable[int]) -> str:
        environment = self.environment
        assert environment is not None
        chosen = sorted(some)
        self.error = None
        payload = self._random.randrange(2**62)
        seeds = list(range(self._counter + 1, self._counter + COUNT + 1))
        self._counter += COUNT
        for index in chosen:
            self._ask(index, f"{seeds[index]}-{payload}")
            self._instances[index] = None if index in self._failed | self._ended else self._instances[index]
        self._failed.difference_update(chosen)
        self._ended.difference_update(chosen)
        options: dict[str, Any] = {"action": str(payload)}
        if len(chosen) < COUNT:
            options["reset_mask"] = np.isin(np.arange(COUNT), chosen)
        return self._have(chosen, lambda: environment.reset(seed=seeds, options=options))

    def _ask(self, index: int, action: str) -> None:
        self._asked[index] = action
        self._unseen.discard(index)
        self._journals[index].note(action=action)

    def _have(self, asked: Iterable[int], ask: Callable[[], tuple[Any, ...]]) -> str:
        """Ask all at once, and note what came of it for each of those that were asked."""
        try:
            observations, *flags, infos = ask()
        except (RemoteEnvironmentError, DeadlineExceeded, SessionError, TransportError) as error:
            outcome, failed = self._fail(error)
            for index in set(asked) - failed - self._ended:
                self._journals[index].note(action=self._asked[index], outcome="answered")
                self._unseen.add(index)
            for index in self._ended & set(asked):  # the step has reset it
                self._instances[index], self._seen[index] = None, self._first
            self._ended.difference_update(asked)
            return outcome
        asked = set(asked)
        outcomes = [
            self._answered(index, observations[index], flags, infos, index)
            if index in asked
            else self._unchanged(index, observations[index])
            for index in range(COUNT)
        ]
        return max(outcomes, key=_SEVERITY.index)

    def _receive(self, environment: RemoteVectorEnv, outcomes: list[str]) -> set[int]:
        """Have what has arrived. Returns of whom."""
        try:
            observations, *flags, infos = environment.recv()
        except (RemoteEnvironmentError, DeadlineExceeded, SessionError, TransportError) as error:
            outcome, failed = self._fail(error)
            outcomes.append(outcome)
            return failed
        indices: list[int] = infos["env_id"].tolist()
        outcomes += [self._answered(index, observations[row], flags, infos, row) for row, index in enumerate(indices)]
        return set(indices)

    def _fail(self, error: RemoteGymError) -> tuple[str, set[int]]:
        """Note whom an error names. Returns what it is, and who they are."""
        outcome = "lost"
        if isinstance(error, RemoteEnvironmentError):
            outcome = "raised"
        elif isinstance(error, DeadlineExceeded):
            outcome = "missed"
        self.error = error
        failed = set(error.environments)
        if not failed or any({index // SIZE * SIZE + other for other in range(SIZE)} - failed for index in failed):
            raise WronglyTold(f"an error names environments {sorted(failed)}, not those of workers") from error
        for index in failed - self._ended:
            self._journals[index].note(action=self._asked[index], outcome=outcome)
        self._failed |= failed
        self._ended -= failed
        return outcome, failed

    def _answered(self, index: int, observation: Any, flags: list[Any], infos: dict[str, Any], row: int) -> str:
        """Note what one was answered, in that row of all that was returned. Returns the outcome."""
        sum_of_all = checksum(observation)
        told_of_loss = "_remote_gym" in infos and infos["_remote_gym"][row]
        if flags and told_of_loss:
            self.error = SessionError(infos["remote_gym"]["session_lost"][row])
            if sum_of_all != self._seen[index] or not flags[2][row] or flags[0][row]:
                raise WronglyTold(f"environment {index} was lost, and does not end by its last observation")
            self._journals[index].note(action=self._asked[index], outcome="lost")
            self._lose(index)
            return "lost"
        instance, known = infos["instance"][row], self._instances[index]
        if index in self._ended:  # and this step has reset it, whatever its action was
            if sum_of_all != self._first or instance == known:
                raise WronglyTold(f"environment {index} was lost, and is not a new one after the next step")
            self._ended.discard(index)
        else:
            if known not in (None, instance) and not told_of_loss:
                raise WronglyTold(f"environment {index} is {instance}, and nobody told that {known} is gone")
            self._journals[index].note(
                action=self._asked[index], outcome="answered", instance=instance, checksum=sum_of_all
            )
        self._instances[index], self._pids[index], self._seen[index] = instance, int(infos["pid"][row]), sum_of_all
        return "answered"

    def _lose(self, index: int) -> None:
        (self._ended if self._resets_by_steps else self._failed).add(index)

    def _unchanged(self, index: int, observation: Any) -> str:
        """Hold what one is shown that was not asked against what it observed last. Returns the outcome: nothing."""
        sum_of_all = checksum(observation)
        if index in self._unseen:
            self._journals[index].note(
                action=self._asked[index], outcome="answered", instance=self._instances[index], checksum=sum_of_all
            )
            self._unseen.discard(index)
            self._seen[index] = sum_of_all
        elif sum_of_all != self._seen[index]:
            raise WronglyTold(f"environment {index} was not reset, and has another observation")
        return "answered"


_SEVERITY = ("answered", "raised", "missed", "lost")
"""Outcomes, that of all being the one that comes last here."""
