"""The number of threads that kernels run on: what numba says, and one while launches are late."""

import threading

import numba
import numpy as np
import pytest

from fastgrad.jit.concurrency import (
    MAX_KINDS,
    MAX_REST_SECONDS,
    MIN_REST_SECONDS,
    Pace,
    thread_count,
)


class Machine:
    """A kernel is launched again and again; a stall makes a launch on two threads late."""

    def __init__(self, work=1e-4, seed=0):
        self.now, self.work, self.random = 0.0, work, np.random.default_rng(seed)
        self.pace = Pace(lambda: self.now)

    def run(self, seconds, stall=0.0, share=0.0, kinds=1):
        """Launch for some seconds; return the time in units of that of one thread."""
        start, launches = self.now, 0
        while self.now < start + seconds:
            alone, took = self.pace.on_one_thread, self.work / 2
            if alone:
                took = self.work
            elif self.random.random() < share:
                took += stall
            self.now += took
            launches += 1
            note = self.pace.note_one_thread if alone else self.pace.note
            note(launches % kinds, took, *(() if alone else (2,)))
        return (self.now - start) / (launches * self.work)


def test_on_an_idle_machine_all_threads_are_used():
    machine = Machine()
    assert machine.run(1.0) < 0.5001
    assert machine.run(4.0, stall=1e-3, share=1e-3) < 0.6  # a hiccup now and then


@pytest.mark.parametrize("share", [0.3, 0.95])
@pytest.mark.parametrize("work", [1e-4, 1e-3])
def test_on_a_busy_machine_one_thread_is_used_and_the_others_again_afterwards(share, work):
    machine = Machine(work)
    machine.run(0.1)
    assert machine.run(20.0, stall=8e-3, share=share, kinds=5) < 1.1
    machine.run(MAX_REST_SECONDS)
    assert machine.run(1.0) < 0.5001


def test_the_machine_may_have_been_busy_from_the_beginning():
    assert Machine().run(20.0, stall=8e-3, share=0.7, kinds=5) < 1.1


def test_work_that_has_become_more_is_not_taken_for_a_busy_machine():
    machine = Machine()
    machine.run(0.1)
    machine.work *= 10
    machine.run(2 * MIN_REST_SECONDS)
    assert machine.run(1.0) < 0.5001


def test_work_of_ever_new_sizes_is_forgotten():
    machine = Machine()
    for _ in range(5):
        machine.run(MAX_KINDS * machine.work, kinds=10 * MAX_KINDS)
    assert len(machine.pace._best) <= MAX_KINDS


def test_threads_are_counted_as_numba_counts_them():
    before = numba.get_num_threads()
    assert thread_count() == before
    numba.set_num_threads(1)
    try:
        assert thread_count() == 1
    finally:
        numba.set_num_threads(before)


def test_no_instant_of_counting_leaves_a_lock_taken_when_it_is_interrupted(interrupted_at):
    numba.get_num_threads()
    event_number = 1
    while interrupted_at(event_number, thread_count):
        event_number += 1
        thread = threading.Thread(target=numba.get_num_threads, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), "another thread waits for ever"
    assert event_number > 1
