"""Numbers, lists, tensors and data frames are served as arrays, and given back as they were."""

from collections import namedtuple
from fractions import Fraction

import numpy as np
import pytest

from fastgrad import (
    Gradient,
    check_gradient,
    differentiate,
    directional_derivative,
    hessian,
    hessian_vector_product,
    jacobian,
    numerical_gradient,
    slope_test,
    vector_jacobian_product,
)

# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [[1.0, 2], (1, 2), [np.float32(1), Fraction(2)], [[1], [2.0]]])
def test_lists_of_numbers_are_a_new_array(x):
    before, seen = repr(x), []

    def f(array):
        seen.append(type(array))
        return (array**3).sum()

    result = numerical_gradient(f, x)
    array = np.array(x, float)
    assert result.tobytes() == numerical_gradient(lambda x: (x**3).sum(), array).tobytes()
    assert result.shape == array.shape
    assert set(seen) == {np.ndarray}
    assert repr(x) == before


def test_a_number_gives_a_number():
    for x in (3, 3.0, np.float64(3), Fraction(3)):
        result = numerical_gradient(lambda x: x**2, x)
        assert type(result) is np.float64
        assert result == numerical_gradient(lambda x: x**2, np.array(3.0))
    found = differentiate(np.exp, 1.0)
    assert abs(found.gradient - np.e) <= found.error
    assert np.ndim(found.gradient) == np.ndim(found.step) == 0
    assert jacobian(lambda x: [x, x**2], 3.0).round(6).tolist() == [1, 6]


def test_numbers_may_stand_among_arrays():
    x = {"a": 3, "b": (np.ones(2), 2.0)}
    result = numerical_gradient(lambda x: x["a"] ** 2 + x["b"][1] * x["b"][0].sum(), x)
    assert type(result["a"]) is np.float64
    assert result["a"].round(6) == 6
    assert result["b"][0].round(6).tolist() == [2, 2]
    assert result["b"][1].round(6) == 2
    assert x["a"] == 3
    Point = namedtuple("Point", "u v")
    result = numerical_gradient(lambda p: p.u * p.v, Point(3.0, 4.0))
    assert result == Point(pytest.approx(4), pytest.approx(3))


def test_second_derivatives_are_numbers_where_both_elements_are():
    def f(x):
        return (x["a"] * x["b"] ** 2).sum() + x["a"] ** 2

    result = hessian(f, {"a": 3.0, "b": np.array([1.0, 2.0])})
    assert type(result["a"]["a"]) is np.float64
    assert result["a"]["a"].round(4) == 2
    assert result["a"]["b"].round(4).tolist() == result["b"]["a"].round(4).tolist() == [2, 4]
    assert result["b"]["b"].round(4).tolist() == [[6, 0], [0, 6]]


def test_every_function_takes_lists():
    def f(x):
        return (x**3).sum()

    x = [1.0, 2.0]
    assert hessian(f, x).round(4).tolist() == [[6, 0], [0, 12]]
    assert hessian_vector_product(f, x, [1, 1]).round(4).tolist() == [6, 12]
    assert directional_derivative(f, x, [1, 0]).round(6) == 3
    assert vector_jacobian_product(lambda x: x**2, x, [1, 2]).round(6).tolist() == [2, 8]
    assert check_gradient(f, x, [3.0, 12.0])
    assert not check_gradient(f, x, [3.0, 11.0])
    assert slope_test(f, x, lambda x: 3 * np.asarray(x) ** 2)


def test_lists_that_are_no_array_are_refused():
    with pytest.raises(ValueError, match="same length"):
        numerical_gradient(lambda x: 0.0, [[1.0, 2.0], [3.0]])


# Tensors ------------------------------------------------------------------------------------------


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def module(torch):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)
    ).double()


@pytest.fixture
def loss(torch, module):
    x = torch.linspace(-1, 1, 48, dtype=torch.float64).reshape(8, 6)
    return lambda _: (module(x.to(module[0].weight.dtype)) ** 2).mean()


def test_second_derivatives_are_tensors_where_either_of_two_arrays_is(torch):
    x = {"a": torch.ones(2, dtype=torch.float64), "b": np.array([1.0, 2.0])}
    result = hessian(lambda x: (x["a"] * torch.from_numpy(x["b"])).sum(), x)
    blocks = [result[a][b] for a, b in ("aa", "ab", "ba")]
    assert all(type(block) is torch.Tensor for block in blocks)
    assert blocks[1].round(decimals=4).tolist() == [[1, 0], [0, 1]]
    assert type(result["b"]["b"]) is np.ndarray


def autograd(module, loss):
    module.zero_grad()
    loss(None).backward()
    return {name: parameter.grad for name, parameter in module.named_parameters()}


def test_the_parameters_of_a_module_are_moved_where_they_are(torch, module, loss):
    parameters = dict(module.named_parameters())
    before = {name: each.detach().clone() for name, each in parameters.items()}
    expected = autograd(module, loss)
    for x in (parameters, module.state_dict()):
        found = numerical_gradient(loss, x)
        for name, gradient in found.items():
            assert isinstance(gradient, torch.Tensor)
            assert gradient.dtype == torch.float64
            torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-8)
            assert torch.equal(parameters[name], before[name])
            assert parameters[name].requires_grad


def test_single_precision_gets_steps_that_suit_it(torch, module, loss):
    module.float()
    expected = autograd(module, loss)
    found = numerical_gradient(loss, dict(module.named_parameters()))
    for name, gradient in found.items():
        assert gradient.dtype == torch.float32
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-4)


@pytest.mark.parametrize("fast", [False, True])
def test_gradients_of_a_module_are_checked(module, loss, fast):
    parameters = dict(module.named_parameters())
    assert check_gradient(loss, parameters, autograd(module, loss), fast=fast)
    assert check_gradient(loss, parameters, lambda _: autograd(module, loss), fast=fast)
    wrong = autograd(module, loss)
    wrong["2.bias"] = 2 * wrong["2.bias"]
    report = check_gradient(loss, parameters, wrong, fast=fast)
    assert not report
    assert "2 times too large" in str(report)


def test_a_tensor_in_a_tensor_out(torch):
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64).T.requires_grad_()
    before = x.detach().clone()

    def f(x):
        assert not torch.is_grad_enabled()
        return (x**3).sum()

    torch.testing.assert_close(numerical_gradient(f, x), 3 * before**2, rtol=0, atol=1e-6)
    torch.testing.assert_close(Gradient(f)(x), 3 * before**2, rtol=0, atol=1e-8)
    found = differentiate(f, x)
    assert isinstance(found.error, torch.Tensor)
    assert ((found.gradient - 3 * before**2).abs() <= found.error).all()
    J = jacobian(lambda x: x[0] ** 2, x)
    assert J.shape == (2, 2, 2)
    assert hessian(f, x).shape == (2, 2, 2, 2)
    product = hessian_vector_product(f, x, torch.ones(2, 2))
    torch.testing.assert_close(product, 6 * before, rtol=0, atol=1e-4)
    assert torch.equal(x, before)


def test_further_arguments_stay_tensors(torch):
    def f(x, weights):
        return (weights @ x).sum()

    weights = torch.ones(2, 3, dtype=torch.float64)
    result = numerical_gradient(f, torch.zeros(3, dtype=torch.float64), args=(weights,))
    torch.testing.assert_close(
        result, torch.full((3,), 2.0, dtype=torch.float64), rtol=0, atol=1e-9
    )


def test_tensors_that_cannot_be_moved_are_refused(torch):
    with pytest.raises(TypeError, match="float16"):
        numerical_gradient(lambda x: x.sum(), torch.ones(3).half())
    with pytest.raises(TypeError, match="sparse_coo"):
        numerical_gradient(lambda x: x.sum(), torch.eye(3).to_sparse())
    with pytest.raises(TypeError, match="on meta"):
        numerical_gradient(lambda x: x.sum(), torch.ones(3, device="meta"))
    with pytest.raises(ValueError, match="scheme is 'complex'"):
        numerical_gradient(lambda x: x.sum(), torch.ones(3), scheme="complex")
    with pytest.raises(ValueError, match="share memory"):
        numerical_gradient(lambda x: x.sum(), torch.ones(1).expand(3))


# Data frames --------------------------------------------------------------------------------------


@pytest.fixture
def pandas():
    return pytest.importorskip("pandas")


def test_labels_are_kept(pandas):
    x = pandas.Series({"a": 1, "b": 2.0}, name="parameters")

    def f(x):
        return x["a"] ** 2 * x.loc["b"]

    result = numerical_gradient(f, x)
    assert result.round(6).to_dict() == {"a": 4.0, "b": 1.0}
    assert result.name == "parameters"
    assert x.to_dict() == {"a": 1, "b": 2.0}
    assert check_gradient(f, x, pandas.Series({"a": 4.0, "b": 1.0}))
    assert differentiate(f, x).error["a"] < 1e-9
    frame = pandas.DataFrame({"u": [1.0, 2.0], "v": [3.0, 4.0]}, index=["p", "q"])
    result = numerical_gradient(lambda x: (x["u"] * x["v"]).sum(), frame)
    assert result.loc["q"].round(6).to_dict() == {"u": 4.0, "v": 2.0}
    assert jacobian(lambda x: x["u"] ** 2, frame).shape == (2, 2, 2)
    with pytest.raises(TypeError, match="columns of numbers"):
        numerical_gradient(f, pandas.Series({"a": "x", "b": "y"}))
