"""Random arguments of all public functions: a result, or one of fastgrad's own sentences.

``python -m tests.fuzz_arguments --calls 10000`` judges many; the tests judge a few hundred. A
sentence is fastgrad's own if it is raised in a file of fastgrad's and names an argument of the
function, or says what f returned or did.
"""

import argparse
import inspect
import io
import re
import sys
import traceback
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

import fastgrad
from fastgrad import schemes
from fastgrad.testing import assert_gradient

ROOT = Path(fastgrad.__file__).parent

SIGNATURES = r"<lambda>\(\)|positional argument|expected at most|len\(\)|int\(\)|as an integer"
"""What Python says where a function is called with other arguments than it takes."""

LIKELY_ODD = 0.25
"""How many of the arguments are of the wrong kind."""

LIKELY_GIVEN = 0.3
"""How many of the optional arguments are given at all."""


class Stubborn:
    """An object of which no array can be made."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no array")


class Net:
    def __init__(self):
        self.params = {"W": np.ones((3, 2)), "b": np.zeros(2)}

    def loss(self, x, t):
        return float(((x @ self.params["W"] + self.params["b"] - t) ** 2).sum())

    def gradient(self, x, t):
        d = 2 * (x @ self.params["W"] + self.params["b"] - t)
        return {"W": x.T @ d, "b": d.sum(axis=0)}


def squares(x, *args):
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, (list, tuple)) else [x]
    return sum((part**2).sum() for part in parts)


def stacked(x, *args):
    return (x**2).reshape(len(x), -1).sum(axis=1)


ODD = [
    lambda: None,
    lambda: True,
    lambda: 3,
    lambda: -1,
    lambda: 0,
    lambda: 1e-4,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: 1j,
    lambda: "auto",
    lambda: "x",
    lambda: b"x",
    lambda: [],
    lambda: [1.0],
    lambda: [1.0, [2.0, 3.0]],
    lambda: [None],
    lambda: (1, 2, 3),
    lambda: {},
    lambda: {"a": 1},
    lambda: {"W": np.ones(2)},
    lambda: {1, 2},
    lambda: np.ones(2),
    lambda: np.ones((2, 2)),
    lambda: np.ones((0, 3)),
    lambda: np.array(2.0),
    lambda: np.array("a"),
    lambda: np.array([None, 1]),
    lambda: np.arange(3),
    lambda: np.ones(3) * 1j,
    lambda: np.full(3, np.nan),
    lambda: np.ma.masked,
    lambda: np.array(["1", "2"]),
    lambda: np.datetime64("2020-01-01"),
    lambda: object(),
    lambda: Ellipsis,
    lambda: NotImplemented,
    lambda: range(3),
    lambda: iter([1.0, 2.0]),
    lambda: int,
    lambda: slice(3),
    lambda: np.float64,
    lambda: Stubborn(),
    lambda: [Stubborn()],
    lambda: len,
    lambda: lambda: 1.0,
    lambda: lambda *a: None,
    lambda: lambda *a: "x",
    lambda: lambda *a: [1.0, [2.0]],
    lambda: lambda *a: np.ones(2),
    lambda: np.finfo(float).max,
    lambda: 10**400,
    lambda: -(2**63),
]
"""What somebody might pass by mistake, made anew for each call."""

ODD_FUNCTIONS = (int, len, np.float64, slice)

F = [lambda: squares, lambda: lambda x, *a: float(np.sum(np.sin(np.asarray(x))))]
X = [
    lambda: np.array([1.0, 2.0, 3.0]),
    lambda: np.ones((2, 2)),
    lambda: np.array(2.0),
    lambda: np.ones(3, np.float32),
    lambda: np.empty(0),
    lambda: {"W": np.ones(2), "b": [np.zeros(1)]},
    lambda: (np.ones(2), np.ones(1)),
]
H = [lambda: 1e-4, lambda: "auto", lambda: 1, lambda: np.full(3, 1e-3), lambda: np.float32(1e-3)]
FLAG = [lambda: True, lambda: False, lambda: np.True_]
SCHEME = [lambda: "central", lambda: "forward", lambda: "complex", lambda: schemes.central(4)]
BOUNDS = [lambda: (0, 5), lambda: (None, 9.0), lambda: (-np.ones(3), np.full(3, 9.0))]
WORKERS = [lambda: 1, lambda: map, lambda: lambda f, items: [f(item) for item in items]]
BAD_MAPS = [lambda: lambda f, items: None, lambda: lambda f, items: [1], lambda: lambda f, i: "ab"]
PROGRESS = [lambda: False, lambda: lambda done, total: None]
SEED = [lambda: None, lambda: 1]
SAMPLES = [lambda: np.ones((4, 3)), lambda: np.ones(3), lambda: [[1, 2, 3]]]
TARGETS = [lambda: np.array([0, 1, 0, 1]), lambda: [0], lambda: np.eye(2)[[0, 1, 1, 0]]]
COMMON = {
    "f": F,
    "x": X,
    "h": H,
    "args": [lambda: (), lambda: (1.0,)],
    "kwargs": [lambda: None, lambda: {}],
    "argnum": [lambda: 0, lambda: 1],
    "engine": [lambda: "auto", lambda: "loop", lambda: "traced", lambda: "compiled"],
    "scheme": SCHEME,
    "relative": FLAG,
    "bounds": BOUNDS,
    "vectorized": FLAG,
    "elementwise": FLAG,
    "order": [lambda: 1, lambda: 2],
    "diagonal": FLAG,
    "workers": WORKERS + BAD_MAPS,
    "progress": PROGRESS,
    "v": X,
    "sparsity": [lambda: None, lambda: "detect", lambda: np.eye(3)],
    "outside": [lambda: None, lambda: ValueError, lambda: (KeyError, ArithmeticError)],
    "structure": [lambda: np.eye(3), lambda: np.ones((2, 4), bool)],
    "forward": [lambda: lambda x, *a: x, lambda: lambda x, *a: (x**2, x)],
    "backward": [lambda: lambda dout, *c: dout, lambda: lambda dout, x: 2 * x * dout],
    "jacobian": [lambda: np.eye(3), lambda: lambda x, *a: 2 * np.eye(3)],
    "jvp": [lambda: None, lambda: lambda x, v: 2 * v],
    "vjp": [lambda: None, lambda: lambda x, v: 2 * v],
    "inputs": [*X, lambda: (np.ones(3),)],
    "dout": [lambda: None, lambda: np.ones(3)],
    "tolerance": [lambda: None, lambda: 1e-6],
    "gradient": [lambda: lambda x, *a: 2 * x, lambda: np.array([2.0, 4.0, 6.0])],
    "t": TARGETS,
    "rtol": [lambda: 0.0, lambda: 1e-3],
    "fast": FLAG,
    "seed": SEED,
    "max_seconds": [lambda: None, lambda: 5.0],
    "accuracy": [lambda: 2, lambda: 4],
    "derivative": [lambda: 1, lambda: 2],
    "offsets": [lambda: [0, 1, 2], lambda: (-1, 1)],
    "y": [lambda: np.full((4, 2), 0.5), lambda: np.ones(3)],
    "input_size": [lambda: 3],
    "hidden_size": [lambda: 2],
    "output_size": [lambda: 2],
    "weight_init_std": [lambda: 0.1],
}
"""What is usual for an argument, by its name."""


def _net():
    np.random.seed(0)
    return fastgrad.TwoLayerNet(3, 2, 2, 0.5)


def _method(name):
    def call(**arguments):
        return getattr(_net(), name)(**arguments)

    call.__signature__ = inspect.signature(getattr(_net(), name))
    return call


def _gradient_at(f, x, h=1e-4, **options):
    return fastgrad.Gradient(f, h, **options)(x)


def _check_net(x, t, h=None, fast=False, rtol=0.0):
    return fastgrad.check_gradient(Net(), x=x, t=t, h=h, fast=fast, rtol=rtol)


FUNCTIONS = {
    **{
        name: getattr(fastgrad, name)
        for name in (
            "numerical_gradient", "differentiate", "jacobian", "hessian", "directional_derivative",
            "hessian_vector_product", "vector_jacobian_product", "check_gradient", "check_backward",
            "check_jacobian",
            "slope_test", "explain", "Gradient", "Jacobian", "Hessian", "detect_sparsity",
            "group_columns",
            "TwoLayerNet", "identity_function", "step_function", "sigmoid", "sigmoid_grad", "relu",
            "relu_grad", "softmax", "sum_squared_error", "cross_entropy_error", "softmax_loss",
            "numerical_diff", "numerical_gradient_2d",
        )
    },
    **{name: getattr(schemes, name) for name in ("central", "forward", "backward", "from_offsets")},
    "assert_gradient": assert_gradient,
    "Gradient(f)(x)": _gradient_at,
    "check_gradient(net)": _check_net,
    **{
        f"net.{name}": _method(name)
        for name in ("predict", "loss", "accuracy", "gradient", "numerical_gradient")
    },
}  # fmt: skip
"""What is called."""

NET = {"x": SAMPLES, "t": TARGETS, "engine": [lambda: "response", lambda: "direct", lambda: "loop"]}
"""What is usual for nets."""


def call_of(name, random):
    """Draw arguments for a function; return them by name."""
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    usual = COMMON | (NET if "net" in name else {})
    arguments = {}
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD:
            if random.random() < LIKELY_GIVEN:
                options = "engine", "scheme", "relative", "bounds", "workers", "outside"
                option = options[random.integers(len(options))]
                arguments[option] = _drawn(usual[option], random)
            continue
        needed = parameter.default is parameter.empty or parameter.name in ("x", "gradient")
        if needed or random.random() < LIKELY_GIVEN:
            arguments[parameter.name] = _drawn(usual[parameter.name], random)
    if arguments.get("vectorized") is True and random.random() < 0.8 and "f" in arguments:
        arguments["f"] = stacked
    return arguments


def _drawn(usual, random):
    some = ODD if random.random() < LIKELY_ODD else usual
    return some[random.integers(len(some))]()


def judge(name, arguments):
    """Call a function; return what is wrong with what it says, or None."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            FUNCTIONS[name](**arguments)
        except AssertionError as error:
            return None if name == "assert_gradient" else _told(error)
        except (TypeError, ValueError, NotImplementedError) as error:
            return None if _is_own(error, arguments) else _told(error)
        except Exception as error:  # whatever it is
            return None if _is_of_f(error) else _told(error)
    return None


def _is_of_f(error):
    """Say whether it was raised in f, or in what f called: it passes unchanged."""
    return any(
        frame.name in ("squares", "stacked", "loss", "gradient", "<lambda>")
        for frame in traceback.extract_tb(error.__traceback__)
        if "fuzz_arguments" in frame.filename
    )


def _is_own(error, arguments):
    frames = traceback.extract_tb(error.__traceback__)
    if _is_of_f(error):
        return True
    last = frames[-1]
    if re.search(SIGNATURES, str(error)):
        return any(callable(value) for value in arguments.values())  # called with what it refuses
    functions = ("f", "gradient", "forward", "backward")
    if any(arguments.get(name) is odd for name in functions for odd in ODD_FUNCTIONS):
        called = frames[-1].line or ""
        if any(call in called for call in ("self.f(", "f(x", "gradient(", "forward(", "backward(")):
            return True  # so does what a function in C raises
    in_fastgrad = ROOT in Path(last.filename).parents
    names = [*arguments, "f", "workers", "gradient", "jacobian"]
    said = str(error).splitlines()[0]
    named = re.search(rf"\b({'|'.join(map(re.escape, names))})\b", said)
    return in_fastgrad and named is not None


def _told(error):
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error)[:200]} [{Path(last.filename).name}:{last.lineno}]"


def shown(value):
    """Write an argument in a few characters."""
    return re.sub(r"\s+", " ", repr(value))[:60]


def run(calls, seed):
    """Judge random calls; return what is wrong, each kind once with an example and its number."""
    random = np.random.default_rng(seed)
    names = [*FUNCTIONS]
    wrong = {}
    for _ in range(calls):
        name = names[random.integers(len(names))]
        arguments = call_of(name, random)
        written = ", ".join(f"{key}={shown(value)}" for key, value in arguments.items())
        fault = judge(name, arguments)
        if fault is not None:
            kind = re.sub(r"[\d.]+|0x\w+|'.*?'", "#", fault)[:90]
            example, number = wrong.get(kind, (f"{name}({written})\n    {fault}", 0))
            wrong[kind] = example, number + 1
    return wrong


def main():
    """Run as the arguments say; the exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_arguments", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = run(options.calls, options.seed)
    for example, number in wrong.values():
        print(f"{number} times: {example}")
    print(f"{sum(number for _, number in wrong.values())} of {options.calls:,} calls went wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
