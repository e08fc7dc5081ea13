"""What workers' copies of f and x are, and the checks that tell them apart."""

import pickle
import threading

import numpy as np
import pytest

from fastgrad.differences.quotients import moved
from fastgrad.differences.trees import Call
from fastgrad.engines import loop
from fastgrad.engines.workers.messages import SharedFunction
from fastgrad.engines.workers.verification import verified

pytest.importorskip("cloudpickle")
H = 1e-3


def cube(x):
    return float((x**3).sum())


def points_of(x, places):
    return moved(x, places, (1, -1), H)


def sent(shared, f, x, places):
    """Return what a worker is sent, and the item with all points."""
    item = shared.item(f, x, places, points_of(x, places))
    function = verified(shared, f, x, item)
    shared.prepare()
    return function, item


def answer(function, item):
    """Return what a worker answers that has just got the function."""
    return pickle.loads(pickle.dumps(function))(item)


def test_a_copy_with_the_same_f_passes_the_check():
    x, places = np.linspace(1, 2, 5), np.arange(5)
    function, item = sent(SharedFunction(cube, x), cube, x, places)
    assert len(function.fingerprints) == 2
    assert answer(function, item).values.shape == (5, 2)
    assert x.tolist() == np.linspace(1, 2, 5).tolist()


@pytest.mark.parametrize("missed", range(5))
def test_a_copy_that_misses_a_single_element_does_not_pass(missed):
    x, places = np.linspace(1, 2, 5), np.arange(5)

    def blind(y):
        seen = y.copy()
        seen[missed] = np.linspace(1, 2, 5)[missed]
        return cube(seen)

    shared = SharedFunction(blind, x)
    function, item = sent(shared, cube, x, places)
    result = answer(function, item)
    assert result.values is None
    assert result.failure is None


def test_a_check_serves_all_places_that_it_moved_and_no_others():
    x, calls = np.linspace(1, 2, 6), []

    def f(x):
        calls.append(0)
        return cube(x)

    def item(*places):
        return shared.item(f, x, np.array(places), points_of(x, np.array(places)))

    shared = SharedFunction(f, x)
    function = verified(shared, f, x, item(0, 1, 2, 3))
    assert len(calls) == 2
    assert function.serves(shared, item(1, 3))
    assert not function.serves(shared, item(3, 4))
    assert not function.serves(SharedFunction(f, x), item(1, 3))


@pytest.mark.parametrize("sent_at", [-0.0, 2.0])
def test_what_x_is_now_travels_where_it_is_another_than_when_f_was_sent(sent_at):
    x, places = np.linspace(1, 2, 5), np.array([1, 2])
    shared = SharedFunction(cube, x)
    before = shared.item(cube, x, places, points_of(x, places))
    x[4] = sent_at
    function, when_sent = sent(shared, cube, x, places)
    assert shared.item(cube, x, places, points_of(x, places)).contents == []
    x[4] = 3.0
    after = shared.item(cube, x, places, points_of(x, places))
    np.testing.assert_array_equal(after.contents[0], x)
    copy = pickle.loads(pickle.dumps(function))
    for item, last in ((after, 3.0), (before, 2.0), (when_sent, sent_at), (after, 3.0)):
        y = np.linspace(1, 2, 5)
        y[4] = last
        assert copy(item).values.tolist() == loop.values(cube, y, places, item.points).tolist()


def test_a_structure_is_one_function_of_all_its_arrays():
    x = {"a": np.ones(2), "b": [np.arange(3.0)]}
    arguments = (2.0, [3])

    def f(x, scale, power):
        return scale * float((x["a"] ** power[0]).sum() + (x["b"][0] ** 2).sum())

    first = Call(f, arguments, x, x["a"])
    second = Call(f, arguments, x, x["b"][0])
    shared = SharedFunction(first, x["a"])
    assert shared.is_of(second)
    assert not shared.is_of(Call(f, (2.0, [3]), x, x["a"]))
    assert not shared.is_of(Call(cube, arguments, x, x["a"]))
    assert not shared.is_of(cube)
    function, item = sent(shared, second, x["b"][0], np.arange(3))
    assert item.index == 1
    found = answer(function, item).values
    slopes = (found[:, 0] - found[:, 1]) / (2 * H)
    np.testing.assert_allclose(slopes, 4 * x["b"][0], atol=1e-10)


def test_a_function_without_a_finite_value_tells_nothing():
    x, places = np.ones(3), np.arange(3)
    for f in (lambda x: np.nan, lambda x: 1 / 0):
        function, _ = sent(SharedFunction(f, x), f, x, places)
        assert function.fingerprints == []
    assert x.tolist() == [1, 1, 1]


def test_what_cannot_travel_is_refused_by_name():
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"f, or what it reads, cannot be sent to a worker.*lock"):
        SharedFunction(lambda x: lock and 0.0, np.ones(2)).prepare()
