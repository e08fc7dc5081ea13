"""Results are the same on any number of threads, from any of them, and after a fork."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import numpy as np
import pytest
from oracle import JIT

from fastgrad import TwoLayerNet

TESTS = Path(__file__).parents[1]

# So much work that every kernel is worth a second thread; and some that is worth none.
LARGE = (300, 256, 12, 600) if JIT else (9, 7, 5, 6)
SMALL = (61, 33, 7, 19) if JIT else (5, 9, 3, 4)


def make_case(inputs, hidden, classes, samples, zeros=0.0):
    """Return a net, x and labels."""
    np.random.seed(0)
    net = TwoLayerNet(inputs, hidden, classes, weight_init_std=0.1)
    x = np.random.rand(samples, inputs) * (np.random.rand(samples, inputs) >= zeros)
    return net, x, np.random.randint(0, classes, samples)


def answer_bits(net, x, labels, engine="response"):
    """Return the bytes of all that the net computes."""
    answers = [
        net.predict(x),
        np.float64(net.loss(x, labels)),
        net.gradient(x, labels).buffer,
        net.numerical_gradient(x, labels, engine=engine).buffer,
    ]
    return b"".join(answer.tobytes() for answer in answers)


@pytest.fixture
def threads():
    """Return numba's set_num_threads, whose effect ends with the test."""
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("numba has a single thread here")
    before = numba.get_num_threads()
    yield numba.set_num_threads
    numba.set_num_threads(before)


@pytest.mark.parametrize(
    ("sizes", "engine"), [(LARGE, "response"), (SMALL, "response"), (SMALL, "direct")]
)
@pytest.mark.parametrize("zeros", [0.0, 0.8])
def test_two_threads_compute_the_same_bits_as_one(sizes, engine, zeros, threads):
    net, x, labels = make_case(*sizes, zeros=zeros)
    threads(2)
    both = answer_bits(net, x, labels, engine)
    threads(1)
    assert answer_bits(net, x, labels, engine) == both
    assert answer_bits(*make_case(*sizes, zeros=zeros), engine) == both
    threads(2)
    assert answer_bits(net, x, labels, engine) == both


@pytest.mark.parametrize("sizes", [LARGE, SMALL])
def test_two_python_threads_may_use_a_net_each(sizes):
    dense, sparse = make_case(*sizes), make_case(*sizes, zeros=0.8)
    expected = [answer_bits(*dense), answer_bits(*sparse)]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(10 if JIT else 2):
            futures = [pool.submit(answer_bits, *case) for case in (dense, sparse)]
            assert [future.result() for future in futures] == expected


@pytest.mark.parametrize("sizes", [LARGE, SMALL])
def test_two_python_threads_may_use_the_same_net(sizes):
    net, x, labels = make_case(*sizes, zeros=0.8)
    batches = [(x, labels), (1 - x, labels), (x[: len(x) // 2], labels[: len(x) // 2])]
    expected = [answer_bits(net, *batch) for batch in batches]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(10 if JIT else 2):
            futures = [pool.submit(answer_bits, net, *batch) for batch in batches]
            assert [future.result() for future in futures] == expected


def test_two_python_threads_may_use_all_engines_at_once():
    net, x, labels = make_case(5, 4, 3, 6)
    engines = ["response", "direct", "loop"]
    expected = [answer_bits(net, x, labels, engine) for engine in engines]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(5 if JIT else 2):
            futures = [pool.submit(answer_bits, net, x, labels, engine) for engine in engines]
            assert [future.result() for future in futures] == expected


def test_an_error_in_one_thread_does_not_stop_another():
    net, x, labels = make_case(*SMALL)
    expected = answer_bits(net, x, labels)
    bad = np.repeat(x, 30, axis=0)
    bad[-1, 0] = np.nan

    def fail():
        with pytest.raises(ValueError, match="is nan"):
            net.predict(bad)
        with pytest.raises(ValueError, match="is nan"):
            net.gradient(bad, np.zeros(len(bad), int))

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert answer_bits(net, x, labels) == expected


PROCESS = """
import multiprocessing, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numba
from test_threads import SMALL, answer_bits, make_case
from fastgrad.jit import kernel

kernel.MIN_PARALLEL_OPERATIONS = 0  # all kernels are worth a second thread
CASES = [make_case(*SMALL), make_case(*SMALL, zeros=0.8), (*make_case(*SMALL), "direct")]

def answers():
    return b"".join(answer_bits(*case) for case in CASES)

def send_answers(pipe):
    pipe.send_bytes(answers())
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(answers) for _ in range(2)]:
            pipe.send_bytes(future.result())

def forked_answers():
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=send_answers, args=(theirs,))
    child.start()
    theirs.close()
    received = [ours.recv_bytes() for _ in range(3)]
    child.join()
    assert child.exitcode == 0, child.exitcode
    return received

# Fork first,
early = forked_answers()
expected = answers()
assert early == [expected] * 3
# fork when threads have computed,
with ThreadPoolExecutor(2) as pool:
    assert [f.result() for f in [pool.submit(answers) for _ in range(4)]] == [expected] * 4
assert forked_answers() == [expected] * 3
assert answers() == expected
# and fork while one computes.
net, x, labels = make_case(*SMALL)
begun, stop = threading.Event(), threading.Event()
def work():
    while not stop.is_set():
        net.numerical_gradient(x, labels)
        begun.set()
thread = threading.Thread(target=work)
thread.start()
begun.wait()
try:
    assert forked_answers() == [expected] * 3
finally:
    stop.set()
    thread.join()
assert answers() == expected
assert "scipy.linalg" not in sys.modules  # which numba loads unless it is kept from it
print(numba.threading_layer())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("layer", ["default", "workqueue"])
def test_a_forked_child_and_its_threads_compute_the_same_bits(layer):
    # Python 3.12 and later warn of any fork of a process with threads, which is what is tested.
    command = [sys.executable, "-Werror", "-Wignore:This process:DeprecationWarning", "-c", PROCESS]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)]),
        "NUMBA_THREADING_LAYER": layer,
    }
    # A child that waits for a lock of its parent's would wait for ever.
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    if layer != "default":
        assert done.stdout.split() == [layer]
