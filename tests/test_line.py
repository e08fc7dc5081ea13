"""Lines through x are what they should be, and x is put back."""

import numpy as np
import pytest

from fastgrad.differences.problem import problems
from fastgrad.directional import Line, as_directions, require_moving, restorer, unit

EPS = np.finfo(float).eps


def line_through(x, v, bounds=None):
    found = problems(lambda x: 0.0, x, 1e-3, bounds=bounds)
    directions = as_directions(v, x, found)
    return Line(lambda x: x.copy(), x, (), found, directions), found, directions


def test_what_has_been_moved_is_put_back_bit_for_bit():
    arrays = [np.array([-0.0, np.nan, 1.0]), np.array(3.0), np.arange(6.0).reshape(2, 3).T[::-1]]
    before = [array.tobytes() for array in arrays]
    put_back, copies = restorer(arrays)
    for array in arrays:
        array[...] = 7
    put_back()
    assert [array.tobytes() for array in arrays] == before
    assert [copy.tobytes() for copy in copies] == before


def test_places_on_the_line_do_not_add_up():
    x = np.array([1.0, 2.0])
    line, _, _ = line_through(x, np.array([1.0, -2.0]))
    assert line(np.array(0.5)).tolist() == [1.5, 1.0]
    assert line(np.array(0.5)).tolist() == [1.5, 1.0]
    assert line(np.array(0.0)).tolist() == [1.0, 2.0]


def test_limits_are_where_the_first_element_meets_a_bound():
    line, _, _ = line_through(np.array([1.0, 2.0]), np.array([1.0, -2.0]), bounds=(0, 3))
    # Upwards the second meets 0 at s = 1; downwards it meets 3 at -0.5, the first 0 at -1.
    assert line.limits() == (-0.5, 1.0)
    line, _, _ = line_through(np.array([1.0, 2.0]), np.array([1.0, -2.0]))
    assert line.limits() is None


@pytest.mark.parametrize("length", [1e-8, 1.0, 1e8])
def test_a_unit_moves_some_element_by_its_scale(length):
    v = length * np.array([1.0, 10.0])
    _, found, directions = line_through(np.array([0.0, 100.0]), v)
    part = unit(found, directions)
    # The first element's scale is 1, the second one's 100.
    assert 0.5 / length < part <= 1 / length
    assert np.log2(part) == int(np.log2(part))


def test_steps_that_move_nothing_are_refused():
    _, found, directions = line_through(np.array([1.0, 1e9]), np.array([0.0, 1.0]))
    require_moving(found, directions, 1e-6)
    with pytest.raises(ValueError, match="lost"):
        require_moving(found, directions, 1e-8)
