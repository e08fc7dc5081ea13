"""Programs with workers: their main modules are not run again, and no process stays behind."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

import fastgrad


def run(folder, code):
    """Run a program without ``if __name__ == "__main__"``; return the process."""
    path = folder / "program.py"
    path.write_text(code)
    search = os.pathsep.join([os.path.dirname(os.path.dirname(fastgrad.__file__)), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-W", "error", path],
        env=os.environ | {"PYTHONPATH": search, "TMPDIR": str(folder)},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


ENDLESS = """
import os, time
import numpy as np, psutil
import fastgrad
x = np.arange(1000.0)
before = x.copy()
def endless(x):
    if (x != before).sum() == 1:
        os.write(1, b"works\\n")  # in one piece, since two do so
        time.sleep(600)
    return float((x**2).sum())
def processes(what):
    children = psutil.Process().children(recursive=True)
    return sum(what in str(child.cmdline()) for child in children)
from fastgrad.engines import workers
workers.WORTHWHILE_SECONDS = workers.MAX_START_SECONDS = 0
print("starts", flush=True)
try:
    fastgrad.numerical_gradient(endless, x, engine="loop", workers=2)
except KeyboardInterrupt:
    left = processes("popen_loky")
    # What ends is what works: the next call is served.
    result = fastgrad.numerical_gradient(lambda x: x @ x, x, engine="loop", workers=2)
    print((x == before).all(), left, abs(result - 2 * x).max() < 1e-3, flush=True)
"""


def descendants(process):
    return psutil.Process(process.pid).children(recursive=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])  # SIGTERM ends as SIGKILL does
def test_no_worker_outlives_its_parent(tmp_path, name, wait_until):
    stop = getattr(signal, name)
    with run(tmp_path, ENDLESS) as process:
        lines = [process.stdout.readline() for _ in range(2)]
        children = descendants(process)
        if stop == signal.SIGINT:
            os.killpg(process.pid, stop)  # as a terminal does: workers are deaf to it
        else:
            process.send_signal(stop)
        printed, errors = process.communicate(timeout=60)
    assert lines == ["starts\n", "works\n"]
    wait_until(lambda: not any(child.is_running() for child in children))
    assert [*tmp_path.glob("fastgrad-*")] == []
    if stop == signal.SIGINT:
        assert printed.replace("works\n", "") == "True 0 True\n", errors
        assert errors == ""


STARTING = """
import os, signal
import numpy as np
import fastgrad
from fastgrad.engines import workers
workers.WORTHWHILE_SECONDS = 0
here, x, calls = os.getpid(), np.arange(1000.0), []
def f(x):
    calls.append(0)
    if os.getpid() == here and len(calls) == 5:  # this process begins while others start
        os.killpg(0, signal.SIGINT)
    return float(x @ x)
try:
    fastgrad.numerical_gradient(f, x, engine="loop", workers=2)
except KeyboardInterrupt:
    workers.MAX_START_SECONDS = 0
    result = fastgrad.numerical_gradient(lambda x: x @ x, x, engine="loop", workers=2)
    print(len(calls), abs(result - 2 * x).max() < 1e-3)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_processes_that_start_are_deaf_to_an_interrupt(tmp_path):
    with run(tmp_path, STARTING) as process:
        printed, errors = process.communicate(timeout=60)
    assert (printed, errors) == ("5 True\n", "")


BETWEEN_CALLS = """
import importlib, multiprocessing, os, pathlib, sys, threading, time
import numpy as np, psutil
import fastgrad
from fastgrad.engines import processes, workers
workers.WORTHWHILE_SECONDS = workers.MAX_START_SECONDS = 0
sys.dont_write_bytecode = True
x = np.arange(20.0)
def gradient(f):
    return fastgrad.numerical_gradient(f, x, engine="loop", workers=2)
def squares(x):
    return (x**2).sum()
def is_worker(child):
    try:
        return "popen_loky" in str(child.cmdline())
    except psutil.Error:  # it has just ended
        return False
def running():
    return {child.pid: child for child in psutil.Process().children() if is_worker(child)}
def until(condition):
    while not condition():
        time.sleep(0.01)

print("started")
os.environ["FACTOR"] = "3"
pathlib.Path("power").write_text("2")
table = x.copy()
class Loss:
    def __call__(self, _):
        power = int(pathlib.Path("power").read_text())
        return float(os.environ["FACTOR"]) * (table ** power).sum()
found = fastgrad.numerical_gradient(Loss(), table, engine="loop", workers=2)
print("the program's globals are read", abs(found - 6 * table).max() < 1e-4)
first = running()
for folder in ("one", "two"):
    os.mkdir(folder)
    os.chdir(folder)
    os.environ["FOLDER"] = folder
    gradient(lambda x: squares(x) + (os.path.basename(os.getcwd()) == os.environ["FOLDER"]))
    os.chdir("..")
del os.environ["FOLDER"]
gradient(lambda x: squares(x) + ("FOLDER" in os.environ))
print("the same processes", running().keys() == first.keys())

module = pathlib.Path("edited.py")
module.write_text("def f(x): return (x**2).sum()")
sys.path.insert(0, os.getcwd())
import edited
gradient(edited.f)
module.write_text("def f(x): return (x**2).sum() * 3")
importlib.reload(edited)
print("an edited module", abs(gradient(edited.f) - 6 * x).max() < 1e-3)

def child(queue):
    queue.put(gradient(squares).tobytes() == expected)
expected = gradient(squares).tobytes()
context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
for daemon in (True, False):
    process = context.Process(target=child, args=(queue,), daemon=daemon)
    process.start()
    print("a forked child", queue.get())
    process.join()

killed = [*running().values()]
killed[0].kill()
processes.IDLE_SECONDS = 0.2  # of those that are started next
until(lambda: not any(one.is_running() for one in killed))
until(lambda: not any("Manager" in thread.name for thread in threading.enumerate()))
print("after one was killed", gradient(squares).tobytes() == expected)

until(lambda: not running())
print("idle ones have ended", gradient(squares).tobytes() == expected)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_processes_read_the_programs_globals_and_stay_for_the_next_call(tmp_path):
    with run(tmp_path, "import os; os.chdir(os.path.dirname(__file__))" + BETWEEN_CALLS) as process:
        printed, errors = process.communicate(timeout=120)
    # loky's tracker may say at the end that it cleans up after the process that was killed.
    assert not errors or "resource_tracker" in errors, errors
    assert printed.splitlines() == [
        "started",
        "the program's globals are read True",
        "the same processes True",
        "an edited module True",
        "a forked child True",
        "a forked child True",
        "after one was killed True",
        "idle ones have ended True",
    ]
