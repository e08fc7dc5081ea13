"""Which figures does this machine reach? ``python -m benchmarks.report`` writes and plots them."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.figures import FULL, MEASUREMENTS, QUICK, SMOKE, Results, Scale
from benchmarks.growth import SIZES
from benchmarks.machine import disturbance, processor, versions
from benchmarks.plots import LABELS

SCALES = {"full": FULL, "quick": QUICK, "smoke": SMOKE}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, and write RESULTS.md and the pictures in plots/."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--quick",
        action="store_const",
        const="quick",
        dest="scale",
        default="full",
        help="extrapolate the book's loop from a sample, train 1,000 steps",
    )
    group.add_argument(
        "--smoke", action="store_const", const="smoke", dest="scale", help="only see that it runs"
    )
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent, help="the folder to write to"
    )
    options = parser.parse_args(arguments)
    plots = options.output / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    results = _measure(SCALES[options.scale], plots)
    path = options.output / "RESULTS.md"
    path.write_text(_markdown(results, options.scale), encoding="utf-8")
    print(f"written: {path} and {plots}")


def _measure(scale: Scale, plots: Path) -> Results:
    """Run every measurement and say how far it is."""
    results, start = Results(), time.perf_counter()
    if warning := disturbance():
        print(warning)
        results.notes.append(warning)
    for number, (name, measure) in enumerate(MEASUREMENTS.items(), 1):
        print(f"[{number}/{len(MEASUREMENTS)}, {time.perf_counter() - start:3.0f} s] {name}")
        measure(results, scale, plots)
    return results


def _markdown(results: Results, scale: str) -> str:
    """Write the results as a page."""
    flag = "" if scale == "full" else f" --{scale}"
    software = ", ".join(f"{name} {number}" for name, number in versions().items())
    lines = [
        "# Results",
        "",
        f"Written by `python -m benchmarks.report{flag}` on {processor()}; {software}.",
        "Contenders take turns in short blocks in one run; a ratio is given of the medians and of",
        "the minima of single calls. Accuracy is asserted by `pytest benchmarks/`, time never is.",
        *results.notes,
        "",
        "## Figures to reach",
        "",
        *_table(
            ("what", "reach", "measured", "printed by"),
            [(f.what, f.reach, f.measured, f"`{f.command}`") for f in results.figures],
        ),
        "",
        "## One gradient, in milliseconds: median (minimum)",
        "",
        *_times_table(results),
        "",
        "## Largest errors of learners' nets' quotients, in units of round-off, eps L / h",
        "",
        "The errors are those against the same quotients in extended precision; the deviation is",
        "that of the traced engine from the loop, at the same elements.",
        "",
        *_table(
            ("problem", "elements", "the loop's error", "traced's error", "deviation"),
            [
                (title, f"{e.elements}", f"{e.loop:.2g}", f"{e.traced:.2g}", f"{e.deviation:.2g}")
                for title, e in results.errors.items()
            ],
        ),
        "",
        "## Training, 784-50-10, batches of 100 digits: choose, gradient, update, loss",
        "",
        *_table(
            ("gradient by", "steps a second"),
            [(name, f"{rate:,.0f}") for name, rate in results.rates.items()],
        ),
        "",
        "## Pictures",
        "",
        "![Time of one gradient](plots/time.png)",
        "![Time of one gradient of learners' nets](plots/traced.png)",
        "![Error against the exact quotient](plots/error.png)",
        *(f"![Cost against {name}](plots/growth_{name}.png)" for name in SIZES),
        "",
    ]
    return "\n".join(lines)


def _times_table(results: Results) -> list[str]:
    """One row a problem, one column a way to the gradient."""
    names = [name for name in LABELS if any(name in times for times in results.times.values())]
    rows = [
        (
            problem,
            *(
                f"{1e3 * times[name].median:.3g} ({1e3 * times[name].minimum:.3g})"
                if name in times
                else ""
                for name in names
            ),
        )
        for problem, times in results.times.items()
    ]
    return _table(("problem", *(LABELS[name] for name in names)), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Write a table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    main()
