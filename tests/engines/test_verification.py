"""What workers' copies of f and x are, and the checks that tell them apart."""

import pickle
import threading

import numpy as np
import pytest

from fastgrad.differences.quotients import moved
from fastgrad.differences.trees import Call
from fastgrad.engines.workers.messages import SharedFunction, WorkItem
from fastgrad.engines.workers.verification import Verifier

pytest.importorskip("cloudpickle")
H = 1e-3


def cube(x):
    return float((x**3).sum())


def points_of(x, places):
    return moved(x, places, (1, -1), H)


def answer(shared, f, x, places, verification=None):
    """Return what a worker answers that has just got the function."""
    check = None if verification is None else verification.check
    shared.prepare()
    item = WorkItem(shared.state(f, x), places, points_of(x, places), (), check, np.geterr())
    return pickle.loads(pickle.dumps(shared))(item)


def test_a_copy_with_the_same_f_passes_the_check():
    x, places = np.linspace(1, 2, 5), np.arange(5)
    shared = SharedFunction(cube, x)
    verification = Verifier(shared).verification(cube, x, places, points_of(x, places))
    assert verification.fingerprints is not None
    assert answer(shared, cube, x, places, verification).fingerprints == verification.fingerprints
    assert x.tolist() == np.linspace(1, 2, 5).tolist()


@pytest.mark.parametrize("missed", range(5))
def test_a_copy_that_misses_a_single_element_does_not_pass(missed):
    x, places = np.linspace(1, 2, 5), np.arange(5)
    shared = SharedFunction(cube, x)
    verification = Verifier(shared).verification(cube, x, places, points_of(x, places))

    def blind(y):
        seen = y.copy()
        seen[missed] = np.linspace(1, 2, 5)[missed]
        return cube(seen)

    shared.f = blind
    assert answer(shared, blind, x, places, verification).fingerprints != verification.fingerprints


def test_a_check_serves_all_places_that_it_moved_and_no_others():
    x, calls = np.linspace(1, 2, 6), []

    def f(x):
        calls.append(0)
        return cube(x)

    def check(*places):
        return verifier.verification(f, x, np.array(places), points_of(x, np.array(places)))

    verifier = Verifier(SharedFunction(f, x))
    first = check(0, 1, 2, 3)
    assert len(calls) == 2
    assert check(1, 3) is first
    assert len(calls) == 2
    other = check(3, 4)
    assert other is not first
    assert check(4) is other


@pytest.mark.parametrize("pickled_at", [-0.0, 2.0])
def test_what_x_is_now_travels_where_it_is_another_than_at_first(pickled_at):
    x, places = np.linspace(1, 2, 5), np.array([1, 2])
    shared = SharedFunction(cube, x)
    before = shared.state(cube, x)
    assert before.contents == {}
    x[4] = pickled_at
    shared.prepare()
    x[4] = -0.0
    after = shared.state(cube, x)
    np.testing.assert_array_equal(after.contents[0], x)
    points = points_of(x, places)
    copy = pickle.loads(pickle.dumps(shared))
    for state, last in ((after, -0.0), (before, 2.0), (after, -0.0)):
        found = copy(WorkItem(state, places, points, (), None, np.geterr())).values
        y = np.linspace(1, 2, 5)
        y[4] = last
        expected = []
        for place, targets in zip(places, points, strict=True):
            for target in targets:
                moved_one = y.copy()
                moved_one[place] = target
                expected.append(cube(moved_one))
        assert found.reshape(-1).tolist() == expected


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
    assert shared.state(second, x["b"][0]).index == 1
    places = np.arange(3)
    found = answer(shared, second, x["b"][0], places).values
    slopes = (found[:, 0] - found[:, 1]) / (2 * H)
    np.testing.assert_allclose(slopes, 4 * x["b"][0], atol=1e-10)


def test_a_function_without_a_finite_value_tells_nothing():
    x, places = np.ones(3), np.arange(3)
    for f in (lambda x: np.nan, lambda x: 1 / 0):
        verifier = Verifier(SharedFunction(f, x))
        assert verifier.verification(f, x, places, points_of(x, places)).fingerprints is None
    assert x.tolist() == [1, 1, 1]


def test_what_cannot_travel_is_refused_by_name():
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"f, or what it reads, cannot be sent to a worker.*lock"):
        SharedFunction(lambda x: lock and 0.0, np.ones(2)).prepare()
