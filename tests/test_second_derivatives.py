"""Second derivatives come with errors that hold, and it is said what became of each."""

import numpy as np
import pytest
from counting import counted
from curved import smooth, smooths_hessian

from fastgrad import differentiate, schemes

POINTS = [[0.3, -0.7, 1.2], [0.0, 1.0, -2.0], [1e-3, 50.0, 2.0], [-3.0, 0.5, 0.0]]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize(
    "options",
    [{}, {"h": 0.05}, {"scheme": schemes.central(4)}, {"tolerance": 1e-8}, {"engine": "loop"}],
)
def test_errors_cover_the_true_ones(point, options):
    x = np.array(point)
    before, f = x.tobytes(), counted(smooth)
    found = differentiate(f, x, order=2, **options)
    exact = smooths_hessian(point)
    assert (found.gradient == found.gradient.T).all()
    assert (abs(found.gradient - exact) <= found.error).all()
    assert (found.error <= 1e-5 * abs(exact).max()).all()
    assert x.tobytes() == before
    assert found.evaluations == f.calls <= 300
    diagonal = differentiate(smooth, x, order=2, diagonal=True, **options)
    assert (abs(diagonal.gradient - np.diag(exact)) <= diagonal.error).all()


def test_arrays_bounds_forward_differences_and_workers():
    x = np.array(POINTS[0])
    exact = smooths_hessian(x)
    found = differentiate(lambda x: np.array([smooth(x), 2 * smooth(x)]), x, order=2)
    assert found.gradient.shape == (2, 3, 3)
    assert (abs(found.gradient - [exact, 2 * exact]) <= found.error).all()
    for options in (
        {"bounds": (x, x + 1)},
        {"scheme": "forward"},
        {"workers": lambda function, items: map(function, items)},
    ):
        found = differentiate(smooth, x, order=2, **options)
        assert (abs(found.gradient - exact) <= found.error).all()
        assert (found.error < 1e-5).all()
    matrix = x.reshape(3, 1)
    assert differentiate(lambda x: smooth(x[:, 0]), matrix, order=2).gradient.shape == (3, 1, 3, 1)
    each = differentiate(np.sin, x, order=2, elementwise=True)
    assert (abs(each.gradient + np.sin(x)) <= each.error).all()
    parts = differentiate(
        lambda x: x["a"] ** 3 * x["b"], {"a": 2.0, "b": 3.0}, order=2, diagonal=True
    )
    assert abs(parts.gradient["a"] - 36) <= parts.error["a"]


def test_what_became_of_each_derivative_is_said():
    found = differentiate(lambda x: x[0] ** 3 + abs(x[1]), np.array([2.0, 0.0]))
    assert found.status.tolist() == ["converged", "no limit"]
    assert str(found) == (
        f"2 derivatives by {found.evaluations} evaluations of f: 1 converged, 1 without a limit "
        "that was found."
    )
    rounded = differentiate(lambda x: float(np.float32(np.exp(x[0]))), np.ones(1))
    assert rounded.status.tolist() == ["round-off"]
    assert "limited by round-off" in str(rounded)
    assert differentiate(lambda x: 3.0, np.ones(2)).status.tolist() == ["converged"] * 2
    assert differentiate(np.exp, 1.0).status == "converged"
    assert (
        differentiate(lambda x: x["a"].sum(), {"a": np.ones(2)}).status["a"].tolist()
        == ["converged"] * 2
    )
    assert (
        differentiate(smooth, np.array(POINTS[0]), scheme="complex").status.tolist()
        == ["converged"] * 3
    )
    assert (differentiate(smooth, np.array(POINTS[0]), order=2).status == "converged").all()
    assert differentiate(lambda x: 0.0, np.zeros(0)).status.shape == (0,)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"order": 3}, ValueError, "order is 3; pass 1 or 2"),
        ({"order": "2"}, ValueError, "order is '2'"),
        ({"diagonal": True}, ValueError, "asks for order=2"),
        ({"order": 2, "diagonal": 1}, TypeError, "diagonal is 1"),
        ({"order": 2, "scheme": "complex"}, ValueError, "order is 2"),
        ({"order": 2, "scheme": schemes.central(2, 2)}, ValueError, "order is 2"),
    ],
)
def test_bad_orders_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        differentiate(smooth, np.array(POINTS[0]), **options)
    with pytest.raises(TypeError, match="one array"):
        differentiate(lambda x: x["a"].sum(), {"a": np.ones(2)}, order=2)
