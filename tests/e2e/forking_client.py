"""A trainer that forks while its environment is connected. Run with "single" or "several", and a port; prints what
happened.

A process of its own, since the tests' process also serves: forking a process that does cannot work with gRPC.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection

import numpy as np
from gymnasium.vector import AsyncVectorEnv

from remote_gym import RemoteEnvironment, RemoteVectorEnv, SessionError

Uses = Sequence[Callable[[], object]]


def tell(
    uses: Sequence[Callable[[], object]], environment: RemoteEnvironment | RemoteVectorEnv, sender: Connection
) -> None:
    said = []
    for use in uses:
        try:
            use()
        except SessionError as error:
            said.append(str(error))
    environment.close()  # which is the parent's to do, and so does nothing
    sender.send(f"{len(said)} times: {' and '.join(set(said))}")


def fork(uses: Uses, environment: RemoteEnvironment | RemoteVectorEnv) -> None:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=tell, args=(uses, environment, sender))
    process.start()
    print("child:", receiver.recv() if receiver.poll(20.0) else "silent")
    process.join(20.0)
    print("exit:", process.exitcode)


def single(port: int) -> None:
    environment = RemoteEnvironment("localhost", port, render_mode="rgb_array", frames="on_demand")
    environment.reset()
    uses = (lambda: environment.step(0), environment.reset, environment.render, lambda: environment.call("add", 1))
    fork(uses, environment)
    print("parent:", environment.step(0)[0]["count"])
    environment.close()
    # Not by fork, AsyncVectorEnv's default: children of a process that has used gRPC may hang in gRPC's own code.
    vector = AsyncVectorEnv(
        [functools.partial(RemoteEnvironment, "localhost", port)] * 2, context="forkserver", shared_memory=False
    )
    vector.reset(seed=1)
    print("vector:", vector.step(np.array([0, 0]))[0]["count"].tolist())
    vector.close()


def several(port: int) -> None:
    environment = RemoteVectorEnv("localhost", port, num_envs=2, workers=2)
    environment.reset()
    fork((lambda: environment.step([0, 0]), environment.reset, lambda: environment.call("add", 1)), environment)
    print("parent:", environment.step(np.array([0, 0]))[0]["count"].tolist())
    environment.close()


if __name__ == "__main__":
    {"single": single, "several": several}[sys.argv[1]](int(sys.argv[2]))
