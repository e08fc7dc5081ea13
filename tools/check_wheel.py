"""Check that a wheel holds the library and its data, and nothing else.

python tools/check_wheel.py dist/*.whl
"""

import argparse
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

DATA = ("fastgrad/py.typed", "fastgrad/datasets/mnist_sample.npz")
"""Files beside Python's that the library needs."""


def main() -> None:
    """Check the wheels; exit with a message if one is wrong."""
    parser = argparse.ArgumentParser(description="Check what a wheel holds.")
    parser.add_argument("wheels", nargs="+", type=Path)
    faults = [
        f"{wheel.name}: {fault}" for wheel in parser.parse_args().wheels for fault in check(wheel)
    ]
    if faults:
        sys.exit("\n".join(faults))


def check(wheel: Path) -> list[str]:
    """Return what is wrong with a wheel: files that are missing, and files that should not be."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fastgrad").rglob("*.py")}
    wanted |= set(DATA)
    return [
        *(f"{name} is missing" for name in sorted(wanted - held)),
        *(f"{name} does not belong here" for name in sorted(held - wanted)),
    ]


if __name__ == "__main__":
    main()
