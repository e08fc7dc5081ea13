"""Several points in lanes have the bits of one point at a time, whatever the function."""

import math

import numba
import numpy as np
import pytest
from lanes import lanes_of, numbers, require_same_bits
from oracle import JIT

from fastgrad import numerical_gradient
from fastgrad.jit import jitted
from fastgrad.schemes import central, forward

pytestmark = [
    pytest.mark.skipif(not JIT, reason="numba compiles nothing here"),
    pytest.mark.usefixtures("lanes_at_once"),
]


def chain(x):
    total = 0
    for i in range(x.size - 1):
        total += 100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2
    return total


def waves(x):
    product = 1.0
    for value in x:
        product *= 1.5 + math.sin(3 * value) / (1 + np.exp(-value)) - value**0.3
    return math.log(abs(product))


def table(x):
    total = 0.0
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            total -= (row + 1) * x[row, column] / (column + 2.5) % 0.7
    return total


def own_array(x):
    y = np.empty_like(x)
    y[0] = x[0] * 2
    for i in range(1, x.size):
        y[i] = y[i - 1] * 0.9 + max(x[i], 0.5)
    return y[-1]


def parts(x):
    first, last = x[1:], x[::-1]
    return first[0] * last[0] + first[-1] * float(len(first))


def newton(x):
    root = x[0]
    for _ in range(20):
        root = root - (root * root - x[1]) / (2 * root)
    return root + x[-1]


def unmoved(x):
    return 3.0


@numba.njit
def inner(a, b):
    return a * b, a - b


def calls(x):
    product, difference = inner(x[0], x[-1])
    return product / difference


@pytest.mark.parametrize("f", [chain, waves, own_array, parts, calls, unmoved])
def test_bits_are_those_of_the_loop(f):
    jitted = numba.njit(f)
    for size in (2, 3, 37):
        for scheme in (central(), central(4), forward(3)):
            require_same_bits(jitted, numbers(size), scheme=scheme)
    assert lanes_of(jitted) is not None


def test_matrices_in_any_layout_are_served():
    f = numba.njit(table)
    for x in (numbers(5, 4), numbers(4, 5).T, numbers(8, 10)[::2, ::-1]):
        require_same_bits(f, x)


def test_further_arguments_are_served():
    @numba.njit
    def residuals(x, matrix, target, power):
        total = 0.0
        for i in range(matrix.shape[0]):
            error = target[i]
            for j in range(matrix.shape[1]):
                error -= matrix[i, j] * x[j]
            total += abs(error) ** power
        return total

    require_same_bits(residuals, numbers(7), args=(numbers(9, 7), numbers(9), 1.5))
    assert lanes_of(residuals) is not None


def test_where_points_part_each_goes_its_own_way():
    @numba.njit
    def f(x):  # whose kinks are so far apart that points of no two are evaluated together
        return (
            (x[0] if x[0] > 1 else x[1] * 2) + x[16] * int(x[16]) + x[32] * math.floor(x[33])
            + max(x[48], 1.0, x[49]) + min(x[64], 1) + (x[80] * 2.0 if x[80] - 1.0 else 0.5)
            + x[97] * (x[96] != 1.0) + (x[112] == 1.0)
        )  # fmt: skip

    from fastgrad.jit.lanes import POINTS_AT_ONCE

    assert POINTS_AT_ONCE <= 2 * 16
    x = np.ones(128)
    require_same_bits(f, x)
    require_same_bits(f, x, scheme=central(4))
    assert lanes_of(f) is not None


def test_loops_that_end_at_another_turn_for_each_point_end():
    @numba.njit
    def turns(x):
        value, count = x[0] + x[1], 0.0
        while value < 100:
            value *= 1.0001 + x[2]
            count += 1
        return count + value

    require_same_bits(turns, numbers(5), h=0.05)
    assert lanes_of(turns) is not None


def test_exceptions_of_some_points_are_raised_as_the_loop_raises_them():
    @numba.njit
    def picky(x):
        for value in x:
            if value > 1:
                raise ValueError("too large")
        return 1 / x[0]

    x = np.full(30, 0.5)
    require_same_bits(picky, x)
    assert lanes_of(picky) is not None
    x[17] = 0.99995
    for engine in ("compiled", "loop"):
        with pytest.raises(ValueError, match="too large"):
            numerical_gradient(picky, x, engine=engine)
    x[17] = 0.5
    require_same_bits(picky, x)
    x[0] = 1e-4
    for engine in ("compiled", "loop"):
        with pytest.raises(ZeroDivisionError):
            numerical_gradient(picky, x, engine=engine)


def test_division_by_zero_is_numpys_where_the_function_wants_that():
    f = numba.njit(error_model="numpy")(lambda x: 1 / x[0] + x[1])
    with pytest.warns(RuntimeWarning, match="not finite"):
        result = numerical_gradient(f, np.array([1e-4, 1.0]), engine="compiled")
    assert np.isinf(result[0])
    assert lanes_of(f) is not None


@pytest.mark.parametrize(
    ("f", "options"),
    [
        (lambda x: np.dot(x, x), {}),
        (lambda x: x[1:].strides[0] * x[0], {}),
        (lambda x: x.view(np.int64)[0] * x[1], {}),
        (lambda x: x[0] + x[1] * x[2], {"fastmath": True}),
        (lambda x: x[0] + x[1] * x[2], {"parallel": True}),
        (lambda x: (x[0] + 1j * x[1]).real, {}),
        (lambda x: np.float32(x[0]) * x[1], {}),
    ],
)
@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPerformanceWarning")
def test_what_lanes_cannot_do_is_done_by_numbers(f, options):
    jitted = numba.njit(**options)(f)
    require_same_bits(jitted, numbers(9))
    assert lanes_of(jitted) is None


def test_declared_types_leave_one_point_at_a_time():
    inner = numba.njit("float64(float64)")(lambda value: value**2)
    f = numba.njit(lambda x: inner(x[0]) + inner(x[1]))
    require_same_bits(f, numbers(9))
    assert lanes_of(f) is None


def test_an_array_that_f_writes_to_leaves_one_point_at_a_time():
    @numba.njit
    def f(x, work):
        work[0] = x[0] * 2
        return work[0] + x[1]

    require_same_bits(f, numbers(9), args=(np.zeros(1),))
    assert lanes_of(f) is None


def test_x_that_is_an_argument_twice_moves_in_both_places():
    f = numba.njit(lambda x, y: x[0] * y[0] + y[1])
    x = numbers(9)
    require_same_bits(f, x, args=(x,))


def test_caches_on_disk_never_hold_code_for_lanes(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    cached = numba.njit(cache=True)(chain)
    require_same_bits(cached, numbers(20))
    assert lanes_of(cached) is not None
    helper = numba.njit(cache=True)(newton)
    f = numba.njit(lambda x: helper(x) * 2)
    require_same_bits(f, numbers(20))
    assert lanes_of(f) is None
    files = [*tmp_path.rglob("*.nbi")]
    assert files
    assert all(b"fastgrad.engines" not in file.read_bytes() for file in files)


def test_lanes_that_differ_from_numbers_are_not_used(monkeypatch):
    f = numba.njit(lambda x: x[0] ** 2 + x[1])
    x = numbers(40)
    expected = numerical_gradient(f, x, engine="loop")
    numerical_gradient(f, x, engine="compiled")
    loop = lanes_of(f)
    plain = loop.run

    def wrong(*arguments):
        plain(*arguments)
        arguments[-2][...] += 1e-12

    for run, compared in ((wrong, False), (plain, True)):
        monkeypatch.setattr(loop, "run", run)
        loop._compared = compared
        assert numerical_gradient(f, x, engine="compiled").tobytes() == expected.tobytes()
    assert loop._differs


def test_lanes_are_compiled_after_as_much_time_in_the_loop_as_compiling_takes(monkeypatch):
    f = numba.njit(chain)
    f(numbers(20))
    monkeypatch.setattr(jitted, "LANES_SECONDS", 0.0)
    (compiled,) = f.overloads.values()
    compiled.metadata["timers"]["compiler_lock"] = 1e6  # seconds
    require_same_bits(f, numbers(20))
    assert lanes_of(f) is None
    (kept,) = vars(f)[jitted.LOOPS_ATTRIBUTE].values()
    assert 0 < kept.seconds < 1e6
    kept.seconds = jitted.LANES_COMPILATIONS * 1e6
    require_same_bits(f, numbers(20))
    assert lanes_of(f) is not None
