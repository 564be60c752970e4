"""An entrypoint for tests: an environment that does as it is told, and environments of every kind of space."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import os
import pathlib
import signal
import sys
import threading
import time
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from remote_gym.errors import SessionLost

EXPOSED = ("action_masks", "difficulty", "add", "fail", "not_encodable", "as_static")

BEHAVIOURS = (
    "step",
    "raise",
    "raise_local",
    "raise_unprintable",
    "system_exit",
    "keyboard_interrupt",
    "long_message",
    "surrogates",
    "exit",
    "kill",
    "hang",
    "wrong_shape",
    "wrong_keys",
    "wrong_kind",
    "odd_info",
    "print",
    "fork_child",
    "truncate",
    "numpy_flags",
    "raise_in_render",
    "odd_reward",
    "python_kinds",
    "slow",
    "raise_ours",
    "draw",
    "babble",
    "leave_group_and_hang",
    "large_info",
    "spin",
    "compute",
    "handle_all_signals_and_hang",
    "stop",
    "grow",
    "grow_in_child",
    "burn",
    "open_files",
    "allocate",
    "wait_for_release",
)
ACTION = {name: number for number, name in enumerate(BEHAVIOURS)}


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Obedient(gym.Env[Any, Any]):
    """Does what the action names; options of `reset` do the same there."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 12, "lock": threading.Lock()}

    def __init__(self, render_mode: str | None = None, env_id: int | None = None, log: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = spaces.Dict(
            {"position": spaces.Box(-1.0, 1.0, (2,), np.float32), "count": spaces.Discrete(1000)}
        )
        self.action_space = spaces.Discrete(len(BEHAVIOURS))
        self.count = 0
        self.env_id = env_id
        self._log = log
        self._render_raises = False
        self.difficulty = 3
        self._note(f"open {os.getpid()}")

    def _note(self, line: str) -> None:
        if self._log:
            with pathlib.Path(self._log).open("a") as file:
                file.write(line + "\n")

    def _observation(self) -> dict[str, Any]:
        position = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return {"count": np.int64(self.count), "position": position}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        self._note("reset")
        if options and "do" in options:
            self.step(ACTION[options["do"]])
        info = {"env_id": self.env_id, "pid": os.getpid(), "thread": threading.current_thread().name}
        return self._observation(), {**info, "options": options, "main": in_main_thread()}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self.count += 1
        self._note(f"step {int(action)}")
        result: list[Any] = [self._observation(), 1.0, False, False, {"action": action}]
        getattr(self, "_" + BEHAVIOURS[int(action)])(result)
        return tuple(result)  # type: ignore[return-value]

    def render(self) -> Any:
        if self._render_raises:
            raise RuntimeError("the painter is out")
        # A new size each time.
        return np.full((4 + self.count, 6, 3), self.count, np.uint8)

    def close(self) -> None:
        self._note("close")

    def action_masks(self) -> Any:
        return np.array([True] * len(BEHAVIOURS))

    def add(self, a: int, *, b: int = 0) -> int:
        return a + b

    def fail(self) -> None:
        raise LookupError("nothing here")

    def not_encodable(self) -> Any:
        return threading.Lock()

    @staticmethod
    def as_static() -> str:
        return "static"

    def hidden(self) -> str:
        return "not for clients"

    def _step(self, result: list[Any]) -> None: ...

    def _raise(self, result: list[Any]) -> None:
        raise KeyError("a key")

    def _raise_local(self, result: list[Any]) -> None:
        class LocalError(Exception):
            def __init__(self, a: int, b: int) -> None:
                super().__init__(threading.Lock(), a, b)

        raise LocalError(1, 2)

    def _raise_unprintable(self, result: list[Any]) -> None:
        raise UnprintableError

    def _system_exit(self, result: list[Any]) -> None:
        sys.exit(3)

    def _keyboard_interrupt(self, result: list[Any]) -> None:
        raise KeyboardInterrupt("enough of it")

    def _long_message(self, result: list[Any]) -> None:
        raise ValueError("x" * 2**20)

    def _surrogates(self, result: list[Any]) -> None:
        raise ValueError("lone \udcff surrogate")

    def _exit(self, result: list[Any]) -> None:
        os._exit(7)

    def _kill(self, result: list[Any]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _hang(self, result: list[Any]) -> None:
        time.sleep(600)

    def _slow(self, result: list[Any]) -> None:
        time.sleep(1.0)

    def _raise_ours(self, result: list[Any]) -> None:
        raise SessionLost("that of another environment, which this one uses")

    def _draw(self, result: list[Any]) -> None:
        result[4]["drawn"] = float(np.random.rand())  # NumPy's global generator, as careless environments use it

    def _babble(self, result: list[Any]) -> None:
        while True:
            print("\x1b[31mbabble\x07")

    def _leave_group_and_hang(self, result: list[Any]) -> None:
        os.setpgid(0, os.getppid())
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals) - {signal.SIGKILL})
        time.sleep(600)

    def _spin(self, result: list[Any]) -> None:
        while True:
            try:
                while True:
                    self._noted = False
            except BaseException:  # noqa: BLE001 - as careless environments do
                continue

    def _compute(self, result: list[Any]) -> None:
        sum(itertools.repeat(0))  # in C, which neither lets other threads run nor looks at signals

    def _handle_all_signals_and_hang(self, result: list[Any]) -> None:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if number <= signal.SIGSYS:
                signal.signal(number, lambda *_: None)
        while True:
            time.sleep(600)

    def _wait_for_release(self, result: list[Any]) -> None:
        release, deadline = pathlib.Path(f"{self._log}.release"), time.monotonic() + 60.0
        while not release.exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _stop(self, result: list[Any]) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def _grow(self, result: list[Any]) -> None:
        self._hoard = np.ones(GROWTH, np.uint8)

    def _grow_in_child(self, result: list[Any]) -> None:
        context = multiprocessing.get_context("fork")
        grown = context.Event()
        process = context.Process(target=hoard, args=(grown,))
        process.start()
        self._note(f"child {process.pid}")
        grown.wait(30.0)

    def _burn(self, result: list[Any]) -> None:
        while True:
            pass

    def _open_files(self, result: list[Any]) -> None:
        self._files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1000)]

    def _allocate(self, result: list[Any]) -> None:
        np.empty(2**40, np.uint8)

    def _large_info(self, result: list[Any]) -> None:
        result[4] = {"large": bytes(2**20)}

    def _wrong_shape(self, result: list[Any]) -> None:
        result[0]["position"] = np.zeros(3, np.float32)

    def _wrong_keys(self, result: list[Any]) -> None:
        del result[0]["count"]

    def _wrong_kind(self, result: list[Any]) -> None:
        result[0]["count"] = "three"

    def _odd_info(self, result: list[Any]) -> None:
        result[4] = {"lock": threading.Lock(), "fine": 1}

    def _print(self, result: list[Any]) -> None:
        print("printed by the environment")
        print("and to stderr", file=sys.stderr)
        sys.stdout.flush()

    def _fork_child(self, result: list[Any]) -> None:
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        process.start()
        result[4]["child"] = process.pid

    def _truncate(self, result: list[Any]) -> None:
        result[3] = True

    def _numpy_flags(self, result: list[Any]) -> None:
        result[1:4] = [np.float32(0.5), np.True_, np.False_]

    def _raise_in_render(self, result: list[Any]) -> None:
        self._render_raises = True

    def _odd_reward(self, result: list[Any]) -> None:
        result[1] = threading.Lock()

    def _python_kinds(self, result: list[Any]) -> None:
        result[0]["count"] = self.count
        result[0]["position"] = result[0]["position"].astype(np.float64)
        result[1] = 1


GROWTH = 400 * 2**20


def hoard(done: Any) -> None:
    held = np.ones(GROWTH, np.uint8)
    done.set()
    time.sleep(600)
    del held


def in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class Sampler(gym.Env[Any, Any]):
    """Returns samples of a space as observations, and the actions that it gets in its info."""

    def __init__(self, space: spaces.Space[Any]) -> None:
        self.observation_space = space
        self.action_space = copy.deepcopy(space)  # with random numbers of its own

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        terminated = bool(self.np_random.random() < 0.1)
        return self.observation_space.sample(), float(self.np_random.random()), terminated, False, {"action": action}


def make_spaces() -> dict[str, spaces.Space[Any]]:
    """One space of every kind, and the odd ones among them."""
    box = spaces.Box(-1.0, 1.0, (3,), np.float32)
    found: dict[str, spaces.Space[Any]] = {
        "box_float16": spaces.Box(-2, 2, (2, 3), np.float16),
        "box_float64": spaces.Box(np.array([-np.inf, 0.0]), np.array([0.0, np.inf]), dtype=np.float64),
        "box_uint8": spaces.Box(0, 255, (8, 8, 3), np.uint8),
        "box_int16": spaces.Box(-300, 300, (4,), np.int16),
        "box_bool": spaces.Box(0, 1, (5,), np.bool_),
        "box_scalar": spaces.Box(-1.0, 1.0, (), np.float32),
        "box_empty": spaces.Box(-1.0, 1.0, (0, 2), np.float32),
        "discrete_start": spaces.Discrete(5, start=-2),
        "multi_discrete": spaces.MultiDiscrete([3, 4, 5]),
        "multi_discrete_2d": spaces.MultiDiscrete(np.array([[2, 3], [4, 5]])),
        "multi_binary": spaces.MultiBinary(4),
        "multi_binary_2d": spaces.MultiBinary((2, 3)),
        "text": spaces.Text(12, min_length=2, charset="zyxäöü "),
        "dict": spaces.Dict({"b": box, "a": spaces.Dict({"n": spaces.Discrete(3)})}),
        "dict_keys": spaces.Dict([(3, box), (1, spaces.Discrete(2))]),
        "tuple": spaces.Tuple((box, spaces.Discrete(3), spaces.Tuple(()))),
        "sequence": spaces.Sequence(spaces.Discrete(4)),
        "sequence_stack": spaces.Sequence(box, stack=True),
        "graph": spaces.Graph(box, spaces.Discrete(5)),
        "graph_no_edges": spaces.Graph(box, None),
        "mixed": spaces.Dict(
            {"words": spaces.Text(5), "more": spaces.Tuple((spaces.Sequence(box), spaces.MultiBinary(2)))}
        ),
    }
    if hasattr(spaces, "OneOf"):
        found["one_of"] = spaces.OneOf((box, spaces.Discrete(3)))
    return found


def create_environment(
    space: str | None = None,
    render_mode: str | None = None,
    env_id: int | None = None,
    log: str | None = None,
    delay: float = 0.0,
) -> gym.Env[Any, Any]:
    """The obedient environment, or one of samples of the space of that name."""
    time.sleep(delay)
    if space is not None:
        return Sampler(make_spaces()[space])
    return Obedient(render_mode, env_id, log)
