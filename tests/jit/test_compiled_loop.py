"""Loops are compiled once, kept with their functions, and go with them."""

import gc
import pickle
import signal
import subprocess
import sys
import weakref

import numba
import numpy as np
import pytest
from oracle import JIT

from fastgrad import numerical_gradient
from fastgrad.engines.compiled import is_jitted
from fastgrad.jit import jitted
from fastgrad.jit.jitted import LOOPS_ATTRIBUTE
from fastgrad.schemes import central

needs_jit = pytest.mark.skipif(not JIT, reason="numba compiles nothing here")


@numba.njit
def squares(x):
    return (x**2).sum()


def numbers(size):
    return np.random.default_rng(0).normal(size=size)


def make_function():
    return numba.njit(lambda x: (x**2).sum())


@needs_jit
def test_the_loop_is_compiled_once_for_each_function_and_type():
    f = make_function()
    numerical_gradient(f, numbers(5))
    (kept,) = vars(f)[LOOPS_ATTRIBUTE].values()
    numerical_gradient(f, numbers(7), 1e-3, scheme=central(4))
    numerical_gradient(f, np.asfortranarray(numbers(6)))
    assert [*vars(f)[LOOPS_ATTRIBUTE].values()] == [kept]
    numerical_gradient(f, numbers(6).astype(np.float32), 1e-2)
    numerical_gradient(f, numbers(6).reshape(2, 3))
    assert len(vars(f)[LOOPS_ATTRIBUTE]) == 3


@needs_jit
@pytest.mark.usefixtures("lanes_at_once")  # which compiles both loops
def test_functions_that_are_dropped_are_freed_with_their_loops():
    f = make_function()
    numerical_gradient(f, numbers(3))
    numerical_gradient(squares, numbers(3))  # the last one, which may be kept
    loops = [kept.run for kept in vars(f)[LOOPS_ATTRIBUTE].values()]
    in_lanes = [kept.lanes(f) for kept in vars(f)[LOOPS_ATTRIBUTE].values()]
    loops += [found.run for found in in_lanes if found]
    copies = [loop.py_func.__closure__[0].cell_contents for loop in loops]
    alive = [*map(weakref.ref, (f, *loops, *copies))]
    del loops, in_lanes, copies
    assert all(reference() is not None for reference in alive)
    del f
    gc.collect()
    assert all(reference() is None for reference in alive)


@needs_jit
@pytest.mark.usefixtures("lanes_at_once")  # which compiles both loops
def test_a_recompiled_function_gets_a_new_loop():
    scale = {"factor": 2.0}
    source = "def f(x):\n    return FACTOR * x.sum()\n"
    names = {"FACTOR": scale["factor"]}
    exec(source, names)
    f = numba.njit(names["f"])
    assert numerical_gradient(f, np.zeros(2)).round(6).tolist() == [2, 2]
    names["FACTOR"] = 5.0
    f.recompile()
    assert numerical_gradient(f, np.zeros(2)).round(6).tolist() == [5, 5]


@needs_jit
@pytest.mark.usefixtures("lanes_at_once")
def test_a_function_with_its_loop_can_be_pickled():
    numerical_gradient(squares, numbers(3))
    copy = pickle.loads(pickle.dumps(squares))
    assert (
        numerical_gradient(copy, numbers(3)).tolist()
        == numerical_gradient(squares, numbers(3)).tolist()
    )


@needs_jit
@pytest.mark.usefixtures("lanes_at_once")
def test_functions_with_declared_types_are_served():
    f = numba.njit("float64(float64[:])")(lambda x: np.sum(np.sin(x)))
    result = numerical_gradient(f, numbers(5), engine="compiled")
    assert result.tobytes() == numerical_gradient(f, numbers(5), engine="loop").tobytes()


def test_whether_a_function_is_jitted_is_told_without_importing_numba():
    code = """
import sys
import numpy as np
from fastgrad import numerical_gradient
from fastgrad.engines.compiled import is_jitted
assert not is_jitted(np.sum)
numerical_gradient(np.sum, np.ones(2))
assert "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert is_jitted(squares) == JIT


@needs_jit
def test_an_interrupt_of_which_numba_makes_an_error_is_raised_and_not_kept(monkeypatch):
    f, compile_ = make_function(), jitted._compile

    def interrupted(*arguments):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("generator raised StopIteration") from None
        return compile_(*arguments)

    monkeypatch.setattr(jitted, "_compile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        numerical_gradient(f, numbers(5), engine="compiled")
    monkeypatch.undo()
    numerical_gradient(f, numbers(5), engine="compiled")
