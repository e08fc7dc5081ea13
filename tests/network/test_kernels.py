"""Do the kernels compute what their Python form says, and their products what NumPy says?"""

from typing import Any

import numba
import numpy as np
import pytest

from fastgrad import TwoLayerNet
from fastgrad.jit import kernel as jit
from fastgrad.jit.kernel import Kernel
from fastgrad.jit.vectors import padded
from fastgrad.network import direct, matrix_products, sparse
from fastgrad.network.workspace import Workspace

EPS = np.finfo(float).eps
RUNS = {
    "dense": lambda net, x, t: net.numerical_gradient(x, t),
    "sparse": lambda net, x, t: net.numerical_gradient(x * (x > 0.8), t),
    "long series": lambda net, x, t: net.numerical_gradient(255 * x, t, h=2e-4),
    "direct": lambda net, x, t: net.numerical_gradient(x, t, engine="direct"),
    "backpropagation": lambda net, x, t: net.gradient(x, t),
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Kernel, list[Any]]]:
    """Record each kernel and a copy of its arguments, before it runs."""
    recorded: list[tuple[Kernel, list[Any]]] = []
    run = Kernel.__call__

    def record(kernel: Kernel, *arguments: Any) -> None:
        recorded.append((kernel, copies(arguments)))
        run(kernel, *arguments)

    monkeypatch.setattr(Kernel, "__call__", record)
    return recorded


def copies(arguments: Any) -> list[Any]:
    return [a.copy(order="K") if isinstance(a, np.ndarray) else a for a in arguments]


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="with the JIT off both are the same")
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())
@pytest.mark.parametrize("short", [0, 10**9], ids=["parallel", "serial"])
def test_every_kernel_agrees_with_its_python_form(
    run: Any, short: int, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "MIN_PARALLEL_OPERATIONS", short)
    monkeypatch.setattr(matrix_products, "MIN_FLOAT32_PRODUCTS", 0)
    np.random.seed(3)
    net = TwoLayerNet(37, 19, 5, weight_init_std=0.5)
    run(net, np.random.rand(23, 37), np.random.randint(0, 5, 23))
    recorded = list(calls)
    rounds = any(
        kernel is matrix_products.sum_products_kernel and arguments[4] < len(arguments[3])
        for kernel, arguments in recorded
    )
    assert rounds == (run in (RUNS["dense"], RUNS["long series"]))
    assert recorded
    for kernel, arguments in recorded:
        compiled, python = copies(arguments), copies(arguments)
        kernel(*compiled)
        for task in range(python[0]):
            kernel.py_func(task, *python)
        for found, expected in zip(compiled, python, strict=True):
            if isinstance(found, np.ndarray):
                # No sum has more than 23 * 37 terms; compiled code fuses multiplications into it.
                scale = np.abs(expected).max(initial=0.0)
                tolerance = 23 * 37 * EPS
                # A loss is at most -log(1e-7), its rounding is divided by the step, 1e-4.
                quotient = EPS * -np.log(1e-7) / 1e-4 if kernel is direct.perturb_all else 0.0
                atol = tolerance * scale + quotient
                np.testing.assert_allclose(found, expected, tolerance, atol)


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "terms"),
    [
        (1, 1, 1, 1),
        (7, 3, 5, 2),
        (8, 128, 24, 1),
        (13, 300, 37, 3),
        (6, 129, 270, 2),
        (1030, 5, 9, 1),
        (300, 900, 130, 2),
        (258, 220, 519, 2),
        (184 * 3 + 1, 130, 7, 2),
    ],
)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_blocked_product_is_the_product(
    rows: int, depth: int, columns: int, terms: int, transposed: bool, bias: bool
) -> None:
    generator = np.random.default_rng(rows)
    a = (
        generator.standard_normal((depth, rows)).T
        if transposed
        else (generator.standard_normal((rows, depth)))
    )
    b = generator.standard_normal((terms, depth, columns + 3))
    out = np.full((rows + bias, columns), np.nan)
    matrix_products.sum_products(out, a, b, Workspace())
    a = np.vstack([a, np.ones((int(bias), depth))])
    expected = sum(a ** (2 * m + 1) @ b[m, :, :columns] for m in range(terms))
    magnitudes = sum(abs(a) ** (2 * m + 1) @ abs(b[m, :, :columns]) for m in range(terms))
    assert np.all(abs(out - expected) <= 2 * (depth + terms + 6) * terms * EPS * magnitudes)


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "terms"),
    [(1, 1, 1, 2), (7, 3, 5, 3), (13, 300, 37, 3), (6, 401, 270, 2), (258, 220, 519, 2)],
)
@pytest.mark.parametrize("exact", [1, 2])
def test_a_product_that_is_rounded_to_float32_stays_within_the_bound(
    rows: int, depth: int, columns: int, terms: int, exact: int
) -> None:
    generator = np.random.default_rng(rows)
    a = generator.standard_normal((depth, rows)).T
    b = generator.standard_normal((terms, depth, columns + 3))
    out = np.full((rows, columns), np.nan)
    matrix_products.sum_products(out, a, b, Workspace(), exact)
    bound = np.zeros(out.shape)
    for m in range(terms):
        # A float32 sum has at most MAX_RUN_LENGTH terms; factors and their product are rounded too.
        share = (matrix_products.MAX_RUN_LENGTH + 4) * 2**-24 if m >= exact else 0.0
        share += 2 * (depth + terms + 6) * terms * EPS
        bound += share * (abs(a) ** (2 * m + 1) @ abs(b[m, :, :columns]))
    expected = sum(a ** (2 * m + 1) @ b[m, :, :columns] for m in range(terms))
    assert np.all(abs(out - expected) <= bound)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(("samples", "inputs", "hidden"), [(1, 1, 1), (5, 9, 3), (40, 30, 61)])
def test_a_sparse_product_is_the_product(
    share: float, samples: int, inputs: int, hidden: int
) -> None:
    generator = np.random.default_rng(samples)
    x = generator.standard_normal((samples, inputs)) * (generator.random((samples, inputs)) < share)
    matrix = generator.standard_normal((inputs, hidden))
    entries = sparse.Entries(x, np.count_nonzero(x), Workspace())
    z = np.zeros((samples, padded(hidden)))
    entries.multiply(matrix, z)
    bound = 2 * inputs * EPS * (abs(x) @ abs(matrix))
    assert np.all(abs(z[:, :hidden] - x @ matrix) <= bound)
    assert not z[:, hidden:].any()

    c = generator.standard_normal((2, samples, padded(hidden)))
    out = np.full((inputs + 1, hidden), np.nan)
    entries.sum(c, out)
    c = c[:, :, :hidden]
    x = np.hstack([x, np.ones((samples, 1))])
    expected = x.T @ c[0] + (x**3).T @ c[1]
    bound = 4 * (samples + 2) * EPS * (abs(x).T @ abs(c[0]) + (abs(x) ** 3).T @ abs(c[1]))
    assert np.all(abs(out - expected) <= bound)
