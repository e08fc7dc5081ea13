"""Work that is spread over threads is done once, in order of failures, and none is left behind."""

import sys
import threading

import numpy as np
import pytest

from fastgrad.jit import concurrency


def test_all_chunks_before_the_first_failure_are_done():
    done = []

    def work(chunk):
        if chunk.start <= 70 < chunk.stop:
            raise ValueError("70")
        if chunk.start > 70:
            raise KeyError(chunk.start)
        done.append(chunk)

    for _ in range(50):
        with pytest.raises(ValueError, match="70"):
            concurrency.spread(lambda: work, 1000, lambda: 4)


def test_the_first_failure_is_raised_whichever_comes_first(monkeypatch):
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    later = threading.Event()

    def work(chunk):
        if chunk.start <= 70 < chunk.stop:
            later.wait(60)
            raise ValueError("70")
        if chunk.start > 70:
            later.set()
            raise KeyError(chunk.start)

    with pytest.raises(ValueError, match="70"):
        concurrency.spread(lambda: work, 1000, lambda: 2)


@pytest.mark.parametrize("seconds", [None, 1e-9, 1e-4, 1e3])
@pytest.mark.parametrize("grain", [1, 4])
@pytest.mark.parametrize("items", [0, 1, 7, 1000])
def test_every_item_is_done_once(items, grain, seconds, monkeypatch):
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    done, starts = np.zeros(items, int), []

    def work(chunk):
        done[chunk] += 1
        starts.append(chunk.start)

    concurrency.spread(lambda: work, items, lambda: 4, grain, seconds)
    assert (done == 1).all()
    assert not any(start % grain for start in starts)


def test_threads_are_used_again_and_end_when_there_is_nothing_to_do(monkeypatch, wait_until):
    helpers = concurrency._Helpers()
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    monkeypatch.setattr(concurrency, "IDLE_SECONDS", 60.0)
    monkeypatch.setattr(concurrency, "_helpers", helpers)
    before, seen = {*threading.enumerate()}, set()

    def new_work():
        at_work.add(threading.current_thread())
        first = iter([True])

        def work(chunk):
            if next(first, False):
                together.wait(60)  # so that each of the three takes part

        return work

    for _ in range(5):
        at_work, together = set(), threading.Barrier(3)
        concurrency.spread(new_work, 40, lambda: 3)
        assert len(at_work) == 3
        seen |= at_work
        wait_until(lambda: helpers._idle == 2)
    assert len(seen) == 3
    monkeypatch.setattr(concurrency, "IDLE_SECONDS", 0.01)  # for the next time that they wait
    together = threading.Barrier(3)
    concurrency.spread(new_work, 40, lambda: 3)
    wait_until(lambda: not seen & {*threading.enumerate()} - before)


def test_work_that_cannot_be_begun_in_another_thread_fails(monkeypatch):
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    main = threading.get_ident()

    begun = threading.Event()

    def new_work():
        if threading.get_ident() != main:
            begun.set()
            raise MemoryError("no copy")
        return lambda chunk: begun.wait(60)

    with pytest.raises(MemoryError, match="no copy"):
        concurrency.spread(new_work, 200, lambda: 2)


def test_results_come_in_order_and_threads_see_the_context(monkeypatch):
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    monkeypatch.setattr(concurrency, "core_count", lambda: 4)
    both = threading.Barrier(2)  # each thread takes a single item at first

    def of(item):
        if item < 2:
            both.wait(60)
        return item, threading.get_ident(), np.geterr()["over"]

    with np.errstate(over="call"):
        results = concurrency.in_threads(of, range(20))
    assert [item for item, _, _ in results] == [*range(20)]
    assert results[0][1] != results[1][1]
    assert {over for _, _, over in results} == {"call"}


def test_what_a_thread_raises_is_raised_where_the_results_are_wanted(monkeypatch):
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    monkeypatch.setattr(concurrency, "core_count", lambda: 4)

    def of(item):
        if item > 70:
            raise ValueError(str(item))
        return item

    for _ in range(20):
        with pytest.raises(ValueError, match="71"):
            concurrency.in_threads(of, range(100))


def test_blas_has_one_thread_while_several_compute(threadpools, monkeypatch):
    monkeypatch.setattr(concurrency, "_blas", None)  # as if no library had been loaded since
    before = threadpools()

    def of(item):
        return {pool["num_threads"] for pool in threadpools() if pool["user_api"] == "blas"}

    assert concurrency.in_threads(of, range(3)) == [{1}] * 3
    assert threadpools() == before


def test_one_thread_computes_where_blas_cannot_be_held(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    monkeypatch.setattr(concurrency, "core_count", lambda: 4)
    threads = concurrency.in_threads(lambda _: threading.get_ident(), range(20))
    assert set(threads) == {threading.get_ident()}


@pytest.mark.parametrize(("wanted", "count"), [("3", 3), ("0", 1)])
def test_cores_are_counted_without_numba(wanted, count, monkeypatch):
    monkeypatch.setitem(sys.modules, "numba.np.ufunc.parallel", None)
    monkeypatch.setenv("NUMBA_NUM_THREADS", wanted)
    assert concurrency.core_count() == count
    monkeypatch.delenv("NUMBA_NUM_THREADS")
    assert concurrency.core_count() >= 1
