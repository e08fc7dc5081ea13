"""The mean of the shards' gradients is the batch's, in whatever shards and labels."""

import numpy as np
import pytest

from fastgrad import TwoLayerNet
from fastgrad.network import two_layer_net

N = 103


@pytest.fixture
def net():
    np.random.seed(0)
    return TwoLayerNet(6, 5, 3, weight_init_std=1)


@pytest.fixture
def x():
    return np.random.default_rng(0).random((N, 6))


def targets():
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, N)
    return [labels, labels[:, np.newaxis], np.eye(3)[labels], random.random((N, 3))]


@pytest.mark.parametrize("t", targets(), ids=["indices", "a column", "one-hot", "soft"])
@pytest.mark.parametrize("size", [1, 7, 50, 103, 1000])
def test_uneven_shards_are_weighted_by_their_samples(net, x, t, size, monkeypatch):
    monkeypatch.setattr(two_layer_net, "MAX_SHARD_SAMPLES", size)
    whole = net.numerical_gradient(x, t)
    shared = net.numerical_gradient(x, t, workers=map)
    # A sum of N terms, of which none is above 1 here, in another order.
    bound = 2 * N * np.finfo(float).eps
    np.testing.assert_allclose(shared.buffer, whole.buffer, rtol=0, atol=bound)
    assert shared.shapes == net.params.shapes


@pytest.mark.parametrize("engine", ["response", "direct", "loop"])
def test_every_engine_works_on_shards(net, x, engine, monkeypatch):
    monkeypatch.setattr(two_layer_net, "MAX_SHARD_SAMPLES", 40)
    t = targets()[0]
    whole = net.numerical_gradient(x, t, engine=engine)
    shared = net.numerical_gradient(x, t, engine=engine, workers=map)
    # The loop's losses, of the order of 1, are rounded, and their differences divided by 2e-4.
    bound = 20 * np.finfo(float).eps / 1e-4 if engine == "loop" else 2 * N * np.finfo(float).eps
    np.testing.assert_allclose(shared.buffer, whole.buffer, rtol=0, atol=bound)


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_share_a_batch(net, x, workers):
    t = targets()[0]
    whole = net.numerical_gradient(x, t)
    shared = net.numerical_gradient(x, t, workers=workers)
    np.testing.assert_allclose(shared.buffer, whole.buffer, rtol=0, atol=2 * N * 2.2e-16)


def test_a_map_may_return_the_shards_in_any_order_but_none_less(net, x, monkeypatch):
    monkeypatch.setattr(two_layer_net, "MAX_SHARD_SAMPLES", 40)
    t = targets()[0]
    whole = net.numerical_gradient(x, t)

    def mapped(change):
        return lambda function, items: change([function(item) for item in items])

    shared = net.numerical_gradient(x, t, workers=mapped(lambda results: results[::-1]))
    np.testing.assert_allclose(shared.buffer, whole.buffer, rtol=0, atol=2 * N * 2.2e-16)
    for change in (lambda results: results[1:], lambda results: None, lambda results: [1, 2, 3]):
        with pytest.raises((TypeError, ValueError), match=r"workers returned .*; pass a callable"):
            net.numerical_gradient(x, t, workers=mapped(change))


def test_more_workers_than_samples_are_not_needed(net):
    x, t = np.ones((1, 6)), [2]
    shared = net.numerical_gradient(x, t, workers=5)
    assert shared.buffer.tobytes() == net.numerical_gradient(x, t).buffer.tobytes()


def test_wrong_arguments_are_refused_as_ever(net, x):
    with pytest.raises(ValueError, match=r"t has shape \(3,\)"):
        net.numerical_gradient(x, [0, 1, 2], workers=map)
    with pytest.raises(ValueError, match="workers is 0; pass"):
        net.numerical_gradient(x, targets()[0], workers=0)
    with pytest.raises(ValueError, match="engine is 'fast'"):
        net.numerical_gradient(x, targets()[0], engine="fast", workers=map)


def test_a_net_of_nan_has_a_gradient_of_nan(net, x):
    net.params["b2"][1] = np.nan
    with pytest.warns(RuntimeWarning, match="is not finite"):
        shared = net.numerical_gradient(x, targets()[0], workers=map)
    assert np.isnan(shared.buffer).all()
