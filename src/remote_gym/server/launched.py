"""The process of `remote_gym.launch`: a server that belongs to the program that started it.

It is given a private folder, with a file that says what to serve, and a descriptor for its answer, a line of JSON with
"url" and "port" or with an "error". It ends when its standard input does, at whatever it is then.
"""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import logging
import os
import select
import shutil
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remote_gym.config import Limits, ServerOptions
from remote_gym.errors import ConfigError
from remote_gym.logs import TextFormatter, get_logger
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import decode_value

logger = get_logger(__name__)

LOG_BYTES = 16 * 2**20
"""Size from which on the log loses its beginning: environments may print for days, and the folder may be in memory."""

LOG_BYTES_KEPT = 2**20

LOG_INTERVAL = 5.0
"""Seconds between two looks at that."""


def main() -> None:
    """Serve until standard input ends."""
    folder, answers = Path(sys.argv[1]), int(sys.argv[2])
    sys.argv = [""]
    os.set_inheritable(answers, False)
    owner = _Owner(folder)
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    order = _read_order(folder)
    _load_grpc()
    from remote_gym.server.create import create_remote_environment_server
    from remote_gym.server.offer import check_offer

    try:
        options, environment = _read_options(order["options"]), _read_environment(order["environment"])
        check_offer(environment, imports=options.imports, own_interpreter=options.interpreter is None)
        if options.check:
            logger.info("creating the environment once, to see that it can be")
        server = create_remote_environment_server(environment, f"unix:{folder / 'socket'}", options=options)
    except ConfigError as error:
        _answer(answers, {"error": {"problem": error.problem, "field": error.field, "where": error.where}})
        sys.exit(1)
    with server:
        owner.has_something_to_close.set()
        _answer(answers, {"url": server.url, "port": server.port})
        owner.is_gone.wait()
    shutil.rmtree(folder, ignore_errors=True)


class _Owner:
    """The program that this process belongs to, whose end is that of standard input.

    Attributes:
        has_something_to_close: Set once there is a server. Before, this process just ends: what it has started, such
            as a trial of an environment, ends with it.
        is_gone: Set when the program is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.has_something_to_close = threading.Event()
        self.is_gone = threading.Event()
        threading.Thread(target=self._watch, name="remote_gym-owner", daemon=True).start()

    def _watch(self) -> None:
        while not select.select([0], [], [], LOG_INTERVAL)[0] or os.read(0, 1024):  # where nothing comes
            with contextlib.suppress(FileNotFoundError):  # the program has removed it, and ends this next
                shorten(self._folder / "server.log")
        self.is_gone.set()
        if not self.has_something_to_close.is_set():
            shutil.rmtree(self._folder, ignore_errors=True)
            os._exit(1)


def shorten(log: Path) -> None:
    """Cut the beginning off a log over `LOG_BYTES`. What is written to it meanwhile, by appending, may be lost."""
    if log.stat().st_size <= LOG_BYTES:
        return
    with log.open("r+b") as file:
        file.seek(-LOG_BYTES_KEPT, os.SEEK_END)
        kept = file.read()
        file.truncate(0)
    with log.open("ab") as file:
        file.write(kept)


def _answer(descriptor: int, content: Mapping[str, Any]) -> None:
    try:
        os.write(descriptor, json.dumps(content).encode() + b"\n")  # less than a pipe takes at once
        os.close(descriptor)
    except BrokenPipeError:
        logger.debug("the program that launched this server is gone")


def _load_grpc() -> None:
    """Load gRPC with what ``remote-gym serve`` sets for it, which environments need not have."""
    own = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    added = {name: value for name, value in own.items() if name not in os.environ}
    os.environ.update(added)
    importlib.import_module("grpc")  # reads them
    for name in added:
        del os.environ[name]


def _read_order(folder: Path) -> dict[str, Any]:
    file = folder / "order.json"
    order: dict[str, Any] = json.loads(file.read_text())
    file.unlink()
    return order


def _read_environment(order: Mapping[str, Any]) -> dict[str, Any]:
    """`RemoteArgs`, whose keyword arguments come as the protocol's `Value`, so that they are what they were."""
    data = base64.b64decode(order["entrypoint_kwargs"])
    return {**order, "entrypoint_kwargs": decode_value(pb.Value.FromString(data), Limits())}


def _read_options(named: dict[str, Any]) -> ServerOptions:
    read: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in named.items()}
    if "message_limits" in read:
        read["message_limits"] = Limits(**read["message_limits"])
    if "environments" in read:
        read["environments"] = {name: _read_environment(each) for name, each in read["environments"].items()}
    return ServerOptions(**read)
