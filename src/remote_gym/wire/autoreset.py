"""When a vector environment resets what has ended: Gymnasium's names, and the wire's."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from remote_gym.errors import ConfigError
from remote_gym.v1 import remote_gym_pb2 as pb

AutoresetMode: Any = getattr(gym.vector, "AutoresetMode", None)
"""Gymnasium's own enumeration, which it has had since 1.1."""

_CODES: dict[str, pb.AutoresetMode] = {
    "NextStep": pb.NEXT_STEP,
    "SameStep": pb.SAME_STEP,
    "Disabled": pb.DISABLED,
}
_NAMES = {code: name for name, code in _CODES.items()}


def autoreset_code(mode: Any) -> pb.AutoresetMode:
    """The wire's name of a mode.

    Args:
        mode: A member of `AutoresetMode`, its value, such as ``"NextStep"``, or None for an unspecified one.

    Raises:
        ConfigError: If it is none of them.
    """
    if mode is None:
        return pb.AUTORESET_UNSPECIFIED
    name = getattr(mode, "value", mode)
    code = _CODES.get(name) if isinstance(name, str) else None
    if code is None:
        raise ConfigError(
            f"is {mode!r}; use one of {', '.join(map(repr, _CODES))}", field="autoreset_mode", where="autoreset_mode"
        )
    return code


def autoreset_mode(code: int) -> Any:
    """Gymnasium's name of a mode: a member of `AutoresetMode`, or its value before 1.1; None if unspecified."""
    name = _NAMES.get(code)  # type: ignore[call-overload]
    return AutoresetMode(name) if AutoresetMode and name else name
