"""A function of many points is evaluated on stacks, with the loop's bits and bounded memory."""

import numpy as np
import pytest

from fastgrad import numerical_gradient, schemes
from fastgrad.engines import loop


def stacked(s):
    return np.array([one(np.ascontiguousarray(x)) for x in s], s.dtype)


def one(x):
    return (np.sin(x) * x).sum()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble, ">f8"])
@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (0,)])
@pytest.mark.parametrize("name", ["central", "forward", "complex"])
def test_the_quotients_are_the_loops_bit_for_bit(shape, dtype, order, name):
    x = np.asarray(np.random.default_rng(0).normal(size=shape), dtype, order=order)
    x.flags.writeable = True
    result = numerical_gradient(stacked, x, 1e-3, vectorized=True, scheme=name)
    looped = numerical_gradient(
        lambda x: one(np.ascontiguousarray(x)), x, 1e-3, engine="loop", scheme=name
    )
    np.testing.assert_array_equal(result, looped)
    assert (result.dtype, result.shape) == (x.dtype, x.shape)


def test_x_is_never_touched_even_by_a_function_that_changes_its_stack():
    x = np.random.default_rng(0).normal(size=(3, 2))
    before = x.tobytes()

    def f(s):
        assert not np.shares_memory(s, x)
        assert x.tobytes() == before
        s -= 1
        return (s**2).sum(axis=(1, 2))

    result = numerical_gradient(f, x, vectorized=True)
    np.testing.assert_allclose(result, 2 * (x - 1), atol=1e-9)


def test_stacks_are_as_small_as_asked(monkeypatch):
    monkeypatch.setattr(loop, "MAX_STACK_BYTES", 5 * 7 * 8)  # five points of seven doubles
    counts = []

    def f(s):
        assert s.shape[1:] == (7,)
        assert s.flags.c_contiguous
        counts.append(len(s))
        return s.sum(axis=1)

    numerical_gradient(f, np.zeros(7), vectorized=True)
    assert counts == [5, 5, 4]
    monkeypatch.setattr(loop, "MAX_STACK_BYTES", 1)
    numerical_gradient(f, np.zeros(7), vectorized=True)
    assert counts[3:] == [1] * 14


def test_args_steps_and_bounds_are_served():
    def f(s, k, power):
        assert (s >= 0).all()
        return k * (s**power).sum(axis=1)

    x = np.array([0.0, 1.0])
    options = {"args": (3.0, 2), "bounds": (0, np.inf), "vectorized": True}
    for h in (1e-4, [1e-4, 1e-3], "auto"):
        result = numerical_gradient(f, x, h, scheme=schemes.central(4), **options)
        np.testing.assert_allclose(result, [0, 6], atol=1e-8)


def test_f_may_return_the_same_array_every_time():
    out = np.zeros(6)

    def f(s):
        return np.sum(s**2, axis=1, out=out[: len(s)])

    result = numerical_gradient(f, np.array([1.0, 2.0, 3.0]), vectorized=True, scheme="central")
    np.testing.assert_allclose(result, [2, 4, 6], atol=1e-9)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_whole_numbers_do_not_wrap_around(dtype):
    result = numerical_gradient(
        lambda s: np.where(s[:, 0] < 0, 100, 0).astype(dtype), np.zeros(1), vectorized=True
    )
    assert result[0] == -100 / 2e-4


@pytest.mark.parametrize(
    ("f", "error", "match"),
    [
        (lambda s: s.sum(), ValueError, r"shape \(\) for a stack of shape \(4, 2\), .*one of .*4,"),
        (lambda s: s, ValueError, r"shape \(4, 2\) for a stack .*reduce all axes but the first"),
        (lambda s: s.sum(axis=0), ValueError, r"shape \(2,\) for a stack of shape \(4, 2\)"),
        (lambda s: None, ValueError, r"shape \(\)"),
        (lambda s: s[:, 0] > 0, TypeError, "dtype bool, but it must return real numbers"),
        (lambda s: s[:, 0] * 1j, TypeError, "dtype complex128, but it must return real numbers"),
        (lambda s: ["a"] * len(s), TypeError, "dtype <U1, but it must return real numbers"),
    ],
)
def test_results_that_are_no_stack_of_numbers_are_refused(f, error, match):
    with pytest.raises(error, match=match):
        numerical_gradient(f, np.ones(2), vectorized=True)


def test_a_function_that_drops_the_imaginary_part_is_refused():
    with pytest.raises(TypeError, match="must return complex numbers for a complex x"):
        numerical_gradient(
            lambda s: abs(s).sum(axis=1), np.ones(2), scheme="complex", vectorized=True
        )


@pytest.mark.parametrize(
    ("x", "engine"), [({"a": np.ones(2)}, "auto"), (np.ones(2), "loop"), (np.ones(2), "traced")]
)
def test_structures_and_engines_are_refused(x, engine):
    with pytest.raises(ValueError, match="vectorized is True, which asks for one array x and eng"):
        numerical_gradient(lambda s: 0.0, x, vectorized=True, engine=engine)


def test_what_f_raises_passes_unchanged():
    error = KeyError("mine")

    def f(s):
        raise error

    with pytest.raises(KeyError) as raised:
        numerical_gradient(f, np.ones(2), vectorized=True)
    assert raised.value is error
