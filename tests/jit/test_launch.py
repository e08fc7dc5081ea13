"""All tasks of a kernel run, each once, with its arguments, on as many threads as numba uses."""

import numba
import numpy as np
import pytest
from oracle import JIT

from fastgrad.jit import kernel as jit
from fastgrad.jit.concurrency import Pace
from fastgrad.jit.kernel import kernel

if JIT:
    from numba import get_thread_id
else:

    def get_thread_id():
        return 0


@kernel("(float64, float64[::1], float64[:, :], int64[:, :, ::1])")
def take_notes(task, tasks, factor, row, matrix, notes):
    """Write what a task is given; the last axis of notes is for runs, tasks and threads."""
    notes[0, task, 0] += 1
    notes[0, task, 1] = tasks
    notes[0, task, 2] = get_thread_id()
    notes[0, task, 3] = np.int64(factor * row[row.size - 1] + matrix[1, 2])


@pytest.mark.parametrize("tasks", [1, 2, 3, 17])
def test_every_task_runs_once_with_the_arguments(tasks):
    notes = np.zeros((1, tasks, 4), np.int64)
    row = np.arange(5.0)
    matrix = np.arange(12.0).reshape(4, 3).T  # not contiguous
    take_notes(tasks, 10.0, row, matrix, notes)
    assert notes[0, :, 0].tolist() == [1] * tasks
    assert notes[0, :, 1].tolist() == [tasks] * tasks
    assert notes[0, :, 3].tolist() == [10 * 4 + int(matrix[1, 2])] * tasks


@pytest.mark.skipif(not JIT, reason="without the JIT there is one thread")
@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="numba has a single thread here")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("busy", [False, True])
def test_tasks_are_spread_over_the_threads_that_numba_uses(threads, busy, monkeypatch):
    now = -1.0 if busy else 0.0
    monkeypatch.setattr(jit, "pace", Pace(lambda: now))  # which is before 0, where a rest ends
    threads = 1 if busy else threads
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        notes = np.zeros((1, 16, 4), np.int64)
        take_notes(16, 0.0, np.zeros(1), np.zeros((3, 3)), notes)
    finally:
        numba.set_num_threads(before)
    assert len(set(notes[0, :, 2])) == threads
