"""Refusing values that cannot work as given: each error says where, what was found, and what would be right."""

from __future__ import annotations

import numbers
from typing import Any

from remote_gym.errors import ConfigError

LONGEST = 10**7
"""Seconds: longer than any run, and within what every system call accepts."""

SHORTEST = 1e-3
"""Seconds: less than anything of ours takes, so that who asks for it likely means another unit."""

LEAST_MEMORY = 16 * 2**20
"""Bytes: less than a worker holds with the smallest of environments."""


def _refusal(where: str, problem: str) -> ConfigError:
    """Refusal of the value at a place such as ``"ServerOptions.lease"``, whose last part is the field."""
    return ConfigError(problem, field=where.rpartition(".")[2], where=where)


def is_number(value: object) -> bool:
    """Whether it is a real number rather than a text or a bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def check_seconds(where: str, value: Any, *, lowest: float = SHORTEST, or_zero: bool = False) -> None:
    """Refuse what is no time to wait.

    Args:
        where: What holds the value, such as ``"ServerOptions.lease"``.
        value: What was found there.
        lowest: Seconds that are needed at least.
        or_zero: Whether 0 will do as well.

    Raises:
        ConfigError: If it is no number, too small, or over `LONGEST`.
    """
    if not is_number(value) or not (lowest <= value <= LONGEST or (or_zero and value == 0)):
        zero = "0, or " if or_zero else ""
        raise _refusal(where, f"is {value!r}; use {zero}a number of seconds from {lowest:g} to {LONGEST:,}")


def check_integer(where: str, value: Any, lowest: int, highest: int, unit: str = "") -> None:
    """Refuse what is no integer within bounds, both included.

    Args:
        where: Argument or field that holds the value.
        value: The value found there.
        lowest: The least that will do.
        highest: The most.
        unit: Such as ``"bytes"``; empty for a count.

    Raises:
        ConfigError: If it is none.
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)  # those of NumPy included
    if not is_integer or not lowest <= int(value) <= highest:
        of_unit = f"number of {unit}, an " if unit else ""
        raise _refusal(
            where, f"is {value!r}; use a{'' if unit else 'n'} {of_unit}integer from {lowest:,} to {highest:,}"
        )


def check_number(where: str, value: Any, lowest: float, highest: float) -> None:
    """Refuse what is no number within bounds, both included.

    Raises:
        ConfigError: If it is none.
    """
    if not is_number(value) or not lowest <= value <= highest:
        raise _refusal(where, f"is {value!r}; use a number from {lowest:,} to {highest:,}")


def check_choice(where: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse what is none of some texts.

    Raises:
        ConfigError: If it is none.
    """
    if value not in choices:
        *others, last = map(repr, choices)
        raise _refusal(where, f"is {value!r}; use {', '.join(others)} or {last}")


def check_type(where: str, value: Any, kind: type | tuple[type, ...], mend: str) -> None:
    """Refuse what is of another type.

    Args:
        where: What holds the value.
        value: What was found there.
        kind: What it has to be.
        mend: The same in words.

    Raises:
        ConfigError: If it is not.
    """
    if not isinstance(value, kind):
        raise _refusal(where, f"is {value!r}; use {mend}")


def check_resource_limit(where: str, name: Any, value: Any) -> None:
    """Refuse a limit that this system cannot set, or under which no worker could run.

    Args:
        where: What holds the limits.
        name: Which, as the module `resource` has it, in lower case and without ``RLIMIT_``.
        value: In the system's units.

    Raises:
        ConfigError: If it is none.
    """
    try:
        import resource  # here, since Windows has none
    except ImportError:
        raise _refusal(where, "is given, but this system has no such limits; leave it out") from None
    names = sorted(kind[7:].lower() for kind in dir(resource) if kind.startswith("RLIMIT_"))
    if name not in names:
        raise _refusal(where, f"is of {name!r}; this system limits {', '.join(names)}")
    found = f"is {value!r} for {name!r}"
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise _refusal(where, f"{found}; use an integer, in the units of the system's setrlimit")
    if name == "as" and value < LEAST_MEMORY:
        raise _refusal(where, f"{found}; use {LEAST_MEMORY:,} bytes at least, without which no worker could run")
    most = resource.getrlimit(getattr(resource, f"RLIMIT_{str(name).upper()}"))[1]
    if most != resource.RLIM_INFINITY and value > most:
        raise _refusal(where, f"{found}; this server's own hard limit is {most}")
