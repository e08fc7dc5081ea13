"""What workers' copies of f and x are, and the checks that tell them apart."""

import pickle
import threading

import numpy as np
import pytest

from fastgrad.differences.arguments import Call
from fastgrad.differences.quotients import moved
from fastgrad.engines import loop
from fastgrad.engines.workers import SharedFunction, WorkItem
from fastgrad.typing import Moves

pytest.importorskip("cloudpickle")
H = 1e-3


def cube(x):
    return float((x**3).sum())


def points_of(x, places):
    return moved(x, places, (1, -1), H)


def sent(f, x, places):
    """Return what a worker is sent, and the item with all points."""
    points = points_of(x, places)
    function = SharedFunction(f, x, Moves(places, points))
    return function, item_of(function, places, points)


def item_of(function, places, points):
    return WorkItem(0, Moves(places, points), function.prepare(), np.geterr())


def answer(function, item):
    """Return what a worker answers that has just got the function."""
    return pickle.loads(pickle.dumps(function))(item)


def test_a_copy_with_the_same_f_passes_the_check():
    x, places = np.linspace(1, 2, 5), np.arange(5)
    function, item = sent(cube, x, places)
    assert len(function.fingerprints) == 2
    assert answer(function, item).values.shape == (5, 2)
    assert x.tolist() == np.linspace(1, 2, 5).tolist()


@pytest.mark.parametrize("missed", range(5))
def test_a_copy_that_misses_a_single_element_does_not_pass(missed):
    x, places = np.linspace(1, 2, 5), np.arange(5)

    class Cube:
        """It sees all elements until it is pickled."""

        def __call__(self, y):
            seen = y.copy()
            if self.is_blind:
                seen[missed] = np.linspace(1, 2, 5)[missed]
            return cube(seen)

        is_blind = False

        def __getstate__(self):
            return {"is_blind": True}

    function, item = sent(Cube(), x, places)
    result = answer(function, item)
    assert result.values is None
    assert result.failure is None


def test_a_check_serves_all_places_that_it_moved_and_no_others():
    x, calls = np.linspace(1, 2, 6), []

    def f(x):
        calls.append(0)
        return cube(x)

    places = np.arange(4)
    function = SharedFunction(f, x, Moves(places, points_of(x, places)))
    assert len(calls) == 2
    assert function.serves(f, x, np.array([1, 3]))
    assert not function.serves(f, x, np.array([3, 4]))
    assert not function.serves(f, x.copy(), np.array([1, 3]))
    assert not function.serves(cube, x, np.array([1, 3]))


def test_a_check_does_not_serve_a_function_that_is_pickled_where_x_is_another():
    x, places = np.linspace(1, 2, 6), np.arange(4)
    early, late = (SharedFunction(cube, x, Moves(places, points_of(x, places))) for _ in range(2))
    early.prepare()
    x[5] = 3.0
    assert early.serves(cube, x, places)
    assert not late.serves(cube, x, places)


@pytest.mark.parametrize("sent_at", [-0.0, 2.0])
def test_what_x_is_now_travels_where_it_is_another_than_when_f_was_sent(sent_at):
    x, places = np.linspace(1, 2, 5), np.array([1, 2])
    x[4] = sent_at
    function, when_sent = sent(cube, x, places)
    assert when_sent.contents == []
    copy = pickle.loads(pickle.dumps(function))
    assert copy(when_sent).values.tolist() == loop.values(cube, x, when_sent.moves).tolist()
    for last in (3.0, -sent_at, sent_at):
        x[4] = last
        item = item_of(function, places, when_sent.moves.points)
        assert item.contents == [x.tobytes()]
        assert copy(item).values.tolist() == loop.values(cube, x, item.moves).tolist()


def test_a_structure_is_one_function_of_all_its_arrays():
    x = {"a": np.ones(2), "b": [np.arange(3.0)]}

    def f(x, scale, power):
        return scale * float((x["a"] ** power[0]).sum() + (x["b"][0] ** 2 * x["a"][0]).sum())

    call = Call(f, (2.0, [3]), x, x["b"][0])
    function, item = sent(call, x["b"][0], np.arange(3))
    copy = pickle.loads(pickle.dumps(function))
    for factor in (1, 2):
        x["a"][:] = factor
        item = item_of(function, item.moves.places, item.moves.points)
        found = copy(item).values
        slopes = (found[:, 0] - found[:, 1]) / (2 * H)
        np.testing.assert_allclose(slopes, 4 * factor * x["b"][0], atol=1e-10)


def test_what_is_under_a_mask_travels_too():
    x, places = np.ma.masked_array(np.linspace(1, 2, 5), mask=[0, 1, 0, 0, 1]), np.arange(5)

    def f(x):
        return cube(np.asarray(x.data))

    function, _ = sent(f, x, places)
    x.data[4] = 3.0
    item = item_of(function, places, points_of(x, places))
    assert answer(function, item).values.tolist() == loop.values(f, x, item.moves).tolist()


def test_a_function_without_a_finite_value_tells_nothing():
    x, places = np.ones(3), np.arange(3)
    for f in (lambda x: np.nan, lambda x: 1 / 0):
        assert not SharedFunction(f, x, Moves(places, points_of(x, places))).is_finite
    assert x.tolist() == [1, 1, 1]


def test_what_cannot_travel_is_refused_by_name():
    lock, x, places = threading.Lock(), np.ones(2), np.arange(2)
    with pytest.raises(TypeError, match=r"f, or what it reads, cannot be sent to a worker.*lock"):
        sent(lambda x: lock and 0.0, x, places)
