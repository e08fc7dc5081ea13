"""Progress is told truly, costs nothing where it is not asked for, and Ctrl-C ends it."""

import re
import signal
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from fastgrad import numerical_gradient
from fastgrad.engines import loop, workers


def cube(x):
    return float((x**3).sum())


@pytest.fixture(autouse=True)
def every_gradient_is_worth_processes(monkeypatch):
    monkeypatch.setattr(workers, "WORTHWHILE_SECONDS", 0)


@pytest.mark.parametrize("how", [None, 1, 2, map])
@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_more_is_done_each_time_and_all_in_the_end(how, scheme, monkeypatch):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 1e-4)
    x, told = {"a": np.ones((4, 30)), "b": np.arange(50.0)}, []
    result = numerical_gradient(
        lambda x: cube(x["a"]) + cube(x["b"]),
        x,
        engine="loop",
        scheme=scheme,
        workers=how,
        progress=lambda done, total: told.append((done, total)),
    )
    expected = numerical_gradient(
        lambda x: cube(x["a"]) + cube(x["b"]), x, engine="loop", scheme=scheme
    )
    done = [entry[0] for entry in told]
    assert len(told) > 1
    assert all(low < high for low, high in zip([0, *done], done, strict=False))
    assert told[-1] == (170, 170)
    assert {total for _, total in told} == {170}
    for name in x:
        assert result[name].tobytes() == expected[name].tobytes()


def test_it_is_told_about_ten_times_a_second(monkeypatch):
    clock, told = [0.0], []
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def slow(x):
        clock[0] += 2**-10
        return cube(x)

    def tell(done, total):
        told.append(clock[0])

    start = clock[0]
    numerical_gradient(slow, np.arange(400.0), engine="loop", progress=tell)
    assert len(told) == 5
    # A block of elements lasts as long at most, and two make a report.
    gaps = np.diff([start, *told])
    assert (gaps < 2 * loop.REPORT_SECONDS).all()
    assert (gaps[:-1] >= loop.REPORT_SECONDS * 0.9).all()


def test_a_traced_gradient_is_done_at_once():
    w, told = np.random.default_rng(0).normal(size=(30, 20)), []
    data = np.random.default_rng(1).normal(size=(200, 30))
    numerical_gradient(
        lambda w: np.tanh(data @ w).sum(),
        w,
        engine="traced",
        progress=lambda *numbers: told.append(numbers),
    )
    assert told == [(600, 600)]


def test_an_empty_x_has_no_progress():
    told = []
    numerical_gradient(cube, np.empty(0), progress=lambda *numbers: told.append(numbers))
    assert told == []


def test_a_bar_is_drawn_and_ends_full(capsys):
    pytest.importorskip("tqdm")
    numerical_gradient(cube, np.ones(70), engine="loop", progress=True)
    errors = capsys.readouterr().err
    assert re.search(r"Elements: 100%.* 70/70 ", errors)


def test_without_tqdm_a_bar_is_refused_by_the_name_of_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ModuleNotFoundError, match=r"tqdm, which is not installed.*\[progress\]"):
        numerical_gradient(cube, np.ones(3), progress=True)


@pytest.mark.parametrize("wrong", [None, 1, "yes"])
def test_progress_is_true_false_or_a_function(wrong):
    with pytest.raises(TypeError, match=r"progress is .*; pass True for a bar, or a function"):
        numerical_gradient(cube, np.ones(3), progress=wrong)


def test_nothing_stands_between_where_it_is_not_asked_for(monkeypatch):
    seen = []
    original = loop.values

    def values(*arguments):
        seen.append(len(arguments[2].places))
        return original(*arguments)

    from fastgrad.engines import selection

    monkeypatch.setattr(loop, "values", values)
    monkeypatch.setitem(selection.ENGINES, "loop", values)
    numerical_gradient(cube, np.ones(500), engine="loop")
    assert seen == [500]
    assert selection.choose_evaluator(cube, np.ones(500), "loop").values(None) is values


@pytest.mark.parametrize("shown", [False, lambda *_: None, True], ids=["off", "function", "bar"])
def test_an_interrupt_ends_it_at_once_and_leaves_x_intact(shown, capsys):
    x = np.arange(100.0)
    before, calls = x.tobytes(), 0

    def f(x):
        nonlocal calls
        calls += 1
        if calls == 25:
            signal.raise_signal(signal.SIGINT)
        return cube(x)

    with pytest.raises(KeyboardInterrupt):
        numerical_gradient(f, x, engine="loop", progress=shown)
    assert x.tobytes() == before
    assert calls == 25


def test_an_exception_ends_the_progress_where_it_is(monkeypatch):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)
    told, x = [], np.zeros(10)

    def f(x):
        if x[5] != 0:
            raise ValueError("mine")
        return x.sum()

    with pytest.raises(ValueError, match="mine"):
        numerical_gradient(f, x, engine="loop", progress=lambda done, total: told.append(done))
    assert told == [1, 2, 3, 4, 5]
