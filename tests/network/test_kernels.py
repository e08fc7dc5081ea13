"""Kernels compute what their Python form says, and their products what NumPy says."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle import JIT

from fastgrad import TwoLayerNet
from fastgrad.jit import kernel as jit
from fastgrad.jit import matrix_products
from fastgrad.jit.kernel import padded
from fastgrad.network import response

EPS = np.finfo(float).eps
RUNS = {
    "dense": lambda net, x, t: net.numerical_gradient(x, t),
    "sparse": lambda net, x, t: net.numerical_gradient(x * (x > 0.8), t),
    "long series": lambda net, x, t: net.numerical_gradient(255 * x, t, h=2e-4),
    "direct": lambda net, x, t: net.numerical_gradient(x, t, engine="direct"),
    "backpropagation": lambda net, x, t: net.gradient(x, t),
}


SHORT = {"parallel": 0, "serial": 10**9}
"""Operations of a kernel that is not divided into tasks."""


def gradients(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Return what each run gives, by its name and the number of tasks."""
    product, rounds = matrix_products.sum_products, set()

    def sum_products(*arguments: Any) -> None:
        *_, largest, _ = arguments
        rounds.add(bool(largest.any()))
        product(*arguments)

    monkeypatch.setattr(matrix_products, "MIN_INTEGER_PRODUCTS", 0)
    monkeypatch.setattr(matrix_products, "sum_products", sum_products)
    results = {}
    for division, short in SHORT.items():
        monkeypatch.setattr(jit, "MIN_PARALLEL_OPERATIONS", short)
        for name, run in RUNS.items():
            np.random.seed(3)
            net = TwoLayerNet(37, 19, 5, weight_init_std=0.5)
            x, t = np.random.rand(23, 37), np.random.randint(0, 5, 23)
            rounds.clear()
            results[f"{name}, {division}"] = run(net, x, t).buffer
            assert (True in rounds) == (name in ("dense", "long series"))  # integers are in use
    return results


PLAIN = """
import sys
import numpy as np, pytest
from test_kernels import gradients

np.savez(sys.argv[1], **gradients(pytest.MonkeyPatch()))
"""


@pytest.mark.skipif(not JIT, reason="with the JIT off both are the same")
def test_kernels_agree_with_their_python_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "plain.npz"
    paths = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | {
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    subprocess.run([sys.executable, "-c", PLAIN, str(file)], check=True, env=environment)
    plain = np.load(file)
    for name, found in gradients(monkeypatch).items():
        # No sum has more than 23 * 37 terms; compiled code fuses multiplications into it.
        tolerance = 23 * 37 * EPS
        # A loss is at most -log(1e-7), its rounding is divided by the step, 1e-4.
        quotient = EPS * -np.log(1e-7) / 1e-4 if "direct" in name else 0.0
        atol = tolerance * np.abs(plain[name]).max() + quotient
        np.testing.assert_allclose(found, plain[name], tolerance, atol, err_msg=name)


def polynomial(m: int, u: np.ndarray) -> np.ndarray:
    """Return the Chebyshev polynomial of degree 2m + 1 of numbers of at most 1 in magnitude."""
    return np.cos((2 * m + 1) * np.arccos(u))


SIZES = [
    (1, 1, 1, 1),
    (7, 3, 5, 2),
    (8, 128, 24, 1),
    (13, 300, 37, 3),
    (6, 129, 270, 2),
    (1030, 5, 9, 1),
    (300, 900, 130, 2),
    (258, 220, 519, 2),
    (255, 1030, 7, 2),
]
"""Rows, products of an element, columns and terms."""


@pytest.mark.parametrize(("rows", "depth", "columns"), [size[:3] for size in SIZES])
def test_a_product_in_tiles_is_the_product(rows: int, depth: int, columns: int) -> None:
    generator = np.random.default_rng(rows)
    a, b = generator.standard_normal((rows, depth)), generator.standard_normal((depth, columns))
    out = np.full((rows, columns + 3), 7.0)
    matrix_products.multiply(out, a, b)
    assert np.all(abs(out[:, :columns] - a @ b) <= 2 * (depth + 1) * EPS * (abs(a) @ abs(b)))
    assert (out[:, columns:] == 7).all()


@pytest.mark.parametrize(("inputs", "samples", "columns", "terms"), SIZES)
@pytest.mark.parametrize("exact", [None, 1, 2])
@pytest.mark.parametrize("reach", [1.0, 255.0])
def test_sums_of_polynomials_are_the_sums_and_in_integers_stay_within_the_bound(
    inputs: int, samples: int, columns: int, terms: int, exact: int | None, reach: float
) -> None:
    generator = np.random.default_rng(inputs)
    x = generator.uniform(-reach, reach, (samples, inputs + 2))
    c = generator.standard_normal((terms, samples, columns + 3))
    out = np.full((inputs + 1, columns), np.nan)
    matrix_products.sum_polynomials(out, x, c, reach, exact)

    factor, c = np.hstack([x[:, :inputs], np.ones((samples, 1))]), c[:, :, :columns]
    expected, magnitude = factor.T @ c[0], abs(factor).T @ abs(c[0])
    bound = np.zeros(out.shape)
    for m in range(1, terms):
        values = polynomial(m, factor / reach)
        expected += values.T @ c[m]
        magnitude += abs(values).T @ abs(c[m])
        # Rounding moves u by eps / 2, and a polynomial's slope is at most (2m + 1)^2.
        bound += 8 * (2 * m + 1) ** 2 * EPS * abs(c[m]).sum(axis=0)
        if exact is not None and m >= exact:
            bound += samples * 1.01 / matrix_products.MAX_INTEGER * abs(c[m]).max()
    assert np.all(abs(out - expected) <= bound + 2 * (samples + terms) * terms * EPS * magnitude)


def test_sums_of_the_largest_integers_do_not_overflow() -> None:
    samples = 2 * matrix_products.RUN_LENGTH + 1
    assert matrix_products.RUN_LENGTH * matrix_products.MAX_INTEGER**2 < 2**31
    x, c = np.ones((samples, 9)), np.ones((2, samples, 24))
    out = np.empty((10, 24))
    matrix_products.sum_polynomials(out, x, c, exact=1)
    assert np.all(abs(out - 2 * samples) <= 4 * samples * EPS)
    matrix_products.sum_polynomials(out, -x, c, exact=1)
    assert np.all(abs(out[:-1] + 2 * samples) <= 4 * samples * EPS)


@pytest.mark.parametrize("outputs", [1, 7 * 19])  # of one sample, and of seven
@pytest.mark.parametrize("name", ["dense", "sparse", "long series"])
def test_samples_in_blocks_have_the_gradient_of_all(
    name: str, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_products, "MIN_INTEGER_PRODUCTS", 0)
    np.random.seed(4)
    net = TwoLayerNet(37, 19, 5, weight_init_std=0.5)
    x, t = np.random.rand(23, 37), np.random.randint(0, 5, 23)
    expected = RUNS[name](net, x, t).buffer
    monkeypatch.setattr(response, "BLOCK_OUTPUTS", outputs)
    found = RUNS[name](net, x, t).buffer
    # Each block rounds to integers of its own; that is within the response's tolerance.
    assert abs(found - expected).max() <= response.TOLERANCE * abs(expected).max()


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(("samples", "inputs", "hidden"), [(1, 1, 1), (5, 9, 3), (40, 30, 61)])
def test_a_sparse_product_is_the_product(
    share: float, samples: int, inputs: int, hidden: int
) -> None:
    generator = np.random.default_rng(samples)
    x = generator.standard_normal((samples, inputs)) * (generator.random((samples, inputs)) < share)
    matrix = generator.standard_normal((inputs, hidden))
    nonzeros = np.count_nonzero(x)
    z = np.zeros((samples, padded(hidden)))
    matrix_products.sum_sparse_products(z, x, matrix[np.newaxis], nonzeros)
    bound = 2 * inputs * EPS * (abs(x) @ abs(matrix))
    assert np.all(abs(z[:, :hidden] - x @ matrix) <= bound)
    assert not z[:, hidden:].any()

    c = generator.standard_normal((2, samples, padded(hidden)))
    out = np.full((inputs + 1, hidden), np.nan)
    reach = max(1.0, float(abs(x).max()))
    matrix_products.sum_sparse_products(out, x.T, c, nonzeros, reach)
    c = c[:, :, :hidden]
    x = np.hstack([x, np.ones((samples, 1))])
    cubic = polynomial(1, x / reach)
    expected = x.T @ c[0] + cubic.T @ c[1]
    # Rounding moves u by eps / 2, and the polynomial's slope is at most 9.
    bound = 4 * (samples + 2) * EPS * (abs(x).T @ abs(c[0]) + 9 * abs(c[1]).sum(axis=0))
    assert np.all(abs(out - expected) <= bound)


@pytest.mark.parametrize(("versions", "rows", "depth", "columns"), [
    (1, 3, 5, 40), (10, 2, 1, 24), (13, 4, 60, 57), (32, 3, 40, 100), (9, 5, 30, 3), (8, 2, 0, 50),
])  # fmt: skip
def test_a_product_without_what_is_zero_in_all_versions_is_the_product(
    versions: int, rows: int, depth: int, columns: int
) -> None:
    generator = np.random.default_rng(versions)
    a = generator.standard_normal((versions, rows, depth))
    a *= generator.random((rows, depth)) < 0.5
    a[0, 0, :3] = np.array([0.0, -0.0, 1e-310])[:depth]
    a[:, 1] = -0.0
    b = generator.standard_normal((depth, columns))
    found = matrix_products.multiply_versions(a, b)
    assert np.all(abs(found - a @ b) <= 2 * (depth + 1) * EPS * (abs(a) @ abs(b)))
    a[-1, -1, :3] = np.array([np.nan, np.inf, -np.inf])[:depth]
    with np.errstate(invalid="ignore"):
        found = matrix_products.multiply_versions(a, b)
        assert np.array_equal(np.isfinite(found), np.isfinite(a @ b))


def test_what_memory_held_before_raises_no_warning(monkeypatch):
    empty = np.empty

    def of_nan(*arguments, **keywords):
        array = empty(*arguments, **keywords)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    # Work for several threads; without compiled code there are none.
    samples, inputs, hidden = (300, 50, 100) if JIT else (20, 9, 5)
    np.random.seed(0)
    net, x = TwoLayerNet(inputs, hidden, 10, 0.5), np.random.rand(samples, inputs)
    t = np.arange(samples) % 10

    def gradients():
        quotients = [net.numerical_gradient(x, t, engine=name) for name in ("response", "direct")]
        return [each.buffer for each in (*quotients, net.gradient(x, t))]

    expected = gradients()  # what is compiled is compiled now
    monkeypatch.setattr(np, "empty", of_nan)
    assert np.array_equal(gradients(), expected)
