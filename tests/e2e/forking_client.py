"""A trainer that forks while its environment is connected. Run with a port; prints what happened.

A process of its own, since the tests' process also serves: forking a process that does cannot work with gRPC.
"""

from __future__ import annotations

import functools
import multiprocessing
import sys
from multiprocessing.connection import Connection

import numpy as np
from gymnasium.vector import AsyncVectorEnv

from remote_gym import RemoteEnvironment, RemoteVectorEnv, SessionError


def step_and_tell(environment: RemoteEnvironment, sender: Connection) -> None:
    said = []
    for use in (lambda: environment.step(0), environment.reset, environment.render, lambda: environment.call("add", 1)):
        try:
            use()
        except SessionError as error:
            said.append(str(error))
    environment.close()  # which is the parent's to do, and so does nothing
    sender.send(f"{len(said)} times: {' and '.join(set(said))}")


def use_both(environment: RemoteEnvironment, several: RemoteVectorEnv, sender: Connection) -> None:
    step_and_tell(environment, sender)
    said = set()
    for use in (lambda: several.step([0, 0]), several.reset, lambda: several.call("add", 1)):
        try:
            use()
        except SessionError as error:
            said.add(str(error).partition(",")[0])
    several.close()
    sender.send(f"several: {' and '.join(sorted(said))}")


def main(port: int) -> None:
    environment = RemoteEnvironment("localhost", port, render_mode="rgb_array", frames="on_demand")
    environment.reset()
    several = RemoteVectorEnv("localhost", port, num_envs=2, workers=2)
    several.reset()
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=use_both, args=(environment, several, sender))
    process.start()
    print("child:", receiver.recv() if receiver.poll(20.0) else "silent")
    print(receiver.recv() if receiver.poll(20.0) else "silent")
    process.join(20.0)
    print("exit:", process.exitcode)
    print("parent:", environment.step(0)[0]["count"])
    environment.close()
    print("several:", several.step(np.array([0, 0]))[0]["count"].tolist())
    several.close()
    # Not by fork, AsyncVectorEnv's default: children of a process that has used gRPC may hang in gRPC's own code.
    vector = AsyncVectorEnv(
        [functools.partial(RemoteEnvironment, "localhost", port)] * 2, context="forkserver", shared_memory=False
    )
    vector.reset(seed=1)
    print("vector:", vector.step(np.array([0, 0]))[0]["count"].tolist())
    vector.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
