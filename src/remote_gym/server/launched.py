"""``python -m remote_gym.server.launched``: a server that belongs to the program that started it, by `launch`.

Its standard input is a line of JSON, with "environment", "options" and "socket", and ends when the server is to end. It
answers by a line of JSON, with "url" and "port" or with an "error"; whatever else is printed goes to standard error.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from typing import Any

from remote_gym.config import Limits, ServerOptions
from remote_gym.errors import ConfigError
from remote_gym.logs import TextFormatter


def main() -> None:
    """Serve until standard input ends."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # By the descriptor: a stream would hold a lock while it waits, which an interpreter's end wants.
    order = json.loads(_first_line(0))
    _load_grpc()
    from remote_gym.server.create import create_remote_environment_server
    from remote_gym.server.offer import check_offer

    try:
        options, environment = _options(order["options"]), order["environment"]
        check_offer(environment, imports=options.imports, own_interpreter=options.interpreter is None)
        server = create_remote_environment_server(environment, f"unix:{order['socket']}", options=options)
    except ConfigError as error:
        parts = {"problem": error.problem, "field": error.field, "where": error.where}
        print(json.dumps({"error": parts}), file=answers, flush=True)
        sys.exit(1)
    with server, answers:
        print(json.dumps({"url": server.url, "port": server.port}), file=answers, flush=True)
        while os.read(0, 1024):  # nothing comes
            pass


def _load_grpc() -> None:
    """Load gRPC with what ``remote-gym serve`` sets for it, which environments need not have."""
    own = {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"}
    added = {name: value for name, value in own.items() if name not in os.environ}
    os.environ.update(added)
    importlib.import_module("grpc")  # reads them
    for name in added:
        del os.environ[name]


def _first_line(descriptor: int) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(descriptor, 65536)
        if not part:
            sys.exit("standard input has ended before its first line did")
        line += part
    return line


def _options(named: dict[str, Any]) -> ServerOptions:
    if "message_limits" in named:
        named["message_limits"] = Limits(**named["message_limits"])
    return ServerOptions(**named)


if __name__ == "__main__":
    main()
