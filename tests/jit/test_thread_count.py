import threading

import numba

from fastgrad.jit.thread_count import thread_count


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
