"""Is it known what workers' copies of f and x are, and which trials tell them apart?"""

import pickle

import numpy as np
import pytest

from fastgrad.differences import moved
from fastgrad.engines.errand import Errand
from fastgrad.engines.payload import Task
from fastgrad.engines.trials import Sent
from fastgrad.structures import Call

pytest.importorskip("cloudpickle")
H = 1e-3


def cube(x):
    return float((x**3).sum())


def points_of(x, places):
    return moved(x, places, (1, -1), H)


def answer(sent, f, x, places, expected=None):
    """Return what a worker answers that has just got the task."""
    task = pickle.loads(pickle.dumps(sent.task()))
    return task(sent.errand(f, x, places, points_of(x, places), (), expected))


def test_a_copy_with_the_same_f_passes_the_trial():
    x, places = np.linspace(1, 2, 5), np.arange(5)
    sent = Sent(cube, x)
    expected = sent.expected(cube, x, places, points_of(x, places))
    assert expected.fingerprints is not None
    assert answer(sent, cube, x, places, expected).fingerprints == expected.fingerprints
    assert x.tolist() == np.linspace(1, 2, 5).tolist()


@pytest.mark.parametrize("missed", range(5))
def test_a_copy_that_misses_a_single_element_does_not_pass(missed):
    x, places = np.linspace(1, 2, 5), np.arange(5)
    sent = Sent(cube, x)
    expected = sent.expected(cube, x, places, points_of(x, places))

    def blind(y):
        seen = y.copy()
        seen[missed] = np.linspace(1, 2, 5)[missed]
        return cube(seen)

    sent.f = blind
    assert answer(sent, blind, x, places, expected).fingerprints != expected.fingerprints


def test_a_trial_serves_all_places_that_it_moved_and_no_others():
    x, calls = np.linspace(1, 2, 6), []

    def f(x):
        calls.append(0)
        return cube(x)

    def trial(*places):
        return sent.expected(f, x, np.array(places), points_of(x, np.array(places)))

    sent = Sent(f, x)
    first = trial(0, 1, 2, 3)
    assert len(calls) == 2
    assert trial(1, 3) is first
    assert len(calls) == 2
    other = trial(3, 4)
    assert other is not first
    assert trial(4) is other


def test_what_x_is_now_travels_where_it_is_another_than_when_f_was_sent():
    x, places = np.linspace(1, 2, 5), np.array([1, 2])
    sent = Sent(cube, x)
    task = sent.task()
    before = sent.situation(sent.where(cube, x))
    assert before.contents == {}
    x[4] = -0.0
    after = sent.situation(sent.where(cube, x))
    np.testing.assert_array_equal(after.contents[0], x)
    points = points_of(x, places)
    copy = pickle.loads(pickle.dumps(task))
    for situation, last in ((after, -0.0), (before, 2.0), (after, -0.0)):
        found = copy(Errand(situation, places, points, (), None, {**np.geterr()})).values
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
    sent = Sent(first, x["a"])
    assert sent.is_of(second)
    assert not sent.is_of(Call(f, (2.0, [3]), x, x["a"]))
    assert not sent.is_of(Call(cube, arguments, x, x["a"]))
    assert not sent.is_of(cube)
    assert sent.where(second, x["b"][0]).index == 1
    places = np.arange(3)
    found = answer(sent, second, x["b"][0], places).values
    slopes = (found[:, 0] - found[:, 1]) / (2 * H)
    np.testing.assert_allclose(slopes, 4 * x["b"][0], atol=1e-10)


def test_a_function_without_a_finite_value_tells_nothing():
    x, places = np.ones(3), np.arange(3)
    for f in (lambda x: np.nan, lambda x: 1 / 0):
        sent = Sent(f, x)
        assert sent.expected(f, x, places, points_of(x, places)).fingerprints is None
    assert x.tolist() == [1, 1, 1]


def test_what_cannot_travel_is_refused_by_name():
    import threading

    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"f, or what it reads, cannot be sent to a worker.*lock"):
        Task(lambda x: lock and 0.0, [np.ones(2)])
