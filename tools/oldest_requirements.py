"""Print the oldest versions that pyproject.toml allows, one requirement a line.

    python tools/oldest_requirements.py [--newest NAME ...]

Of NumPy, numba, and what the tests of the compiled engines need; with --newest, the named packages
in the newest version that is allowed.
"""

import argparse
import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def main() -> None:
    """Print the requirements."""
    parser = argparse.ArgumentParser(description="Print the oldest versions that are allowed.")
    parser.add_argument("--newest", nargs="*", default=[], help="packages to take the newest of")
    print(*requirements(parser.parse_args().newest), sep="\n")


def requirements(newest: list[str]) -> list[str]:
    """Return a requirement for each package: its oldest version, or the range that is allowed."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    # SciPy is what np.dot in numba needs, too.
    asked = [*project["dependencies"], *extras["workers"], *extras["sparse"], *extras["test"]]
    own = [each for each in asked if not each.startswith("fastgrad")]
    return [each if name_of(each) in newest else oldest(each) for each in own]


def name_of(requirement: str) -> str:
    """Return the name of the package in a requirement such as "numpy>=2.0"."""
    return re.split(r"[<>=!~\[; ]", requirement)[0]


def oldest(requirement: str) -> str:
    """Return "numba==0.61" of "numba>=0.61,<0.69"."""
    return requirement.split(",")[0].replace(">=", "==")


if __name__ == "__main__":
    main()
