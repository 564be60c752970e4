"""A host whose environment may be kept for another session: it notes what would cross over, and lets nothing do so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded

from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import decode_value
from remote_gym.worker.host import Host

Operation = Callable[[pb.Request, pb.Response], None]

_NEEDS_RESET = ("step", "step_many", "render")


class ReusableHost(Host):
    """Answers as any host does, of an environment that may have served a session before.

    Attributes:
        is_used: Whether it has.
        is_spoilt: Whether this session has left something in it that a reset does not undo: an attribute that was set,
            or whatever has led to an exception.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.is_used = False
        self.is_spoilt = False
        self._operations = {
            name: partial(self._run_noting, name, operation) for name, operation in self._operations.items()
        }

    def _run_noting(self, name: str | None, operation: Operation, request: pb.Request, response: pb.Response) -> None:
        if name == "call" and request.call.HasField("assign"):
            self.is_spoilt = True
        try:
            if self.is_used and not self._was_reset:
                self._check_reset(name, request)
            operation(request, response)
        except BaseException:
            self.is_spoilt = True
            raise
        if name == "step_many" and response.step_many.HasField("error"):
            self.is_spoilt = True

    def _check_reset(self, name: str | None, request: pb.Request) -> None:
        """See that nothing is asked of the last session's episode.

        Raises:
            ResetNeeded: If it is.
        """
        if name in _NEEDS_RESET:
            raise ResetNeeded(f"Cannot call {'render' if name == 'render' else 'step'} before the first reset")
        if name == "reset" and request.reset.HasField("options"):
            options = decode_value(request.reset.options, self._limits)
            mask = options.get("reset_mask") if isinstance(options, dict) else None
            if mask is not None and not np.all(mask):
                raise ResetNeeded("Cannot reset some environments by reset_mask before the first reset of all")
