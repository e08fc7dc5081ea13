"""The net refuses what it cannot compute, by name, and before anything is computed."""

import re
from typing import Any

import numpy as np
import pytest

from fastgrad import TwoLayerNet
from fastgrad.network import propagation, two_layer_net
from fastgrad.network.two_layer_net import ENGINES

INPUTS, HIDDEN, CLASSES, SAMPLES = 4, 3, 5, 6


@pytest.fixture
def net(monkeypatch):
    """Return a net whose engines record their calls; its parameters must stay the same."""
    np.random.seed(0)
    made = TwoLayerNet(INPUTS, HIDDEN, CLASSES, weight_init_std=0.5)
    calls = []
    for name, engine in ENGINES.items():

        def record(*args, engine=engine):
            calls.append(args)
            return engine(*args)

        monkeypatch.setitem(two_layer_net.ENGINES, name, record)
    made.calls = calls
    before = made.params.buffer.copy()
    yield made
    assert made.params.buffer.tobytes() == before.tobytes()


@pytest.fixture
def x():
    return np.random.default_rng(0).random((SAMPLES, INPUTS))


@pytest.fixture
def labels():
    return np.array([0, 4, 2, 1, 3, 3])


METHODS = ["loss", "accuracy", "gradient", "numerical_gradient"]


def refused(net, error, match, x, t, methods=METHODS, **options):
    """Check that all methods, and all engines, refuse x and t; and that the next call is right."""
    samples = np.random.default_rng(1).random((SAMPLES, INPUTS))
    expected = net.numerical_gradient(samples, np.zeros(SAMPLES, int))
    net.calls.clear()
    for method in methods:
        engines = [{"engine": name} for name in ENGINES] if method.startswith("num") else [{}]
        for engine in engines:
            with pytest.raises(error, match=match):
                getattr(net, method)(x, t, **options, **engine)
    assert not net.calls
    assert net.numerical_gradient(samples, np.zeros(SAMPLES, int)) == expected


@pytest.mark.parametrize("count", [0, 1, 5, 7, 12])
def test_labels_for_more_or_fewer_samples_are_refused(net, x, labels, count):
    t = np.resize(labels, count)
    match = rf"t has shape \({count},\), but the batch has 6 samples and 5 classes; pass class ind"
    refused(net, ValueError, match, x, t)


@pytest.mark.parametrize("shape", [(6, 4), (6, 6), (5, 5), (6, 5, 1), (5, 6), (30,), (1, 6), ()])
def test_targets_of_the_wrong_width_are_refused_with_the_right_shapes(net, x, shape):
    match = rf"t has shape {re.escape(str(shape))}, but .* of shape \(6,\) or .* \(6, 5\)"
    refused(net, ValueError, match, x, np.zeros(shape))


@pytest.mark.parametrize("shape", [(6, 3), (6, 5), (4, 6), (3,), (6,), (6, 4, 1), (1, 6, 4), ()])
def test_samples_of_the_wrong_width_are_refused_with_the_remedy(net, labels, shape):
    shown = re.escape(str(shape))
    match = rf"x has shape {shown}, but the net takes 4 features .*pass x\.reshape\(-1, 4\)"
    refused(net, ValueError, match, np.ones(shape), labels)
    with pytest.raises(ValueError, match=match):
        net.predict(np.ones(shape))


@pytest.mark.parametrize("t", [[], np.zeros((0, 5)), np.zeros((0, 1))])
def test_a_batch_without_samples_is_refused(net, t):
    match = r"x has shape \(0, 4\): no samples; pass at least one"
    refused(net, ValueError, match, np.zeros((0, 4)), t)
    with pytest.raises(ValueError, match=match):
        net.predict(np.zeros((0, 4)))


@pytest.mark.parametrize("label", [5, -1, 255, 2.0**70, -np.inf])
def test_labels_out_of_range_are_named(net, x, labels, label):
    t = labels.astype(float) if isinstance(label, float) else labels
    t[2] = label
    match = rf"t\[2\] is {re.escape(str(t[2]))}, but the class indices go from 0 to 4"
    refused(net, ValueError, match, x, t)


@pytest.mark.parametrize("label", [0.5, 3.999, np.nan])
def test_labels_that_are_not_whole_are_named(net, x, labels, label):
    t = labels.astype(float)
    t[3] = label
    refused(net, ValueError, rf"t\[3\] is {label}, but a class index is a whole number", x, t)


def test_a_target_of_nan_is_named(net, x, labels):
    t = np.eye(CLASSES)[labels]
    t[4, 1] = np.nan
    refused(net, ValueError, r"t\[4, 1\] is nan", x, t)


@pytest.mark.parametrize("t", [["a"] * 6, [None] * 6, [1j] * 6, np.zeros(6, "M8[s]")])
def test_targets_that_are_no_numbers_are_refused(net, x, t: Any):
    refused(net, TypeError, r"t has dtype .*, which does not hold class labels", x, t)


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (2, 3), (5, 1)])
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_a_nan_or_infinity_in_x_is_named_with_its_place(net, x, labels, value, place, density):
    x[np.random.default_rng(0).random(x.shape) > density] = 0.0
    x[place] = value
    x[5, 3] = np.nan  # a later one is not the one to name
    shown = "nan" if np.isnan(value) else str(value)
    match = rf"x\[{place[0]}, {place[1]}\] is {shown}, but the features are finite numbers; remove"
    refused(net, ValueError, match, x, labels)
    with pytest.raises(ValueError, match=match):
        net.predict(x)


def test_a_nan_in_a_late_sample_is_named_by_its_own_number(net):
    x = np.zeros((1000, INPUTS))
    x[777, 2] = np.nan
    match = r"x\[777, 2\] is nan"
    with pytest.raises(ValueError, match=match):
        net.predict(x)
    refused(net, ValueError, match, x, np.zeros(1000, int))


def test_a_number_that_is_infinite_as_float64_is_refused(net, x, labels):
    with np.errstate(over="ignore"):
        if np.finfo(np.longdouble).max == np.finfo(np.float64).max:
            pytest.skip("longdouble is float64 here")
        values = x.astype(np.longdouble)
        values[1, 1] = np.longdouble("1e400")
        refused(net, ValueError, r"x\[1, 1\] is inf", values, labels)


@pytest.mark.parametrize(
    "x",
    [[["a"] * 4] * 6, [[None] * 4] * 6, [[1j] * 4] * 6, np.zeros((6, 4), "M8[s]"), "pixels", None],
)
def test_samples_that_are_no_numbers_are_refused_with_the_dtype(net, labels, x: Any):
    match = r"x has dtype .*, but a sample is made of real numbers; pass x\.astype\(float\)"
    refused(net, TypeError, match, x, labels)
    with pytest.raises(TypeError, match=match):
        net.predict(x)


def test_ragged_samples_are_refused(net, labels):
    match = r"x is \[\[1.0, .*, of which no array can be made; pass an array of shape \(N, 4\)"
    with pytest.raises(TypeError, match=match):
        net.loss([[1.0] * 4] * 5 + [[1.0] * 3], labels)


STEPS = ["numerical_gradient"]


@pytest.mark.parametrize("h", [0, 0.0, -0.0, -1e-4, np.nan, np.inf, -np.inf, np.float64(0)])
def test_steps_that_are_not_positive_and_finite_are_refused(net, x, labels, h):
    shown = re.escape(str(float(h)))
    match = rf"h is {shown}, but the step is positive and finite; pass one such as 1e-4"
    refused(net, ValueError, match, x, labels, STEPS, h=h)


@pytest.mark.parametrize("h", [True, "1e-4", None, 1e-4j, [1e-4], np.array([1e-4])])
def test_steps_that_are_no_real_numbers_are_refused(net, x, labels, h: Any):
    match = rf"h is {re.escape(repr(h))} of type {type(h).__name__}, but the step is a real number"
    refused(net, TypeError, match, x, labels, STEPS, h=h)


def test_a_step_that_is_lost_beside_a_parameter_is_refused_with_the_parameters_name(x, labels):
    net = TwoLayerNet(INPUTS, HIDDEN, CLASSES)
    net.params["W2"][1, 2] = -3e12
    for engine in ENGINES:
        match = r"h is 0.0001, which is lost when .* params\['W2'\], whose largest entry is 3e\+12"
        # The loop is the book's, which goes on.
        said = pytest.warns(RuntimeWarning, match=match)
        with said if engine == "loop" else pytest.raises(ValueError, match=match):
            net.numerical_gradient(x, labels, engine=engine)
        if engine != "loop":
            with pytest.raises(ValueError, match="is 1e-20, which is lost"):
                net.numerical_gradient(x, labels, 1e-20, engine=engine)
        # A larger step is not lost.
        assert np.isfinite(net.numerical_gradient(x, labels, 1.0, engine=engine).buffer).all()


def test_a_step_that_moves_a_parameter_up_but_not_down_is_refused(x, labels):
    net = TwoLayerNet(INPUTS, HIDDEN, CLASSES)
    net.params["b1"][0] = 1.0
    half = np.finfo(float).eps / 2  # 1 + eps/2 is rounded to 1, and 1 - eps/2 is a number
    with pytest.raises(ValueError, match=r"which is lost when it is added to params\['b1'\]"):
        net.numerical_gradient(x, labels, half)
    assert np.isfinite(net.numerical_gradient(x, labels, 2 * half).buffer).all()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["W1", "b1", "W2", "b2"])
def test_a_nan_among_the_parameters_gives_nan_with_a_warning(x, labels, name, engine):
    net = TwoLayerNet(INPUTS, HIDDEN, CLASSES)
    net.params[name].flat[-1] = np.nan
    match = r"the difference quotient at W1\[0, 0\] is not finite: .*look for nan .* in params"
    with pytest.warns(RuntimeWarning, match=match) as warnings:
        gradient = net.numerical_gradient(x, labels, engine=engine)
    assert [warning.filename for warning in warnings] == [__file__]
    assert np.isnan(gradient.buffer).all()
    assert np.isnan(net.params[name].flat[-1])
    assert np.isnan(net.params.buffer).sum() == 1


@pytest.mark.parametrize("name", ["W1", "b1", "W2", "b2"])
def test_a_nan_among_the_parameters_crashes_nothing(x, labels, name):
    net = TwoLayerNet(INPUTS, HIDDEN, CLASSES)
    net.params[name].flat[0] = np.nan
    for zeros in (1.0, 0.0):
        assert np.isnan(net.loss(zeros * x, labels)) or (name == "W1" and zeros == 0.0)
        assert net.predict(zeros * x).shape == (SAMPLES, CLASSES)
        assert 0 <= net.accuracy(zeros * x, labels) <= 1
        assert net.gradient(zeros * x, labels).buffer.size == net.params.buffer.size


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_an_infinite_parameter_is_refused_because_no_step_moves_it(x, labels, value, engine):
    net = TwoLayerNet(INPUTS, HIDDEN, CLASSES)
    net.params["W2"][0, 0] = value
    match = r"h is 0.0001, which is lost .* params\['W2'\], whose largest entry is inf; pass"
    with pytest.raises(ValueError, match=match):
        net.numerical_gradient(x, labels, engine=engine)


@pytest.mark.parametrize("engine", ["", "Response", "auto", "numpy", None, 0])
def test_an_unknown_engine_is_refused_with_the_known_ones(net, x, labels, engine: Any):
    known = "'response', 'direct', 'loop'"
    match = rf"engine is {re.escape(repr(engine))}, which does not exist; pass one of {known}"
    with pytest.raises(ValueError, match=match):
        net.numerical_gradient(x, labels, engine=engine)
    assert not net.calls


def test_the_engine_is_given_by_name(net, x, labels):
    with pytest.raises(TypeError, match="positional"):
        net.numerical_gradient(x, labels, 1e-4, "direct")


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "output_size"])
@pytest.mark.parametrize("size", [0, -1, np.int64(0), False])
def test_sizes_below_1_are_refused(name, size):
    sizes = {"input_size": 4, "hidden_size": 3, "output_size": 2} | {name: size}
    state = np.random.get_state()[1].tolist()
    with pytest.raises(ValueError, match=rf"{name} is {int(size)}, but a size is at least 1"):
        TwoLayerNet(**sizes)
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "output_size"])
@pytest.mark.parametrize("size", [3.0, 2.5, "3", None, np.nan, [3]])
def test_sizes_that_are_not_whole_are_refused(name, size: Any):
    sizes = {"input_size": 4, "hidden_size": 3, "output_size": 2} | {name: size}
    match = rf"{name} is {re.escape(repr(size))}, but a size is a whole number; pass an int"
    with pytest.raises(TypeError, match=match):
        TwoLayerNet(**sizes)


@pytest.mark.parametrize("deviation", [np.nan, np.inf, -np.inf, True, "0.01", None, 1j, [0.01]])
def test_standard_deviations_that_are_no_finite_numbers_are_refused(deviation: Any):
    state = np.random.get_state()[1].tolist()
    shown = re.escape(repr(deviation))
    with pytest.raises(ValueError, match=rf"weight_init_std is {shown}, but .*finite number"):
        TwoLayerNet(4, 3, 2, weight_init_std=deviation)
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize("method", METHODS)
def test_targets_are_refused_before_a_forward_pass(x, labels, method, monkeypatch):
    def fail(*args):
        raise AssertionError("a forward pass was run")

    made = TwoLayerNet(INPUTS, HIDDEN, CLASSES)
    monkeypatch.setattr(propagation, "run_forward", fail)
    with pytest.raises(ValueError, match="t has shape"):
        getattr(made, method)(x, labels[1:])
