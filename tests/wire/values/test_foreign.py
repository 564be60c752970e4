"""Which arrays of other libraries become NumPy's, and what is said of those that cannot."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from arrays_entrypoint import Array, Dlpack
from remote_gym.config import Limits
from remote_gym.v1 import remote_gym_pb2 as pb
from remote_gym.wire.values import Unencodable, decode_value, encode_value
from remote_gym.wire.values.foreign import NoArray, array_of, local


def test_whatever_has_an_array_or_speaks_dlpack_is_an_array():
    for make in (Array, Dlpack):
        found = array_of(make([1.5, 2.5], "float32"))
        assert found.tolist() == [1.5, 2.5]
        assert type(found) is np.ndarray
        assert found.dtype == np.float32


@pytest.mark.parametrize("value", [None, 1, "a", [1], {"a": 1}, object(), SimpleNamespace(__array__=1)])
def test_whatever_has_neither_is_none(value):
    assert array_of(value) is None
    assert local(value) is value


def test_containers_without_such_arrays_stay_the_same_ones():
    value = {"a": [1, (np.zeros(2), "b")], "c": np.float32(1)}
    assert local(value) is value
    changed = local({"a": [1, (Array([1], "int8"), "b")]})
    assert type(changed["a"][1][0]) is np.ndarray
    assert changed["a"][1][1] == "b"


def test_an_array_on_a_device_of_dlpacks_that_numpy_cannot_read_is_refused_by_name():
    with pytest.raises(NoArray, match=r"kind 2.*copy it to the CPU"):
        array_of(Dlpack([1], "int8", device=(2, 0)))


def test_an_array_that_raises_is_refused_by_name():
    class Gone:
        def __array__(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("freed")

    with pytest.raises(NoArray, match=r"Gone.*RuntimeError: freed"):
        array_of(Gone())
    message = pb.Value()
    encode_value([Gone(), 1], message, strict=False, limits=Limits())
    gone, one = decode_value(message, Limits())
    assert isinstance(gone, Unencodable)
    assert one == 1


def test_an_array_of_cupys_is_fetched_from_its_gpu(monkeypatch):
    """With a stand-in of the one method that is used: this machine has no GPU."""
    module = ModuleType("cupy")

    class ndarray:  # noqa: N801 - as CuPy has it
        def __array__(self, *_: Any) -> Any:
            raise TypeError("Implicit conversion to a NumPy array is not allowed.")

        def get(self) -> Any:
            return np.arange(3)

    ndarray.__module__ = "cupy._core.core"
    module.ndarray = ndarray  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", module)
    assert array_of(ndarray()).tolist() == [0, 1, 2]


def test_torchs_tensors_are_detached_copied_to_the_cpu_and_resolved():
    torch = pytest.importorskip("torch", reason="torch is not installed, so its tensors were not tried")
    assert array_of(torch.ones(2, requires_grad=True)).tolist() == [1, 1]
    assert array_of(torch.tensor([1 + 2j]).conj()).tolist() == [1 - 2j]
    assert array_of(torch.tensor([1 + 2j]).conj().imag).tolist() == [-2]
    assert array_of(torch.tensor(True)).shape == ()
    assert array_of(torch.nn.Parameter(torch.zeros(1))).tolist() == [0]
    for refused, says in (
        (torch.zeros(2, dtype=torch.bfloat16), "bfloat16"),
        (torch.zeros(2).to_sparse(), "to_dense"),
        (torch.zeros(2, device="meta"), "cannot become a NumPy array"),
    ):
        with pytest.raises(NoArray, match=says):
            array_of(refused)
    if torch.cuda.is_available():
        assert array_of(torch.ones(2, device="cuda")).tolist() == [1, 1]


def test_jaxs_arrays_are_fetched():
    jax = pytest.importorskip("jax", reason="jax is not installed, so its arrays were not tried")
    assert array_of(jax.numpy.ones(2)).tolist() == [1, 1]
    assert array_of(jax.random.PRNGKey(0)).dtype == np.uint32
    with pytest.raises(NoArray, match="key_data"):
        array_of(jax.random.key(0))
    with pytest.raises(NoArray, match="bfloat16"):
        array_of(jax.numpy.ones(2, "bfloat16"))


def test_arrays_of_the_array_api_are_arrays():
    xp = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed, so it was not tried")
    assert array_of(xp.asarray([1, 2])).tolist() == [1, 2]


def test_pandas_columns_are_arrays():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed, so it was not tried")
    assert array_of(pandas.Series([1, 2])).tolist() == [1, 2]


def test_none_of_the_libraries_is_imported():
    code = "import sys, remote_gym.worker.host; print({'torch', 'jax', 'cupy', 'tensorflow'} & set(sys.modules))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert printed.stdout.strip() == "set()"
