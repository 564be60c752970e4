"""The state of NumPy's random generators, as values that can be sent."""

from __future__ import annotations

from typing import Any

import numpy as np

from remote_gym.errors import EncodingError

_KINDS: dict[str, Any] = {
    "PCG64": np.random.PCG64,
    "PCG64DXSM": np.random.PCG64DXSM,
    "MT19937": np.random.MT19937,
    "SFC64": np.random.SFC64,
    "Philox": np.random.Philox,
}


def generator_state(generator: object) -> dict[str, Any]:
    """Everything that a generator's next numbers follow from.

    Raises:
        EncodingError: If it is no `numpy.random.Generator`, or one whose state cannot be sent.
    """
    if isinstance(generator, np.random.Generator) and type(generator.bit_generator).__name__ in _KINDS:
        return dict(generator.bit_generator.state)
    raise EncodingError(f"np_random is a {type(generator).__name__}; use a numpy.random.Generator of NumPy's own kinds")


def set_generator_state(generator: object, state: Any) -> np.random.Generator:
    """Have a generator go on from a state.

    Returns:
        The generator; another one if its kind is another.

    Raises:
        EncodingError: If it is no state of a generator.
    """
    kind = _KINDS.get(state.get("bit_generator", "")) if isinstance(state, dict) else None
    if kind is None:
        raise EncodingError(f"{state!r:.100} is no state of one of NumPy's random generators")
    if not isinstance(generator, np.random.Generator) or type(generator.bit_generator) is not kind:
        generator = np.random.Generator(kind())
    try:
        generator.bit_generator.state = state
    except Exception as error:
        raise EncodingError(f"{state!r:.100} is no state of {kind.__name__}: {error}") from error
    return generator
