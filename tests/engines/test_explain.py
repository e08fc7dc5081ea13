"""explain says what will happen, and leaves everything as it was."""

import re
import sys
from types import SimpleNamespace

import nets
import numpy as np
import pytest
from nets import INPUT, LABELS, H, two_layers

import fastgrad
from fastgrad import explain, numerical_gradient
from fastgrad.engines import selection, traced
from fastgrad.tracing.strategy import duration

W1 = two_layers()["W1"]


pytestmark = pytest.mark.usefixtures("cheap_functions_traced")


def explained(capsys, f, x, *args):
    assert explain(f, x, *args) is None
    captured = capsys.readouterr()
    assert not captured.err
    return captured.out


def tanh_loss(W):
    return np.mean(np.tanh(INPUT @ W) ** 2)


def test_a_traced_net_is_described_by_its_stage(capsys):
    net = nets.BookNet()
    text = explained(capsys, lambda W: net.loss(INPUT, LABELS), net.params["W1"])
    assert text.startswith("Traced:")
    assert "x enters by dot: 13 units, each a sum of 9 inputs times elements of x" in text
    assert "for 11 rows of data, which do not mix" in text
    assert "the loop's 234 calls" in text


def test_samples_that_mix_are_named(capsys):
    text = explained(capsys, lambda W: np.mean((INPUT @ W - (INPUT @ W).mean(0)) ** 2) + 1, W1)
    assert "11 rows of data, which mix" in text
    assert "moved 18 times" in text  # up and down for each of 9 inputs


def test_a_penalty_is_a_part_of_its_own(capsys):
    text = explained(capsys, lambda W: tanh_loss(W) + 0.5 * np.sum(W**2), W1)
    assert text.count("\n- ") == 2
    assert "117 elements of x moved up and down" in text


def test_seconds_are_told_for_both_engines(capsys):
    text = explained(capsys, tanh_loss, W1)
    assert re.search(r"about [0-9.e+-]+ s; the loop's .* about [0-9.e+-]+ s", text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.00251, "0.0025 s"), (66.0, "66 s"), (720.0, "12 min"), (16_200.0, "4.5 h")],
)
def test_times_are_told_in_the_unit_that_people_use(seconds, text):
    assert duration(seconds) == text


def test_a_replay_that_is_too_long_to_be_measured_is_told_to_take_longer(capsys, monkeypatch):
    assert "Expected: about" in explained(capsys, tanh_loss, W1)
    monkeypatch.setattr(traced, "MAX_EXPLAINING_SECONDS", 0.0)
    assert "Expected: at least about" in explained(capsys, tanh_loss, W1)


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (lambda W: tanh_loss(W) if tanh_loss(W) > 0 else 0.0, "a branch depends on its value"),
        (lambda W: tanh_loss(W) + np.random.rand(), "two calls of it give different results"),
        (lambda W: tanh_loss(W) + W.tolist()[0][0], "the array's attribute tolist is not recorded"),
        (lambda W: np.nan, "its result is nan"),
        (lambda W: 1 / 0, "it raises ZeroDivisionError at x itself"),
    ],
)
def test_the_reason_for_the_loop_is_named(capsys, f, reason):
    text = explained(capsys, f, W1)
    assert text.startswith("The loop: 234 calls of f.")
    assert f"Not traced, because {reason}" in text


def test_types_that_go_to_the_loop_are_named(capsys):
    text = explained(capsys, tanh_loss, W1.astype(">f8"))
    assert "Not traced, because x is not a plain array of float64 or float32" in text


def test_small_arrays_go_to_the_loop_without_a_call(capsys):
    def forbidden(x):
        raise AssertionError

    x = np.zeros(selection.MIN_TRACED_ELEMENTS - 1)
    text = explained(capsys, forbidden, x)
    assert text.startswith(f"The loop: {2 * x.size} calls of f")


@pytest.mark.parametrize("name", nets.CASES)
def test_whatever_is_traced_is_explained_and_left_as_it_was(capsys, name):
    f, x = nets.CASES[name]()
    before = x.tobytes()
    text = explained(capsys, f, x)
    if x.size < selection.MIN_TRACED_ELEMENTS:
        assert text.startswith("The loop")
    else:
        assert text.startswith("Traced"), text
    assert x.tobytes() == before


def test_few_calls_are_made(capsys):
    calls = []

    def counted(W):
        calls.append(W.shape)
        return tanh_loss(W)

    explained(capsys, counted, np.tile(W1, (1, 50)))
    assert len(calls) <= 6


def test_layers_hold_plain_arrays_afterwards(capsys):
    net = nets.LayerNet()
    explained(capsys, lambda W: net.loss(INPUT, LABELS), net.params["W1"])
    assert all(type(value) in (np.ndarray, np.float64) for value in net.caches())


@pytest.mark.parametrize(
    ("f", "x", "h", "error", "match"),
    [
        (1, W1, H, TypeError, "f is a int, which cannot be called"),
        (tanh_loss, ["one"], H, TypeError, r"x\[0\] is a str"),
        (tanh_loss, W1.astype(int), H, TypeError, "dtype int64"),
        (tanh_loss, W1, 0, ValueError, "h"),
        (tanh_loss, np.broadcast_to(1.0, (9, 13)), H, ValueError, "read-only"),
    ],
)
def test_arguments_are_refused_as_by_the_gradient(f, x, h, error, match):
    for function in (explain, numerical_gradient):
        with pytest.raises(error, match=match):
            function(f, x, h)


def test_explain_is_public():
    assert "explain" in fastgrad.__all__


def test_what_is_explained_is_what_happens(capsys):
    for name in ("book W1", "tied weights", "penalty only", "embedding"):
        f, x = nets.CASES[name]()
        assert explained(capsys, f, x).startswith("Traced")
        expected = numerical_gradient(f, x, engine="traced")
        assert numerical_gradient(f, x).tobytes() == expected.tobytes()


def test_a_cheap_function_is_said_to_go_to_the_loop(capsys, monkeypatch):
    monkeypatch.undo()
    # Or else what is explained is not what engine="auto" does.
    x = np.zeros(selection.MIN_TRACED_ELEMENTS)
    text = explained(capsys, np.sum, x)
    calls = []
    numerical_gradient(lambda x: calls.append(1) or np.sum(x), x)
    assert text.startswith("The loop") == (len(calls) >= 2 * x.size)


def test_the_seconds_of_the_calls_of_f_are_counted(capsys):
    text = explained(capsys, tanh_loss, W1)
    expected, loops, own = (
        float(number) for number in re.findall(r"(?:about|check:) ([0-9.e+-]+) s", text)
    )
    assert own == pytest.approx(6 * loops / 234, rel=0.1)  # of two digits
    assert own <= expected <= loops
    assert "Some 6 calls of f record and check" in text


@pytest.mark.parametrize(
    ("f", "x", "h", "reason"),
    [
        (np.sum, np.ones(20), "auto", "not all elements of x are moved by one step"),
        (tanh_loss, W1, np.full(W1.shape, H), "not all elements of x are moved by one step"),
        (np.sum, np.full(20, 1e13), H, "the step is lost when it is added to some elements of x"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*so a step of:RuntimeWarning")
def test_what_is_never_traced_is_said_to_go_to_the_loop_and_does(capsys, f, x, h, reason):
    text = explained(capsys, f, x, h)
    least = "at least " if isinstance(h, str) else ""
    assert text == f"The loop: {least}{2 * x.size} calls of f.\nNot traced, because {reason}.\n"
    calls = []
    numerical_gradient(lambda x: calls.append(1) or f(x), x, h)
    assert len(calls) >= 2 * x.size


def test_with_measured_steps_it_says_whether_f_is_recorded(capsys):
    text = explained(capsys, tanh_loss, W1, "auto")
    assert text.startswith("Traced: 4 operations")
    assert "That is done for two steps" in text
    calls = []
    numerical_gradient(lambda x: calls.append(1) or tanh_loss(x), W1, "auto")
    assert len(calls) < W1.size


def test_an_array_on_which_f_does_not_depend_is_not_said_to_go_to_the_loop(capsys):
    f = lambda x: tanh_loss(W1)  # noqa: E731
    text = explained(capsys, f, np.ones(300))
    assert text.startswith("No engine is needed: f does not depend on x:")
    calls = []
    with pytest.warns(RuntimeWarning, match="f does not depend on x"):
        numerical_gradient(lambda x: calls.append(1) or f(x), np.ones(300))
    assert len(calls) < 30


# Compiled functions


def jitted(f):
    numba = pytest.importorskip("numba")
    if numba.config.DISABLE_JIT:
        pytest.skip("nothing is compiled")
    return numba.njit(f)


def test_a_compiled_function_is_said_to_run_in_a_compiled_loop(capsys):
    text = explained(capsys, jitted(lambda x: (x**2).sum()), np.ones(3000))
    assert text == "Compiled: 6,000 calls of f in a compiled loop.\n"
    assert explained(capsys, jitted(lambda x: (x**2).sum()), np.ones(0)).startswith("Compiled: 0")


@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPendingDeprecationWarning")  # lists
def test_why_a_compiled_function_goes_to_the_loop_is_named_and_it_does(capsys):
    x = [np.array([1.0, 2.0]), np.ones(3)]
    f = jitted(lambda x: (x[0] ** 2).sum() + x[1].sum())
    text = explained(capsys, f, x)
    assert text.startswith("The loop: 4 calls of f.\nNot compiled, because x is in a list.\n")
    result = numerical_gradient(f, x)
    np.testing.assert_allclose(result[0], [2, 4], atol=1e-9)
    np.testing.assert_allclose(result[1], 1, atol=1e-9)


def test_a_dict_is_refused_for_a_compiled_function_by_all_alike():
    x, f = {"a": np.ones(2)}, jitted(lambda x: x["a"].sum())
    for function in (explain, numerical_gradient, fastgrad.differentiate, fastgrad.jacobian):
        with pytest.raises(TypeError, match="x is a dict, which a function compiled by numba can"):
            function(f, x)


def test_what_a_compiled_function_raises_at_x_passes_unchanged():
    def f(x):
        if x.sum() > 0:
            raise ValueError("mine")
        return 0.0

    with pytest.raises(ValueError, match="mine"):
        explain(jitted(f), np.ones(3))


def test_in_a_notebook_it_is_displayed_as_a_list(monkeypatch, capsys):
    displayed = []
    notebook = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel="its kernel"),
        display=SimpleNamespace(display=displayed.append),
    )
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    assert not explained(capsys, tanh_loss, W1)
    html = displayed[0]._repr_html_()
    assert html.startswith("<p>Traced: ")
    assert html.count("<li>") == 1
    assert selection.Explanation("a < b")._repr_html_() == "<p>a &lt; b</p>"
    notebook.get_ipython = lambda: None  # a console's that is not running
    assert explained(capsys, tanh_loss, W1).startswith("Traced: ")
