"""remote-gym 0.7.3, with the pins that still work.

Options: ``use_thread`` (True: its worker processes crash now and then), ``secure`` (True).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from case import Case, Figures, NotHere
from measuring import Stopwatch, measure_environment, sampled_actions
from peer import main
from remote_gym import RemoteEnvironment, create_remote_environment_server
from serving import HOST, Servers, way_to
from workloads import IMAGES, create, renders

PLAIN = "localhost"
"""Without TLS it listens on the name alone."""


@contextlib.contextmanager
def serve(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Serve `workloads` until the block ends."""
    entrypoint = Path(__file__).with_name("workloads.py")
    os.chdir(entrypoint.parent)  # it wants a path relative to where it runs
    with socket.create_server((HOST, 0)) as free:  # it cannot pick a port
        port = free.getsockname()[1]
    server = create_remote_environment_server(
        default_args={"entrypoint": entrypoint.name, "entrypoint_kwargs": {}, "repo": None, "reference": None},
        url=HOST if job["credentials"] else PLAIN,
        port=port,
        server_credentials_paths=tuple(job["credentials"]) if job["credentials"] else None,
        use_thread=job["use_thread"],
    )
    yield {"port": port}
    server.stop(None)
    os._exit(0)  # it does not end by itself while an environment's thread runs


def measure(case: Case, servers: Servers) -> Figures:
    """Measure a single environment; it has no vectors."""
    if case.num_envs:
        raise NotHere("remote-gym 0.7.3 has no vector environments")
    if case.workload in IMAGES and case.workload != "pixels":
        raise NotHere("remote-gym 0.7.3 sends the bounds of every element, which takes it seconds for such images")
    create(case.workload)
    secure = case.options.get("secure", True)
    credentials = [case.pem("server"), case.pem("server-key"), case.pem("ca")] if secure else None
    job = {"credentials": credentials, "use_thread": case.options.get("use_thread", True)}
    told = servers.start(job)
    with way_to(case, told["port"]) as way:

        def make() -> Any:
            return RemoteEnvironment(
                url=way.host if secure else PLAIN,
                port=told["port"],
                remote_args={"entrypoint_kwargs": {"workload": case.workload}},
                client_credentials_paths=(case.pem("ca"), case.pem("client"), case.pem("client-key"))
                if secure
                else None,
                render_mode="rgb_array" if renders(case.workload) else None,
            )

        first = make()
        first.reset()
        first.close()
        with Stopwatch() as opening:
            environment = make()
            environment.reset()
        figures = measure_environment(case, environment, sampled_actions(environment), way=way)
        environment.close()
    return {"open_ms": opening.milliseconds, **figures}


if __name__ == "__main__":
    main(measure, serve)
