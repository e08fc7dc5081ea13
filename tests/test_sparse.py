"""Sparse Jacobians are those that all columns give one by one, and nothing is left out unseen."""

import numpy as np
import pytest
from counting import counted
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize._numdiff import group_columns as scipys_groups

from fastgrad import detect_sparsity, group_columns, hessian, jacobian, schemes
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.sparsity import recorded_hessian_sparsity, recorded_sparsity

REPEATABLE = settings(derandomize=True, deadline=None)
EPS = np.finfo(float).eps


def broyden(x):
    """The tridiagonal function of C. G. Broyden, Mathematics of Computation 19 (1965)."""
    r = (3 - 2 * x) * x + 1
    r[1:] -= x[:-1]
    r[:-1] -= 2 * x[1:]
    return r


def broydens_jacobian(x):
    n = len(x)
    return np.diag(3 - 4 * x) - np.eye(n, k=-1) - 2 * np.eye(n, k=1)


X = np.random.default_rng(0).normal(size=12)

BANDS = broydens_jacobian(X) != 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"h": 1e-5},
        {"h": 6e-6, "relative": True},
        {"h": np.linspace(1e-5, 2e-5, 12)},
        {"scheme": "forward"},
        {"scheme": "complex"},
        {"scheme": schemes.central(4)},
        {"workers": lambda function, items: map(function, items)},
        {"bounds": (X - 1e-9, X + np.linspace(1e-3, 3, 12))},
        {"bounds": (-np.inf, X + 1e-9)},
        {"engine": "loop", "progress": lambda done, total: None},
    ],
)
@pytest.mark.parametrize("sparsity", [BANDS, sparse.csc_array(BANDS), "detect"])
def test_bands_are_found_by_three_groups(sparsity, options):
    x = X.copy()
    result = jacobian(broyden, x, sparsity=sparsity, **options)
    assert isinstance(result, sparse.csr_array)
    # Forward quotients: sqrt(eps) times half the second derivative, 4.
    np.testing.assert_allclose(result.toarray(), broydens_jacobian(X), rtol=0, atol=1e-7)
    assert x.tobytes() == X.tobytes()


def test_f_is_called_for_each_group_and_once_more():
    calls = 0

    def f(x):
        nonlocal calls
        calls += 1
        return broyden(x)

    jacobian(f, X.copy(), 1e-5, sparsity=(BANDS, group_columns(BANDS)))
    assert calls == 1 + 2 * 3 + 1  # f(x), three groups, all of x together


def test_stacks_closures_further_arguments_axes_and_float32_are_served():
    exact = broydens_jacobian(X)
    stacked = jacobian(
        lambda s: np.stack([broyden(x) for x in s]), X.copy(), vectorized=True, sparsity=BANDS
    )
    np.testing.assert_allclose(stacked.toarray(), exact, rtol=0, atol=1e-8)
    x = X.copy()
    inside = jacobian(lambda _, k: k * broyden(x), x, args=(2.0,), sparsity=BANDS)
    np.testing.assert_allclose(inside.toarray(), 2 * exact, rtol=0, atol=1e-8)
    matrix = X.reshape(3, 4)[:, ::-1].copy(order="F")
    result = jacobian(
        lambda x: broyden(x[:, ::-1].reshape(-1)).reshape(2, 6), matrix, sparsity="detect"
    )
    order = np.arange(12).reshape(3, 4)[:, ::-1].reshape(-1)
    np.testing.assert_allclose(result.toarray(), exact[:, order], rtol=0, atol=1e-8)
    single = jacobian(broyden, X.astype(np.float32), sparsity=BANDS)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single.toarray(), exact, rtol=0, atol=1e-3)


@REPEATABLE
@given(m=st.integers(0, 8), n=st.integers(0, 8), density=st.floats(0, 1), seed=st.integers(0, 999))
def test_random_structures(m, n, density, seed):
    generator = np.random.default_rng(seed)
    structure = generator.uniform(size=(m, n)) < density
    A = np.where(structure, generator.normal(size=(m, n)), 0)
    groups = group_columns(structure)
    for group in range(groups.max(initial=-1) + 1):
        assert structure[:, groups == group].sum(axis=1).max(initial=0) <= 1
    x = generator.normal(size=n)
    result = jacobian(lambda x: A @ np.sin(x), x, sparsity=structure)
    np.testing.assert_allclose(result.toarray(), A * np.cos(x), rtol=0, atol=1e-8)
    found, _ = detect_sparsity(lambda x: A @ np.sin(x), x)
    np.testing.assert_array_equal(found.toarray(), structure)
    rows = [np.flatnonzero(row) for row in structure]

    def by_numbers(x):
        return np.array([sum(float(x[j]) ** 2 for j in row) for row in rows])

    found, _ = detect_sparsity(by_numbers, x)
    np.testing.assert_array_equal(found.toarray(), structure)


def test_about_as_few_groups_as_scipys():
    numbers = []
    for seed in range(20):
        structure = np.random.default_rng(seed).uniform(size=(200, 150)) < 0.02
        numbers.append((group_columns(structure).max() + 1, scipys_groups(structure).max() + 1))
    ours, scipys = np.sum(numbers, axis=0)
    assert ours <= scipys


# Detection ----------------------------------------------------------------------------------------


SHIFT = np.eye(12, k=1)

RECORDED = {
    "slices": (lambda x: x[2:] * x[:-2], np.eye(10, 12) + np.eye(10, 12, k=2)),
    "differences": (lambda x: np.diff(x) ** 2, np.eye(11, 12) + np.eye(11, 12, k=1)),
    "roll": (lambda x: np.roll(x, -1), np.roll(np.eye(12), 1, axis=1)),
    "a constant matrix": (lambda x: SHIFT @ np.exp(x), SHIFT),
    "rows": (lambda x: x.reshape(3, 4).sum(axis=1), np.kron(np.eye(3), np.ones(4))),
    "columns": (lambda x: x.reshape(3, 4).max(axis=0), np.kron(np.ones(3), np.eye(4))),
    "means kept": (
        lambda x: x.reshape(3, 4) - x.reshape(3, 4).mean(axis=1, keepdims=True),
        np.kron(np.eye(3), np.ones((4, 4))),
    ),
    "pad": (lambda x: np.pad(x, 1)[2:] - x, np.eye(12) + SHIFT),
    "assignments": (broyden, BANDS),
    "choices": (lambda x: np.where(x > 0, x, x[::-1]), np.eye(12) + np.eye(12)[::-1]),
    "two arrays": (lambda x: np.concatenate([x[:3] * 2, x[5:7]]), np.eye(12)[[0, 1, 2, 5, 6]]),
    "a product of both": (lambda x: x.reshape(3, 4) @ x.reshape(4, 3), None),
    "one column each": (lambda x: np.cumsum(x), np.ones((12, 12))),
}


@pytest.mark.parametrize("name", RECORDED)
def test_structures_are_seen_in_what_is_recorded(name):
    f, expected = RECORDED[name]
    if expected is None:
        expected = abs(jacobian(f, X.copy()).reshape(-1, 12)) > 1e-9
    found = recorded_sparsity(f, X.copy(), 1e-3)
    np.testing.assert_array_equal(found.toarray(), np.asarray(expected) != 0)


def test_structures_are_found_for_the_further_arguments_that_are_given():
    structure, groups = detect_sparsity(lambda x, k: x[:k] * x[0], np.ones(4), args=(2,))
    assert structure.toarray().astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0]]
    assert len({*groups[:2]}) == 2


def test_structures_of_what_cannot_be_recorded_are_found_by_calls():
    def f(x):
        r = [0.0] * len(x)
        for i in range(len(x)):
            r[i] = float(x[i]) ** 2 + (float(x[i - 2]) if i > 1 else 0.0)
        return r

    with pytest.raises(NotTraceable):
        recorded_sparsity(f, X.copy(), 1e-3)
    x = X.copy()
    found, groups = detect_sparsity(f, x)
    np.testing.assert_array_equal(found.toarray(), np.eye(12) + np.eye(12, k=-2))
    assert groups.max() == 1
    assert x.tobytes() == X.tobytes()


def test_a_dead_unit_is_seen_by_nan_and_a_comparison_by_moves():
    # At x = 0 a product does not change with one of its factors; nan goes through.
    found, _ = detect_sparsity(lambda x: [float(x[0]) * float(x[1])], np.array([0.0, 0.0, 1.0]))
    assert found.toarray().tolist() == [[True, True, False]]
    # max leaves nan out if it comes second, but not what is larger.
    found, _ = detect_sparsity(lambda x: [max(float(x[0]), float(x[1]))], np.array([1.0, 1.0]))
    assert found.toarray().tolist() == [[True, True]]


def test_calls_that_find_a_structure_are_as_few_as_blocks_that_are_quartered():
    f = counted(lambda x: [float(a) * float(b) for a, b in zip(x[1:], x[:-1], strict=True)])
    found, groups = detect_sparsity(f, np.zeros(1024))
    np.testing.assert_array_equal(found.toarray(), np.eye(1023, 1024) + np.eye(1023, 1024, k=1))
    assert groups.max() == 1
    # f(x), two that cannot be recorded, 16 blocks; three levels of four parts, of two groups or
    # three; f on both sides of x, where the two groups move, and all together.
    assert f.calls <= 3 + 16 + 3 * 4 * 3 + 2 + 2 + 1


def test_nan_times_the_zeros_of_a_matrix_is_no_entry():
    band = np.eye(64) + np.eye(64, k=1)
    f = counted(lambda x: [float(each) for each in band @ x])
    found, groups = detect_sparsity(f, np.zeros(64))
    np.testing.assert_array_equal(found.toarray(), band)
    assert groups.max() == 1
    # f(x), two that cannot be recorded, 16 blocks twice, their parts in three groups at most; f on
    # both sides of x, where the two groups move, and all together.
    assert f.calls <= 3 + 2 * 16 + 4 * 3 + 2 + 2 + 1
    found, _ = detect_sparsity(lambda x: [float(each) for each in (band + 1) @ x], np.zeros(64))
    assert found.toarray().all()


def without_nan(x):
    """Some numbers that nan does not reach, at x = 0: seen by moves alone."""
    return [float(x[0]), float(np.nan_to_num(x[2])), float(np.nan_to_num(x[1])) + float(x[4])] * 4


def refuses_nan(x):
    """Some numbers of which one is none where x is not finite."""
    return [x[i] ** 2 + 0 * round(float(x[-i])) for i in range(len(x))]


@pytest.mark.parametrize(
    ("f", "entries"),
    [
        (without_nan, [[0], [2], [1, 4]] * 4),
        (refuses_nan, [[i] for i in range(6)]),
        (lambda x: [float(x[i] if x[i] > 0 else x[i - 1]) for i in range(6)], None),
    ],
)
def test_what_nan_does_not_reach_is_found_by_moves(f, entries):
    if entries is None:  # on both sides of the branch, at x itself
        entries = [[i, (i - 1) % 6] for i in range(6)]
    found, _ = detect_sparsity(f, np.zeros(6))
    expected = np.array([[j in row for j in range(6)] for row in entries])
    np.testing.assert_array_equal(found.toarray(), expected)


@pytest.mark.parametrize("sparsity", [BANDS, "detect"])
@pytest.mark.parametrize("room", [1e-9, 1e-4])
@pytest.mark.filterwarnings("ignore:h is 'auto':RuntimeWarning")
def test_no_call_is_outside_of_bounds(sparsity, room):
    lower, upper = X - room, X + np.where(np.arange(12) % 3, room, 0)
    most = 0.0

    def f(x):
        nonlocal most
        most = max(most, np.nanmax(np.maximum(x - upper, lower - x)))
        return broyden(x)

    jacobian(f, X.copy(), bounds=(lower, upper), sparsity=sparsity)
    assert most == 0
    hessian(lambda x: f(x).sum(), X.copy(), bounds=(lower, upper), sparsity=np.eye(12))
    assert most == 0


def test_a_structure_without_entries_can_be_passed_again():
    pair = detect_sparsity(lambda x: np.ones(3), np.ones(2))
    assert jacobian(lambda x: np.ones(3), np.ones(2), sparsity=pair).nnz == 0


# Hessians -----------------------------------------------------------------------------------------


def chained(x):
    """The function of P. L. Toint that couples neighbours, made smooth everywhere."""
    return ((x[1:] - x[:-1] ** 2) ** 2).sum() + np.sin(x).sum()


def chaineds_hessian(x):
    n = len(x)
    diagonal = -np.sin(x)
    diagonal[1:] += 2
    diagonal[:-1] += 12 * x[:-1] ** 2 - 4 * x[1:]
    off = -4 * x[:-1]
    H = np.diag(diagonal)
    H[np.arange(n - 1), np.arange(1, n)] = H[np.arange(1, n), np.arange(n - 1)] = off
    return H


@pytest.mark.parametrize(
    "options",
    [{}, {"h": 1e-4}, {"scheme": "complex"}, {"scheme": schemes.central(4)}, {"scheme": "forward"}],
)
@pytest.mark.parametrize("sparsity", [BANDS, np.triu(BANDS), sparse.coo_array(BANDS), "detect"])
def test_only_the_entries_of_a_hessian_are_computed(sparsity, options):
    x = X.copy()
    result = hessian(chained, x, sparsity=sparsity, **options)
    assert isinstance(result, sparse.csr_array)
    # Forward differences: the third root of eps times third derivatives of some ten.
    np.testing.assert_allclose(result.toarray(), chaineds_hessian(X), rtol=0, atol=1e-3)
    dense = hessian(chained, x, **options)
    assert (result.toarray() == np.where(BANDS, dense, 0)).all()
    assert x.tobytes() == X.tobytes()


def test_f_is_called_for_the_entries_alone():
    f = counted(lambda x: float(chained(x)))
    hessian(f, X.copy(), 1e-4, sparsity=BANDS)
    # f(x) twice, two for each element, four for each pair of neighbours, two that check.
    assert f.calls == 2 + 2 * 12 + 4 * 11 + 2


CURVED = {
    "nothing": (lambda x: (3 * x / 2).sum() + x.mean(), np.zeros((12, 12))),
    "squares": (lambda x: x @ x, np.eye(12)),
    "a constant matrix": (lambda x: x @ SHIFT @ x, SHIFT + SHIFT.T),
    "differences": (lambda x: (np.diff(x) ** 2).sum(), np.eye(12) + SHIFT + SHIFT.T),
    "a function of the sum": (lambda x: np.exp(x.sum()), np.ones((12, 12))),
    "a product along an axis": (
        lambda x: x.reshape(3, 4).prod(axis=0).sum(),
        np.kron(np.ones((3, 3)), np.eye(4)),
    ),
    "a ratio": (lambda x: x[0] / x[1], np.pad(np.ones((2, 2)), (0, 10))),
}


@pytest.mark.parametrize("name", CURVED)
def test_pairs_are_seen_in_what_is_recorded(name):
    f, expected = CURVED[name]
    found = recorded_hessian_sparsity(f, X.copy(), 1e-3).toarray()
    assert (found >= (expected != 0)).all()
    assert found.sum() <= 12 + np.count_nonzero(expected)  # products may have a diagonal
    np.testing.assert_allclose(
        hessian(f, X.copy(), sparsity="detect").toarray(), hessian(f, X.copy()), rtol=0, atol=1e-5
    )


def test_pairs_that_are_left_out_are_seen_within_bounds():
    less = BANDS.copy()
    less[3, 4] = less[4, 3] = False
    with pytest.raises(ValueError, match=r"with respect to x\[3\] and x\[4\]"):
        hessian(chained, X.copy(), sparsity=less, bounds=(X - 1e-2, X + 1e-4))


@pytest.mark.parametrize("size", [1.0, 1e-10, 1e-200])
def test_pairs_that_are_far_smaller_than_others_are_detected(size):
    def f(x):
        return x @ x + size * x[0] * x[5]

    expected = np.eye(12) != 0
    expected[0, 5] = expected[5, 0] = True
    # By calls if they show in the digits of f.
    for each in [f, lambda x: float(f(x))] if size > EPS else [f]:
        found = hessian(each, X.copy(), sparsity="detect")
        np.testing.assert_array_equal(found.indices, sparse.csr_array(expected).indices)


def test_pairs_that_are_detected_by_calls_take_few_of_them():
    f = counted(lambda x: float(chained(x)))
    n = 64
    found = hessian(f, np.linspace(-1, 1, n), 1e-4, sparsity="detect")
    assert (abs(found.toarray() - chaineds_hessian(np.linspace(-1, 1, n))) <= 1e-5).all()
    assert found.nnz == 3 * n - 2
    # Of a block in each level: itself, its halves together, and four pairs with its neighbour's;
    # each element twice more; and the entries, as where they are given.
    assert f.calls <= (1 + 1 + 4) * 2 * n + 2 * n + 4 + (2 * n + 4 * (n - 1)) + 2


def test_second_derivatives_that_are_left_out_are_seen():
    less = BANDS.copy()
    less[3, 4] = less[4, 3] = False
    with pytest.raises(ValueError, match=r"with respect to x\[3\] and x\[4\]"):
        hessian(chained, X.copy(), sparsity=less)
    with pytest.raises(ValueError, match=r"with respect to x\[0\] and x\["):
        hessian(lambda x: np.prod(x), np.linspace(1, 2, 5), sparsity=np.eye(5))
    for i in np.flatnonzero(abs(chaineds_hessian(X).diagonal() + 2) > 0.1):
        less = BANDS.copy()
        less[i, i] = False
        with pytest.raises(ValueError, match=rf"with respect to x\[{i}\] alone"):
            hessian(lambda x: chained(x) + (x**2).sum(), X.copy(), sparsity=less)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: abs(x).sum(),
        lambda x: np.maximum(x, 0).sum() ** 2,
        lambda x: (abs(x) ** 1.5).sum(),
    ],
)
@pytest.mark.filterwarnings("ignore:h is 'auto':RuntimeWarning")
def test_a_kink_is_not_taken_for_what_is_left_out(f):
    for x in (np.zeros(5), np.linspace(-1, 1, 5)):
        hessian(f, x, sparsity=np.ones((5, 5)))


def test_bad_hessian_sparsities_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 2\), but x has 3 elements"):
        hessian(lambda x: x.sum(), np.ones(3), sparsity=np.eye(2))
    with pytest.raises(ValueError, match="single number"):
        hessian(lambda x: x, np.ones(3), sparsity="detect")
    with pytest.raises(ValueError, match=r"cannot be recorded.*not defined"):
        hessian(lambda x: 1.0 if (x == 1).all() else np.nan, np.ones(3), sparsity="detect")
    with pytest.raises(ValueError, match="'auto'; pass 'detect'"):
        hessian(lambda x: x.sum(), np.ones(3), sparsity="auto")


# What is left out, and bad input ------------------------------------------------------------------


def test_an_entry_that_is_left_out_is_named():
    less = BANDS.copy()
    less[3, 4] = False
    x = X.copy()
    with pytest.raises(ValueError, match=r"element 3 of f\(x\) does not depend on x\[4\]"):
        jacobian(broyden, x, sparsity=less)
    assert x.tobytes() == X.tobytes()


@pytest.mark.parametrize("seed", range(4))
def test_every_entry_that_is_left_out_is_named(seed):
    # Of a row whose moves are alike by accident, too, and of rows between those of large numbers.
    random = np.random.default_rng(seed)
    x, sizes = random.normal(size=60), 10.0 ** random.integers(-3, 7, 60)
    near = np.roll(np.eye(60), 7, axis=1) + np.eye(60) > 0
    for i in range(60):
        less = near.copy()
        less[i, (i + 7) % 60] = False
        with pytest.raises(ValueError, match=rf"element {i} of f.* x\[{(i + 7) % 60}\]"):
            jacobian(lambda x: sizes * np.roll(x, -7) * x, x, sparsity=less)


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-5])
def test_a_small_entry_that_is_left_out_is_named(size):
    A = np.eye(6)
    A[2, 5] = size
    with pytest.raises(ValueError, match=r"element 2 of f\(x\) does not depend on x\[5\]"):
        jacobian(lambda x: A @ x**3, np.linspace(1, 2, 6), sparsity=np.eye(6))


@pytest.mark.parametrize(
    "f",
    [
        lambda x: abs(x),
        lambda x: np.sign(x),
        lambda x: np.sqrt(abs(x)),
        lambda x: np.floor(x * 1e6),
        lambda x: np.sin(1e9 * x),
        lambda x: x + np.random.default_rng().normal(size=x.shape) * 1e-6,
    ],
)
@pytest.mark.filterwarnings("ignore:h is 'auto':RuntimeWarning")
def test_a_right_structure_is_not_accused(f):
    for x in (np.zeros(5), np.linspace(-1, 1, 5)):
        jacobian(f, x, sparsity=np.eye(5))


@pytest.mark.parametrize(
    ("sparsity", "error", "message"),
    [
        ("auto", ValueError, "'auto'; pass 'detect'"),
        (np.ones(3), ValueError, r"shape \(3,\)"),
        (np.ones((2, 3)), ValueError, r"shape \(2, 3\), but f\(x\) has 3 elements"),
        (np.full((3, 3), "a"), ValueError, "dtype <U1"),
        ((np.eye(3), [0, 1]), ValueError, r"groups have shape \(2,\)"),
        ((np.eye(3), [0, 1, -1]), ValueError, "groups"),
        ((np.ones((3, 3)), [0, 1, 1]), ValueError, "cannot be told apart"),
        ((np.eye(3), [0, 1, 1], 3), ValueError, "pair"),
    ],
)
def test_bad_sparsities_are_refused(sparsity, error, message):
    with pytest.raises(error, match=message):
        jacobian(lambda x: x**2, np.ones(3), sparsity=sparsity)


def test_without_scipy_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"fastgrad\[sparse\]"):
        jacobian(lambda x: x, np.ones(3), sparsity="detect")
    with pytest.raises(ModuleNotFoundError, match=r"fastgrad\[sparse\]"):
        group_columns(np.eye(3))


def test_structures_of_arrays_and_compiled_loops_are_refused():
    with pytest.raises(TypeError, match="one array"):
        jacobian(lambda x: x["a"], {"a": np.ones(3)}, sparsity="detect")
    with pytest.raises(TypeError, match="one array"):
        detect_sparsity(lambda x: x["a"], {"a": np.ones(3)})
    with pytest.raises(ValueError, match="engine"):
        jacobian(lambda x: x, np.ones(3), sparsity="detect", engine="compiled")
