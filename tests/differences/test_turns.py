"""Threads whose functions share arrays take turns; others do not wait, and none waits for ever."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastgrad import TwoLayerNet, numerical_gradient
from fastgrad.differences.guard import turn

Array = NDArray[np.float64]

PATIENCE = 60
"""Seconds after which a thread is taken to hang."""


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Run functions in threads of their own, and return what they return."""
    results: list[Any] = [None] * len(works)
    begin = threading.Barrier(len(works))

    def run(k: int) -> None:
        begin.wait(PATIENCE)
        try:
            results[k] = works[k]()
        except Exception as error:
            results[k] = error

    threads = [threading.Thread(target=run, args=(k,), daemon=True) for k in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    return results


class Net:
    def __init__(self) -> None:
        r = np.random.default_rng(0)
        self.x = r.normal(size=(300, 20))
        self.params = {"W": r.normal(size=(20, 10)), "V": r.normal(size=(10, 3))}

    def loss(self, _: Any) -> float:
        hidden = np.tanh(self.x @ self.params["W"])
        return float(((hidden @ self.params["V"]) ** 2).mean())


@pytest.mark.parametrize("engine", ["loop", "auto"])
def test_threads_that_difference_one_net_have_the_numbers_of_one_thread(engine: str) -> None:
    net = Net()
    before = {name: array.copy() for name, array in net.params.items()}

    def gradient(name: str) -> Array:
        return numerical_gradient(net.loss, net.params[name], engine=engine)

    want = {name: gradient(name) for name in net.params}
    names = ["W", "V", "W", "V"]
    found = at_once(*(lambda name=name: gradient(name) for name in names))  # type: ignore[misc]
    for name, got in zip(names, found, strict=True):
        np.testing.assert_allclose(got, want[name], rtol=0, atol=1e-9)
    for name, array in net.params.items():
        assert array.tobytes() == before[name].tobytes()


def test_an_array_that_is_read_while_another_thread_records_is_the_users() -> None:
    net = Net()
    weights, reading, read = net.params["W"], threading.Event(), threading.Event()
    own = id(weights)

    def loss(_: Any) -> float:
        if id(net.params["W"]) != own:
            reading.set()
            assert read.wait(PATIENCE)
        return net.loss(_)

    def record() -> Array:
        return numerical_gradient(loss, weights, engine="traced")

    def come_upon_it() -> Array:
        assert reading.wait(PATIENCE)
        found = net.params["W"]
        assert id(found) != own
        read.set()
        return numerical_gradient(net.loss, found, engine="loop")

    want = numerical_gradient(net.loss, weights, engine="loop")
    for got in at_once(record, come_upon_it):
        assert type(got) is np.ndarray
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-9)


def test_threads_of_two_layer_nets_take_turns_with_those_that_move_a_parameter_by_themselves() -> (
    None
):
    np.random.seed(0)
    net = TwoLayerNet(12, 8, 4, 0.5)
    x, t = np.random.rand(20, 12), np.arange(20) % 4

    def own() -> Array:
        return net.numerical_gradient(x, t).buffer

    def one() -> Array:
        return numerical_gradient(lambda _: net.loss(x, t), net.params["W1"], engine="loop")

    def exact() -> Array:
        return net.gradient(x, t).buffer

    want = own(), one(), exact()
    before = net.params.buffer.copy()
    for got, expected in zip(at_once(own, one, exact, own, one, exact), want * 2, strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
    assert net.params.buffer.tobytes() == before.tobytes()


def test_calls_that_share_nothing_are_made_at_the_same_time() -> None:
    both = threading.Barrier(2)

    def gradient() -> Array:
        met = False

        def f(x: Array) -> float:
            nonlocal met
            if not met:
                met = True
                both.wait(PATIENCE)  # breaks if the other one waits for us
            return float((x**2).sum())

        return numerical_gradient(f, np.arange(3.0), engine="loop")

    for got in at_once(gradient, gradient):
        np.testing.assert_allclose(got, [0, 2, 4], atol=1e-8)


def test_an_f_may_differentiate_in_threads_of_its_own() -> None:
    def f(x: Array) -> float:
        slopes = at_once(
            lambda: numerical_gradient(lambda y: float((y**3).sum()), np.ones(2), engine="loop"),
            lambda: numerical_gradient(lambda y: float((y**4).sum()), np.ones(2), engine="loop"),
        )
        return float(x[0] * slopes[0].sum() + x[1] * slopes[1].sum())

    got = numerical_gradient(f, np.ones(2), engine="loop")
    np.testing.assert_allclose(got, [6, 8], rtol=1e-6)


def test_structures_that_share_two_arrays_in_another_order_do_not_block_each_other() -> None:
    a, b = np.arange(1.0, 4), np.arange(2.0, 4)

    def f(p: tuple[Array, Array]) -> float:
        return float((p[0] ** 2).sum() + (p[1] ** 2).sum())

    works = [lambda x=x: numerical_gradient(f, x) for x in ((a, b), (b, a)) * 3]
    for k, got in enumerate(at_once(*works)):
        first, second = got if k % 2 == 0 else got[::-1]
        np.testing.assert_allclose(first, 2 * a, rtol=1e-7)
        np.testing.assert_allclose(second, 2 * b, rtol=1e-7)


def test_threads_that_wait_for_each_other_within_their_calls_are_told() -> None:
    a, b = np.zeros(1), np.zeros(1)
    both = threading.Barrier(2)

    def work(first: Array, second: Array) -> str:
        with turn([first], ()):
            both.wait(PATIENCE)
            try:
                with turn([second], ()):
                    return "went on"
            except RuntimeError as error:
                return str(error)

    said = at_once(lambda: work(a, b), lambda: work(b, a))
    assert sorted("wait for each other" in one for one in said) == [False, True]
    with turn([a, b], ()):  # nothing is left of it
        pass


def test_no_instant_of_a_turn_holds_other_threads_up_when_it_is_interrupted(
    interrupted_at: Callable[[int, Callable[[], None]], bool],
) -> None:
    x = np.zeros(3)

    def take_a_turn() -> None:
        with turn([x], (x,)):
            pass

    event_number = 1
    while interrupted_at(event_number, take_a_turn):
        assert at_once(take_a_turn) == [None]
        event_number += 1
    assert event_number > 10


def test_a_call_whose_end_an_exceptions_traceback_holds_up_holds_no_thread_up() -> None:
    x = np.zeros(3)
    held = []

    def enter() -> None:
        held.append(turn([x], (x,)))
        held[0].__enter__()  # and never leave

    enter()
    [begun] = at_once(lambda: turn([x], (x,)).__enter__())
    assert isinstance(begun, turn)
