"""Faults of any size are found by a few calls of f, and mended; right gradients are believed."""

import warnings

import nets
import numba
import numpy as np
import pytest
from counting import counted
from nets import EPS, H
from oracle import JIT

from fastgrad import numerical_gradient
from fastgrad.engines import certificate, compiled, loop, traced
from fastgrad.engines.certificate import Certificate, Disagreement, wrong
from fastgrad.engines.directions import Directions, NearbyValues
from fastgrad.schemes import central, forward, from_offsets

pytestmark = pytest.mark.usefixtures("cheap_functions_traced")


def network(activation=np.tanh, *, seed=0, shape=(60, 40), samples=50):
    """Return a loss of a two-layer net, and its first weights."""
    random = np.random.default_rng(seed)
    X, t = random.random((samples, shape[0])), random.integers(0, 5, samples)
    W, V = 0.2 * random.normal(size=shape), 0.2 * random.normal(size=(shape[1], 5))
    return lambda W: nets.cross_entropy_error(nets.softmax(activation(X @ W) @ V), t), W


def relu(a):
    return np.maximum(a, 0)


def plant(monkeypatch, fault, *, of_slopes=True):
    """Let what is replayed be wrong: fault(quotients) changes it, and slopes unless told not to."""
    original = traced._replayed

    def replayed(*arguments):
        result = original(*arguments)
        fault(result.quotients)
        if of_slopes:
            fault(result.slopes)
        return result

    monkeypatch.setattr(traced, "_replayed", replayed)


def elements(places, size):
    def fault(quotients):
        quotients[places] += size

    return fault


@pytest.mark.parametrize("activation", [np.tanh, relu])
@pytest.mark.parametrize("size", [1e-3, 1e-6, -1e-8])
def test_a_fault_in_one_element_is_found_and_mended(monkeypatch, activation, size):
    f, W = network(activation)
    plant(monkeypatch, elements([1234], size))
    before = W.tobytes()
    with pytest.warns(RuntimeWarning, match=r"was wrong: at x\[30, 34\] it gives"):
        result = numerical_gradient(f, W, engine="traced")
    assert W.tobytes() == before
    np.testing.assert_allclose(result, loop.gradient(f, W, H), rtol=0, atol=8 * EPS * f(W) / H)


@pytest.mark.parametrize("places", [slice(7, None, 40), slice(400, 440), [0, 57, 1300, 2399]])
def test_faults_in_units_rows_and_some_elements_are_mended(monkeypatch, places):
    f, W = network()
    plant(monkeypatch, elements(places, 1e-5))
    with pytest.warns(RuntimeWarning, match=r"other elements are wrong"):
        result = numerical_gradient(f, W, engine="traced")
    np.testing.assert_allclose(result, loop.gradient(f, W, H), rtol=0, atol=8 * EPS * f(W) / H)


def test_a_fault_beside_one_that_was_found_is_mended_though_others_cancel_it(monkeypatch):
    f, W = network()
    plant(monkeypatch, elements(slice(400, 440), 1e-5))
    monkeypatch.setattr(certificate, "_agree", lambda values, quotients, places: len(places) > 1)
    with pytest.warns(RuntimeWarning, match="and 39 other elements are wrong"):
        result = numerical_gradient(f, W, engine="traced")
    np.testing.assert_allclose(result, loop.gradient(f, W, H), rtol=0, atol=8 * EPS * f(W) / H)


def test_faults_of_quotients_alone_are_mended_where_f_bends(monkeypatch):
    def f(x):
        return np.sum(relu(x - 5e-5)) + np.sum(x**2) + 1

    x = np.zeros(60)
    plant(monkeypatch, elements(slice(None), 1e-6), of_slopes=False)
    with pytest.warns(RuntimeWarning, match="was wrong"):
        result = numerical_gradient(f, x, engine="traced")
    np.testing.assert_allclose(result, loop.gradient(f, x, H), rtol=0, atol=8 * EPS * f(x) / H)


def test_faults_everywhere_lead_to_the_loop(monkeypatch):
    f, W = network()
    wrong = 1e-6 * np.random.default_rng(1).normal(size=W.size)
    plant(monkeypatch, elements(slice(None), wrong))
    with pytest.raises(ValueError, match=r"cannot be traced: its replay is not f: at x\[.*gives"):
        numerical_gradient(f, W, engine="traced")
    # Whatever a busy machine lets auto think of the time that tracing takes:
    served = lambda *arguments, **_: traced.traced_gradient_of_any(*arguments)  # noqa: E731
    monkeypatch.setattr(traced, "traced_gradient_of_any", traced.traced_gradient, raising=False)
    monkeypatch.setattr(traced, "traced_gradient", served)
    with pytest.warns(RuntimeWarning, match=r"is called for each element instead: .* calls of f"):
        result = numerical_gradient(f, W)
    assert result.tobytes() == loop.gradient(f, W, H).tobytes()


def test_an_error_of_1e_9_of_the_loss_is_seen_in_one_of_39200_elements():
    """In the article's net, on images as MNIST's: rounding leaves room for no more."""
    random = np.random.default_rng(7)
    X = random.random((100, 784)) * (random.random((100, 784)) < 0.19)
    W, V, t = (*(0.01 * random.normal(size=n) for n in ((784, 50), (50, 10))), np.arange(100) % 10)
    f = lambda W: nets.cross_entropy_error(nets.softmax(nets.sigmoid(X @ W) @ V), t)  # noqa: E731
    right = numerical_gradient(f, W, engine="traced").reshape(-1)
    for fault in (0.0, 1e-9 * f(W)):
        g = right.copy()
        g[20_000] += fault
        values = NearbyValues(f, W, H, central(), 2 * f(W), f(W) / 10)
        for one_suffices in (True, False):
            seen = Directions(values, one_suffices=one_suffices)
            assert seen.agree(seen.slopes(g, H)) == (fault == 0)


@pytest.mark.parametrize("scheme", [forward(), central(4), from_offsets([-1, 0, 1], 2)])
def test_other_schemes_are_compared_as_well(monkeypatch, scheme):
    f, W = network()
    h = 1e-3
    looped = loop.gradient(f, W, h, scheme=scheme)
    bound = 8 * scheme.round_off(f(W), h, EPS)
    result = numerical_gradient(f, W, h, scheme=scheme, engine="traced")
    np.testing.assert_allclose(result, looped, rtol=0, atol=bound)
    plant(monkeypatch, elements([1234], 1e-3))
    with pytest.warns(RuntimeWarning, match="was wrong"):
        result = numerical_gradient(f, W, h, scheme=scheme, engine="traced")
    np.testing.assert_allclose(result, looped, rtol=0, atol=bound)


def squares_and_cubes(x):
    return np.sum(x**2) + 1e3 * np.sum(x) ** 3


def rough(x):
    return np.sum(np.tanh(x.astype(np.float32))) + 0.0 * x.sum()


NETS = {
    "tanh": network(),
    "ReLU": network(relu),
    "leaky": network(lambda a: np.where(a > 0, a, 0.1 * a)),
    "two layers of ReLU": network(lambda a: relu(relu(a) @ SQUARE)),
    "from zero": (network(relu)[0], np.zeros((60, 40))),
    "pixels": network(lambda a: np.tanh(255 * a)),
    "tiny": (lambda W: 1e-3 * network()[0](W), network()[1]),
    "huge": (lambda W: 1e8 * network()[0](W), network()[1]),
}


SQUARE = 0.2 * np.random.default_rng(5).normal(size=(40, 40))
RIGHT = {
    **NETS,
    "linear": (lambda x: np.sum(x * np.arange(200.0)), np.ones(200)),
    "of large x": (lambda x: np.sum((x - 1e8) ** 2), 1e8 + np.arange(200.0)),
    "of tiny x": (lambda x: np.sum(np.sin(1e4 * x)), 1e-9 * np.arange(200.0)),
    "acting on each other": (squares_and_cubes, 1e-3 * np.arange(200.0)),
    "L1 at 0": (lambda x: np.sum(abs(x)) + np.sum(x**2), np.zeros(200)),
    "ties": (lambda x: np.max(x.reshape(50, 4), axis=1).sum() ** 2, np.ones(200)),
    "jumps": (lambda x: np.sum(np.where(x > 0, x + 1, x) ** 2), np.arange(-100.0, 100) * 1e-5),
    "float32 inside": (rough, np.linspace(0, 1, 200)),
    "ends": (lambda x: np.sum(np.sqrt(x)), np.full(200, 1.5e-4)),
    "even, at 0": (lambda x: (x @ x) ** 2 / 3, np.zeros(5)),
    "residuals of large data": (lambda x: np.sum((1e6 + x - DATA) ** 2), np.zeros(200)),
}
DATA = 1e6 + np.random.default_rng(6).normal(size=200)


@pytest.mark.parametrize("name", RIGHT)
def test_right_gradients_are_believed_after_a_few_calls(name):
    f, x = RIGHT[name]
    f = counted(f)
    for _ in range(3):
        x = x + 0
        before, f.calls = x.tobytes(), 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            numerical_gradient(f, x, engine="traced")
        assert x.tobytes() == before
        assert f.calls <= 400


@pytest.mark.parametrize("f", [squares_and_cubes, lambda x: np.sum(relu(x - 5e-4) + x**2)])
def test_single_elements_are_compared_together_unless_they_act_on_each_other(f):
    x = 1e-3 * np.random.default_rng(10).random(200)
    quotients, places = loop.gradient(f, x, H), np.arange(0, 200, 23)
    values = NearbyValues(f, x, H, central(), f(x), f(x))
    assert wrong(values, quotients, places).size == 0
    for fault in (1e-6, np.nan):
        quotients[places[4]] += fault
        assert wrong(values, quotients, places).tolist() == [places[4]]


def uneven_gradient(fault, *, with_bends=False):
    """Return the certificate of a gradient whose first 30 of 40 elements have kinks within h."""
    random = np.random.default_rng(2)
    x, slopes = random.normal(size=40), random.normal(size=40)
    kinks = x + H * random.uniform(-0.5, 0.5, 40)

    def f(x):
        return float(slopes @ x + 0.01 * np.maximum(x - kinks, 0)[:30].sum())

    quotients = loop.gradient(f, x, H)
    around = np.array([f(x + H * e) + f(x - H * e) - 2 * f(x) for e in np.eye(40)])
    if fault is not None:
        quotients[fault] += 1e-4 if fault < 30 else 1e-7
    values = NearbyValues(f, x, H, central(), abs(f(x)), abs(f(x)))
    uneven, known = abs(around) / (2 * H), quotients.copy()
    bends = around / (2 * H) if with_bends else None
    return Certificate(values, quotients, None, known, uneven, bends, is_expensive=True)


def test_a_fault_of_an_even_element_among_uneven_ones_is_mended():
    certified = uneven_gradient(35)
    certified.mend()
    assert certified.mended == 1


@pytest.mark.parametrize("with_bends", [False, True])
def test_a_fault_of_an_uneven_element_is_found_if_it_is_compared(with_bends, monkeypatch):
    monkeypatch.setattr(certificate, "ELEMENTS_SAMPLED", 40)
    with pytest.raises(Disagreement):
        uneven_gradient(29, with_bends=with_bends).mend()


@pytest.mark.parametrize(("with_bends", "most"), [(False, 26), (True, 18)])
def test_a_right_gradient_that_is_mostly_uneven_is_believed_after_few_calls(with_bends, most):
    """Two calls for each of 9 elements, or one where moves up and down are told apart."""
    certified = uneven_gradient(None, with_bends=with_bends)
    calls = []
    f = certified.values.f
    certified.values.f = lambda x: calls.append(1) or f(x)
    certified.mend()
    assert not certified.mended
    assert len(calls) <= most


# Compiled functions ------------------------------------------------------------------------------


compiled_only = pytest.mark.skipif(not JIT, reason="nothing is compiled")


@compiled_only
@pytest.mark.parametrize(("order", "places"), [("C", [7]), ("F", slice(None))])
def test_faults_of_a_compiled_loop_are_found_and_mended(monkeypatch, places, order):
    @numba.njit
    def f(x, y):
        total = 0.0
        for i in range(x.size):
            total += x.flat[i] ** 2 * y.flat[i]
        return total

    spread = compiled.spread

    def wrong(new_work, *rest):
        def works():
            work = new_work()

            def and_spoils(chunk):
                work(chunk)
                out = work.__closure__[work.__code__.co_freevars.index("out")].cell_contents
                with np.errstate(invalid="ignore"):  # of what other chunks have not filled yet
                    out[places, 0] += 1e-8

            return and_spoils

        return spread(works, *rest)

    random = np.random.default_rng(8)
    x, y = np.asarray(random.normal(size=(30, 20)), order=order), random.normal(size=(30, 20))
    expected = loop.gradient(lambda x: f(x, y), x, H)
    before = x.tobytes("A")
    np.testing.assert_array_equal(numerical_gradient(f, x, args=(y,)), expected)
    monkeypatch.setattr(compiled, "spread", wrong)
    for kept in f._fastgrad_loops.values():
        kept.price = 0.0  # so that it is certified again
    with pytest.warns(RuntimeWarning, match=r"compiled gradient was wrong: at x\[\d+, \d+\]"):
        result = numerical_gradient(f, x, args=(y,))
    np.testing.assert_array_equal(result, expected)
    assert x.tobytes("A") == before


@compiled_only
def test_certificates_of_compiled_gradients_take_a_small_part_of_the_time():
    f = numba.njit(lambda x: (x**2).sum())
    x = np.random.default_rng(9).normal(size=100)
    numerical_gradient(f, x)
    (kept,) = f._fastgrad_loops.values()
    assert kept.certified > 0
    price = kept.price = 100.0  # seconds, beside which those of this machine are none
    due = compiled.MIN_GRADIENT_RATIO * price
    for missing, is_certified in ((price, False), (-price, True)):
        kept.certified = before = kept.seconds + missing - due
        numerical_gradient(f, x)
        assert (kept.certified != before) == is_certified
