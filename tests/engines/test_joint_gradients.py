"""Gradients of several arrays, computed at once, are given out only if they are right."""

import gc
import sys
import threading
import types
import weakref
from functools import partial

import numpy as np
import pytest
from nets import EPS, H, cross_entropy_error, sigmoid, softmax

from fastgrad import numerical_gradient, schemes
from fastgrad.engines import joint_gradients, loop, traced
from fastgrad.tracing import first_calls

pytestmark = pytest.mark.usefixtures("cheap_functions_traced", "nothing_kept")

NAMES = "W1", "b1", "W2", "b2"
SETTINGS = types.SimpleNamespace(scale=1.0)
SCALE = 1.0
FROZEN = False
SETTINGS_MODULE = types.ModuleType("settings_of_a_test")
random = np.random.default_rng(5)


class Net:
    """The book's, and more that a learner's net may hold."""

    slope = 0.1

    def __init__(self, hidden=9):
        self.params = {
            "W1": random.normal(size=(12, hidden)),
            "b1": random.normal(size=hidden),
            "W2": random.normal(size=(hidden, 8)),
            "b2": random.normal(size=8),
        }
        self.is_training = True
        self.decay = 0.1
        self.history = []
        self.hook = None

    def loss(self, x, t):
        self.z = sigmoid(np.dot(x, self.params["W1"]) + self.params["b1"])
        z = self.z if self.is_training else 0.5 * self.z
        if self.hook is not None:
            self.hook(self)
        y = softmax(np.dot(SCALE * SETTINGS.scale * z, self.params["W2"]) + self.params["b2"])
        penalty = self.decay * sum(np.sum(self.params[name] ** 2) for name in ("W1", "W2"))
        return cross_entropy_error(y, t) + penalty + self.slope * np.sum(y**2)


def batch(samples=10):
    return random.random((samples, 12)), random.integers(0, 8, samples)


@pytest.fixture(name="nothing_kept", autouse=True)
def _nothing_kept(monkeypatch):
    monkeypatch.setattr(joint_gradients, "_kept", joint_gradients._Kept())


@pytest.fixture
def at_hand(monkeypatch):
    """Return a list of which gradients were known when they were asked for."""
    found, known = [], joint_gradients.computed_in_advance

    def noted(*arguments):
        found.append((result := known(*arguments)) is not None)
        return result

    monkeypatch.setattr(joint_gradients, "computed_in_advance", noted)
    return found


def assert_right(f, x, gradient):
    expected = loop.gradient(f, x, H)
    assert abs(gradient - expected).max() <= 20 * EPS * abs(f(x)) / H
    assert abs(expected).max() > 1e-6


def step(net, x, t, between=lambda name: None, names=NAMES, engine="auto"):
    """Ask for one gradient after the other, each by a closure of its own, and judge them."""
    gradients = {}
    for name in names:
        between(name)
        f, array = (lambda _: net.loss(x, t)), net.params[name]  # within the step
        gradients[name] = numerical_gradient(f, array, engine=engine)
        assert_right(f, array, gradients[name])
    return gradients


def learn(net, gradients):
    for name, gradient in gradients.items():
        net.params[name] -= 0.1 * gradient


@pytest.mark.parametrize("engine", ["auto", "traced"])
def test_from_the_second_step_on_all_but_the_first_are_at_hand(at_hand, engine):
    net = Net()
    for _ in range(3):
        learn(net, step(net, *batch(), engine=engine))
    assert at_hand == 4 * [False] + 2 * [False, True, True, True]


def test_those_of_a_net_that_calls_methods_of_its_data_are_at_hand(at_hand):
    net = Net()
    for _ in range(3):
        x, t = batch()

        def loss(_):  # plain arrays' methods take what is recorded for plain arrays
            z = np.tanh(x.dot(net.params["W1"]) + net.params["b1"])  # noqa: B023
            y = softmax(z.dot(net.params["W2"]) + net.params["b2"])
            return cross_entropy_error(y, t)  # noqa: B023

        for name in NAMES:
            gradient = numerical_gradient(loss, net.params[name])
            assert_right(loss, net.params[name], gradient)
        net.params["b2"] += 0.1
    assert at_hand == 4 * [False] + 2 * [False, True, True, True]


def test_those_next_to_a_kink_are_at_hand(at_hand):
    # Some units are so near their kinks that a move by h / 1024 takes them over.
    x, t = random.random((10, 12)), random.integers(0, 8, 10)
    for _ in range(20):
        W1, W2 = random.normal(size=(12, 9)), random.normal(size=(9, 8))
        W1[0] -= (x[0] @ W1 + np.geomspace(1e-9, 1e-6, 9)) / x[0, 0]

        def loss(_):
            z = np.maximum(np.dot(x, W1), 0)  # noqa: B023
            return cross_entropy_error(softmax(np.dot(z, W2)), t)  # noqa: B023

        for array in (W2, W1):
            assert_right(loss, array, numerical_gradient(loss, array))
    assert np.mean(at_hand[3::2]) > 0.9


def test_all_arrays_of_a_structure_are_computed_at_once(at_hand):
    net = Net()
    for number in range(3):
        x, t = batch()

        def f(params):
            assert params is net.params
            return net.loss(x, t) + number * np.sum(params["b2"] ** 3)  # noqa: B023

        gradients = numerical_gradient(f, net.params, engine=["auto", "traced"][number % 2])
        for name, gradient in gradients.items():
            assert_right(lambda _: f(net.params), net.params[name], gradient)
        learn(net, gradients)
    assert at_hand == 3 * [False, True, True, True]
    of_list = numerical_gradient(lambda ab: np.sum(ab[0] ** 2 * ab[1]), [np.ones(9), np.ones(9)])
    np.testing.assert_allclose(of_list, [9 * [2], 9 * [1]], rtol=1e-9)


def test_rounds_at_one_point_are_computed_anew_and_each_at_once(at_hand):
    net, data = Net(), batch()
    for _ in range(3):
        step(net, *data)
    assert at_hand == 4 * [False] + 2 * [False, True, True, True]


def test_gradients_are_those_that_are_computed_by_themselves():
    net, (x, t) = Net(), batch()
    for _ in range(2):
        gradients = step(net, x, t)
        net.params["b2"] += 1e-3
    net.params["b2"] -= 1e-3
    for name in NAMES:
        joint_gradients._kept.point = None
        alone = numerical_gradient(lambda _: net.loss(x, t), net.params[name], engine="traced")
        assert abs(alone - gradients[name]).max() <= 20 * EPS * net.loss(x, t) / H


def test_batches_of_another_size_and_replaced_parameters_are_no_hindrance(at_hand):
    net = Net()
    for samples in (10, 10, 7, 10):
        gradients = step(net, *batch(samples))
        for name, gradient in gradients.items():
            net.params[name] = net.params[name] - 0.1 * gradient
    assert at_hand[4:] == 3 * [False, True, True, True]


def rebound(name):
    def change(net, data, t):
        net.params[name] = net.params[name] * 1.5

    return change


def moved(name):
    def change(net, data, t):
        net.params[name][...] *= 1.5

    return change


def set_to(holder, name, value):
    def change(net, data, t):
        setattr(net if holder is None else holder, name, value)

    return change


CHANGES = {
    "a parameter is replaced": rebound("W2"),
    "a parameter is updated in place": moved("W1"),
    "the asked one is updated in place": moved("b1"),
    "data are changed": lambda net, x, t: x.__setitem__(0, 0.5),
    "labels are changed": lambda net, x, t: t.__setitem__(slice(None), (t + 1) % 8),
    "a flag is switched": set_to(None, "is_training", False),
    "a number is another one": set_to(None, "decay", 0.3),
    "a hook is set": set_to(None, "hook", lambda net: setattr(net, "z", net.z * 0.5)),
    "a number of the class is another one": set_to(Net, "slope", 0.4),
    "a number of an object that is global": set_to(SETTINGS, "scale", 0.7),
    "a global number": lambda net, x, t: globals().__setitem__("SCALE", 0.7),
    "a method is another one": lambda net, x, t: setattr(
        net, "loss", lambda x, t: np.sum((x @ net.params["W1"] + net.params["b1"]) ** 4)
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_is_changed_between_two_calls_is_noticed(change, at_hand, monkeypatch):
    for holder, name in ((Net, "slope"), (SETTINGS, "scale")):
        monkeypatch.setattr(holder, name, getattr(holder, name))
    monkeypatch.setitem(globals(), "SCALE", 1.0)
    net = Net()
    learn(net, step(net, *batch()))
    learn(net, step(net, *batch()))
    x, t = batch()
    names = NAMES[:2] if "method" in change.__qualname__ else NAMES

    def between(name):
        if name == "b1":
            change(net, x, t)

    del at_hand[:]
    if change is CHANGES["a method is another one"]:
        names = NAMES[:2]
    step(net, x, t, between, names)
    assert not any(at_hand[:2])


@pytest.mark.parametrize(
    "hidden",
    [lambda: globals()["FROZEN"], lambda: getattr(SETTINGS_MODULE, "frozen")],  # noqa: B009
    ids=["globals", "getattr"],
)
def test_what_cannot_be_seen_and_leaves_the_value_as_it_is_is_noticed(hidden, at_hand, monkeypatch):
    X, params = random.normal(size=(9, 5)), {"W": random.normal(size=(5, 4)), "b": np.zeros(4)}
    params["V"] = random.normal(size=(4, 3))
    kept = params["V"].copy()
    # Otherwise chance hides one change in 1,000.
    monkeypatch.setattr(joint_gradients, "MAX_CHANGE_SHARE", 0.0)

    def loss(_):
        V = kept if hidden() else params["V"]
        used = 0 * params["V"].sum()
        return np.mean((np.tanh(X @ params["W"] + params["b"]) @ V) ** 2) + used

    for frozen in (False, False, True):
        for name, array in params.items():
            if name == "V":
                monkeypatch.setitem(globals(), "FROZEN", frozen)
                SETTINGS_MODULE.frozen = frozen
            gradient = numerical_gradient(loss, array, engine="traced")
            looped = loop.gradient(loss, array, H)
            np.testing.assert_allclose(gradient, looped, rtol=0, atol=1e-9)
            monkeypatch.setitem(globals(), "FROZEN", False)
            SETTINGS_MODULE.frozen = False
        for array in params.values():
            array -= 0.1
        kept[...] = params["V"]


def test_a_variable_of_the_closure_may_hold_another_batch(at_hand):
    net = Net()
    x, t = batch()

    def f(_):
        return net.loss(x, t)

    for _ in range(3):
        for name in NAMES:
            if name == "W2":
                x, t = batch()
            assert_right(f, net.params[name], numerical_gradient(f, net.params[name]))
    assert at_hand.count(True) <= 4


def test_nothing_is_at_hand_of_an_f_that_counts_or_draws(at_hand):
    net = Net()

    def counting(net):
        net.history.append(len(net.history))

    net.hook = counting
    for _ in range(3):
        learn(net, step(net, *batch()))
    assert not any(at_hand)

    generator = np.random.default_rng(1)
    net.hook = lambda net: setattr(net, "z", net.z * (1 + 0 * generator.random()))
    for _ in range(3):
        learn(net, step(net, *batch()))
    assert not any(at_hand)

    def f(_):
        return net.loss(*data) + np.random.random()

    net.hook, data = None, batch()
    for _ in range(2):
        for name in NAMES:
            with pytest.warns(RuntimeWarning, match="f is random"):
                numerical_gradient(f, net.params[name])
    assert not any(at_hand)


def test_an_f_that_looks_at_what_it_is_given_is_another_one_for_each_array(at_hand):
    a, b = np.zeros(9), np.zeros(9)

    def f(w):
        return np.sum(w**3 + 2 * w) + np.sum(np.sin(a)) + 3 * np.sum(np.sin(b))

    for _ in range(3):
        np.testing.assert_allclose(numerical_gradient(f, a), 3, rtol=1e-6)
        np.testing.assert_allclose(numerical_gradient(f, b), 5, rtol=1e-6)
    assert not any(at_hand)


def test_two_nets_in_turn_do_not_disturb_each_other(at_hand):
    nets = Net(), Net(hidden=11)
    for _ in range(3):
        for net in nets:
            learn(net, step(net, *batch()))
    assert at_hand[8:] == 4 * [False, True, True, True]
    data = batch()
    for name in NAMES:  # at the same time
        for net in nets:
            step(net, *data, names=[name])


def test_only_what_was_asked_for_last_time_is_computed(at_hand):
    net = Net()
    for names in (NAMES, NAMES, ["b1"], ["b1"], ["b1", "W2"], ["b1", "W2", "b2"]):
        learn(net, step(net, *batch(), names=names))
    assert at_hand == [*4 * [False], False, True, True, True, *4 * [False], False, True, False]
    assert not joint_gradients._kept.point.gradients


def test_another_h_and_another_scheme_are_not_mixed_up(at_hand):
    net = Net()
    for _ in range(3):
        x, t = batch()
        f = partial(lambda net, x, t: lambda _: net.loss(x, t), net, x, t)()
        for name in ("W1", "b1"):
            for h in (1e-4, 1e-3):
                gradient = numerical_gradient(f, net.params[name], h)
                expected = loop.gradient(f, net.params[name], h)
                assert abs(gradient - expected).max() <= 20 * EPS * f(0) / h
            forward = numerical_gradient(f, net.params[name], scheme="forward")
            assert abs(forward - numerical_gradient(f, net.params[name])).max() > 1e-7
        learn(net, {"W1": gradient[0] * 0.1})


@pytest.mark.parametrize("change", ["read-only", "a view", "nan", "unused"])
def test_arrays_that_cannot_be_moved_together_are_not(change, at_hand):
    net = Net()
    learn(net, step(net, *batch()))
    learn(net, step(net, *batch()))
    del at_hand[:]
    if change == "read-only":
        net.params["b1"].flags.writeable = False
    elif change == "a view":
        net.params["b1"] = net.params["W1"].reshape(-1)[:9]
    elif change == "nan":
        net.hook = lambda net: setattr(net, "z", net.z + 0 * np.nan_to_num(net.extra).sum())
        net.extra = np.full(9, np.nan)
    else:
        net.hook = lambda net: net.params.update(b1=net.params["b1"])
    for _ in range(2):
        step(net, *batch(), names=["W1", "W2", "b2"])


@pytest.mark.parametrize("place", [3, -3])
@pytest.mark.parametrize("faulty", range(2))
def test_a_fault_in_any_of_them_is_found_before_it_is_given_out(
    faulty, place, at_hand, monkeypatch
):
    net = Net()
    learn(net, step(net, *batch()))
    replayed, calls = traced._replayed, []

    def spoiled(*arguments):
        result = replayed(*arguments)
        assert result.bias is not None or len(calls) > 1
        if len(calls) == faulty:
            result.quotients[place] += 1e-3
            result.slopes[place] += 1e-3
        calls.append(0)
        return result

    monkeypatch.setattr(traced, "_replayed", spoiled)
    step(net, *batch())
    assert not any(at_hand)
    monkeypatch.setattr(traced, "_replayed", replayed)
    learn(net, step(net, *batch()))
    step(net, *batch())
    assert at_hand[-4:] == [False, True, True, True]


def test_what_cannot_be_recorded_together_is_not_tried_again(at_hand, monkeypatch):
    tried, together = [], traced.trace_call

    def noted(*arguments, others=(), **options):
        tried.append(len(others))
        return together(*arguments, others=others, **options)

    monkeypatch.setattr(traced, "trace_call", noted)
    net = Net()
    net.hook = lambda net: net.params["b1"][0] > 0 or None  # which only matters if that is moved
    for _ in range(4):
        learn(net, step(net, *batch(), names=["W1", "W2", "b1"]))
    assert tried.count(2) == 1
    assert not any(at_hand)


def test_nothing_is_kept_of_arrays_that_are_freed():
    net = Net()
    for _ in range(2):
        learn(net, step(net, *batch(), names=NAMES[:2]))
    x, t = batch()
    step(net, x, t, names=NAMES[:1])
    assert joint_gradients._kept.point.gradients
    alive = [weakref.ref(array) for array in (*net.params.values(), net.z, x, t)]
    alive.append(weakref.ref(net))
    del net, x, t
    gc.collect()
    assert not any(reference() is not None for reference in alive)
    assert joint_gradients._kept.point.state is None
    assert not joint_gradients._kept.point.gradients


def test_threads_keep_their_own():
    nets, wrong = [Net() for _ in range(3)], []
    data = [batch() for _ in range(9)]

    def train(net):
        try:
            for x, t in data:
                learn(net, step(net, x, t))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=train, args=(net,)) for net in [*nets, nets[0]][:3]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_threads_that_move_one_net_do_not_see_each_other():
    net, (x, t) = Net(), batch()
    expected = {n: loop.gradient(lambda _: net.loss(x, t), net.params[n], H) for n in NAMES}
    wrong = []

    def ask():
        try:
            for _ in range(3):
                for name in NAMES:
                    found = numerical_gradient(lambda _: net.loss(x, t), net.params[name])
                    assert abs(found - expected[name]).max() < 1e-9
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of generators
def test_no_interrupt_leaves_anything_half_done(interrupted_at, repeats):
    net, (x, t) = Net(), batch()
    before = {name: array.copy() for name, array in net.params.items()}

    def f(_):
        return net.loss(x, t)

    def ask():
        for name in NAMES[:3]:
            numerical_gradient(f, net.params[name])

    ask()
    x, t = batch()
    ask()
    for number in range(1, 100_000, repeats(997, 37)):
        x, t = batch()
        if not interrupted_at(number, ask):
            break
        for name, array in net.params.items():
            assert array.tobytes() == before[name].tobytes()
            assert type(array) is np.ndarray
    else:
        pytest.fail("never came to the end")
    for name in NAMES:
        assert_right(f, net.params[name], numerical_gradient(f, net.params[name]))


@pytest.mark.parametrize("keeps", [False, True])
def test_one_call_shows_that_a_gradient_at_hand_is_right(keeps):
    net, calls = Net(), []

    def f(_):
        z = sigmoid(x @ net.params["W1"] + net.params["b1"])
        if keeps:
            net.z = z  # that of the last call, which was made at another point
        return cross_entropy_error(softmax(z @ net.params["W2"] + net.params["b2"]), t)

    def note(frame, event, _):
        if event == "call" and frame.f_code is f.__code__:
            calls.append(0)

    for number in range(3):
        x, t = batch()
        for name in NAMES:
            del calls[:]
            sys.setprofile(note)
            numerical_gradient(f, net.params[name])
            sys.setprofile(None)
            if number and name != "W1":  # W2 and b2 come after z
                assert len(calls) == 1 + (keeps and name != "b2")


def test_no_chance_decides_whether_f_is_traced_where_it_was_for_another_array(monkeypatch):
    net, (x, t) = Net(), batch()

    def f(_):
        return net.loss(x, t)

    numerical_gradient(f, net.params["W1"])
    monkeypatch.setattr(first_calls, "MIN_TRACING_SECONDS", np.inf)
    gradient = numerical_gradient(f, net.params["b2"])
    assert gradient.tobytes() == traced.gradient(f, net.params["b2"], H).tobytes()
    assert gradient.tobytes() != loop.gradient(f, net.params["b2"], H).tobytes()


@pytest.mark.parametrize("scheme", ["central", "forward", "backward"])
@pytest.mark.parametrize("names", [NAMES, ("W1",), ("b2", "W1")])
def test_further_steps_from_a_kept_recording_give_the_loops_quotients(scheme, names):
    net, (x, t) = Net(), batch()
    known = []
    with joint_gradients.recordings_kept_in(known):
        numerical_gradient(lambda p: net.loss(x, t), net.params)
    assert known
    arrays, how = [net.params[name] for name in names], schemes.as_scheme(scheme)
    for h in (2 * H, H / 64):
        found = traced.further_gradients(known, arrays, h, how)
        for array, quotients in zip(arrays, found, strict=True):
            looped = loop.gradient(lambda _: net.loss(x, t), array, h, scheme=how)
            allowed = how.round_off(20 * net.loss(x, t), h, EPS)
            assert abs(looped.reshape(-1) - quotients).max() <= allowed


def test_a_kept_recording_serves_no_other_point_and_no_other_function():
    net, (x, t) = Net(), batch()
    known = []
    with joint_gradients.recordings_kept_in(known):
        numerical_gradient(lambda p: net.loss(x, t), net.params)
    arrays, central = [*net.params.values()], schemes.central_quotient
    assert traced.further_gradients(known, arrays, H, central) is not None
    for place in (net.params["W2"][:1, :1], x[:1]):
        saved = place.copy()
        place += 1e-3
        assert traced.further_gradients(known, arrays, H, central) is None
        place[...] = saved
    assert traced.further_gradients(known, [np.zeros(3)], H, central) is None
    assert traced.further_gradients(known, arrays, H, central) is not None


def test_a_replay_that_is_not_f_at_a_further_step_is_refused(monkeypatch):
    net, (x, t) = Net(), batch()
    known = []
    with joint_gradients.recordings_kept_in(known):
        numerical_gradient(lambda p: net.loss(x, t), net.params)
    replays = traced._replays

    def wrong_replays(*arguments):
        found = replays(*arguments)
        for each in found:
            each.quotients[:] += 1e-3
        return found

    monkeypatch.setattr(traced, "_replays", wrong_replays)
    arrays = [*net.params.values()]
    assert traced.further_gradients(known, arrays, H, schemes.central_quotient) is None
