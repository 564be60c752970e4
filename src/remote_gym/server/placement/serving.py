"""The words of the commands by which an image runs a whole server of ours. Pure, as `commands` is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from remote_gym.config import CERTS_FOLDER, CERTS_VARIABLE
from remote_gym.server.placement.commands import run_words, sees_words
from remote_gym.server.placement.place import Place
from remote_gym.server.placement.resources import Gpu, Resources

LOOPBACK = "127.0.0.1"

STOP_TIMEOUT = 10
"""Seconds that the image's server has to close its environments in, once it was asked to end."""

HOST_NETWORK = "host"
"""The network in which a container's port is the machine's own, and nothing is published."""


def serve_command(
    place: Place, *, name: str, owner: str, port: int, certs: Path, resources: Resources
) -> tuple[str, ...]:
    """Compose the command that runs a server's image, and whose standard output and error are the server's.

    Args:
        place: Image and engine, and what it has: ``command`` in place of the image's own, ``network``, ``mounts``.
        name: Of the container, which no other has.
        owner: Value of `OWNER_LABEL`.
        port: On which the server listens there. It is published on a free one of this machine's loopback.
        certs: Folder here that is `CERTS_FOLDER` there.
        resources: Of which it has all devices and processors. Values of variables are taken from the command's own.
    """
    words = run_words(place, name, owner)
    if place.network is not None:
        words += ["--network", place.network]
    if place.network != HOST_NETWORK:
        words += ["--publish", f"{LOOPBACK}::{port}"]
    words += ["--mount", f"type=bind,source={certs},target={CERTS_FOLDER},readonly"]
    words += ["--env", f"{CERTS_VARIABLE}={CERTS_FOLDER}"]
    words += _devices(place.engine, resources.gpus)
    words += sees_words(place, sorted(resources.variables), resources.cpus)
    return (*words, str(place.image), *place.command)


def port_command(place: Place, name: str, port: int) -> tuple[str, ...]:
    """The command that prints where a container's port is published."""
    return (place.engine, "port", name, f"{port}/tcp")


def read_port(printed: str) -> int | None:
    """The port that `port_command` has printed; None if it is not published, or not yet."""
    found = re.search(rf"^{re.escape(LOOPBACK)}:(\d+)\s*$", printed, re.MULTILINE)
    return int(found[1]) if found else None


def stop_command(place: Place, name: str) -> tuple[str, ...]:
    """The command that asks a container to end, and kills it after `STOP_TIMEOUT`."""
    return (place.engine, "stop", "-t", str(STOP_TIMEOUT), name)


def _devices(engine: str, gpus: Sequence[Gpu]) -> list[str]:
    if not gpus:
        return []
    if engine == "docker":  # which takes the option apart at commas, but for what stands in quotes
        return ["--gpus", '"device={}"'.format(",".join(map(str, gpus)))]
    return [word for gpu in gpus for word in ("--device", f"nvidia.com/gpu={gpu}")]
