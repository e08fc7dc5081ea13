"""A stand-in computes as its array would, notes every operation, and refuses what it must."""

import contextlib
import copy
import operator
import sys

import numpy as np
import pytest

from fastgrad.tracing import operations
from fastgrad.tracing.operations import Node, leaves, replaced, without_repeats
from fastgrad.tracing.recorder import NotTraceable, Recording, record
from fastgrad.tracing.stand_in import Recorded

A = np.random.default_rng(0).normal(size=(3, 4))
B = np.random.default_rng(1).normal(size=(3, 4))


@pytest.fixture
def recording():
    return Recording()


@pytest.fixture
def x(recording):
    return recording.start(A.copy())


def as_arrays(node):
    return replaced(node.arguments, lambda leaf: leaf.value if type(leaf) is Node else leaf)


# What is recorded --------------------------------------------------------------------------------

BINARY = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
    operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne,
]  # fmt: skip


@pytest.mark.parametrize("other", [B, 2.0, 3, B[0], np.float64(0.5), True])
@pytest.mark.parametrize("operation", BINARY, ids=lambda f: f.__name__)
def test_operators_work_from_both_sides(x, recording, operation, other):
    for result, expected in [
        (operation(x, other), operation(A, other)),
        (operation(other, x), operation(other, A)),
        (operation(x, x), operation(A, A)),
    ]:
        assert type(result) is Recorded
        assert result.node.value.tobytes() == expected.tobytes()
        assert result.node.value.dtype == expected.dtype
        assert result.node in recording.nodes
        assert x.node in result.node.inputs()


@pytest.mark.parametrize("operation", [operator.pow, operator.ipow])
@pytest.mark.parametrize("exponent", [2, 2.0, 0.5, -1, 3, np.float64(2), np.int64(2), True])
def test_powers_are_those_of_the_operator(recording, operation, exponent):
    # np.power of older NumPys may round squares, roots and reciprocals otherwise.
    positive = np.random.default_rng(2).random(1000)
    x = recording.start(positive)
    expected = operation(positive.copy(), exponent)
    assert operation(x.copy(), exponent).node.value.tobytes() == expected.tobytes()


UNARY = {
    "negative": operator.neg,
    "positive": operator.pos,
    "absolute": abs,
    "power": lambda x: x**2,
    "power of": lambda x: 2.0**x,
    "matmul": lambda x: x @ B.T,
    "matmul from the left": lambda x: B.T @ x,
    "accumulate": lambda x: np.maximum.accumulate(x, axis=1),
    "outer": lambda x: np.subtract.outer(x[0], x[:, 1]),
    "reduceat": lambda x: np.add.reduceat(x, [0, 2], axis=1),
    "not": lambda x: ~(x > 0),
    "and": lambda x: (x > 0) & (x < 1),
    "exclusive or": lambda x: (x > 0) ^ True,
}


@pytest.mark.parametrize("name", UNARY)
def test_other_operators_are_recorded(x, name):
    result = UNARY[name](x)
    assert type(result) is Recorded
    assert result.node.value.tobytes() == UNARY[name](A).tobytes()


def test_rounding_is_recorded(x):
    assert round(x.sum(), 2).node.value == round(A.sum(), 2)


METHODS = {
    "all": (), "any": (), "argmax": (1,), "argmin": (), "clip": (-0.5, 0.5), "copy": (),
    "cumprod": (1,), "cumsum": (0,), "diagonal": (), "dot": (B.T,), "max": (1,), "mean": (0,),
    "min": (), "prod": (), "ravel": (), "repeat": (2,), "round": (1,), "squeeze": (), "std": (0,),
    "sum": (1,), "swapaxes": (0, 1), "take": ([1, 2],), "trace": (), "var": (1,), "flatten": (),
    "reshape": (4, 3), "transpose": (1, 0), "astype": (np.float32,), "item": None,
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_recorded(recording, name):
    arguments = METHODS[name]
    values = A if arguments is not None else A[:1, :1].copy()
    stand_in = recording.start(values)
    result = getattr(stand_in, name)(*arguments or ())
    expected = getattr(values, name)(*arguments or ())
    assert type(result) is Recorded
    assert np.asarray(result.node.value).tobytes() == np.asarray(expected).tobytes()
    assert result.node.depends


def test_every_method_that_is_promised_is_tested():
    assert set(operations.METHODS) <= set(METHODS)


def test_attributes_are_the_arrays(x):
    assert (x.shape, x.ndim, x.size, x.dtype, len(x)) == ((3, 4), 2, 12, A.dtype, 3)
    assert isinstance(x, np.ndarray)
    assert x.T.node.value.tobytes() == A.T.tobytes()
    assert [row.node.value.tolist() for row in x] == A.tolist()
    assert np.shape(x) == (3, 4)
    assert np.ndim(x) == 2
    assert np.size(x) == 12
    assert type(np.zeros_like(x)) is np.ndarray


def test_keyword_and_positional_arrays_are_alike(x):
    assert np.sum(a=x, axis=0).node.value.tolist() == A.sum(axis=0).tolist()
    assert np.reshape(x, (4, 3)).node.shape == (4, 3)


def test_the_recording_can_be_computed_again(x, recording):
    y = np.exp(x)
    y[0] = 1
    y += x.sum(axis=0)
    z = np.where(y > 2, y, 0) @ B.T
    z[z <= 0] = 0
    z[[0, 1], 2] = x[0, :2]
    np.maximum(z, 0.1, out=z)
    for node in recording.nodes[1:]:
        again = node.compute(as_arrays(node))
        assert np.asarray(again).tobytes() == np.asarray(node.value).tobytes()


def test_values_are_the_same_as_numpys_after_changes_in_place(recording, x):
    def change(array):
        y = array.copy()
        y[1] = 0
        y[y < 0] = 0.5
        y[:, 1] = array[:, 0]
        y[np.arange(3), [0, 1, 2]] -= 1
        y *= 2
        y **= 2
        np.sqrt(y, out=y)
        np.clip(y, 0, 1, out=y)
        y[1] += array[0]
        row = y[2]
        row *= 2
        row[:2] = array[0, :2]
        y[:, 1:] = y[:, :-1]
        y[0] -= y[1] * row
        y[0][1] = array[2, 2]
        turned = y.T.reshape(2, 2, 3)
        y[1, 1] = 5
        y[2] += turned[0, 0, 1] + turned[1, 1].sum() + y.T[1].sum()
        y[:2][0][1:] += 1
        return y

    assert change(x).node.value.tobytes() == change(A).tobytes()


def test_what_does_not_depend_on_the_array_is_not_among_the_nodes(x, recording):
    constant = recording.constant(B)
    both = np.tanh(constant) + 1
    assert not both.node.depends
    assert len(recording.nodes) == 1
    assert float(both[0, 0]) == np.tanh(B[0, 0]) + 1
    assert bool(constant[0, 0] == B[0, 0])
    assert (x + both).node.depends


def test_a_constant_that_takes_recorded_values_depends_on_the_array_from_then_on(x, recording):
    constant = recording.constant(np.zeros((3, 4)))
    constant[0] = 5.0
    assert not constant.node.depends
    constant[1] = x[0]
    assert constant.node.depends
    assert constant.node.value.tolist() == [[5.0] * 4, A[0].tolist(), [0.0] * 4]


def test_a_number_that_is_added_to_leaves_its_other_names_alone(x):
    loss = np.mean(x**2)
    data = loss
    loss += np.sum(x)
    assert float(data.node.value) == np.mean(A**2)
    assert float(loss.node.value) == np.mean(A**2) + np.sum(A)


def test_an_array_that_is_added_to_changes_under_all_its_names(x):
    y = x * 1
    other = y
    y += 1
    assert other.node.value.tolist() == (A + 1).tolist()


# What ends a recording ---------------------------------------------------------------------------


def use_an_old_view(x):
    y = x * 1
    view = np.broadcast_to(y[0], (3, 4))
    y += 1
    return view + 1


def change_a_view(x):
    y = x * 1
    view = y.T
    view += 1
    return y + 1


REFUSED = {
    "bool": (lambda x: bool(x[0, 0]), "branch"),
    "if": (lambda x: 1 if x.sum() > 0 else 2, "branch"),
    "and": (lambda x: x.sum() and 1, "branch"),
    "in": (lambda x: 1.0 in x, "branch"),
    "int": (lambda x: int(x[0, 0]), "int"),
    "float": (lambda x: float(x[0, 0]) + 1, "float before the end"),
    "complex": (lambda x: complex(x[0, 0]), "complex"),
    "index": (lambda x: [1, 2][np.argmax(x[0])], "index"),
    "index of an array": (lambda x: x[np.argmax(x[0]) - 1], "index depends"),
    "index of a plain array": (lambda x: B[x > 0], "index depends"),
    "mask": (lambda x: x[x > 0], "index depends"),
    "item of a mask's": (lambda x: x[x > 0][0], "index depends"),
    "number of a mask's": (lambda x: np.sum(x) / x[x > 0].size, "index depends"),
    "length of a mask's": (lambda x: np.sum(x) / len(x[x > 0]), "index depends"),
    "shape of a mask's": (lambda x: np.sum(x) / np.size(x[x > 0]), "index depends"),
    "like a mask's": (lambda x: np.sum(x) + np.ones_like(x[x > 0]).sum(), "index depends"),
    "two masks": (lambda x: np.sum(x[x > 0] * x[x >= 0]), "index depends"),
    "mask of another": (lambda x: x.copy().__setitem__(x > 0, x[x >= 0]), "index depends"),
    "assigned what a mask selects": (
        lambda x: np.ravel(x.copy()).__setitem__(slice(np.count_nonzero(A > 0)), x[x > 0]),
        "index depends",
    ),
    "into what a mask selects": (lambda x: x[x > 0].__setitem__(0, 1.0), "index depends"),
    "product of a mask's": (lambda x: np.dot(x[x > 0], x[x > 0]), "index depends"),
    "asarray": (lambda x: np.asarray(x), "plain array"),
    "array": (lambda x: np.array([x[0, 0], x[0, 1]]), "plain array|float"),
    "into a plain array": (lambda x: B.copy().__setitem__(0, x[0]), "plain array"),
    "out": (lambda x: np.add(x, 1, out=B.copy()), "not recorded is changed in place"),
    "plain in place": (lambda x: operator.iadd(B.copy(), x), "not recorded is changed in place"),
    "positional out": (lambda x: np.dot(x, B.T, B.copy()), "not recorded is changed in place"),
    "more than out": (lambda x: np.sum(x, 0, None, B[0].copy(), True), "after its result's array"),
    "inserted at a value": (lambda x: np.insert(x[0], x.argmax() % 2, 1.0), "index depends"),
    "deleted at a value": (lambda x: np.delete(x, [0, x.argmax()]), "index depends"),
    "inserted into integers": (lambda x: np.insert([1, 2], 0, x[0]), "converts what it puts in"),
    "dtype in place": (lambda x: operator.iadd(x > 0, x), "changes the shape or dtype"),
    "shape in place": (lambda x: operator.iadd(x[0] * 1, x), "changes the shape or dtype"),
    "x in place": (lambda x: operator.iadd(x, 1), "it changes x"),
    "old view": (use_an_old_view, "changed in place since"),
    "view in place": (change_a_view, "changed in place since"),
    "root through a view": (lambda x: x[0].__setitem__(0, 1.0), "it changes x"),
    "unknown function": (lambda x: np.interp(x, [0, 1], [0, 1]), "interp is not recorded"),
    "unknown attribute": (lambda x: x.tolist(), "tolist is not recorded"),
    "flat": (lambda x: x.flat, "flat is not recorded"),
    "at": (lambda x: np.add.at(x, 0, 1), "add.at is not recorded"),
    "two results": (lambda x: np.modf(x), "modf.__call__ is not recorded"),
    "divmod": (lambda x: divmod(x, 2), "is not recorded"),
    "nonzero": (lambda x: np.where(x > 0), "returns no array"),
    "array by keyword": (lambda x: np.sum(x, where=x > 0), "array by keyword"),
    "assigned at a value": (
        lambda x: x.copy().__setitem__(x > 0, B[0]),
        "place that depends|shape",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_ends_the_recording(x, recording, name):
    action, reason = REFUSED[name]
    with pytest.raises(NotTraceable, match=reason):
        record(lambda: action(x), recording)


@pytest.mark.parametrize(
    "name", ["bool", "float", "item of a mask's", "asarray", "out", "unknown function"]
)
def test_a_function_that_catches_the_exception_is_not_taken_for_recorded(x, recording, name):
    def swallow():
        with contextlib.suppress(Exception):
            REFUSED[name][0](x)
        return np.sum(x)

    with pytest.raises(NotTraceable, match=REFUSED[name][1]):
        record(swallow, recording)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda x: None, "not computed from the array"),
        (lambda x: 1.0, "not computed from the array"),
        (lambda x: B.sum(), "not computed from the array"),
        (lambda x: [np.sum(x)], "not computed from the array"),
        (lambda x: x, "not a number"),
        (lambda x: np.sum(x, axis=0), "not a number"),
        (lambda x: 1 / 0, "raises ZeroDivisionError"),
        (lambda x: float(np.sum(x)) * 1, "float before the end"),
    ],
)
def test_a_result_must_be_a_recorded_number(x, recording, call, reason):
    with pytest.raises(NotTraceable, match=reason):
        record(lambda: call(x), recording)
    assert not recording.is_open


def test_interrupts_pass_and_close_the_recording(x, recording):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(interrupt, recording)
    assert not recording.is_open
    assert type(x + 1) is np.ndarray


def test_a_number_of_one_element_is_a_result(x, recording):
    assert record(lambda: np.sum(x).item(), recording).value == A.sum()


# Afterwards --------------------------------------------------------------------------------------


def test_a_closed_stand_in_is_as_good_as_its_array(x, recording):
    record(lambda: np.sum(x), recording)
    assert type(x + 1) is np.ndarray
    assert type(np.tanh(x)) is np.ndarray
    assert type(np.concatenate([x, x])) is np.ndarray
    assert type(x[0]) is np.ndarray
    assert type(np.asarray(x)) is np.ndarray
    assert float(x[0, 0]) == A[0, 0]
    assert bool(x[0, 0] == A[0, 0])
    assert [1, 2, 3, 4][np.argmax(x[0])] == 1 + A[0].argmax()
    assert copy.copy(x).tolist() == A.tolist()
    assert copy.deepcopy(x).tolist() == A.tolist()
    x += 1
    x[0] = 7
    assert np.asarray(x)[0].tolist() == [7] * 4
    assert np.asarray(x)[1:].tolist() == (A + 1)[1:].tolist()
    assert len(recording.nodes) == 2


def test_a_plain_array_takes_a_closed_stand_in(x, recording):
    record(lambda: np.sum(x), recording)
    plain = np.zeros((3, 4))
    plain += x
    plain[0] = x[1]
    assert plain.tolist() == [A[1].tolist(), *A[1:].tolist()]


# Repeats -----------------------------------------------------------------------------------------


def distinct(expression):
    recording = Recording()
    x = recording.start(A.copy())
    output = expression(x).node
    nodes, _ = without_repeats(recording.nodes, output)
    return len(recording.nodes) - len(nodes)


@pytest.mark.parametrize(
    ("expression", "repeats"),
    [
        (lambda x: np.exp(x) + np.exp(x), 1),
        (lambda x: np.exp(x) * np.tanh(x), 0),
        (lambda x: np.sum(np.exp(x), axis=0) + np.sum(np.exp(x), axis=0), 2),
        (lambda x: (x + B) * (x + B), 1),
        (lambda x: (x + B) * (x + B.copy()), 0),
        (lambda x: (x + 1) * (x + 1.0), 0),
        (lambda x: (x + 1) * (x + True), 0),
        (lambda x: x[0] + x[1], 0),
        (lambda x: x[0:1] + x[0:1], 1),
        (lambda x: x[0:1] + x[0:2][:1], 0),
        (lambda x: x - (1 - x), 0),
        (lambda x: np.clip(x, a_min=B, a_max=None) + np.clip(x, a_min=B - 9, a_max=None), 0),
        (lambda x: np.reshape(x, (4, 3)) + np.reshape(x, (4, 3), order="F"), 0),
        (lambda x: np.concatenate([x, B]) + np.concatenate([B, x]), 0),
        (lambda x: np.subtract(x, 2 * x) + np.subtract(2 * x, x), 1),
        (lambda x: x + np.copy(x), 1),
        (lambda x: np.exp(x).reshape(x.shape) * np.exp(x), 2),
        (lambda x: x + np.ravel(x).reshape(x.shape), 0),
        (lambda x: np.ravel(np.ravel(x)), 1),
    ],
)
def test_only_copies_and_the_same_operations_on_the_same_arrays_are_repeats(expression, repeats):
    assert distinct(expression) == repeats


def test_repeats_leave_the_result_what_it_was(x, recording):
    output = (np.exp(x) + np.exp(x)) * np.exp(x)
    nodes, node = without_repeats(recording.nodes, output.node)
    values = {nodes[0]: A}
    for other in nodes[1:]:
        values[other] = other.compute(
            replaced(other.arguments, lambda leaf: values[leaf] if type(leaf) is Node else leaf)
        )
    assert values[node].tobytes() == ((np.exp(A) + np.exp(A)) * np.exp(A)).tobytes()


def test_trees_are_replaced_leaf_by_leaf():
    tree = (1, [2, (3, "four")], None)
    assert leaves(tree) == [1, 2, 3, "four", None]
    assert replaced(tree, lambda leaf: [leaf]) == ([1], [[2], ([3], ["four"])], [None])


def test_recording_leaves_no_references_to_frames(x):
    count = sys.getrefcount(x)
    np.exp(x + 1)
    assert sys.getrefcount(x) == count
