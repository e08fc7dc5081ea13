"""List the benchmarks, run those named, or measure all and write the report."""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.measure.machine import wait_until_idle
from benchmarks.reporting.page import BENCHMARKS, PARTS, measure, merge, title
from benchmarks.reporting.result import SCALES


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        default="list",
        choices=["list", *BENCHMARKS, "all", "report"],
        metavar="NAME",
        help="benchmarks to run, or: list (the default), all, report",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick",
        action="store_const",
        const="quick",
        dest="scale",
        default="full",
        help="extrapolate the book's loop from a sample, train 1,000 steps",
    )
    size.add_argument(
        "--smoke", action="store_const", const="smoke", dest="scale", help="only see that they run"
    )
    parser.add_argument("--seed", type=int, default=0, help="the first one of random searches")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        metavar="NAME",
        help="of the report: measure these parts again, and keep the others",
    )
    parser.add_argument(
        "--output", type=Path, help="of the report: write it to this folder, not to benchmarks/"
    )
    parser.add_argument(
        "--anyway", action="store_true", help="measure on a busy machine, too; write no report"
    )
    options = parser.parse_args(arguments)
    if options.names in ("list", ["list"]):  # the default has to be one of the choices itself
        for name in BENCHMARKS:
            print(f"{name:17} {title(name)}")
        return
    report = "report" in options.names
    if report and len(options.names) > 1:
        parser.error("report stands alone; to measure some of its parts, pass --only")
    if not report and (options.only or options.output):
        parser.error("--only and --output are for the report; to run benchmarks, name them")
    if report and options.scale == "smoke" and not options.output:
        parser.error("--smoke measures too little for benchmarks/RESULTS.md; pass --output, too")
    names = [*(options.only or PARTS)] if report else options.names
    if "all" in names:
        names = [*BENCHMARKS]
    _run(names, options, writes=report and not options.anyway)


def _run(names: Sequence[str], options: argparse.Namespace, *, writes: bool) -> None:
    """Run benchmarks, one after the other; print what they find, or write it into the page.

    The page is written after each, so that what stops the run loses one part.
    """
    scale = replace(SCALES[options.scale], seed=options.seed)
    folder = options.output or Path(__file__).parent
    failures, start = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        pictures = folder / "plots" if writes else Path(scratch)
        pictures.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(names, 1):
            if not options.anyway and options.scale != "smoke":
                wait_until_idle()
            print(
                f"[{number}/{len(names)}, {time.perf_counter() - start:.0f} s] {name}", flush=True
            )
            result = measure(name, scale, pictures)
            failures += result.failures
            if writes and not result.failures:
                merge(folder / "RESULTS.md", result, options.scale)
            elif not writes:
                print(result, end="\n\n", flush=True)
    if writes:
        print(f"written: {folder / 'RESULTS.md'} and {pictures}")
    if failures:
        sys.exit("not as exact as it has to be, and not in the report:\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
