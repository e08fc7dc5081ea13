"""The command ``python -m tests.peers``: how many cases of each package are right."""

import argparse
import sys
from collections import Counter

from . import VERDICTS, cases_of, judged, peers


def main():
    """Print a line for each package, and each case that is not right; 1 if any is wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.peers", description=__doc__)
    parser.add_argument("packages", nargs="*", help="parts of names of packages; all by default")
    wanted = [name.lower() for name in parser.parse_args().packages]
    total, told = Counter(), []
    print(f"{'':28}{'cases':>8}" + "".join(f"{verdict:>9}" for verdict in VERDICTS))
    for peer, module in peers().items():
        if wanted and not any(name in peer.lower() for name in wanted):
            continue
        counts = Counter()
        for case in [*cases_of(module)]:
            verdict, words = judged(case)
            counts[verdict] += 1
            if verdict != "right":
                told.append(f"{verdict}: {peer}: {case.name}: {words}")
        total += counts
        print_line(peer, counts)
    print_line("all", total)
    print(*told, sep="\n")
    return total["wrong"] > 0


def print_line(name, counts):
    """Print the counts of one package."""
    numbers = [counts.total(), *(counts[verdict] for verdict in VERDICTS)]
    print(f"{name:28}{numbers[0]:8,}" + "".join(f"{number:9,}" for number in numbers[1:]))


if __name__ == "__main__":
    sys.exit(main())
