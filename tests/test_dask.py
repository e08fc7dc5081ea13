"""A cluster computes what one process would, whatever happens to its workers."""

import os
import signal
import sys
import time
from contextlib import suppress

import numpy as np
import pytest

from fastgrad import TwoLayerNet, numerical_gradient
from fastgrad.cluster import dask_map
from fastgrad.engines import workers

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.filterwarnings("default")  # Dask's own are not ours to answer for


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=":0",
            local_directory=tmp_path_factory.mktemp("dask"),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def squares(x, seconds=0.0):
    def f(_):
        time.sleep(seconds)
        return float((x**2).sum())

    return f


def test_a_clusters_gradient_has_the_same_bits(client):
    x = np.random.default_rng(0).normal(size=(30, 5))
    matrix = np.random.default_rng(1).normal(size=(5, 40))

    def f(_):
        return float(np.tanh(x @ matrix).sum())

    result = numerical_gradient(f, x, engine="loop", workers=dask_map(client))
    assert result.tobytes() == numerical_gradient(f, x, engine="loop", workers=1).tobytes()


def test_both_workers_compute(client, monkeypatch):
    monkeypatch.setattr(workers, "MAX_CHUNK_SECONDS", 0.02)
    seen = dask_map(client)(lambda _: (time.sleep(0.05), os.getpid())[1], range(8))
    assert len(set(seen)) == 2


def test_what_f_raises_is_raised_here_and_not_tried_again(client):
    class Mine(Exception):
        pass

    x = np.zeros(50)

    def f(x):
        if (x != 0).sum() == 1 and x[30] != 0:
            raise Mine("too far")
        return x.sum()

    with pytest.raises(Mine, match="too far"):
        numerical_gradient(f, x, engine="loop", workers=dask_map(client))
    assert not x.any()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_an_interrupted_gradient_cancels_what_has_not_begun(client, tmp_path):
    x, here = np.arange(2000.0), os.getpid()
    calls, interrupted, goes_on = (tmp_path / name for name in ("calls", "interrupted", "goes on"))
    calls.touch()

    def f(_):
        if os.getpid() != here:
            with calls.open("ab") as file:
                file.write(b".")
            if calls.stat().st_size >= 30:  # all workers are at work
                with suppress(FileExistsError):
                    interrupted.touch(exist_ok=False)
                    os.kill(here, signal.SIGINT)
                while not goes_on.exists():
                    time.sleep(0.01)
        return float((x**2).sum())

    before = x.tobytes()
    with pytest.raises(KeyboardInterrupt):
        numerical_gradient(f, x, engine="loop", workers=dask_map(client))
    goes_on.touch()
    assert x.tobytes() == before
    end = time.monotonic() + 60
    while any(client.processing().values()):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_large_batch_of_a_net_is_shared(client):
    np.random.seed(0)
    net = TwoLayerNet(6, 5, 3, weight_init_std=1)
    x, t = np.random.rand(4500, 6), np.random.rand(4500, 3)
    whole = net.numerical_gradient(x, t).buffer
    shared = net.numerical_gradient(x, t, workers=dask_map(client)).buffer
    np.testing.assert_allclose(shared, whole, rtol=0, atol=1e-12)


def test_a_killed_worker_does_not_change_a_bit(client):
    x = np.arange(1.0, 301.0)
    killed = []

    def kill(done, total):
        if not killed:
            killed.append(next(iter(client.run(os.getpid).values())))
            os.kill(killed[0], signal.SIGKILL)

    result = numerical_gradient(
        squares(x, 4e-3), x, engine="loop", workers=dask_map(client), progress=kill
    )
    assert killed
    assert result.tobytes() == numerical_gradient(squares(x), x, engine="loop").tobytes()


def test_a_task_that_fails_is_tried_as_often_as_is_asked(client, tmp_path):
    def fails_twice(item):
        tries = tmp_path / f"{item}"
        with tries.open("ab") as file:
            file.write(b".")
        if tries.stat().st_size <= 2:
            raise OSError(f"try {tries.stat().st_size}")
        return -item

    assert [*dask_map(client, retries=2)(fails_twice, range(3))] == [0, -1, -2]
    assert [(tmp_path / f"{item}").stat().st_size for item in range(3)] == [3, 3, 3]
    with pytest.raises(OSError, match="try 2"):
        [*dask_map(client, retries=1)(fails_twice, [3])]
    with pytest.raises(OSError, match="try 1"):
        [*dask_map(client, retries=0)(fails_twice, [4])]


@pytest.mark.parametrize(
    ("retries", "error"), [(-1, ValueError), (2.5, TypeError), (True, TypeError)]
)
def test_retries_are_counted(retries, error):
    class Client:
        scatter = map = None

    with pytest.raises(error, match="retries is"):
        dask_map(Client(), retries=retries)


def test_a_client_is_needed():
    with pytest.raises(TypeError, match=r"client is a str; pass a dask\.distributed\.Client"):
        dask_map("tcp://somewhere")
