"""Reports are readable, and hold what they show."""

import re
import sys

import numpy as np
import pytest

from fastgrad import check_gradient, slope_test


def report():
    x = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([[1.0, 0.5]])}
    gradient = {"a": 2 * x["a"], "b": np.array([[3.0, 0.75 + 0.25]])}
    return check_gradient(lambda x: float((x["a"] ** 2).sum() + (x["b"] ** 3).sum()), x, gradient)


def test_the_table_has_an_absolute_and_a_relative_error_a_parameter():
    lines = str(report()).splitlines()
    assert lines[0] == "The gradient of x['b'] is wrong, that of x['a'] is right."
    heads = ["error", "at", "gradient", "numerical", "round-off", "truncation"]
    assert lines[1].split() == heads
    assert re.match(r"x\['a'\]  absolute  .* right$", lines[2])
    assert re.match(r"        relative  ", lines[3])
    wrong = r"x\['b'\]  absolute  2.5e-01  x\['b'\]\[0, 1\]  +1.000e\+00  +7.500e-01 .* wrong$"
    assert re.match(wrong, lines[4])
    assert max(map(len, lines[1:6])) <= 120


def test_rows_hold_the_elements_and_the_arrays():
    row = report()["x['b']"]
    assert row.absolute.index == (0, 1)
    assert row.absolute.error == pytest.approx(0.25)
    assert row.relative.relative_error == pytest.approx(0.25)
    assert row.gradient.shape == row.numerical.shape == (1, 2)
    np.testing.assert_allclose(row.numerical, [[3.0, 0.75]], rtol=1e-9)


def test_an_unknown_row_is_refused():
    with pytest.raises(KeyError, match="there is no row 'c'; the rows are"):
        report()["c"]


def test_the_errors_shown_are_those_at_the_element_shown():
    x = np.array([1.0, 100.0])
    found = check_gradient(lambda x: float((x**4).sum()), x, 4 * x**3)
    element = found.rows[0].absolute
    assert element.error == abs(element.gradient - element.numerical)
    assert element.error <= element.truncation + element.round_off


def test_a_notebook_shows_the_table_and_a_map_of_what_is_wrong():
    found = report()
    html = found._repr_html_()
    assert html.startswith(f"<p><b>{found.summary.replace(chr(39), '&#x27;')}</b></p><table>")
    assert html.count("<tr>") == len(found.rows) * 2 + 1
    assert html.count("<li>") == len(found.findings)
    assert html.count('<img src="data:image/png;base64,iVBOR') == 1  # of x['b'] alone


def test_a_notebook_shows_taylors_test_with_its_plot():
    x = np.array([1.0, 2.0])
    found = slope_test(lambda x: float((x**4).sum()), x, 4 * x**3, seed=0)
    assert re.match(r"<p>Right: .*</p><img src=", found._repr_html_())


def test_without_matplotlib_a_notebook_shows_no_picture(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    html = report()._repr_html_()
    assert "<table>" in html
    assert "<img" not in html
