"""The pictures are drawn, with what belongs in them."""

import sys

import numpy as np
import pytest

from benchmarks.cases.backward import FAULTS, FaultyNet, LayeredNet, faulty_batch
from fastgrad import check_gradient, slope_test
from fastgrad.checking.plots import draw_difference, draw_steps

pytest.importorskip("matplotlib")


@pytest.fixture
def drawn(monkeypatch):
    """Return the axes of all figures that are saved."""
    from matplotlib.figure import Figure

    kept, save = [], Figure.savefig

    def keep(self, *args, **kwargs):
        kept.append(self.axes[0])
        return save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n")


def test_the_v_has_its_chosen_step_near_the_bottom(tmp_path, drawn):
    x, t = faulty_batch()
    net = LayeredNet([9, 7, 7], "sigmoid", "cross entropy")
    draw_steps(net, tmp_path / "v.png", x=x, t=t, name="W2", index=(1, 2))
    assert is_png(tmp_path / "v.png")
    measured, _, chosen = drawn[0].lines
    errors = measured.get_ydata()
    assert chosen.get_xdata()[0] == 1e-4
    assert chosen.get_ydata()[0] < 1e-4 * errors[-1]  # truncation at a step of 1
    assert chosen.get_ydata()[0] < 1e-4 * errors[:4].max()  # round-off at the smallest ones
    assert drawn[0].get_title(loc="left") == "W2[1, 2]: error against the step"


def test_the_map_is_darkest_where_the_gradient_is_wrong(tmp_path, drawn):
    net, (x, t) = FaultyNet(FAULTS["a class left out"], 2), faulty_batch()
    report = check_gradient(net, x=x, t=t)
    draw_difference(report, "W2", tmp_path / "map.png")
    draw_difference(report, "b2", tmp_path / "bias.png")
    assert is_png(tmp_path / "map.png")
    assert is_png(tmp_path / "bias.png")
    shown = np.asarray(drawn[0].images[0].get_array())
    assert (shown.argmax(axis=1) == 2).all()
    with pytest.raises(KeyError, match="there is no row 'W9'"):
        draw_difference(report, "W9", tmp_path / "none.png")


def test_the_slope_is_drawn(tmp_path, drawn):
    x, t = faulty_batch()
    found = slope_test(LayeredNet([9, 7, 7], "tanh", "cross entropy"), x=x, t=t, seed=0)
    found.plot(tmp_path / "slope.png")
    assert is_png(tmp_path / "slope.png")
    assert drawn[0].get_title(loc="left") == f"The gradient is right: slope {found.slope:.2f}"


def test_an_unknown_parameter_is_refused(tmp_path):
    x = np.ones(2)
    with pytest.raises(ValueError, match="name is 'W', which does not exist; pass one of x"):
        draw_steps(lambda x: float(x.sum()), tmp_path / "v.png", x, np.ones(2), name="W")


def test_without_matplotlib_a_message_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "fastgrad\[plots\]"'):
        draw_steps(lambda x: float(x.sum()), tmp_path / "v.png", np.ones(2), np.ones(2))
