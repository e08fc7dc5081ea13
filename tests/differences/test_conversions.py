"""Numbers, lists, tensors and data frames are served as arrays, and given back as they were."""

from collections import namedtuple
from fractions import Fraction
from threading import Thread

import array_api_strict as xp
import numpy as np
import pytest

from fastgrad import (
    Gradient,
    check_backward,
    check_gradient,
    check_jacobian,
    detect_sparsity,
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
    assert detect_sparsity(lambda x: x[:1] ** 3, x)[0].toarray().tolist() == [[True, False]]


def test_lists_that_are_no_array_are_refused():
    with pytest.raises(ValueError, match="same length"):
        numerical_gradient(lambda x: 0.0, [[1.0, 2.0], [3.0]])


# Tensors ------------------------------------------------------------------------------------------


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
    for kind in (torch.float16, torch.bfloat16, torch.int64):
        with pytest.raises(TypeError, match=r"pass x.double\(\)"):
            numerical_gradient(lambda x: x.sum(), torch.ones(3).to(kind))
    with pytest.raises(ValueError, match="vectorized is True"):
        numerical_gradient(lambda x: x.sum(), torch.ones(3), vectorized=True)
    with pytest.raises(TypeError, match="sparse_coo"):
        numerical_gradient(lambda x: x.sum(), torch.eye(3).to_sparse())
    with pytest.raises(TypeError, match="on meta"):
        numerical_gradient(lambda x: x.sum(), torch.ones(3, device="meta"))
    with pytest.raises(ValueError, match="scheme is 'complex'"):
        numerical_gradient(lambda x: x.sum(), torch.ones(3), scheme="complex")
    with pytest.raises(ValueError, match="share memory"):
        numerical_gradient(lambda x: x.sum(), torch.ones(1).expand(3))


def test_tensors_that_other_threads_move_are_waited_for(torch, module, loss):
    parameters = dict(module.named_parameters())
    alone = {name: numerical_gradient(loss, each) for name, each in parameters.items()}
    found = {}

    def ask(name):
        found[name] = numerical_gradient(loss, parameters[name])

    threads = [Thread(target=ask, args=(name,)) for name in parameters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[name], alone[name]) for name in parameters)


def test_an_f_that_moves_a_tensor_to_other_memory_is_refused(torch):
    module = torch.nn.Linear(3, 2)
    x, parameters = torch.ones(4, 3, dtype=torch.float64), dict(module.named_parameters())
    before = {name: each.detach().clone() for name, each in parameters.items()}
    with pytest.raises(ValueError, match="other memory"):
        numerical_gradient(lambda _: module.double()(x).sum(), parameters)
    assert all(torch.equal(parameters[name], before[name]) for name in parameters)


def test_products_of_single_precision_have_steps_that_suit_it(torch):
    x = torch.tensor([1.0, 2.0, 3.0])
    found = vector_jacobian_product(lambda x: x**3, x, torch.ones(3))
    torch.testing.assert_close(found, 3 * x**2, rtol=2e-4, atol=0)  # some eps ** (2 / 3)


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_products_are_given_tensors(torch, precision):
    dtype = getattr(torch, precision)
    A, x = torch.arange(6, dtype=dtype).reshape(2, 3), torch.ones(3, dtype=dtype)

    def jvp(x, v):
        return A @ (2 * x * v)

    def vjp(x, w):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(A @ x**2, x, w)[0]

    x.requires_grad_()
    for product in ({"jvp": jvp}, {"vjp": vjp}):
        assert check_jacobian(lambda x: A @ x**2, x, **product)
        assert not check_jacobian(lambda x: A @ x**3, x, **product)


@pytest.mark.parametrize("is_single", [False, True])
def test_a_layer_of_tensors_is_checked(torch, is_single):
    def forward(x, w):
        out = torch.tanh(x @ w)
        return out, (x, w, out)

    def backward(dout, cache):
        x, w, out = cache
        assert isinstance(dout, torch.Tensor)
        assert dout.dtype == x.dtype
        d = dout * (1 - out**2)
        return d @ w.T, x.T @ d

    dtype = torch.float32 if is_single else torch.float64
    torch.manual_seed(0)
    x, w = torch.randn(4, 3, dtype=dtype), torch.randn(3, 2, dtype=dtype)
    inputs = {"x": x, "w": w.requires_grad_()}
    before = [each.detach().clone() for each in (x, w)]
    named = check_backward(lambda x, w: forward(x, w), inputs, None, backward)
    assert named
    assert check_backward(forward, (x, w), torch.ones(4, 2, dtype=dtype), backward)
    report = check_backward(forward, (x, w), None, lambda *a: [2 * g for g in backward(*a)])
    assert [row.verdict for row in report.rows] == ["wrong", "wrong"]
    assert all(map(torch.equal, (x, w), before))


# Other libraries' arrays --------------------------------------------------------------------------


def test_arrays_of_any_library_are_moved_in_their_own_memory():
    x, given = xp.asarray([1.0, 2.0, 3.0]), []

    def f(x):
        given.append(id(x))
        return xp.sum(x**3)

    try:
        result = numerical_gradient(f, x)
    except TypeError:
        if np.lib.NumpyVersion(np.__version__) >= "2.1.0":
            raise
        pytest.skip("older versions of NumPy take all that DLPack gives them as read-only")
    assert set(given) == {id(x)}
    assert type(result) is type(x)
    assert np.from_dlpack(result).round(6).tolist() == [3, 12, 27]
    assert check_gradient(f, x, 3 * x**2)
    assert not check_gradient(f, x, lambda x: 3.1 * x**2)
    assert check_jacobian(f, x, jvp=lambda x, v: xp.sum(3 * x**2 * v))
    found = differentiate(lambda x: xp.sum(x["a"]), {"a": x}).gradient["a"]
    assert np.from_dlpack(found).round(6).tolist() == [1, 1, 1]
    assert check_backward(lambda x: (x**2, x), x, xp.ones(3), lambda dout, x: 2 * x * dout)
    assert np.from_dlpack(x).tolist() == [1, 2, 3]


class Exported:
    """An array on some device."""

    def __init__(self, values, device):
        self.values, self.device = values, device

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device, 0


def test_arrays_that_cannot_be_written_to_are_refused():
    fixed = np.ones(3)
    fixed.flags.writeable = False
    for x, reason in ((Exported(fixed, 1), "memory"), (Exported(np.ones(3), 2), r"\(2, 0\)")):
        with pytest.raises(TypeError, match=reason):
            numerical_gradient(lambda x: 0.0, x)


@pytest.mark.parametrize("x", [np.longdouble(2), [np.longdouble(2), 1.0]])
def test_long_doubles_stay_so(x):
    eps = np.finfo(np.longdouble).eps
    result = np.asarray(numerical_gradient(lambda x: (x**2).sum(), x, 2.0**-10))
    assert result.dtype == np.longdouble
    third = np.longdouble(1) / 3  # no double
    assert abs(numerical_gradient(lambda x: third * x, x=third, h=2.0**-10) - third) < 2**12 * eps


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
    sparsity = detect_sparsity(lambda x: x**2, x)
    found = jacobian(lambda x: x**2, x, sparsity=sparsity)
    assert found.toarray().round(6).tolist() == [[2, 0], [0, 4]]
    frame = pandas.DataFrame({"u": [1.0, 2.0], "v": [3.0, 4.0]}, index=["p", "q"])
    result = numerical_gradient(lambda x: (x["u"] * x["v"]).sum(), frame)
    assert result.loc["q"].round(6).to_dict() == {"u": 4.0, "v": 2.0}
    assert jacobian(lambda x: x["u"] ** 2, frame).shape == (2, 2, 2)
    with pytest.raises(TypeError, match="columns of numbers"):
        numerical_gradient(f, pandas.Series({"a": "x", "b": "y"}))
