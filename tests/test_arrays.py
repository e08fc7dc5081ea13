"""Odd arrays, and odd things that f returns: right numbers, or a sentence that says what to do."""

import numpy as np
import pytest

import fastgrad
from fastgrad import differentiate, hessian, jacobian, numerical_gradient
from fastgrad.differences.arguments import may_share_elements


def squares(x):
    return np.power(x, 2).sum()


ENTRIES = {
    "numerical_gradient": numerical_gradient,
    "auto": lambda f, x: numerical_gradient(f, x, "auto"),
    "forward": lambda f, x: numerical_gradient(f, x, 1e-7, scheme="forward"),
    "complex": lambda f, x: numerical_gradient(f, x, 1e-20, scheme="complex"),
    "differentiate": lambda f, x: differentiate(f, x).gradient,
    "jacobian": jacobian,
    "hessian": lambda f, x: hessian(f, x).sum(axis=(0, 1)) * np.asarray(x),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", ["unaligned", "matrix", "masked nowhere"])
def test_unaligned_arrays_matrices_and_masked_arrays_without_masked_elements_are_served(
    entry, kind
):
    if kind == "unaligned":
        x = np.frombuffer(bytearray(8 * 6 + 1), np.uint8)[1:].view(np.float64).reshape(2, 3)
        assert not x.flags.aligned
    else:
        x = (
            np.matrix(np.zeros((2, 3)))
            if kind == "matrix"
            else np.ma.masked_array(np.zeros((2, 3)))
        )
    x[...] = np.arange(1.0, 7).reshape(2, 3)
    got = np.asarray(ENTRIES[entry](squares, x))
    np.testing.assert_allclose(got, 2 * np.arange(1.0, 7).reshape(2, 3), rtol=1e-5)
    assert np.asarray(x).tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("entry", ENTRIES)
def test_overlapping_elements_are_refused_before_f_is_called(entry):
    def never(x):
        raise AssertionError

    overlapping = np.lib.stride_tricks.as_strided(np.ones(12), (2, 4), (16, 8))
    with pytest.raises(ValueError, match=r"elements of x share memory.*x\.copy\(\)"):
        ENTRIES[entry](never, overlapping)


def test_masked_elements_stay_masked_and_checks_refuse_them():
    x = np.ma.masked_array([1.0, 2.0, 3.0], [False, True, False])
    for entry in ("numerical_gradient", "auto", "forward", "differentiate"):
        got = ENTRIES[entry](squares, x)
        assert got.mask.tolist() == [False, True, False]
        np.testing.assert_allclose(got.compressed(), [2, 6], rtol=1e-6)
    for check in (fastgrad.check_gradient, fastgrad.slope_test):
        with pytest.raises(ValueError, match=r"x has masked elements.*compressed"):
            check(squares, x, 2 * x)


@pytest.mark.parametrize("n", [3, 200])
def test_an_f_that_masks_elements_of_x_is_refused_and_they_are_not_masked_afterwards(n):
    def outliers_apart(x):
        x[x > 0.9] = np.ma.masked
        return (x**2).sum()

    x = np.ma.masked_array(np.linspace(0, 1, n))
    with pytest.raises(ValueError, match="f changes x"):
        numerical_gradient(outliers_apart, x)
    assert not np.ma.is_masked(x)
    assert x.tolist() == np.linspace(0, 1, n).tolist()


@pytest.mark.parametrize(
    ("shape", "strides", "shared"),
    [
        ((2, 3), (24, 8), False),
        ((3, 2), (8, 24), False),
        ((2, 3), (8, 16), False),  # interleaved
        ((2, 4), (16, 8), True),
        ((2, 3), (0, 8), True),
        ((1, 3), (0, 8), False),
        ((3,), (-16,), False),
        ((3,), (4,), True),
        ((0, 3), (0, 0), False),
    ],
)
def test_elements_in_one_place_are_found_by_the_strides(shape, strides, shared):
    x = np.lib.stride_tricks.as_strided(np.zeros(40)[20:], shape, strides)
    assert may_share_elements(x) == shared


@pytest.mark.parametrize("entry", [name for name in ENTRIES if name != "hessian"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.ma.masked, "masked"),
        ((1.0, np.ones(3)), r"lambda x: f\(x\)\[0\]"),
        ([1.0, [2.0, 3.0]], "reduce"),
        ({"loss": 1.0}, "(real number|complex)"),
        (None, "(real number|complex)"),
        ("1.0", "(real number|complex)"),
    ],
)
def test_what_is_no_number_is_refused_with_what_to_do(entry, value, said):
    with pytest.raises(TypeError, match=f"f returned.*{said}") as caught:
        ENTRIES[entry](lambda x: value, np.ones(3))
    assert caught.value.__cause__ is None
    assert "inhomogeneous" not in str(caught.value)


def test_a_step_may_be_an_array_without_axes():
    got = numerical_gradient(lambda x: x * 1.0, np.array(2.0), np.array(1e-4))
    np.testing.assert_allclose(got, 1.0, rtol=1e-10)
    for entry in (numerical_gradient, jacobian, fastgrad.differentiate, hessian):
        entry(squares, np.ones(2), np.array(1e-3))
