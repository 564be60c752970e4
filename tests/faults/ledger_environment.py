"""An entrypoint whose environment writes down all that it does, before it does anything else.

One line of JSON for each operation, by a single write to a file opened for appending, so that lines of several
processes do not mix and one that was killed has written all or nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import json
import os
import secrets
import signal
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces

ACTION_WORDS = 3
"""(counter, payload, behaviour): the first two make an action unique."""


class OddError(BaseException):
    """Not even an `Exception`."""


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class FatallyUnprintableError(Exception):
    def __str__(self) -> str:
        raise OddError("nor for you")


class InterruptingError(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


class NotATextError(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]


def _raise(error: BaseException) -> Callable[[], NoReturn]:
    def raise_it() -> NoReturn:
        raise error

    return raise_it


def _recurse() -> None:
    _recurse()


def _raise_circle() -> NoReturn:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def _fill_disk() -> None:
    # Always as full as a disk can be.
    with open("/dev/full", "w") as file:  # noqa: PTH123
        file.write("x" * 100)


RAISING: dict[str, Callable[[], Any]] = {
    "value_error": _raise(ValueError("an ordinary one")),
    "system_exit": _raise(SystemExit(3)),
    "sys_exit": lambda: sys.exit("with a text"),
    "keyboard_interrupt": _raise(KeyboardInterrupt()),
    "generator_exit": _raise(GeneratorExit()),
    "stop_iteration": _raise(StopIteration(1)),
    "stop_async_iteration": _raise(StopAsyncIteration()),
    "cancelled": _raise(asyncio.CancelledError()),
    "base_exception": _raise(OddError("not an Exception")),
    "recursion": _recurse,
    "memory": lambda: bytearray(2**62),
    "unprintable": _raise(UnprintableError()),
    "fatally_unprintable": _raise(FatallyUnprintableError()),
    "interrupting": _raise(InterruptingError()),
    "not_a_text": _raise(NotATextError()),
    "circle": _raise_circle,
    "long_text": _raise(ValueError("x" * 2**21)),
    "surrogates": _raise(ValueError("\udc80\ud800")),
    "broken_pipe": _raise(BrokenPipeError(32, "of the environment's own")),
    "timeout": _raise(TimeoutError()),
    "disk_full": _fill_disk,
}
if sys.version_info >= (3, 11):
    RAISING["group"] = _raise(ExceptionGroup("two", [ValueError("one"), KeyError("other")]))  # noqa: F821
    RAISING["base_group"] = _raise(BaseExceptionGroup("one", [KeyboardInterrupt()]))  # noqa: F821

ENDING: dict[str, Callable[[], Any]] = {
    "exit": lambda: os._exit(7),
    "abort": os.abort,
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def _hang_in_python() -> None:
    while True:
        time.sleep(0.01)


def _hang_in_c() -> None:
    # Every signal there is, the one too by which a server asks for stacks: it would end the sleep.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.CDLL(None).sleep(3600)


HANGING: dict[str, Callable[[], Any]] = {"hang": _hang_in_python, "hang_in_c": _hang_in_c}

ANSWERING: dict[str, Callable[[], Any]] = {
    "step": lambda: None,
    "slow": lambda: time.sleep(0.3),
    "print": lambda: print("printed by the environment", flush=True),
}


def _print_much() -> None:
    """Print more than a pipe holds, by Python's own stream and past it."""
    line = "printed by the environment " * 4 + "\n"
    print(line * 2_000, flush=True)
    for _ in range(20):
        os.write(1, line.encode() * 100)


def _flood() -> None:
    """Print to standard error what no log would hold."""
    for _ in range(2_000):
        os.write(2, b"x" * 4095 + b"\n")


def _half_an_answer() -> NoReturn:
    """Begin an answer in the place of what hosts the environment in another Python, and exit before its end."""
    frame = sys._getframe()
    while "channel" not in frame.f_locals:
        assert frame.f_back is not None
        frame = frame.f_back
    os.write(frame.f_locals["channel"].target, b"\0\1\0\0" + b"p" * 10)
    os._exit(5)


OF_GUESTS: dict[str, Callable[[], Any]] = {
    "print_much": _print_much,
    "flood": _flood,
    "half_an_answer": _half_an_answer,
}
"""Behaviours that matter to environments in another Python."""

BEHAVIOURS = {**ANSWERING, **RAISING, **ENDING, **HANGING, **OF_GUESTS}
NUMBER_OF = {name: number for number, name in enumerate(BEHAVIOURS)}


def next_chain(chain: int, action: str) -> int:
    """A number that tells of all actions so far, and of their order."""
    digest = hashlib.blake2b(f"{chain} {action}".encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")


def observation_of(number: int, chain: int, padding: int) -> Any:
    """What is observed after the operation of that number: shape ``(2 + padding,)``, int64."""
    return np.concatenate((np.array([number, chain], np.int64), np.arange(padding, dtype=np.int64) * 7919 + chain))


def checksum(observation: Any) -> int:
    return zlib.crc32(observation.tobytes())


class LedgerEnvironment(gym.Env[Any, Any]):
    """Numbers its operations, resets and steps alike, and never starts anew."""

    def __init__(self, ledger: str, padding: int) -> None:
        self.observation_space = spaces.Box(-(2**63), 2**63 - 1, (2 + padding,), np.int64)
        self.action_space = spaces.Box(0, 2**62, (ACTION_WORDS,), np.int64)
        self._file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._padding = padding
        self.instance = secrets.token_hex(8)
        self._number = self._chain = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Operate. The action is an option, after the seed if there is one, as only that can differ in a vector.

        Without options, as by a vector environment's step after a loss, nobody can say which action it is, and it is
        none: the observation tells where the environment stands.
        """
        super().reset(seed=seed)
        info = {"instance": self.instance, "pid": os.getpid()}
        if options is None:
            return observation_of(self._number, self._chain, self._padding), info
        return self._operate(options["action"] if seed is None else f"{seed}-{options['action']}"), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        counter, payload, behaviour = (int(word) for word in action)
        observation = self._operate(f"{counter}-{payload}")
        list(BEHAVIOURS.values())[behaviour]()
        return observation, float(self._number), False, False, {"instance": self.instance, "pid": os.getpid()}

    def _operate(self, action: str) -> Any:
        self._number += 1
        self._chain = next_chain(self._chain, action)
        record = {
            "instance": self.instance,
            "number": self._number,
            "action": action,
            "padding": self._padding,
            "pid": os.getpid(),
        }
        os.write(self._file, json.dumps(record).encode() + b"\n")
        return observation_of(self._number, self._chain, self._padding)

    def close(self) -> None:
        os.close(self._file)


def create_environment(ledger: str, padding: int = 0) -> gym.Env[Any, Any]:
    return LedgerEnvironment(ledger, padding)
