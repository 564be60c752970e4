"""A client that notes what it asks for before it asks, and what came of it.

As a program, it plays until it is killed, or takes over a session from one that was: what it needs for that it reads
from the file that the other wrote.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from awaited import Awaited
from faults.ledger_environment import NUMBER_OF, checksum
from faults.oracle import ANSWERS, Asked
from remote_gym import (
    DeadlineExceeded,
    RemoteEnvironment,
    RemoteEnvironmentError,
    SessionError,
    SessionTicket,
    TransportError,
)


class Journal:
    """A client's list of what it asked, kept in a file so that it outlives the client."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def note(self, **record: Any) -> None:
        # Opened each time: a player that failed leaves no descriptor behind.
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def records(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        # The last line may lack its end, if its writer was killed.
        return [json.loads(line) for line in self.path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def asked(self) -> list[Asked]:
        """What was asked, each action once, with its last outcome."""
        found: dict[str, Asked] = {}
        for record in self.records():
            if "action" in record:
                found[record["action"]] = Asked(**record)
        return list(found.values())


class Player:
    """Plays one environment after another.

    Args:
        name: Begins the numbers of its actions, which so are unique.
        journal: Its file.
        seed: Of its actions' payloads.
        environment: What `RemoteEnvironment` takes.
    """

    def __init__(self, name: int, journal: Journal, seed: int, **environment: Any) -> None:
        self._counter = name * 1_000_000
        self._journal = journal
        self._random = random.Random(seed)
        self._arguments = environment
        self.error: Exception | None = None
        """Of the last operation, if it raised."""
        self.instance: str | None = None
        self.pid = 0
        """Of the worker."""
        self.environment: Any = None

    def _open(self, **arguments: Any) -> Any:
        return RemoteEnvironment(**arguments)

    def set_patience(self, seconds: float) -> float:
        """Change how long steps may take from now on. Returns what it was."""
        assert self.environment is not None
        patient: Any = self.environment.awaited if isinstance(self.environment, Awaited) else self.environment
        before = patient._options
        patient._options = dataclasses.replace(before, step_timeout=seconds, close_timeout=min(seconds, 5.0))
        seconds_before: float = before.step_timeout
        return seconds_before

    def reset(self) -> str:
        """Reset, on a new session if there is none. Returns the outcome."""
        if self.environment is None:
            try:
                self.environment = self._open(**self._arguments)
            except (SessionError, TransportError) as error:
                self.error = error
                return "lost"
        environment, action = self.environment, self._next_action()
        return self._note(
            f"{action[0]}-{action[1]}", lambda: environment.reset(options={"action": f"{action[0]}-{action[1]}"})
        )

    def resume(self, ticket: SessionTicket, asked: list[Asked]) -> None:
        """Go on where another process ended, which took the ticket after its first request.

        Args:
            ticket: Of the environment.
            asked: By the other.
        """
        self.environment = environment = self._open(**self._arguments, resume=ticket)
        resumed = environment.resumed
        assert resumed is not None
        known = sum(each.outcome in ANSWERS for each in asked)
        executed = ticket.answered + resumed.executed
        assert known <= executed <= len(asked), f"{executed} were executed, of {len(asked)} asked, {known} answered"
        if known == len(asked):
            return
        # Nobody knew whether the last was executed, and now one does.
        last = asked[-1].action
        if executed == known:
            words = [int(word) for word in last.split("-")]
            self._note(last, lambda: environment.step(np.array([*words, 0], np.int64)))
        else:
            self._note(last, lambda: resumed.returned)

    def step(self, behaviour: str = "step") -> str:
        """Step once. Returns the outcome, as `Asked` has it."""
        environment, action = self.environment, self._next_action()
        assert environment is not None
        action[2] = NUMBER_OF[behaviour]
        return self._note(f"{action[0]}-{action[1]}", lambda: environment.step(action))

    def close(self) -> None:
        if self.environment is not None:
            self.environment.close()
            self.environment = None

    def _next_action(self) -> Any:
        self._counter += 1
        return np.array([self._counter, self._random.randrange(2**62), 0], np.int64)

    def _note(self, action: str, ask: Callable[[], tuple[Any, ...]]) -> str:
        self.error = None
        self._journal.note(action=action)
        outcome, instance, sum_of_all = "answered", None, None
        try:
            observation, *_, info = ask()
            instance, sum_of_all = info["instance"], checksum(observation)
            self.instance, self.pid = instance, info["pid"]
        except RemoteEnvironmentError as error:
            outcome, self.error = "raised", error
        except DeadlineExceeded as error:
            outcome, self.error = "missed", error
        except (SessionError, TransportError) as error:
            outcome, self.error = "lost", error
        self._journal.note(action=action, outcome=outcome, instance=instance, checksum=sum_of_all)
        return outcome


class AwaitingPlayer(Player):
    """A player whose environment is asynchronous, in an event loop of its own."""

    def _open(self, **arguments: Any) -> Any:
        return Awaited(**arguments)


class Program:
    """A player in a process of its own."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._journal = Journal(Path(settings["journal"]))
        self._ticket = Path(settings["ticket"])
        self._player = Player(settings["name"], self._journal, settings["seed"], **settings["environment"])

    def play(self) -> None:
        """Step until killed."""
        assert self._player.reset() == "answered"
        assert self._player.environment is not None
        self._ticket.write_text(json.dumps(dataclasses.asdict(self._player.environment.ticket)))
        while True:
            assert self._player.step() == "answered", self._player.error

    def take_over(self, steps: int) -> None:
        """Go on where another process ended, under the number that it had reached."""
        asked = self._journal.asked()
        player = self._player
        player.resume(SessionTicket(**json.loads(self._ticket.read_text())), asked)
        player._counter = max(int(each.action.split("-")[0]) for each in asked)
        for _ in range(steps):
            assert player.step() == "answered", player.error
        player.close()


if __name__ == "__main__":
    program = Program(json.loads(sys.argv[1]))
    if sys.argv[2] == "play":
        program.play()
    else:
        program.take_over(int(sys.argv[2]))
