"""Sparse derivatives of random functions are the dense ones, and no entry is missed."""

import numba
import numpy as np
from scipy import sparse

from fastgrad import detect_sparsity, hessian, jacobian

EPS = np.finfo(float).eps

H = 2.0**-17
"""The best step of central quotients, about, where f varies over distances of 1."""

LINEAR, SINE, PRODUCT, BRANCH, MAXIMUM, SWALLOWING, WITH_FIRST = range(7)
"""What a row of a random function does with an element that it depends on."""

SMOOTH = LINEAR, SINE, PRODUCT, WITH_FIRST


@numba.njit
def by_entries(x, starts, columns, weights, kinds):
    """Return rows that are computed one entry after the other, some by branches."""
    rows = np.zeros(len(starts) - 1)
    for i in range(len(rows)):
        product = 1.0
        for k in range(starts[i], starts[i + 1]):
            t = x[columns[k]]
            if kinds[k] == LINEAR:
                rows[i] += weights[k] * t
            elif kinds[k] == SINE:
                rows[i] += weights[k] * np.sin(t)
            elif kinds[k] == PRODUCT:
                product *= t
            elif kinds[k] == BRANCH:
                rows[i] += weights[k] * t * t if t > 0 else -t
            elif kinds[k] == MAXIMUM:
                rows[i] += weights[k] * max(0.0, t)
            elif kinds[k] == SWALLOWING:
                rows[i] = max(rows[i], weights[k] * t)
            else:
                rows[i] += weights[k] * t * x[columns[starts[i]]]
        rows[i] += product
    return rows


def neighbours(shape):
    """Return which points of a grid are a point or next to it."""
    points = np.indices(shape).reshape(len(shape), -1).T
    return abs(points[:, np.newaxis] - points).sum(axis=2) <= 1


def random_structure(random, square=False):
    """Return which entries there are, (m, n): as of many fields, some rows or columns empty."""
    m, n = random.integers(1, 25, 2)
    m = n if square else m
    i, j = np.indices((m, n))
    width = random.integers(1, 5)
    scattered = random.uniform(size=(m, n)) < random.uniform(0, 0.4)
    one = random.integers(min(m, n))
    structures = {
        "arrow": (i == 0) | (j == 0) | (i == j),
        "band": (j - i < width) & (i - j < random.integers(1, 5)),
        "blocks": i // width == j // width,
        "permuted band": (abs(i - j) <= 1)[random.permutation(m)][:, random.permutation(n)],
        "power law": random.uniform(size=(m, n)) < 1 / (1 + random.permutation(m))[:, np.newaxis],
        "plane": neighbours(random.integers(2, 5, 2)),
        "room": neighbours(random.integers(2, 4, 3)),
        "scattered": scattered,
        "full row": scattered | (i == one),
        "full column": scattered | (j == one),
    }
    structure = structures[random.choice([*structures])]
    if random.uniform() < 0.2:
        structure[random.integers(len(structure))] = False
    if random.uniform() < 0.2:
        structure[:, random.integers(structure.shape[1])] = False
    return structure


def random_function(random, kinds=None):
    """Return f, its arguments, x, and which entries it may have."""
    structure = random_structure(random)
    x = random.normal(size=structure.shape[1])
    if kinds is None and random.uniform() < 0.7:
        kinds = range(7)
    else:
        kinds = SMOOTH
        x[random.uniform(size=x.size) < random.choice([0, 0.5, 1])] = 0
    matrix = sparse.csr_array(structure)
    kinds = random.choice(kinds, matrix.nnz)
    weights = random.uniform(0.3, 2, matrix.nnz) * random.choice([-1, 1], matrix.nnz)
    if random.uniform() < 0.2:
        weights *= 10.0 ** random.integers(-12, 6, matrix.nnz)
    args = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), weights, kinds
    return by_entries if random.uniform() < 0.5 else by_entries.py_func, args, x, structure


def by_numpy(random, structure):
    """Return a function of array operations that has a structure."""
    weights = np.where(structure, random.uniform(0.3, 2, structure.shape), 0)
    rows, columns = np.nonzero(structure)
    chosen = random.uniform(size=structure.shape[1]) < 0.5
    order = random.permutation(structure.shape[1])

    def added(x):
        result = np.zeros(len(structure))
        np.add.at(result, rows, x[columns] ** 2)
        return result

    functions = [
        lambda x: weights @ np.sin(x),
        added,
        lambda x: np.bincount(rows, np.exp(x[columns]), len(structure)),
        lambda x: weights @ np.where(chosen, x, x[order]),
        lambda x: np.maximum(weights @ x, 0) * np.tanh(weights @ x),
        lambda x: sparse.csr_array(weights) @ (x * x),
        lambda x: np.array([np.prod(x[row]) for row in structure]),
        lambda x: np.concatenate([x[1:] * x[:-1], np.cumprod(x[:2]), x[::-1][:3]]),
    ]
    return functions[random.integers(len(functions))]


def assert_sparse_as_dense(f, args, x):
    """Check both ways to a sparse Jacobian, and that no entry that is seen is missed."""
    before = x.tobytes()
    dense = jacobian(lambda x: f(x, *args), x, H)
    detected = detect_sparsity(f, x, args=args)
    assert x.tobytes() == before
    assert (abs(dense[~detected[0].toarray()]) == 0).all()
    found = jacobian(f, x, H, args=args, sparsity=detected).toarray()
    assert x.tobytes() == before
    # Of sums and products of at most 25 numbers, each up to 100 times as large as their sum.
    base, size = abs(f(x, *args)), abs(dense).max(axis=1, initial=0)
    rounding = 100 * EPS * (1 + np.asarray(base) + H * size) / H
    assert (abs(found - dense) <= rounding[:, np.newaxis]).all()


def test_sparse_jacobians_of_random_functions_are_the_dense_ones(repeats):
    for seed in range(repeats(100, 5000)):
        f, args, x, _ = random_function(np.random.default_rng(seed))
        assert_sparse_as_dense(f, args, x)


def test_sparse_jacobians_of_random_array_functions_are_the_dense_ones(repeats):
    for seed in range(repeats(50, 3000)):
        random = np.random.default_rng(seed)
        structure = random_structure(random)
        x = random.normal(size=structure.shape[1])
        assert_sparse_as_dense(by_numpy(random, structure), (), x)


def random_sum(random):
    """Return a sum of terms of two elements, by loops and by arrays, x, and its pairs."""
    structure = random_structure(random)
    n = min(*structure.shape, 10)
    i, j = np.nonzero(structure[:n, :n])
    kinds, weights = random.integers(0, 5, len(i)), random.uniform(0.3, 2, len(i))
    x = random.normal(size=n) * random.choice([0, 1])
    is_pair = np.zeros((n, n), bool)
    for kind, first, second in zip(kinds, i, j, strict=True):
        both = np.array([first, second])
        if kind > 1:
            is_pair[np.ix_(both, both)] = True
        elif kind == 1:
            is_pair[first, first] = True

    def term(kind, a, b):
        return (a + b, a * a, np.sin(a + b), a * a * b + b * b, np.exp(a * b) + (a - b) ** 2)[kind]

    def by_loops(x):
        terms = [term(kinds[k], float(x[i[k]]), float(x[j[k]])) for k in range(len(i))]
        return float(np.dot(weights, terms))

    def by_arrays(x):
        groups = [(kinds == kind, kind) for kind in range(5)]
        return sum((weights[k] * term(kind, x[i[k]], x[j[k]])).sum() for k, kind in groups)

    return by_loops, by_arrays, x, is_pair


def test_sparse_hessians_of_random_functions_are_the_dense_ones(repeats):
    for seed in range(repeats(20, 500)):
        by_loops, by_arrays, x, is_pair = random_sum(np.random.default_rng(seed))
        before = x.tobytes()
        for f in (by_loops, by_arrays):
            dense = hessian(f, x, 2.0**-13)
            found = hessian(f, x, 2.0**-13, sparsity="detect")
            assert x.tobytes() == before
            entries = found.copy()
            entries.data[:] = 1
            entries = entries.toarray() != 0
            assert entries[is_pair].all()
            assert (found.toarray() == np.where(entries, dense, 0)).all()
            if f is by_loops:
                assert not entries[~is_pair].any()
