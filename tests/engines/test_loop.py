"""The loop is bit-identical with the book's, and puts x back whatever happens."""

import random
from fractions import Fraction

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from counting import counted
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad import reference
from fastgrad.differences.quotients import at
from fastgrad.engines import loop
from fastgrad.typing import Moves

REPEATABLE = settings(derandomize=True, deadline=None)
H = 1e-4
NATIVE = ["f4", "f8"]


@st.composite
def arrays_in_any_layout(draw, dtypes=(*NATIVE, ">f4", ">f8")):
    """Arrays of 0 to 3 axes: permuted, reversed, strided, in rows or columns."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=4))
    slices = tuple(slice(None, None, draw(st.sampled_from([1, -1, 2, -2]))) for _ in shape)
    elements = st.floats(-100, 100, width=32)
    whole = draw(hnp.arrays(dtype, tuple(2 * side for side in shape), elements=elements))
    x = whole[slices]
    return x.transpose(draw(st.permutations(range(x.ndim)))) if x.ndim else np.array(x)


def difference_with_history(engine, f, x):
    """Return the gradient, and the bytes of x at each call."""
    points = []

    def record(argument):
        assert argument is x
        points.append(x.tobytes())
        return f(x)

    return engine(record, x, H), points


def oscillation(x):
    return (np.sin(x) * x).sum()


@REPEATABLE
@given(
    x=arrays_in_any_layout(),
    f=st.sampled_from([oscillation, lambda x: float(oscillation(x)), lambda x: x.sum() ** 2]),
)
def test_points_order_and_quotients_are_the_books_bit_for_bit(x, f):
    before = x.copy()
    expected, expected_points = difference_with_history(reference.numerical_gradient, f, x)
    assert x.tobytes() == before.tobytes()
    result, points = difference_with_history(loop.gradient, f, x)
    assert points == expected_points
    assert len(points) == 2 * x.size
    assert result.tobytes() == expected.tobytes()
    assert result.dtype == x.dtype
    assert result.strides == expected.strides
    assert x.tobytes() == before.tobytes()


KINDS = {
    "float": float,
    "float64": np.float64,
    "float32": np.float32,
    "longdouble": np.longdouble,
    "int": lambda value: int(1e3 * value),
    "int8": lambda value: np.int8(value % 100),
    "Fraction": Fraction,
    "an array": lambda value: np.array([value]),
    "one or the other": lambda value: float(value) if value > 0 else np.float32(value),
    "huge": lambda value: 1e308 * float(np.sign(value)),
    "huge float64": lambda value: np.float64(1e308) * np.sign(value),
    "infinite": lambda value: float(value) * np.inf,
    "nan": lambda value: np.nan,
}


@pytest.mark.parametrize("shape", [(), (1,), (7,), (4, 2), (64,)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning:tests")
def test_few_elements_have_the_bits_of_arrays(kind, shape):
    x = np.array(np.random.default_rng(0).normal(size=shape))
    before = x.tobytes()

    def f(x):
        return KINDS[kind](oscillation(x))

    assert loop.are_few(x)
    found, points = difference_with_history(loop.gradient, f, x)
    few, few_points = difference_with_history(lambda *a: loop.gradient_of_few(*a)[0], f, x)
    assert few_points == points
    assert (few.tobytes(), few.shape, few.dtype) == (found.tobytes(), x.shape, x.dtype)
    assert x.tobytes() == before


def test_few_elements_are_those_of_small_plain_arrays_of_doubles():
    x = np.ones((8, 8))
    assert loop.are_few(x)
    others = [x.T[:, 1:], x[:, ::2], x.astype("f4"), x.astype(">f8"), np.ones(65), np.ma.ones(3)]
    assert not any(map(loop.are_few, others))


def test_float32_points_are_rounded_as_the_book_rounds_them():
    # Near the size of the step the rounding of h itself shows: raised in double, lowered not.
    x = np.random.default_rng(0).normal(scale=H, size=1000).astype(np.float32)
    _, expected = difference_with_history(reference.numerical_gradient, np.sum, x)
    _, points = difference_with_history(loop.gradient, np.sum, x)
    assert points == expected


@REPEATABLE
@given(
    x=hnp.arrays(np.float64, st.integers(1, 6), elements=st.floats(-10, 10)),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_central_difference_is_exact_on_quadratics(x, seed):
    a, b = np.random.default_rng(seed).uniform(-1, 1, (2, x.size))
    result = loop.gradient(lambda x: (a * x**2 + b * x).sum(), x, H)
    # f is a sum of 2n terms, each rounded 3 times and each sum once more, so it is wrong by
    # (n + 4) eps / 2 times the sum of their sizes; the moved x by eps / 2 times itself, which
    # moves f by the slope. Both at two points, divided by 2h; eps more for the quotient.
    eps, reach = np.finfo(float).eps, np.abs(x) + H
    size = (np.abs(a) * reach**2 + np.abs(b) * reach).sum()
    slope = 2 * np.abs(a) * reach + np.abs(b)
    bound = ((x.size + 4) * size + reach * slope) * eps / (2 * H) + 2 * eps * slope
    assert (np.abs(result - (2 * a * x + b)) <= bound).all()


@REPEATABLE
@given(x=arrays_in_any_layout(NATIVE), data=st.data())
def test_x_is_restored_and_the_exception_passes_unchanged(x, data):
    fatal = data.draw(st.integers(1, 2 * x.size))
    error = data.draw(st.sampled_from([ValueError("mine"), KeyboardInterrupt(), GeneratorExit()]))
    fail = counted(lambda x: 0.0, fatal, error)
    before = x.tobytes()
    with pytest.raises(type(error)) as raised:
        loop.gradient(fail, x, H)
    assert raised.value is error
    assert fail.calls == fatal
    assert x.tobytes() == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("stride", [1, 2])
def test_x_is_restored_wherever_an_interrupt_strikes(strike, dtype, stride):
    x = np.random.default_rng(0).normal(size=600).astype(dtype)[::stride]
    before, dice = x.tobytes(), random.Random(0)
    for _ in range(200):
        strike(dice.uniform(1e-5, 5e-4), lambda: loop.gradient(lambda x: 0.0, x, H))
        assert x.tobytes() == before


@pytest.mark.parametrize("bits", [0x7FF8000000000001, 0xFFF8000000000042, 0x8000000000000000])
def test_nan_payloads_and_negative_zeros_are_put_back(bits):
    x = np.array([bits], np.uint64).view(np.float64)
    loop.gradient(lambda x: 0.0, x, H)
    assert x.view(np.uint64)[0] == bits


@pytest.mark.parametrize("bits", [0x7F800001, 0xFFC00042, 0x80000000])
def test_signaling_nans_of_float32_are_put_back_too(bits):
    # As Python's numbers, doubles, they would become quiet ones.
    x = np.array([bits, 0x3F800000], np.uint32).view(np.float32)
    loop.values(lambda x: 0.0, x, Moves(np.array([0, 1]), np.ones((2, 1), np.float32)))
    assert x.view(np.uint32).tolist() == [bits, 0x3F800000]


def test_elements_that_share_memory_move_together_as_in_the_book():
    x = np.lib.stride_tricks.as_strided(np.array([1.0, 2.0]), (2, 3), (8, 0))
    expected = reference.numerical_gradient(oscillation, x)
    np.testing.assert_array_equal(loop.gradient(oscillation, x, H), expected)
    assert x[:, 0].tolist() == [1, 2]


def test_a_closure_that_reads_the_array_elsewhere_is_differenced():
    params = {"W": np.array([[1.0, 2.0], [3.0, 4.0]])}
    result = loop.gradient(lambda _: (params["W"] ** 2).sum(), params["W"], H)
    assert result.round(8).tolist() == [[2, 4], [6, 8]]


def test_a_subclass_is_passed_to_f_and_kept_in_the_result():
    class Guarded(np.ndarray):
        def __setitem__(self, key, value):
            raise AssertionError("the loop writes through a plain view")

    x = np.array([3.0, 4.0]).view(Guarded)

    def f(argument):
        assert type(argument) is Guarded
        return (np.asarray(argument) ** 2).sum()

    result = loop.gradient(f, x, H)
    assert type(result) is Guarded
    assert np.asarray(result).round(8).tolist() == [6, 8]


def test_masked_arrays_stay_masked():
    x = np.ma.masked_array([1.0, 2.0, 3.0], mask=[False, True, False])
    result = loop.gradient(lambda x: (x**2).sum(), x, H)
    assert isinstance(result, np.ma.MaskedArray)
    assert result.mask.tolist() == [False, True, False]
    assert result.data.round(8).tolist() == [2, 0, 6]
    assert x.data.tolist() == [1, 2, 3]


def test_longdouble_steps_and_quotients_keep_their_precision():
    x = np.array([1 + np.finfo(np.longdouble).eps], np.longdouble)
    old, step = x[0], np.longdouble(H)
    result = loop.gradient(lambda x: x[0] ** 2, x, H)
    assert result.dtype == np.longdouble
    assert result[0] == ((old + step) ** 2 - (old - step) ** 2) / (2 * step)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda v: np.array(v),
        lambda v: np.array([v]),
        lambda v: np.array([[v]]),
        lambda v: [v],
        lambda v: np.longdouble(v),
        lambda v: Fraction(float(v)),
    ],
    ids=["0-d", "(1,)", "(1, 1)", "list", "longdouble", "Fraction"],
)
def test_f_may_return_any_single_real_number(wrap):
    x = np.array([3.0, 4.0])
    result = loop.gradient(lambda x: wrap((x**2).sum()), x, H)
    expected = reference.numerical_gradient(lambda x: (x**2).sum(), x)
    # A longdouble or a Fraction is subtracted without rounding, a double with.
    np.testing.assert_allclose(result, expected, rtol=2 * np.finfo(float).eps)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int64, np.uint64, int, bool])
def test_whole_numbers_are_subtracted_without_wrapping_around(dtype):
    x = np.array([0.0])
    result = loop.gradient(lambda x: dtype(100 if x[0] < 0 else 0), x, H)
    assert result[0] == (0 - int(dtype(100))) / (2 * H)


def test_f_may_return_the_same_array_every_time():
    out, x = np.zeros(()), np.array([3.0, 4.0])
    result = loop.gradient(lambda x: np.sum(x**2, out=out), x, H)
    expected = reference.numerical_gradient(lambda x: (x**2).sum(), x)
    np.testing.assert_array_equal(result, expected)


@REPEATABLE
@given(
    st.lists(
        st.tuples(
            st.sampled_from([float, np.float32, np.float64, np.longdouble, np.array]),
            st.floats(-9, 9),
        ),
        min_size=1,
        max_size=9,
    )
)
def test_the_type_of_the_values_is_that_of_all_of_them_together(kinds_and_numbers):
    returned = [kind(number) for kind, number in kinds_and_numbers]
    answers = iter(returned)
    x, points = np.zeros(1), np.ones((1, len(returned)))
    result = loop.values(lambda x: next(answers), x, Moves(np.array([0]), points))
    expected = np.array(
        [
            value[()] if np.ndim(value) == 0 and hasattr(value, "dtype") else value
            for value in returned
        ]
    )
    assert result.dtype == expected.dtype
    assert result.tolist() == [expected.tolist()]


@pytest.mark.parametrize("shape", [(2,), (0,), (3, 4)])
def test_f_must_not_return_several_numbers(shape):
    x = np.array([3.0, 4.0])
    with pytest.raises(ValueError, match=rf"f returned an array of shape \({shape[0]},.*\.sum\(\)"):
        loop.gradient(lambda x: np.zeros(shape), x, H)
    assert x.tolist() == [3, 4]


@pytest.mark.parametrize("value", [None, "1", 1j, np.complex128(1), np.bool_(True), object(), {}])
def test_f_must_return_a_real_number(value):
    x = np.array([3.0, 4.0])
    match = rf"f returned .* of type {type(value).__name__}, but it must return a real number"
    with pytest.raises(TypeError, match=match):
        loop.gradient(lambda x: value, x, H)
    assert x.tolist() == [3, 4]


@pytest.mark.parametrize("number", [float, np.float64, np.float32, np.longdouble])
def test_infinite_values_give_nan_without_a_warning_an_element(number):
    x = np.zeros(3)
    assert np.isnan(loop.gradient(lambda x: number(np.inf), x, H)).all()
    assert np.isnan(loop.gradient(lambda x: number(np.nan), x, H)).all()
    result = loop.gradient(lambda x: number(np.inf if x[1] > 0 else 1), x, H)
    assert result.tolist() == [0, np.inf, 0]


def test_equal_values_give_zero_even_if_they_are_too_large_for_a_float():
    assert loop.gradient(lambda x: 10**400, np.zeros(1), H).tolist() == [0]


@pytest.mark.parametrize("number", [float, np.float64, int])
def test_real_values_of_a_complex_x_are_refused(number):
    x = np.array([1 + 0j])
    with pytest.raises(TypeError, match=r"f returned .* for a complex x"):
        loop.values(lambda x: number(abs(x[0])), x, at(x))
