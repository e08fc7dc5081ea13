"""How fast, and how exact, is the gradient of a net that a learner wrote in plain NumPy?"""

import numpy as np
import pytest

from benchmarks.accuracy import EXTENDED
from benchmarks.conftest import Record
from benchmarks.learners_nets import CASES
from benchmarks.pairing import ratio
from benchmarks.traced import measure, overhead, untraceable
from fastgrad import numerical_gradient

# Rounding moves each of the loop's losses by some units in its last place, as in test_dense.py.
UNITS = 4

ROUNDS = {"filters": 3, "deep": 3}  # of some seconds each


@pytest.mark.parametrize("name", list(CASES))
def test_net(
    record: Record,
    name: str,
    smoke: bool,
    extrapolate: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = CASES[name](smoke)
    whole = name == "two_layers" and not extrapolate
    with capsys.disabled():  # show the progress bar
        run = measure(case, 4 if smoke else 96, 1 if smoke else ROUNDS.get(name, 7), whole)
    record(
        parameters=", ".join(f"{name} {case.net.params[name].shape}" for name in case.names),
        the_loop=run.loop.summary,
        fastgrad=f"{run.traced.median:.3g} s (median), {run.traced.minimum:.3g} s (minimum)",
        times_faster_than_the_loop=ratio(run.loop.times, run.traced),
        deviation_from_the_loop=run.accuracy,
        error_of_the_loop_in_eps_L_h=run.errors.loop,
        error_of_fastgrad_in_eps_L_h=run.errors.traced,
    )
    assert run.deviation <= UNITS
    if EXTENDED:
        assert run.errors.traced <= 1
        assert smoke or run.errors.traced <= run.errors.loop  # the largest of more than a few


@pytest.mark.parametrize("name", list(untraceable()))
def test_what_cannot_be_traced(record: Record, name: str, smoke: bool) -> None:
    f, x = (untraceable(5, 10) if smoke else untraceable())[name]
    with pytest.raises(ValueError, match="cannot be traced"):
        numerical_gradient(f, x, engine="traced")
    if name != "dropout":  # which gives another loss each time
        auto, loop = (numerical_gradient(f, x, engine=engine) for engine in ("auto", "loop"))
        np.testing.assert_array_equal(auto, loop)
    times = overhead(f, x, 1 if smoke else 25)
    record(
        parameters=x.size,
        auto_over_loop=ratio(times["auto"], times["loop"]),
        time_to_refuse_over_loop=ratio(times["refusal"], times["loop"]),
    )
