"""A replay of many versions, or of one moved unit, gives what each version by itself gives."""

import nets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad.tracing import operations, replay
from fastgrad.tracing.operations import between
from fastgrad.tracing.recorder import Recording, record
from fastgrad.tracing.replay import Replay

EPS = nets.EPS
ROWS, COLUMNS = 4, 6
REPEATABLE = settings(derandomize=True, deadline=None)
random = np.random.default_rng(0)
A = random.normal(size=(ROWS, COLUMNS))
SQUARE = random.normal(size=(COLUMNS, COLUMNS))
WIDE = random.normal(size=(COLUMNS, 3))
ROW = random.normal(size=COLUMNS)
CUBE = random.normal(size=(2, COLUMNS, 3))
MASK = A > 0


def assign(x, index, value):
    result = x.copy()
    result[index] = value
    return result


def in_place(x, change):
    result = x.copy()
    change(result)
    return result


EXPRESSIONS = {
    # Elementwise
    "add": lambda x: x + A,
    "row": lambda x: ROW - x,
    "column": lambda x: x * A[:, :1],
    "twice": lambda x: x * x + x,
    "power": lambda x: abs(x) ** 1.5,
    "reflected": lambda x: 1 / (2 + x**2),
    "outer sum": lambda x: x[:, :, np.newaxis] + x[:, np.newaxis, :],
    "other rank": lambda x: x[0] * x,
    "scalar": lambda x: x * x[1, 2],
    "0-d": lambda x: np.sum(x) * x,
    "number": lambda x: x[1, 2] ** 2 + 1,
    "list": lambda x: x * [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    "list of recorded": lambda x: x[:, :2] * [x[0, 0], x[1, 1]],
    "exp": np.exp,
    "maximum": lambda x: np.maximum(x, A),
    "minimum of two": lambda x: np.minimum(x, x[::-1]),
    "logaddexp": lambda x: np.logaddexp(0, x),
    "where": lambda x: np.where(x > 0, x, 0.1 * x),
    "where constant": lambda x: np.where(MASK, x, A),
    "where nested": lambda x: np.where(x > 1, 1, np.where(x < -1, -1, x)),
    "clip": lambda x: np.clip(x, -0.5, 0.5),
    "clip by arrays": lambda x: np.clip(x, ROW - 1, ROW + 1),
    "clip by position": lambda x: np.clip(x, -0.5, ROW, np.exp(x)),
    "clip from below": lambda x: x.clip(0.1),
    "clip by keyword": lambda x: x.clip(min=0),
    "round": lambda x: np.round(x, 1),
    "nan to num": lambda x: np.nan_to_num(x / abs(x)),
    "astype": lambda x: (x * 10).astype(np.int64) + 0.5,
    "astype float32": lambda x: x.astype(np.float32) * 2,
    "mask product": lambda x: x * (x > 0),
    "comparison": lambda x: (x > 0.1) + 0.0,
    "logic": lambda x: x * ~((x > 0) & (x < 1)),
    "keyword of a ufunc": lambda x: np.add(x, 1, dtype=np.float64),
    "chain in place": lambda x: in_place(np.exp(x), lambda y: np.tanh(np.add(y, 1, out=y), out=y)),
    "operators in place": lambda x: in_place(x, lambda y: y.__iadd__(A).__imul__(2)),
    "around a mean": lambda x: (z := np.exp(x)) - z.mean(axis=1, keepdims=True) + np.tanh(z),
    "product and sums": lambda x: (1.5 - MASK) + (np.exp(x) @ SQUARE - A) + 0.5,
    "product that cancels, and sums": lambda x: np.exp(40 * x) @ SQUARE - A + 2.0,
    "sum and sums": lambda x: 1.0 + (np.exp(x).sum(axis=1, keepdims=True) - A[:, :1]),
    "sums that cancel": lambda x: np.exp(40 * x).sum(axis=0) - A[0],
    "product that is read twice": lambda x: (z := np.exp(x) @ SQUARE) + 1.0 + z,
    "residual around a product": lambda x: (z := np.exp(x)) @ SQUARE + np.tanh(0.5 * z),
    "shared operand": lambda x: np.exp(x) * np.exp(x) + np.tanh(np.exp(x)),
    # Moves
    "row item": lambda x: x[2],
    "element": lambda x: x[2, 3],
    "item": lambda x: x.item(-7) * x + x.item((1, 2)) * x.item(0, 1),
    "slice": lambda x: x[1:, ::2],
    "reversed": lambda x: x[::-1, ::-1],
    "ellipsis": lambda x: x[..., 1],
    "new axes": lambda x: x[:, None, :, None],
    "fancy": lambda x: x[[0, 2, 0], [1, 1, 5]],
    "fancy rows": lambda x: x[np.array([3, 0, 3])],
    "fancy grid": lambda x: x[np.ix_([0, 2], [1, 3, 4])],
    "labels": lambda x: x[np.arange(ROWS), [0, 5, 2, 2]],
    "mask": lambda x: x[MASK],
    "row mask": lambda x: x[np.array([True, False, True, True])],
    "empty": lambda x: x[:, :0],
    "assigned": lambda x: assign(x, np.s_[1:3, ::2], 7.0),
    "assigned recorded": lambda x: assign(x, np.s_[1], 2 * x[0]),
    "assigned mask": lambda x: assign(x, MASK, 0),
    "assigned own mask": lambda x: assign(x, x <= 0, 0),
    "assigned twice": lambda x: assign(x, ([0, 0], [1, 1]), x[1, :2]),
    "assigned broadcast": lambda x: assign(x, np.s_[:, 1:], x[:, :1]),
    "assigned to a constant": lambda x: assign(0 * x, np.s_[:, 2], x[:, 1]),
    "transpose": lambda x: x.T,
    "transpose axes": lambda x: x.reshape(2, 2, 3, 2).transpose(3, 0, 2, 1),
    "transpose with ones": lambda x: x[:, None].transpose(2, 1, 0),
    "swapaxes": lambda x: x.reshape(2, 2, 6).swapaxes(0, 2),
    "moveaxis": lambda x: np.moveaxis(x.reshape(2, 2, 3, 2), 0, -1),
    "rollaxis": lambda x: np.rollaxis(x.reshape(2, 2, 6), 2),
    "reshape": lambda x: x.reshape(3, -1),
    "reshape F": lambda x: np.reshape(x, (3, 8), order="F"),
    "reshape of transpose": lambda x: x.T.reshape(4, 6),
    "ravel": lambda x: np.ravel(x),
    "flatten": lambda x: x.flatten(),
    "squeeze": lambda x: x[:, :1].squeeze(),
    "expand dims": lambda x: np.expand_dims(x, (0, 2)),
    "broadcast to": lambda x: np.broadcast_to(x, (3, ROWS, COLUMNS)),
    "flip": lambda x: np.flip(x, 1),
    "rot90": lambda x: np.rot90(x),
    "roll": lambda x: np.roll(x, 2, axis=1),
    "roll flat": lambda x: np.roll(x, 5),
    "repeat": lambda x: np.repeat(x, 2, axis=0),
    "repeat method": lambda x: x.repeat(3),
    "tile": lambda x: np.tile(x, (2, 3)),
    "take": lambda x: np.take(x, [1, 1, 4], axis=1),
    "take flat": lambda x: x.take([3, 20]),
    "diag of": lambda x: np.diag(x),
    "diag from": lambda x: np.diag(x[0]),
    "diagonal": lambda x: x.diagonal(1),
    "tril": lambda x: np.tril(x, 1),
    "triu": lambda x: np.triu(x),
    "atleast": lambda x: np.atleast_2d(x[0]),
    "concatenate": lambda x: np.concatenate([x, A, x[:2]], axis=0),
    "concatenate flat": lambda x: np.concatenate((x.ravel(), [1.0, 2.0], x[0])),
    "stack": lambda x: np.stack([x, A, 2 * x], axis=1),
    "hstack": lambda x: np.hstack([x, A[:, :2]]),
    "vstack": lambda x: np.vstack([ROW, x]),
    "dstack": lambda x: np.dstack([x[:2], A[:2], x[:2]]),
    "column stack": lambda x: np.column_stack([x[:, 0], x, A[:, 1]]),
    "pad": lambda x: np.pad(x, ((1, 0), (2, 1))),
    "pad by name": lambda x: np.pad(x, 1, "constant"),
    "pad edge": lambda x: np.pad(x, 1, mode="edge"),
    "pad by ones": lambda x: np.pad(x, 1, constant_values=1.0),
    "append": lambda x: np.append(x, ROW),
    "append a column": lambda x: np.append(x, np.ones((ROWS, 1)), axis=1),
    "append to a constant": lambda x: np.append([1, 2], x[0]),
    "insert a column": lambda x: np.insert(x, 0, 1.0, axis=1),
    "insert its own": lambda x: np.insert(x, [3, 1, 1], x[0, :3]),
    "insert by a mask": lambda x: np.insert(A, MASK[0], x[:, :1], axis=1),
    "delete": lambda x: np.delete(x, [1, -1], axis=1),
    "moves of moves": lambda x: np.pad(x.T[::-1], 1)[1:].reshape(2, -1),
    # Reductions
    "sum": lambda x: np.sum(x),
    "sum axis": lambda x: x.sum(axis=0),
    "sum last": lambda x: x.sum(-1),
    "sum of a number": lambda x: np.sum(np.sum(x**2), axis=-1) + np.max(x[1, 2], axis=0),
    "sum keepdims": lambda x: x.sum(axis=1, keepdims=True),
    "sum axes": lambda x: x.reshape(2, 2, 3, 2).sum(axis=(0, -1)),
    "sum of all axes": lambda x: np.sum(x, axis=(0, 1), keepdims=True),
    "sum of bools": lambda x: np.sum(x > 0, axis=1),
    "sum with dtype": lambda x: np.sum(x, dtype=np.float64),
    "mean": lambda x: x.mean(axis=0),
    "max": lambda x: np.max(x, axis=1),
    "max of all": lambda x: x.max(),
    "max from": lambda x: np.max(x, axis=0, initial=0.0),
    "min": lambda x: np.amin(x, 0),
    "prod": lambda x: np.prod(x, axis=1),
    "argmax": lambda x: np.argmax(x, axis=1),
    "argmax of all": lambda x: x.argmax(),
    "argmin": lambda x: x.argmin(axis=0),
    "any": lambda x: np.any(x > 1, axis=0),
    "all": lambda x: np.all(x > -1, axis=1),
    "var": lambda x: np.var(x, axis=0),
    "std with ddof": lambda x: np.std(x, axis=1, ddof=1, keepdims=True),
    "add.reduce": lambda x: np.add.reduce(x, axis=1),
    "maximum.reduce": lambda x: np.maximum.reduce(x),
    "softmax": nets.softmax_by_keepdims,
    "book's softmax": nets.softmax,
    "batch norm": lambda x: (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-3),
    # Products
    "dot": lambda x: np.dot(x, WIDE),
    "dot from the left": lambda x: np.dot(SQUARE[:, :ROWS], x),
    "matmul": lambda x: x @ WIDE,
    "vector": lambda x: x @ ROW,
    "vector from the left": lambda x: ROW[:ROWS] @ x,
    "vector of it": lambda x: x[1] @ WIDE,
    "inner of vectors": lambda x: x[1] @ x[2],
    "of itself": lambda x: x @ x.T,
    "of a transpose": lambda x: x.T @ A,
    "inner": lambda x: np.inner(x, A),
    "dot of many axes": lambda x: np.dot(CUBE.transpose(0, 2, 1), x.T),
    "dot with many axes": lambda x: np.dot(x, CUBE),
    "matmul of a stack": lambda x: x.reshape(2, 2, 6) @ WIDE,
    "matmul of stacks": lambda x: x.reshape(2, 2, 6) @ CUBE,
    "matmul by a stack": lambda x: x @ CUBE,
    "einsum": lambda x: np.einsum("ij,jk->ik", x, WIDE),
    "einsum implicit": lambda x: np.einsum("ij,jk", x, WIDE),
    "einsum transposed": lambda x: np.einsum("ij,jk->ki", x, WIDE),
    "einsum batch": lambda x: np.einsum("ij,ij->i", x, A),
    "einsum to a number": lambda x: np.einsum("ij,ij->", x, A),
    "einsum outer": lambda x: np.einsum("ij,k->ikj", x, ROW),
    "einsum sums one": lambda x: np.einsum("ij,kl->jk", x, WIDE),
    "einsum of one": lambda x: np.einsum("ij->ji", x),
    "einsum diagonal": lambda x: np.einsum("ii->i", x[:, :4]),
    "einsum of three": lambda x: np.einsum("ij,jk,k->i", x, WIDE, ROW[:3]),
    "einsum ellipsis": lambda x: np.einsum("...j,jk->...k", x, WIDE),
    "einsum letters": lambda x: np.einsum("Zz,zA->ZA", x, WIDE),
    "einsum squares": lambda x: np.einsum("ZA,AB->ZB", x[:, :4], A),
    "einsum of two": lambda x: np.einsum("ij,kj->ik", x, 2 * x),
    "tensordot": lambda x: np.tensordot(x, WIDE, 1),
    "tensordot axes": lambda x: np.tensordot(x, CUBE, ([1], [1])),
    "tensordot two axes": lambda x: np.tensordot(x, A, ([0, 1], [0, 1])),
    "tensordot negative": lambda x: np.tensordot(A, x, ((-1,), (-1,))),
    "tensordot outer": lambda x: np.tensordot(x[0], x[1], 0),
    "tensordot by keyword": lambda x: np.tensordot(x, WIDE, axes=1),
    # Others
    "outer": lambda x: np.outer(x[0], ROW),
    "cumsum": lambda x: np.cumsum(x, axis=1),
    "accumulate": lambda x: np.maximum.accumulate(x, axis=1),
    "outer by ufunc": lambda x: np.subtract.outer(x[0], ROW),
    "diff": lambda x: np.diff(x),
    "sort": lambda x: np.sort(x, axis=0),
    "median": lambda x: np.median(x, axis=1),
    "norm": lambda x: np.linalg.norm(x),
    "norms": lambda x: np.linalg.norm(x, axis=1),
    "solve": lambda x: np.linalg.solve(SQUARE, x.T),
    "trace": lambda x: x.trace(),
    "kron": lambda x: np.kron(x[:2, :2], SQUARE[:2, :2]),
    # Whole tails
    "layer": lambda x: np.maximum(x @ SQUARE + ROW, 0) @ WIDE,
    "loss": lambda x: -np.log(nets.softmax(np.tanh(x) @ WIDE)[np.arange(ROWS), [0, 2, 1, 1]]),
    "mean loss": lambda x: np.mean((np.tanh(x @ SQUARE) @ WIDE) ** 2),
    "residual": lambda x: x + np.tanh(x @ SQUARE) @ SQUARE.T,
    "attention": lambda x: nets.softmax_by_keepdims(x @ SQUARE @ x.T) @ x,
}


def recorded(expression):
    """Return the nodes of an expression of an array, and that of its result."""
    recording = Recording()
    root = recording.start(A.copy())
    result = expression(root)
    node = result.read()
    return recording.nodes, node


def close(result, expected, scale):
    """Say whether arrays agree to the rounding of sums of some 36 terms of a size."""
    result, expected = np.asarray(result), np.asarray(expected)
    assert result.shape == expected.shape
    eps = np.finfo(np.float32).eps if expected.dtype == np.float32 else EPS
    bound = 64 * eps * (scale + np.abs(expected))
    return bool(np.all((np.abs(result.astype(float) - expected) <= bound) | (result == expected)))


def scale_of(nodes):
    """Return the largest magnitude that is computed on the way."""
    return max((float(np.abs(node.value).max(initial=0)) for node in nodes), default=1.0)


def versions(count, seed=1):
    return A + 0.5 * np.random.default_rng(seed).normal(size=(count, ROWS, COLUMNS))


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_all_versions_at_once_are_each_version_by_itself(name):
    for count in (1, 4):
        assert_each_version(EXPRESSIONS[name], versions(count))


def assert_each_version(expression, values):
    nodes, target = recorded(expression)
    before = values.copy()
    labels = np.ones(A.shape, np.intp)
    with np.errstate(all="ignore"):
        result = Replay(nodes, nodes[0], labels, target).all_versions(values)
        expected = [np.asarray(expression(version)) for version in values]
    assert result.dtype == expected[0].dtype
    assert np.array_equal(values, before)
    for mine, right in zip(result, expected, strict=True):
        assert close(mine, right, scale_of(nodes))


@pytest.mark.parametrize("first", [0, 0.0, -0.0, np.nan, 2.5, ROW, A])
def test_choices_have_the_bits_of_where(first):
    special = np.resize([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -7.0], A.shape)
    values = np.stack([A, special, np.flip(special)])
    for expression in (
        lambda x: np.where(x > 0, first, x),
        lambda x: np.where(x > 0, x, first),
        lambda x: np.where(x.T > 0, x.T, 2 * x.T),
        lambda x: np.where(x[0] > 0, first, x),
        lambda x: np.where(x.astype(bool), x, x.astype(np.float32)),
        lambda x: np.where(MASK, x, first),
    ):
        with np.errstate(all="ignore"):
            nodes, target = recorded(expression)
            replayed = Replay(nodes, nodes[0], np.ones(A.shape, np.intp), target)
            result = replayed.all_versions(values)
            expected = np.stack([expression(version) for version in values])
        assert result.tobytes() == expected.tobytes()


LABELS = {
    "columns": np.broadcast_to(np.arange(1, COLUMNS + 1), A.shape),
    "rows": np.broadcast_to(np.arange(1, ROWS + 1)[:, np.newaxis], A.shape),
    "elements": np.arange(1, A.size + 1).reshape(A.shape),
    "some columns": np.broadcast_to([0, 1, 0, 2, 3, 0], A.shape),
    "pairs of columns": np.broadcast_to([1, 2, 1, 3, 2, 3], A.shape),
    "unequal columns": np.broadcast_to([1, 1, 1, 2, 2, 3], A.shape),
    "one of all": np.ones(A.shape, np.intp),
    "shuffled": np.random.default_rng(2).integers(0, 5, A.shape),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_moving_a_unit_is_recomputing_everything_with_the_unit_moved(name):
    for labels in LABELS.values():
        assert_moved(EXPRESSIONS[name], labels, versions(2))


@REPEATABLE
@given(
    name=st.sampled_from(list(EXPRESSIONS)),
    second=st.sampled_from(["tanh", "softmax", "layer", "sum axis", "slice", "of itself"]),
    seed=st.integers(0, 1000),
    amounts=st.integers(1, 3),
    most=st.integers(1, 8),
)
def test_moving_a_unit_is_the_same_through_compositions(name, second, seed, amounts, most):
    dice = np.random.default_rng(seed)
    labels = dice.integers(0, most + 1, A.shape)
    labels.flat[0] = most
    first = EXPRESSIONS[name]
    others = {**EXPRESSIONS, "tanh": np.tanh}

    def expression(x):
        y = first(x)
        if np.shape(y) != A.shape:
            return np.tanh(y) * 2 + 1
        return others[second](y)

    assert_moved(expression, labels, versions(amounts, seed), dice.permutation(most)[:3] + 1)


def assert_moved(expression, labels, values, units=None):
    nodes, target = recorded(expression)
    values = np.where(labels > 0, values, A)
    before = values.copy()
    every = Replay(nodes, nodes[0], labels, target)
    wanted = every.units if units is None else units
    with np.errstate(all="ignore"):
        outcomes = list(every.moved(values, units))
        expected = [
            [np.asarray(expression(np.where(labels == unit, moved, A))) for moved in values]
            for unit in wanted
        ]
    assert np.array_equal(values, before)
    assert np.concatenate([outcome.units for outcome in outcomes]).tolist() == list(wanted)
    place = {int(unit): k for k, unit in enumerate(wanted)}
    scale = scale_of(nodes) + max(np.abs(e).max(initial=0) for row in expected for e in row)
    for outcome in outcomes:
        for k, unit in enumerate(outcome.units):
            for amount in range(len(values)):
                if outcome.unit_ids is None:
                    mine = outcome.values[k, amount]
                else:
                    own = outcome.unit_ids == unit
                    mine = np.where(own, outcome.values[amount], target.value)
                assert close(mine, expected[place[int(unit)]][amount], scale), (labels, unit)


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_units_are_moved_in_any_number_of_parts(batch, monkeypatch):
    monkeypatch.setattr(replay, "BATCH_ELEMENTS", batch)
    for name in ("layer", "loss", "mean loss", "residual", "attention", "cumsum", "batch norm"):
        assert_moved(EXPRESSIONS[name], LABELS["columns"], versions(3))
        assert_each_version(EXPRESSIONS[name], versions(6))


@pytest.mark.parametrize(
    ("name", "labelling", "separate"),
    [
        ("exp", "elements", True),
        ("transpose axes", "elements", True),
        ("sum axis", "columns", True),
        ("sum axis", "rows", False),
        ("sum last", "columns", False),
        ("sum last", "rows", True),
        ("layer", "columns", False),
        ("layer", "rows", True),
        ("softmax", "rows", True),
        ("softmax", "columns", False),
        ("batch norm", "columns", True),
        ("batch norm", "rows", False),
        ("attention", "rows", False),
        ("loss", "rows", True),
        ("assigned twice", "rows", True),
        ("cumsum", "rows", False),
    ],
)
def test_whether_units_stay_separate_is_told_from_the_operations(name, labelling, separate):
    nodes, target = recorded(EXPRESSIONS[name])
    assert Replay(nodes, nodes[0], LABELS[labelling], target).is_separate is separate


@pytest.mark.parametrize("labelling", ["rows", "columns", "elements", "shuffled"])
def test_labels_are_those_of_all_elements_that_change(labelling):
    """Elements without a label, or with another one, must not change when a unit is moved."""
    labels, separate = LABELS[labelling], 0
    for name, expression in EXPRESSIONS.items():
        nodes, target = recorded(expression)
        every = Replay(nodes, nodes[0], labels, target)
        if not every.is_separate:
            continue
        separate += 1
        base = np.asarray(expression(A))
        for unit in every.units[::3]:
            for poison in (np.nan, 1e3, -1e3):
                with np.errstate(all="ignore"):
                    moved = np.asarray(expression(np.where(labels == unit, poison, A)))
                changed = ~((moved == base) | (np.isnan(moved) & np.isnan(base)))
                assert not np.any(changed & (every.unit_ids[target] != unit)), name
    assert separate > 50


def test_sources_count_from_one_and_are_zero_where_something_is_new():
    _, node = recorded(EXPRESSIONS["pad"])
    places = node.sources
    assert places.shape == (ROWS + 1, COLUMNS + 3)
    assert (places == 0).sum() == places.size - A.size
    assert np.array_equal(places[1:, 2:-1], np.arange(1, A.size + 1).reshape(A.shape))


def test_between_leaves_out_what_is_not_on_the_way():
    recording = Recording()
    root = recording.start(A)
    first = np.exp(root)
    aside = np.sin(root)
    second = first * 2
    unused = second + 1
    target = np.sum(second * A)
    nodes = between(recording.nodes, first.node, target.node)
    assert nodes[0] is second.node
    assert nodes[-1] is target.node
    assert aside.node not in nodes
    assert unused.node not in nodes
    assert len(nodes) == 3


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_are_recorded_with_the_values_that_numpy_gives(name):
    recording = Recording()
    root = recording.start(A.copy())
    expression = EXPRESSIONS[name]
    with np.errstate(all="ignore"):
        node = record(lambda: np.sum(expression(root)), recording)
        expected = np.sum(expression(A))
    assert node.value.dtype == expected.dtype
    assert node.value.tobytes() == expected.tobytes()
    assert node.function is np.sum
    for other in recording.nodes[1:]:
        kind = operations.kind_of(other.function, other.arguments, other.keywords)
        assert kind in ("elementwise", "move", "reduction", "product", "other")
