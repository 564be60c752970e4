"""The other end of a `LaunchedProcess`: the process takes its order, and answers it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from remote_gym.errors import ConfigError
from remote_gym.launched.order import ORDER
from remote_gym.logs import get_logger

logger = get_logger(__name__)


def take_order(folder: Path) -> dict[str, Any]:
    """Read the order in a launched process's folder, and remove it: it may hold secrets."""
    file = folder / ORDER
    order: dict[str, Any] = json.loads(file.read_text())
    file.unlink()
    return order


def answer(descriptor: int, content: Mapping[str, Any]) -> None:
    """Write the one line that the program waits for, and close the descriptor.

    A program that is gone is no error: standard input has ended then, too.
    """
    try:
        os.write(descriptor, json.dumps(content).encode() + b"\n")  # less than a pipe takes at once
    except BrokenPipeError:
        logger.debug("the program that launched this process is gone")
    finally:
        os.close(descriptor)


def refusal(error: ConfigError) -> dict[str, Any]:
    """The answer to an order that cannot be served, which `remote_gym.launched.process.raise_refusal` raises."""
    return {"error": {"problem": error.problem, "field": error.field, "where": error.where}}
