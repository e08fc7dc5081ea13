"""A gradient that does not fit its parameter is refused, with what it looks like."""

import numpy as np
import pytest

from fastgrad.checking.subject import Batch, as_analytic_gradients

BATCH = Batch(None, np.zeros((5, 2)), np.zeros(5))

SHAPES = [
    ((3, 4), (4, 3), "transposed, return .T"),
    ((4,), (5, 4), r"a row for each sample: sum over them, by .sum\(axis=0\)"),
    ((4,), (5,), "summed over the wrong axis"),
    ((4,), (1, 4), r"return .reshape\(4,\)"),
    ((4,), (), "a single number"),
    ((4,), (7, 7), "return an array of that shape"),
]


@pytest.mark.parametrize(("wanted", "given", "words"), SHAPES)
def test_a_wrong_shape_is_explained(wanted, given, words):
    with pytest.raises(ValueError, match=words):
        as_analytic_gradients({"b": np.zeros(given)}, {"b": np.zeros(wanted)}, BATCH)


def test_missing_parts_are_named():
    with pytest.raises(ValueError, match=r"gradient\['b'\] is missing: the gradient has \['a'\]"):
        as_analytic_gradients({"a": np.zeros(1)}, {"a": np.zeros(1), "b": np.zeros(1)})
    with pytest.raises(ValueError, match="the gradient is a ndarray"):
        as_analytic_gradients(np.zeros(1), {"a": np.zeros(1)})


def test_what_is_not_made_of_real_numbers_is_refused():
    for wrong in (np.zeros(2, complex), np.array(["a", "b"]), [[1.0], [1.0, 2.0]]):
        with pytest.raises(TypeError, match="gradient"):
            as_analytic_gradients(wrong, np.zeros(2))
    with pytest.raises(
        TypeError, match=r"gradient\['a'\] is None, .* call that first, and .* zeros"
    ):
        as_analytic_gradients({"a": None}, {"a": np.zeros(2)})


def test_claims_are_copies_that_know_their_precision():
    given = np.arange(6, dtype=np.float32).reshape(2, 3)
    ((analytic, eps),) = as_analytic_gradients(given, np.zeros((2, 3)))
    given[:] = 0
    np.testing.assert_array_equal(analytic, np.arange(6.0))
    assert analytic.dtype == np.float64
    assert eps == np.finfo(np.float32).eps
    ((_, eps),) = as_analytic_gradients([1, 2], np.zeros(2))
    assert eps == np.finfo(np.float64).eps
