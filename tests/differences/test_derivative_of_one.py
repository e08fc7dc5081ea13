"""One element that is looked at by itself has the derivative, error and calls of arrays."""

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

from fastgrad import adaptive, differentiate, schemes
from fastgrad.adaptive import Derivatives

SMOOTH: dict[str, Callable[[Any], Any]] = {
    "exp": lambda m, x: m.exp(x),
    "sin": lambda m, x: m.sin(20 * x),
    "a pole nearby": lambda m, x: 1 / (x - 2),
    "log": lambda m, x: m.log(1 + x * x),
    "a power": lambda m, x: x**7 - 3 * x,
    "a large constant": lambda m, x: 1e6 + m.cos(x),
    "tanh": lambda m, x: m.tanh(x) / 3,
}

POINTS = (1.0, -0.37, 3.1e-5, 41.0, 0.0)


def by_arrays(monkeypatch: pytest.MonkeyPatch, *given: Any, **options: Any) -> Derivatives[Any]:
    """Differentiate without looking at single elements first."""
    with monkeypatch.context() as patch:
        patch.setattr(adaptive, "MAX_SINGLE_ELEMENTS", 0)
        return differentiate(*given, **options)


@pytest.mark.parametrize("x", POINTS)
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_have_the_derivative_that_arrays_give(
    name: str, x: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def f(x: Any) -> float:
        return float(SMOOTH[name](np, x[0]))

    found = differentiate(f, np.array([x]))
    looked_up = by_arrays(monkeypatch, f, np.array([x]))
    # Runs are extrapolated in another order: that is rounding, which the error bounds.
    assert abs(found.gradient - looked_up.gradient)[0] <= max(found.error[0], looked_up.error[0])
    assert abs(found.evaluations - looked_up.evaluations) <= 2  # one step, where it is a close call
    with mpmath.workdps(60):
        exact = float(mpmath.diff(lambda x: SMOOTH[name](mpmath, x), mpmath.mpf(x)))
    assert abs(found.gradient[0] - exact) <= found.error[0]
    assert found.error[0] <= 8 * looked_up.error[0]


def test_an_exponential_takes_15_calls() -> None:
    calls = []

    def f(x: Any) -> float:
        calls.append(float(x[0]))
        return float(np.exp(x[0]))

    found = differentiate(f, np.array([1.0]))
    assert found.evaluations == len(calls) == len({*calls}) == 15
    assert abs(found.gradient[0] - np.e) <= found.error[0] <= 1e-12


def test_it_is_what_most_smooth_functions_are_differentiated_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adaptive.Extrapolation, "extrapolate", None)
    for f in (np.exp, np.sin, np.tanh, np.arctan):
        x = np.array([1.0, 0.3])
        found = differentiate(lambda x, f=f: float(f(x).sum()), x)
        assert (found.error < 1e-11).all()


DOUBTFUL: dict[str, Callable[[Any], float]] = {
    "a kink": lambda x: float(abs(x[0] - 1)),
    "a step": lambda x: float(x[0] > 1),
    "rounded": lambda x: round(float(np.sin(x[0])), 3),
    "single precision": lambda x: float(np.float32(np.exp(x[0]))),
    "numbers of single precision": lambda x: np.float32(np.exp(x[0])),
    "flat": lambda x: 1.5,
    "an infinite slope": lambda x: float(np.cbrt(x[0] - 1)),
    "fast waves": lambda x: float(np.sin(1e5 * x[0])),
    "noise": lambda x: float(np.exp(x[0]) + 1e-7 * np.sin(1e9 * x[0])),
    "integers": lambda x: int(10 * x[0]),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_others_are_left_to_arrays_and_nothing_is_evaluated_twice(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def f(x: Any) -> float:
        calls.append(x.tobytes())
        return DOUBTFUL[name](x)

    x = np.array([1.0])
    found = differentiate(f, x)
    count = len(calls)
    assert found.evaluations == count
    looked_up = by_arrays(monkeypatch, f, x)
    assert len(calls) == 2 * count
    assert calls[:count] == calls[count:]
    for one, other in zip(
        (found.gradient, found.error, found.step),
        (looked_up.gradient, looked_up.error, looked_up.step),
        strict=True,
    ):
        assert one.tobytes() == other.tobytes()


def test_elements_that_are_smooth_and_others_stand_side_by_side() -> None:
    def f(x: Any) -> float:
        return float(np.exp(x[0]) + abs(x[1] - 2) + np.sin(x[2]) + round(x[3], 2))

    found = differentiate(f, np.array([1.0, 2.0, 3.0, 4.0]))
    assert abs(found.gradient[0] - np.e) <= found.error[0] < 1e-12
    assert found.error[1] >= 0.999  # half the jump of the slope
    assert abs(found.gradient[2] - np.cos(3)) <= found.error[2] < 1e-12
    assert abs(found.gradient[3] - 1) <= found.error[3] < 0.1


def test_what_f_raises_is_raised_and_x_is_as_it_was() -> None:
    def f(x: Any) -> float:
        if x[0] != 1:
            raise ArithmeticError("not here")
        return 1.0

    x = np.array([1.0])
    with pytest.raises(ArithmeticError, match="not here"):
        differentiate(f, x)
    assert x[0] == 1


@pytest.mark.parametrize(
    "options",
    [{"scheme": "forward"}, {"scheme": schemes.central(4)}, {"bounds": (0, 2)}],
    ids=["forward", "central(4)", "bounds"],
)
def test_other_schemes_and_bounds_are_left_to_arrays(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptive, "derivative_of_one", None)
    found = differentiate(lambda x: float(np.exp(x[0])), np.array([1.0]), **options)
    assert abs(found.gradient[0] - np.e) <= found.error[0]
