"""class_indices reads every accepted form of t, and refuses the others."""

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad.network.functions import class_indices

REPEATABLE = settings(derandomize=True, deadline=None)


@REPEATABLE
@given(
    labels=st.lists(st.integers(0, 9), min_size=2, max_size=20),
    dtype=st.sampled_from(["uint8", "int8", "int32", "int64", "uint64", ">i4", "float32", "f8"]),
    column=st.booleans(),
)
def test_labels_of_any_dtype_are_indices_in_rows_and_in_columns(labels, dtype, column):
    t = np.array(labels, dtype)
    indices = class_indices(t[:, np.newaxis] if column else t, len(labels), 10)
    assert indices.dtype == np.intp
    assert indices.tolist() == labels


@REPEATABLE
@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=20),
    dtype=st.sampled_from(["bool", "uint8", "int64", "float16", "float32", "float64"]),
)
def test_one_hot_rows_of_any_dtype_give_their_class(labels, dtype):
    t = np.eye(5).astype(dtype)[labels]
    assert class_indices(t, len(labels), 5).tolist() == labels


def test_the_largest_soft_target_counts_and_the_first_of_equal_ones():
    t = np.array([[0.2, 0.5, 0.3], [0.4, 0.2, 0.4]])
    assert class_indices(t, 2, 3).tolist() == [1, 0]


@pytest.mark.parametrize("t", [2, 2.0, np.int64(2), [2], [[2]], [0, 0, 1], [[0.1, 0.2, 0.7]]])
def test_a_single_sample_may_have_a_number_or_a_row(t):
    assert class_indices(t, 1, 3).tolist() == [2]


@pytest.mark.parametrize("t", [[1.0, 1.0], [[1.0], [0.3]], [5, 7]])
def test_with_a_single_class_any_row_means_that_class(t):
    assert class_indices(t, 2, 1).tolist() == [0, 0]


def test_booleans_are_labels_where_their_shape_says_so():
    assert class_indices([True, False, True], 3, 2).tolist() == [1, 0, 1]


def test_a_batch_without_samples_has_no_indices():
    assert class_indices(np.zeros(0, np.uint8), 0, 10).shape == (0,)
    assert class_indices(np.zeros((0, 10)), 0, 10).shape == (0,)


def test_the_indices_are_a_new_array():
    t = np.array([1, 2], np.intp)
    assert not np.shares_memory(class_indices(t, 2, 3), t)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float64])
def test_a_negative_label_is_named_with_its_position_and_the_range(dtype):
    with pytest.raises(ValueError, match=r"t\[1\] is -1(\.0)?, but .* from 0 to 9"):
        class_indices(np.array([3, -1, -2], dtype), 3, 10)


@pytest.mark.parametrize("label", [10, 255, 2**63, 2.0**70, np.inf])
def test_a_label_too_large_is_named_with_its_position_and_the_range(label):
    t = np.array([3, label, 11]) if isinstance(label, float) else np.array([3, label, 11], "u8")
    with pytest.raises(ValueError, match=rf"t\[1\] is {re.escape(str(t[1]))}, .* from 0 to 9"):
        class_indices(t, 3, 10)


@pytest.mark.parametrize("label", [0.5, np.nan])
def test_a_label_that_is_no_whole_number_is_refused(label):
    with pytest.raises(ValueError, match=rf"t\[1\] is {label}, but a class index is a whole"):
        class_indices([1.0, label], 2, 10)


@pytest.mark.parametrize(
    "shape", [(3,), (5,), (), (4, 9), (4, 2), (1, 4), (10, 4), (40,), (4, 10, 1), (2, 2)]
)
def test_other_shapes_are_refused_with_the_right_ones_named(shape):
    match = re.escape(f"t has shape {shape}") + ".*4 samples and 10 classes.*" + r"\(4, 10\)"
    with pytest.raises(ValueError, match=match):
        class_indices(np.zeros(shape, int), 4, 10)


def test_a_nan_among_soft_targets_is_named():
    with pytest.raises(ValueError, match=r"t\[1, 2\] is nan"):
        class_indices([[0.1, 0.9, 0.0], [0.1, 0.2, np.nan]], 2, 3)


@pytest.mark.parametrize("t", [["cat", "dog"], [1j, 2j], [None, 1], np.array([1, 2], object)])
def test_labels_that_are_not_numbers_are_refused(t: Any):
    with pytest.raises(TypeError, match=r"t has dtype .* does not hold class labels"):
        class_indices(t, 2, 3)
