"""Arrays of other libraries, as NumPy's: PyTorch's, JAX's, CuPy's, and whatever has ``__array__`` or speaks DLPack.

None of these libraries is imported unless a value is of it, which then has imported it already.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from remote_gym.wire.values.unencodable import short_repr, type_name

_CPU = 1  # DLPack's number; 3, 11 and 13 are the processor's memory as well, pinned or shared with a GPU
_ON_CPU = frozenset({_CPU, 3, 11, 13})
_DEPTH = 32  # of containers that are looked through


class NoArray(Exception):
    """Why what looks like an array cannot become one of NumPy's."""


def array_of(value: object) -> np.ndarray[Any, Any] | None:
    """An array of another library as one of NumPy's, which may share its memory; None for what is no array.

    Raises:
        NoArray: If it has a dtype that NumPy lacks, is on a device that its library cannot copy it from, or raises.
    """
    cls = type(value)
    library = cls.__module__.partition(".")[0]
    convert = _LIBRARIES.get(library)
    try:
        if convert is not None and (found := convert(value)) is not None:
            return _plain(found, value)
        if hasattr(cls, "__array__") or hasattr(cls, "__array_interface__"):
            return _plain(np.asarray(value), value)
        if hasattr(cls, "__dlpack__") and hasattr(cls, "__dlpack_device__"):
            return _plain(_from_dlpack(value), value)
    except NoArray:
        raise
    except Exception as error:  # whatever the library raises
        raise NoArray(f"a {type_name(value)} cannot become a NumPy array: {type(error).__name__}: {error}") from error
    return None


def local(element: Any, depth: int = _DEPTH) -> Any:
    """An element with NumPy's arrays in place of others; the very same where it holds none.

    Lists, tuples and dicts are looked through, 32 levels deep.

    Raises:
        NoArray: As `array_of`.
    """
    cls = type(element)
    if cls in _OWN or depth == 0 or isinstance(element, np.ndarray | np.generic):
        return element
    if isinstance(element, Mapping):
        found = {key: local(item, depth - 1) for key, item in element.items()}
        return found if any(found[key] is not item for key, item in element.items()) else element
    if isinstance(element, list | tuple):
        items = [local(item, depth - 1) for item in element]
        if all(new is old for new, old in zip(items, element, strict=True)):
            return element
        if hasattr(element, "_fields"):  # a GraphInstance, or another named tuple
            return cls(*items)
        return tuple(items) if isinstance(element, tuple) else items
    array = array_of(element)
    return element if array is None else array


_OWN = frozenset({bool, int, float, complex, str, bytes, type(None), np.ndarray})


def _torch(value: Any) -> Any:
    torch = sys.modules["torch"]
    if not isinstance(value, torch.Tensor):
        return None
    if value.dtype is torch.bfloat16:
        raise NoArray("a torch tensor of dtype bfloat16, which NumPy does not have; use value.float()")
    if value.layout is not torch.strided:
        raise NoArray(f"a torch tensor of layout {value.layout}; use value.to_dense()")
    return value.detach().cpu().resolve_conj().resolve_neg().numpy()


def _jax(value: Any) -> Any:
    jax = sys.modules["jax"]
    if not isinstance(value, jax.Array):
        return None
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        raise NoArray("a key of JAX's random numbers; use jax.random.key_data(key)")
    return jax.device_get(value)


def _cupy(value: Any) -> Any:
    return value.get() if isinstance(value, sys.modules["cupy"].ndarray) else None


_LIBRARIES = {"torch": _torch, "jax": _jax, "jaxlib": _jax, "cupy": _cupy}


def _from_dlpack(value: Any) -> Any:
    kind = int(value.__dlpack_device__()[0])
    if kind not in _ON_CPU:
        raise NoArray(
            f"a {type_name(value)} on a device of DLPack's kind {kind}, which NumPy cannot read; copy it to the CPU"
        )
    return np.from_dlpack(value)


def _plain(found: Any, value: object) -> np.ndarray[Any, Any]:
    if not isinstance(found, np.ndarray):
        raise NoArray(f"a {type_name(value)} whose NumPy form is {short_repr(found)}, which is no array")
    if found.dtype.name == "bfloat16":
        raise NoArray(f"a {type_name(value)} of dtype bfloat16, which NumPy does not have; convert it to float32")
    return found.view(np.ndarray)
