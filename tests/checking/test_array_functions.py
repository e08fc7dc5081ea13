"""Checks of Jacobians, of products with them, and of layers' backward passes."""

import numpy as np
import pytest

from fastgrad import check_backward, check_jacobian, vector_jacobian_product


def affine_forward(x, w, b):
    return x @ w + b, (x, w)


def affine_backward(dout, cache):
    x, w = cache
    return dout @ w.T, x.T @ dout, dout.sum(axis=0)


@pytest.fixture
def inputs():
    draw = np.random.default_rng(0).normal
    return draw(size=(5, 4)), draw(size=(4, 3)), draw(size=3)


def verdicts(report):
    return {row.name: row.verdict for row in report.rows}


def test_each_input_has_a_row_by_its_name_and_its_bits_afterwards(inputs):
    before = [array.tobytes() for array in inputs]
    for given in (inputs, [*inputs], dict(zip("xwb", inputs, strict=True))):
        report = check_backward(affine_forward, given, None, affine_backward)
        assert report
        assert verdicts(report) == dict.fromkeys("xwb", "right")
    assert [array.tobytes() for array in inputs] == before


@pytest.mark.parametrize("wrong", range(3))
def test_a_fault_is_named_by_its_input(inputs, wrong):
    def backward(dout, cache):
        passed = [*affine_backward(dout, cache)]
        passed[wrong] = -passed[wrong]
        return passed

    report = check_backward(affine_forward, inputs, None, backward)
    assert not report
    assert verdicts(report) == {
        name: "wrong" if k == wrong else "right" for k, name in enumerate("xwb")
    }
    assert report.summary.startswith(f"The gradient of {'xwb'[wrong]} is wrong")
    assert f"{'xwb'[wrong]}: the sign is wrong" in report.findings[0]


def test_what_is_passed_back_may_be_given_and_weighs_each_out(inputs):
    seen = []

    def backward(dout, cache):
        seen.append(dout)
        return affine_backward(dout, cache)

    dout = np.zeros((5, 3))
    dout[2, 1] = 2
    assert check_backward(affine_forward, inputs, dout, backward)
    assert all((each == dout).all() for each in seen)
    # Only what is weighed is seen: b[0] does not reach out[2, 1].
    assert check_backward(
        affine_forward,
        inputs,
        dout,
        lambda dout, cache: [*affine_backward(dout, cache)[:2], np.array([0, 2, 0])],
    )


def test_several_outs_and_further_arguments(inputs):
    x, w, _ = inputs

    def forward(x, w, power, scale=1.0):
        y = x @ w
        return y**power, scale * y.sum(axis=1), (x, w, y, power)

    def backward(dfirst, dsecond, cache):
        x, w, y, power = cache
        dy = dfirst * power * y ** (power - 1) + 3 * dsecond[:, np.newaxis]
        return dy @ w.T, x.T @ dy

    douts = np.ones((5, 3)), np.arange(5.0)
    assert check_backward(forward, (x, w), douts, backward, args=(2, 3.0))
    assert not check_backward(forward, (x, w), douts, backward, args=(2, 4.0))


def test_layers_with_a_memory_as_in_the_book(inputs):
    x, w, b = inputs

    class Relu:
        def forward(self, x):
            self.mask = x <= 0
            out = x.copy()
            out[self.mask] = 0
            return out

        def backward(self, dout):
            dout[self.mask] = 0  # in what it is given
            return dout

    class Affine:
        def __init__(self, W, b):
            self.W, self.b = W, b

        def forward(self, x):
            self.x = x
            return x @ self.W + self.b

        def backward(self, dout):
            self.dW, self.db = self.x.T @ dout, dout.sum(axis=0)
            return dout @ self.W.T

    relu, affine = Relu(), Affine(w, b)
    assert check_backward(relu.forward, x, None, relu.backward)
    # Parameters are moved where the layer has them.
    assert check_backward(
        lambda x, W, b: affine.forward(x),
        (x, affine.W, affine.b),
        None,
        lambda dout: {"x": affine.backward(dout), "W": affine.dW, "b": affine.db},
    )


@pytest.mark.parametrize(
    "options", [{"fast": True}, {"h": 1e-5}, {"engine": "loop"}, {"rtol": 1e-3}]
)
def test_options_are_those_of_check_gradient(inputs, options):
    assert check_backward(affine_forward, inputs, None, affine_backward, **options)


def test_single_precision(inputs):
    single = [array.astype(np.float32) for array in inputs]
    assert check_backward(affine_forward, single, None, affine_backward)
    assert not check_backward(
        affine_forward,
        single,
        None,
        lambda dout, cache: [1.01 * a for a in affine_backward(dout, cache)],
    )


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"forward": 3}, TypeError, "forward is a int"),
        ({"backward": None}, TypeError, "backward is a NoneType"),
        (
            {"dout": np.ones((5, 4))},
            ValueError,
            r"dout has shape \(5, 4\), but forward returns .* \(5, 3\)",
        ),
        ({"dout": np.ones((5, 3)) * 1j}, TypeError, "complex"),
        ({"dout": (1.0, 2.0, 3.0)}, ValueError, "tuple of 3, but forward returns 2 outs"),
        ({"backward": lambda dout, cache: dout}, ValueError, "returned 1 of 3 gradients"),
        ({"backward": lambda dout, cache: {"x": dout}}, ValueError, "missing"),
        ({"inputs": (np.ones((5, 4), int), np.ones((4, 3)), np.ones(3))}, TypeError, "int64"),
    ],
)
def test_bad_input_is_refused(inputs, changes, error, message):
    arguments = {
        "forward": affine_forward,
        "inputs": inputs,
        "dout": None,
        "backward": affine_backward,
    }
    with pytest.raises(error, match=message):
        check_backward(**arguments | changes)


def test_a_product_with_the_jacobian_is_what_is_passed_back(inputs):
    x, w, b = inputs
    dout = np.random.default_rng(1).normal(size=(5, 3))

    def f(x, k):
        return k * np.tanh(x @ w + b)

    expected = 2 * (dout * (1 - np.tanh(x @ w + b) ** 2)) @ w.T
    for options in ({}, {"engine": "loop"}, {"h": "auto"}, {"scheme": "forward", "h": 1e-8}):
        result = vector_jacobian_product(f, x, dout, args=(2.0,), **options)
        # The book's step of 1e-4 truncates 1e-8 / 6 of third derivatives, summed over 3 columns.
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
    parts = vector_jacobian_product(
        lambda p: p[0] * p[1], (np.ones(2), np.full(2, 3.0)), np.array([1.0, 2.0])
    )
    np.testing.assert_allclose(parts, ([3, 6], [1, 2]), rtol=1e-9)


@pytest.mark.parametrize(
    ("v", "error", "message"),
    [
        (np.ones(3), ValueError, r"v has shape \(3,\), but f returns .* \(2,\)"),
        (np.ones(2) * 1j, TypeError, "complex128"),
    ],
)
def test_bad_weights_are_refused(v, error, message):
    with pytest.raises(error, match=message):
        vector_jacobian_product(lambda x: x**2, np.ones(2), v)


# Jacobians ----------------------------------------------------------------------------------------


def system(x, k=1.0):
    return np.array(
        [[k * np.exp(x[0] * x[1]), x[1] ** 3], [1e6 * np.sin(x[2]), 1e-6 * x[0] * x[2]]]
    )


def systems_jacobian(x, k=1.0):
    a, b, c = x
    e = k * np.exp(a * b)
    rows = [b * e, a * e, 0], [0, 3 * b**2, 0], [0, 0, 1e6 * np.cos(c)], [1e-6 * c, 0, 1e-6 * a]
    return np.array(rows).reshape(2, 2, 3)


POINT = np.array([0.3, 1.2, -0.7])


@pytest.mark.parametrize(
    "form",
    [
        lambda J: J,
        lambda J: J.reshape(4, 3),
        lambda J: J.tolist(),
        lambda J: pytest.importorskip("scipy.sparse").csr_array(J.reshape(4, 3)),
    ],
)
def test_a_right_jacobian_is_right_in_any_form(form):
    x = POINT.copy()
    assert check_jacobian(system, x, form(systems_jacobian(x)))
    assert check_jacobian(system, x, lambda x: form(systems_jacobian(x)))
    assert check_jacobian(system, x, lambda x, k: form(systems_jacobian(x, k)), args=(2.0,))
    assert x.tobytes() == POINT.tobytes()


@pytest.mark.parametrize("entry", [(0, 0, 1), (0, 1, 1), (1, 0, 2), (1, 1, 2)])
def test_a_wrong_entry_is_found_whatever_its_size_and_its_number_named(entry):
    J = systems_jacobian(POINT)
    J[entry] *= 1.001
    report = check_jacobian(system, POINT.copy(), J)
    assert not report
    assert report.summary == f"The Jacobian is wrong: f(x)[{entry[0]}, {entry[1]}]."
    row = report[f"f(x)[{entry[0]}, {entry[1]}]"]
    assert row.absolute.index == entry[2:]


def test_faults_of_the_whole_are_named():
    A = np.random.default_rng(0).normal(size=(3, 3))
    x = np.ones(3)
    report = check_jacobian(lambda x: A @ x, x, A.T)
    assert not report
    assert report.findings[0].startswith("It is transposed")
    report = check_jacobian(lambda x: A @ x, x, -A)
    assert any("the sign is wrong" in finding for finding in report.findings)
    report = check_jacobian(lambda x: A @ x, x, 0 * A)
    assert report.summary == "The Jacobian is wrong: f(x)[0], f(x)[1], f(x)[2]."


def test_products_with_the_jacobian_are_checked():
    x = POINT.copy()

    def jvp(x, v, k=1.0):
        return systems_jacobian(x, k) @ v

    def vjp(x, w, k=1.0):
        return np.tensordot(w, systems_jacobian(x, k), 2)

    assert check_jacobian(system, x, jvp=jvp)
    assert check_jacobian(system, x, vjp=vjp)
    assert check_jacobian(system, x, vjp=vjp, args=(2.0,))
    assert check_jacobian(system, x, jvp=jvp, args=(2.0,))
    for wrong in ({"jvp": lambda x, v: 1.01 * jvp(x, v)}, {"vjp": lambda x, w: -vjp(x, w)}):
        report = check_jacobian(system, x, **wrong)
        assert not report
        assert "product" in report.summary
    assert x.tobytes() == POINT.tobytes()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "jacobian is missing"),
        ({"jvp": 3}, TypeError, "jvp is a int"),
        ({"jacobian": np.eye(3), "vjp": len}, TypeError, "jacobian and vjp"),
        (
            {"jacobian": np.ones((3, 4))},
            ValueError,
            r"is it transposed\?; pass one of shape \(2, 2, 3\)",
        ),
        ({"jacobian": np.ones((4, 3)) * 1j}, TypeError, "complex128"),
        ({"jvp": lambda x, v: v}, ValueError, r"jvp returned an array of shape \(3,\)"),
        ({"vjp": lambda x, w: w}, ValueError, "shape"),
    ],
)
def test_bad_jacobians_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        check_jacobian(system, POINT.copy(), **arguments)
