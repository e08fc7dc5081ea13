"""Kernels on disk: they are right without a cache, and whatever has happened to it."""

import numba
import numpy as np
import pytest
from numba.core import caching
from oracle import JIT

from fastgrad.jit import kernel as jit
from fastgrad.jit.kernel import kernel

pytestmark = pytest.mark.skipif(not JIT, reason="nothing is compiled")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder of the test's own in which numba caches."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(jit, "_works", True)
    return tmp_path


def double(task, tasks, values):
    for i in range(values.size):
        values[i] *= 2


def triple(task, tasks, values):
    for i in range(values.size):
        values[i] *= 3


def require_right(function, factor):
    """Compile a kernel as in a new process, and run it."""
    values = np.ones(3)
    kernel("(float64[::1],)")(function)(1, values)
    assert values.tolist() == [factor] * 3


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_whole_is_loaded_and_stays_as_it_is(folder):
    require_right(double, 2)
    before = files(folder)
    assert {path.suffix for path in before} == {".nbi", ".nbc", ".seal"}
    require_right(double, 2)
    assert files(folder) == before


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b[:-9] + b"\0" * 9])
@pytest.mark.parametrize("kind", ["nbi", "nbc", "seal"])
def test_what_is_damaged_is_compiled_again(folder, kind, damage):
    require_right(double, 2)
    for path in folder.rglob(f"*.{kind}"):
        path.write_bytes(damage(path.read_bytes()))
    require_right(double, 2)
    before = files(folder)
    require_right(double, 2)
    assert files(folder) == before


def test_code_of_another_kernel_in_its_place_is_not_run(folder):
    require_right(double, 2)
    require_right(triple, 3)
    (mine,), (other,) = (folder.rglob(f"*{name}_{name}*.nbc") for name in ("double", "triple"))
    mine.write_bytes(other.read_bytes())
    require_right(double, 2)


@pytest.mark.parametrize("failure", ["no folder", "a full disk"])
def test_without_a_cache_kernels_are_compiled_and_that_is_said_once(failure, folder, monkeypatch):
    if failure == "no folder":
        monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    else:

        def write(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", write)
    with pytest.warns(RuntimeWarning, match="cannot keep compiled code .* NUMBA_CACHE_DIR"):
        require_right(double, 2)
    require_right(triple, 3)  # without another warning, which would be an error


def test_what_cannot_be_compiled_says_so_itself():
    with pytest.raises(numba.core.errors.TypingError, match="nowhere"):
        kernel("(float64[::1],)")(undefined)(1, np.ones(3))
    assert jit._works


def undefined(task, tasks, values):
    values[0] = nowhere  # noqa: F821
