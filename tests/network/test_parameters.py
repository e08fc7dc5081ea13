"""Parameters behave like a dict of arrays, and stay views of one buffer whatever is done."""

import copy
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad.network.parameters import Parameters

SHAPES = {"W1": (2, 2), "b1": (2,), "W2": (2, 3), "b2": (3,)}


@pytest.fixture
def params() -> Parameters:
    """Parameters whose values are 0, 1, 2, ..."""
    made = Parameters(SHAPES)
    made.buffer = np.arange(15.0)
    return made


def assert_tied(params: Parameters) -> None:
    """Check that the arrays lie in the buffer, one after the other, without gaps."""
    start = params.buffer.ctypes.data
    for view in params.values():
        assert not view.size or view.ctypes.data == start
        assert view.flags.c_contiguous
        assert view.dtype == np.float64
        start += view.nbytes
    assert start == params.buffer.ctypes.data + params.buffer.nbytes
    assert params.buffer.flags.c_contiguous
    assert params.buffer.flags.writeable


def test_new_parameters_are_zeros_in_the_given_order():
    params = Parameters(SHAPES)
    assert list(params) == ["W1", "b1", "W2", "b2"]
    assert params.shapes == SHAPES
    assert not params.buffer.any()
    assert_tied(params)


@settings(derandomize=True, deadline=None)
@given(shapes=st.dictionaries(st.text(), st.lists(st.integers(0, 3), max_size=3).map(tuple)))
def test_any_shapes_lie_in_the_buffer_one_after_the_other(shapes):
    params = Parameters(shapes)
    params.buffer = np.arange(params.buffer.size)
    assert params.shapes == shapes
    assert_tied(params)
    flat = [value for view in params.values() for value in view.ravel()]
    assert flat == params.buffer.tolist()


def test_a_negative_length_is_refused():
    with pytest.raises(ValueError, match=r"W has shape \(2, -1\); pass lengths that are not neg"):
        Parameters({"W": (2, -1)})


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float16, np.float32, np.longdouble])
def test_assigned_arrays_are_copied_and_converted(params, dtype):
    values = np.array([1, 0], dtype)
    params["b1"] = values
    assert params["b1"].tolist() == [1, 0]
    assert params.buffer[4:6].tolist() == [1, 0]
    values[0] = 0
    assert params["b1"][0] == 1
    assert_tied(params)


def test_lists_can_be_assigned(params):
    params["W1"] = [[1, 2], [3, 4]]
    assert params.buffer[:4].tolist() == [1, 2, 3, 4]


def test_the_update_of_gradient_descent_works_in_place(params):
    view = params["W1"]
    params["W1"] -= 0.5 * np.ones((2, 2))
    assert params["W1"] is view
    assert params.buffer[:4].tolist() == [-0.5, 0.5, 1.5, 2.5]


def test_values_may_overlap_the_array_that_they_are_assigned_to(params):
    params["W1"] = params["W1"].T
    assert params["W1"].tolist() == [[0, 2], [1, 3]]
    params["W1"] = params["W1"][::-1]
    assert params["W1"].tolist() == [[1, 3], [0, 2]]
    params.buffer = params.buffer[::-1]
    assert params.buffer.tolist() == [14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 2, 0, 3, 1]
    params.buffer[:] = np.arange(15)
    params["W2"] = params.buffer[4:10].reshape(2, 3)
    assert params["W2"].tolist() == [[4, 5, 6], [7, 8, 9]]


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 1), (1, 2), (2, 2)])
def test_another_shape_is_refused_and_nothing_is_broadcast(params, shape):
    before = params.buffer.copy()
    with pytest.raises(ValueError, match=r"b1 has shape \(2,\), the assigned value has shape \("):
        params["b1"] = np.ones(shape)
    assert (params.buffer == before).all()


@pytest.mark.parametrize("value", [[1j, 2j], ["a", "b"], [None, 1.0], [b"1", b"2"]])
def test_what_is_no_real_number_is_refused(params, value: Any):
    with pytest.raises(TypeError, match="b1 is made of float64 numbers and cannot hold dtype"):
        params["b1"] = value


def test_unknown_names_are_refused_with_the_known_ones_named(params):
    match = "unknown parameter 'W9'; the parameters are W1, b1, W2, b2"
    with pytest.raises(KeyError, match=match):
        params["W9"]
    with pytest.raises(KeyError, match=match):
        params["W9"] = [1.0]
    with pytest.raises(KeyError, match=match):
        params.update(W9=[1.0])
    assert params.get("W9") is None
    assert "W9" not in params


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.__delitem__("W1"),
        lambda p: p.pop("W1"),
        lambda p: p.pop("W9", None),
        lambda p: p.popitem(),
        lambda p: p.clear(),
        lambda p: p.setdefault("W9", np.ones(2)),
    ],
    ids=["del", "pop", "pop default", "popitem", "clear", "setdefault"],
)
def test_names_can_be_neither_added_nor_removed(params, change):
    with pytest.raises(TypeError, match="W1, b1, W2, b2 share one buffer"):
        change(params)
    assert params.shapes == SHAPES
    assert_tied(params)


def test_setdefault_returns_what_is_there(params):
    assert params.setdefault("W1", np.ones(9)) is params["W1"]


@pytest.mark.parametrize("operator", ["update", "|=", "pairs", "keywords"])
def test_updates_copy_into_the_views(params, operator):
    views, new = dict(params), {"b1": np.array([7.0, 8.0]), "b2": [1, 2, 3]}
    if operator == "update":
        params.update(new)
    elif operator == "|=":
        params |= new
    elif operator == "pairs":
        params.update(new.items())
    else:
        params.update(**new)
    assert isinstance(params, Parameters)
    assert params.buffer.tolist() == [0, 1, 2, 3, 7, 8, 6, 7, 8, 9, 10, 11, 1, 2, 3]
    assert all(params[name] is view for name, view in views.items())


def test_an_update_with_one_bad_item_changes_nothing(params):
    before = params.buffer.copy()
    with pytest.raises(ValueError, match="b2 has shape"):
        params.update(b1=[7, 8], b2=[1, 2])
    with pytest.raises(KeyError, match="W9"):
        params.update(b1=[7, 8], W9=[1])
    assert (params.buffer == before).all()


def test_an_update_can_swap_two_parameters():
    params = Parameters({"a": (2,), "b": (2,)})
    params.buffer = [1, 2, 3, 4]
    params.update(a=params["b"], b=params["a"])
    assert params.buffer.tolist() == [3, 4, 1, 2]


def test_the_buffer_can_be_assigned_and_changed_in_place(params):
    buffer = params.buffer
    params.buffer -= 0.5 * np.ones(15)
    assert params.buffer is buffer
    assert params["b2"].tolist() == [11.5, 12.5, 13.5]
    params.buffer = np.zeros(15, np.float32)
    assert params.buffer is buffer
    assert not params["W1"].any()


def test_a_buffer_of_another_size_is_refused(params):
    with pytest.raises(ValueError, match=r"buffer has shape \(15,\), the assigned value has shape"):
        params.buffer = np.zeros(14)


@pytest.mark.parametrize(
    "duplicate",
    [
        Parameters.copy,
        copy.copy,
        copy.deepcopy,
        *[
            lambda p, protocol=protocol: pickle.loads(pickle.dumps(p, protocol))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ],
    ],
)
def test_copies_are_independent_and_tied_to_a_buffer_of_their_own(params, duplicate):
    twin = duplicate(params)
    assert type(twin) is Parameters
    assert list(twin) == list(params)
    assert twin == params
    assert_tied(twin)
    twin["W1"] += 1
    assert twin != params
    assert params.buffer.tolist() == list(range(15))


def test_a_buffer_that_travels_with_its_parameters_stays_tied_to_them(params):
    for travel in (copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))):
        twin, buffer = travel((params, params.buffer))
        assert twin.buffer is buffer
        assert_tied(twin)


def test_parameters_unpickled_from_read_only_memory_are_writable(params):
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(params, protocol=5, buffer_callback=buffers.append)
    twin = pickle.loads(data, buffers=[bytes(buffer.raw()) for buffer in buffers])
    assert twin == params
    assert_tied(twin)


def test_equality_compares_names_and_values_with_any_mapping(params):
    plain = {name: values.copy() for name, values in params.items()}
    assert params == plain
    assert params == OrderedDict(reversed(plain.items()))
    assert plain == params
    plain["b1"][0] = -1
    assert params != plain
    assert plain != params
    assert params != {"W1": params["W1"]}
    assert params != 3


def test_a_union_is_a_plain_dict(params):
    union = params | {"W9": np.ones(1)}
    assert type(union) is dict
    assert list(union) == ["W1", "b1", "W2", "b2", "W9"]
    assert union["W1"] is params["W1"]


def test_the_repr_shows_shapes_and_no_values(params):
    assert repr(params) == "Parameters(W1: (2, 2), b1: (2,), W2: (2, 3), b2: (3,))"


def test_parameters_cannot_be_hashed(params):
    with pytest.raises(TypeError, match="unhashable"):
        hash(params)


def test_values_assigned_to_a_subclass_survive_copies():
    class Named(Parameters):
        __slots__ = ()

    params = Named({"W": (2,)})
    params["W"] = [1, 2]
    assert type(params.copy()) is Named
    assert params.copy() == params
