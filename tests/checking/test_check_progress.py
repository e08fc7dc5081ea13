"""A check says how far it has come, in full and along random directions."""

from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest

from fastgrad import check_gradient


def squares(x):
    return float((x**2).sum() / 2)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_progress_grows_to_all_elements(steady, monkeypatch, fast, factor):
    monkeypatch.setattr("fastgrad.engines.loop.REPORT_SECONDS", 0.0)
    x, said = np.random.default_rng(0).normal(size=100), []

    def told(done, total):
        said.append((done, total))

    report = check_gradient(squares, x, factor * x, fast=fast, progress=told)
    assert bool(report) == (factor == 1)
    done, totals = zip(*said, strict=True)
    assert {*totals} == {100}
    assert done[-1] == 100
    assert all(earlier < later for earlier, later in pairwise(done))
    assert len(done) > 2


def test_a_bar_is_shown_from_one_second_on(monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    asked = []

    class Bar(nullcontext):
        def __init__(self, **options):
            super().__init__(self)
            asked.append(options)

        def update(self, count):
            asked.append(count)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    x = np.ones(10)
    assert check_gradient(squares, x, x.copy(), progress=True)
    assert asked[0]["delay"] == 1
    assert sum(asked[1:]) == asked[0]["total"] == 10


def test_progress_is_a_flag_or_a_function():
    with pytest.raises(TypeError, match="progress is 'yes'"):
        check_gradient(squares, np.ones(2), np.ones(2), progress="yes")
