"""It is found out that rows mix, whatever the operations are said to do."""

import numpy as np
import pytest

from fastgrad.tracing.affine import Stage
from fastgrad.tracing.recorder import Recording
from fastgrad.tracing.replay import Replay
from fastgrad.tracing.row_losses import _sets, is_confirmed, rows_of_elements

ROWS, UNITS = 11, 3


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 6, 7, 100, 257])
def test_any_row_is_poisoned_without_any_other_in_some_replay(rows):
    poisoned = _sets(rows)
    assert poisoned.shape[1] == 1 + rows
    assert not poisoned[:, 0].any()
    for row in range(1, rows + 1):
        without = poisoned[:, [row]] & ~poisoned[:, 1:]
        assert np.array_equal(np.flatnonzero(~without.any(axis=0)), [row - 1])


def test_no_more_replays_are_made_than_that_takes():
    """Of n replays, binomial(n, n / 2) sets hold none another: Sperner's theorem."""
    assert [len(_sets(rows)) for rows in (1, 2, 3, 6, 7, 10, 11, 100, 126, 127)] == [
        2, 2, 3, 4, 5, 5, 6, 9, 9, 10,
    ]  # fmt: skip


def stage_and_replay(tail):
    """Return a stage of rows, and what comes after it, from a function of it."""
    recording = Recording()
    root = recording.start(np.random.default_rng(0).normal(size=(ROWS, UNITS)))
    target = tail(root).read()
    labels = np.broadcast_to(np.arange(1, UNITS + 1), (ROWS, UNITS))
    rows = np.broadcast_to(np.arange(1, ROWS + 1)[:, np.newaxis], (ROWS, UNITS))
    where = np.arange(UNITS).reshape(1, UNITS)
    stage = Stage(root.node, np.ones((ROWS, 1)), where, labels, rows)
    return stage, Replay(recording.nodes, root.node, labels, target)


def mixed(first, second):
    def tail(a):
        rows = np.arange(ROWS)
        rows[first] = second
        return np.sum(a, axis=1) + np.sum(a[rows], axis=1)

    return tail


def test_rows_that_stay_apart_are_confirmed():
    stage, replay = stage_and_replay(lambda a: np.sum(np.tanh(a), axis=1))
    assert np.array_equal(rows_of_elements(replay, stage)[replay.target], np.arange(1, ROWS + 1))


def test_any_two_rows_that_mix_are_found_out_by_nan_alone():
    """The owners are made up, as if the operations had been misread."""
    everyone = np.arange(1, ROWS + 1)
    for first in range(ROWS):
        for second in set(range(ROWS)) - {first}:
            stage, replay = stage_and_replay(mixed(first, second))
            assert not is_confirmed(replay, stage, everyone)
            assert replay.target not in rows_of_elements(replay, stage)


def test_a_loss_that_is_said_to_have_no_row_must_not_depend_on_any():
    stage, replay = stage_and_replay(lambda a: np.sum(a, axis=1))
    nobodys = np.arange(1, ROWS + 1)
    nobodys[4] = 0
    assert not is_confirmed(replay, stage, nobodys)
