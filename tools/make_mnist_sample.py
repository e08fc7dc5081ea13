"""Make fastgrad/datasets/mnist_sample.npz, the embedded sample, from MNIST's own files.

    python tools/make_mnist_sample.py

The rows are a seeded random choice, not every twelfth: in MNIST's training set the writers' two
populations alternate, and the even rows have thinner strokes (mean pixel 0.122) than the odd ones
(0.139). The same rows give the same arrays everywhere, and the same bytes with the same zlib.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastgrad.datasets import load_mnist

SAMPLE = Path(__file__).parents[1] / "fastgrad" / "datasets" / "mnist_sample.npz"
"""The file in the package."""

SEED = 1998  # the year of MNIST
TRAIN_COUNT = 5_000
TEST_COUNT = 1_000


def main() -> None:
    """Write the sample, by default over the one in the package."""
    parser = argparse.ArgumentParser(description="Draw the embedded sample from MNIST's files.")
    parser.add_argument(
        "--output",
        type=Path,
        default=SAMPLE,
        help="the .npz file to write (default: %(default)s)",
    )
    output: Path = parser.parse_args().output
    with output.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **draw_sample())
    print(f"{output}: {output.stat().st_size:,} bytes")


def draw_sample() -> dict[str, NDArray[np.uint8]]:
    """Draw the sample's arrays, images of shape (N, 28, 28), from the files `load_mnist` finds."""
    (x_train, t_train), (x_test, t_test) = load_mnist(normalize=False)
    train_rows = choose_rows(len(x_train), TRAIN_COUNT)
    test_rows = choose_rows(len(x_test), TEST_COUNT)
    return {
        "x_train": x_train[train_rows].reshape(-1, 28, 28),
        "t_train": t_train[train_rows],
        "x_test": x_test[test_rows].reshape(-1, 28, 28),
        "t_test": t_test[test_rows],
    }


def choose_rows(size: int, count: int) -> NDArray[np.intp]:
    """Choose `count` of `size` rows without replacement, in increasing order.

    Drawn with RandomState, whose stream NumPy has promised never to change (NEP 19).
    """
    return np.sort(np.random.RandomState(SEED).choice(size, count, replace=False))


if __name__ == "__main__":
    main()
