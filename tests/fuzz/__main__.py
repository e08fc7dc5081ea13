"""The command ``python -m tests.fuzz``: random programs, and what came of them."""

import argparse
import sys

from .campaign import KINDS, SHARES, run, written
from .judge import judge
from .shrink import shrunk


def main():
    """Run as the arguments say; the exit code is 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--programs", type=int, default=300, help="how many in all")
    parser.add_argument("--seed", type=int, default=0, help="another one gives other programs")
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="all")
    parser.add_argument(
        "--without-certificate", action="store_true", help="measure the analysis alone"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument(
        "--show", type=int, metavar="NUMBER", help="print and run one program of a --kind"
    )
    parser.add_argument("--shrink", action="store_true", help="with --show: shorten it first")
    arguments = parser.parse_args()
    certify = not arguments.without_certificate
    counts = {arguments.kind: arguments.programs}
    if arguments.kind == "all":
        counts = {kind: round(share * arguments.programs) for kind, share in SHARES.items()}
        if arguments.show is not None:
            parser.error("--show needs a --kind")
    if arguments.show is not None:
        return _show(arguments.kind, arguments, certify)
    report = run(counts, arguments.seed, certify, arguments.processes)
    print(report)
    return int(report.is_wrong)


def _show(kind, arguments, certify):
    program = written(kind, arguments.seed, arguments.show)
    if arguments.shrink:
        program = shrunk(program, certify)
    verdict = judge(program, certify=certify)
    print(program.source())
    print(f"# {program.call()}")
    print(f"# {verdict.kind}: {verdict.detail} {verdict.warned}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
