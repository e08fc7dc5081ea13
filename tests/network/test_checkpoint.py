"""Checkpoints of the training example give back all of a run, and nothing else is accepted."""

import argparse
import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from fastgrad import TwoLayerNet

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def module(monkeypatch):
    """The module of the example."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("checkpoint")


@pytest.fixture
def path(tmp_path):
    """Where the checkpoints are."""
    return tmp_path / "run.npz"


@pytest.fixture
def checkpoint(module, path):
    """Make a checkpoint of a run that starts now, with changes to its settings."""

    def make(**changes):
        settings = {
            "checkpoint": path,
            "iterations": 10,
            "seed": None,
            "batch_size": 100,
            "hidden_size": 2,
            "learning_rate": 0.1,
            "net": "fastgrad",
            "gradient": "numerical",
        }
        return module.Checkpoint(argparse.Namespace(**settings | changes), train_size=5000)

    return make


@pytest.fixture
def history(module):
    """What is recorded of two iterations."""
    return module.History([2.5, 0.1], [(0, 0.5, 0.25)], 7.0)


@pytest.fixture
def restore(module):
    """Restore a checkpoint into a new net and a new history; return both."""

    def restore(checkpoint):
        net, history = TwoLayerNet(3, 2, 2), module.History()
        checkpoint.restore(net, history)
        return net, history

    return restore


def test_a_run_begins_anew_where_there_is_no_file(checkpoint, restore, module):
    assert restore(checkpoint())[1] == module.History()


def test_nothing_is_saved_unless_a_file_is_named(checkpoint, restore, history, module):
    unnamed = checkpoint(checkpoint=None)
    unnamed.save(TwoLayerNet(3, 2, 2), history)
    assert restore(unnamed)[1] == module.History()


def test_the_whole_state_comes_back(checkpoint, restore, history):
    np.random.seed(5)
    net = TwoLayerNet(3, 2, 2)
    np.random.randn(1)  # NumPy makes two numbers, and keeps one for the next call
    checkpoint().save(net, history)
    following = np.random.randn(3)

    np.random.seed(6)
    restored_net, restored_history = restore(checkpoint())
    assert restored_net.params == net.params
    assert restored_history == history
    np.testing.assert_array_equal(np.random.randn(3), following)


def test_a_run_that_dies_while_saving_leaves_the_last_file(checkpoint, history, path, monkeypatch):
    checkpoint().save(TwoLayerNet(3, 2, 2), history)
    content = path.read_bytes()

    def die(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    history.losses.append(0.5)
    with pytest.raises(KeyboardInterrupt):
        checkpoint().save(TwoLayerNet(3, 2, 2), history)
    assert path.read_bytes() == content
    assert [*path.parent.iterdir()] == [path]


def test_two_runs_may_save_to_the_same_file_at_once(checkpoint, history, path, monkeypatch):
    sync = os.fsync

    def save_the_other(descriptor):
        monkeypatch.setattr(os, "fsync", sync)
        checkpoint(seed=2).save(TwoLayerNet(3, 2, 2), history)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", save_the_other)
    checkpoint(seed=1).save(TwoLayerNet(3, 2, 2), history)
    with np.load(path) as arrays:
        assert json.loads(str(arrays["settings"]))["seed"] == 1  # the last to be put there, whole
    assert [*path.parent.iterdir()] == [path]


def test_a_full_disk_ends_the_run_with_a_sentence_and_the_old_file(
    checkpoint, restore, history, path
):
    resource = pytest.importorskip("resource")
    checkpoint().save(TwoLayerNet(3, 2, 2), history)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # what a file may grow to
    try:
        with pytest.raises(SystemExit, match=r"run\.npz cannot be written .* as it was before"):
            checkpoint().save(TwoLayerNet(3, 2, 2), history)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [*path.parent.iterdir()] == [path]
    assert restore(checkpoint())[1] == history


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("hidden_size", 3),
        ("learning_rate", 0.2),
        ("seed", 1),
        ("gradient", "backprop"),
        ("net", "book"),
    ],
)
def test_a_run_with_other_settings_is_refused(checkpoint, restore, history, setting, value):
    checkpoint().save(TwoLayerNet(3, 2, 2), history)
    with pytest.raises(SystemExit, match=rf"other settings \({setting}: .* there, {value} here\)"):
        restore(checkpoint(**{setting: value}))


def test_a_run_that_is_to_end_earlier_is_refused(checkpoint, restore, history):
    checkpoint().save(TwoLayerNet(3, 2, 2), history)
    with pytest.raises(SystemExit, match=r"holds 2 iterations.*pass at least as many"):
        restore(checkpoint(iterations=1))


def test_a_damaged_file_is_refused_and_left_alone(checkpoint, restore, history, path):
    checkpoint().save(TwoLayerNet(3, 2, 2), history)
    whole = path.read_bytes()
    cut = [whole[:size] for size in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    place = whole.index(np.float64(2.5).tobytes())
    changed = whole[:place] + b"\1" + whole[place + 1 :]
    for content in [*cut, changed, b"not a checkpoint"]:
        path.write_bytes(content)
        with pytest.raises(SystemExit, match=r"run\.npz is damaged or no checkpoint"):
            restore(checkpoint())
        assert path.read_bytes() == content


def test_nothing_is_ever_unpickled(checkpoint, restore, path):
    settings = np.array(json.dumps(checkpoint().settings))
    np.savez(path, settings=settings, params=np.array([print], dtype=object))
    with pytest.raises(SystemExit, match="Object arrays cannot be loaded"):
        restore(checkpoint())
