"""Random programs: reproducible, judged rightly, and traced as the loop computes them."""

import nets
import numpy as np
import pytest
from fuzz import judge as judging
from fuzz.campaign import KINDS, judged, written
from fuzz.program import Program
from fuzz.shrink import shrunk

from fastgrad.engines import traced
from fastgrad.tracing.recorder import Recording


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_is_known_by_its_seed_and_number(kind):
    sources = [written(kind, 3, number).source() for number in (7, 8, 7)]
    assert sources[0] == sources[2] != sources[1]
    assert written(kind, 4, 7).source() != sources[0]


@pytest.mark.parametrize("kind", ["numpy", "nets"])
def test_a_program_is_the_same_function_in_extended_precision(kind):
    same = 0
    for number in range(20):
        program = written(kind, 0, number)
        if "linalg" in program.source():  # LAPACK has none
            continue
        with np.errstate(all="ignore"):
            plain, extended = program.build(), program.build(extended=True)
            for name in ("x", *(n for n in plain if n[0] == "A" and plain[n].dtype == float)):
                if np.ndim(plain[name]):
                    extended[name][...] = plain[name]
                else:
                    extended[name] = np.longdouble(plain[name])
            value, precise = plain["f"](plain["x"]), extended["f"](extended["x"])
        assert np.asarray(precise).dtype == np.longdouble
        same += float(np.reshape(precise, ())) == pytest.approx(float(np.reshape(value, ())), 1e-9)
    assert same >= 15  # the others stand at a jump


X = "x = np.random.default_rng(0).normal(size=6)"


def with_gradient(monkeypatch, change):
    """Let the traced engine return something else than it computes."""
    right = traced.traced_gradient
    monkeypatch.setattr(
        traced, "traced_gradient", lambda f, x, h, *a, **k: change(f, x, h, right(f, x, h, *a, **k))
    )


def test_a_small_error_of_one_element_is_wrong(monkeypatch):
    def changed(f, x, h, gradient):
        return gradient + 1e-9 * (np.arange(6) == 4)

    program = Program([X], terms=["np.tanh(w).sum()"])
    assert judging.judge(program).kind == "right"
    with_gradient(monkeypatch, changed)
    verdict = judging.judge(program)
    assert (verdict.kind, verdict.detail[:12]) == ("wrong", "at element 4")


def test_the_other_side_of_a_tie_is_excused_and_another_value_is_not(monkeypatch):
    jump = ["x = np.array([0.5, 0.25, -1.0])", "c = 0.25 + 1e-4"]
    program = Program(jump, terms=["np.sum(w + (w > c))"])
    assert judging.judge(program).kind == "right"
    with_gradient(monkeypatch, lambda f, x, h, gradient: np.array([1, 1 + 1 / (2 * h), 1]))
    assert judging.judge(program).kind == "excused"
    with_gradient(monkeypatch, lambda f, x, h, gradient: np.array([1, 1 + 0.5 / (2 * h), 1]))
    assert judging.judge(program).kind == "excused"  # as it cannot be told from noise
    with_gradient(monkeypatch, lambda f, x, h, gradient: np.array([1, 1, 1 + 1 / (2 * h)]))
    assert judging.judge(program).kind == "wrong"


@pytest.mark.skipif(not nets.IS_EXTENDED, reason="longdouble is float64 here")
def test_cancellation_in_f_itself_is_excused_and_ten_times_as_much_is_not(monkeypatch):
    program = Program([X], terms=["((1e6 + np.tanh(w)) - 1e6).sum()"])
    with_gradient(monkeypatch, lambda f, x, h, gradient: 1 / np.cosh(x) ** 2)
    assert judging.judge(program).kind == "excused"
    with_gradient(monkeypatch, lambda f, x, h, gradient: 1 / np.cosh(x) ** 2 + 1e-4)
    assert judging.judge(program).kind == "wrong"


def test_what_is_left_or_changed_is_seen():
    held = Program(["x = np.ones(3)", "held = [np.ones(2)]"], terms=["w.sum()"]).build()
    assert judging.stand_in_left(held) == ""
    held["held"].append({"deep": (held["f"], Program())})
    held["made"] = type("Net", (), {"__module__": "program"})()
    held["made"].z = Recording().start(np.ones(2))
    assert judging.stand_in_left(held) == "Recorded"
    left = Program(
        ["x = np.ones(3)", "kept = []"], body=["kept.append(1)"], terms=["w.sum() * len(kept)"]
    )
    assert judging.judge(left).kind == "unfit"


def test_a_program_is_shortened_to_what_is_wrong_with_it(monkeypatch):
    def changed(f, x, h, gradient):
        return gradient + (abs(gradient) > 0.5)

    with_gradient(monkeypatch, changed)
    program = Program(
        [X, "A1 = np.ones(6)"],
        body=["v1 = np.tanh(w)", "v2 = v1 * A1", "v3 = v2 + 1\nv4 = v3 * 2"],
        terms=["v2.sum()", "(v4 ** 2).mean()"],
    )
    short = shrunk(program, certify=True)
    assert judging.judge(short).kind == "wrong"
    assert (short.setup, len(short.body), len(short.terms)) == ([X], 2, 1)


def test_a_recording_that_is_kept_too_long_is_found_out(monkeypatch):
    kept, right = {}, traced.trace_call

    def stale(f, x, *arguments, **options):
        """Return what was recorded of the same code before, whatever has changed since then."""
        key = getattr(f, "__code__", None), id(x)
        return kept.setdefault(key, kept.get(key) or right(f, x, *arguments, **options))

    programs = [written("sequences", 0, number) for number in range(12)]
    monkeypatch.setattr(traced, "trace_call", stale)
    assert sum(judging.judge(p, certify=False).kind == "wrong" for p in programs) >= 6


@pytest.mark.parametrize("certify", [False, True])
@pytest.mark.parametrize("kind", ["numpy", "rows", "nets", "models", "sequences"])
def test_random_programs_are_traced_as_the_loop_computes_them(kind, certify):
    count = 12 if kind == "sequences" else 50  # of several calls each
    count, start = (count // 2, 1_000) if certify else (count, 0)  # fewer, and other programs
    report = judged(kind, 0, range(start, start + count), certify)
    assert not report.faults, str(report)
    assert not report.warned, str(report)
    assert report.counts["right"] >= count / 2, str(report)


def test_random_compiled_functions_give_the_bits_of_the_loop():
    report = judged("jitted", 0, range(10), True)
    assert not report.faults, str(report)
    assert report.counts["right"] >= 7, str(report)
