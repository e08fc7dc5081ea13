"""How long the gradient of a two-layer network takes: the article's demonstration.

python examples/two_layer_net.py              times the gradient of all 79,510 parameters
python examples/two_layer_net.py --reference  runs the textbook's loop as well: about a minute
"""

import argparse
import time
from typing import Any

import numpy as np
from tqdm import tqdm

from fastgrad import TwoLayerNet, reference
from fastgrad.typing import Array

CALLS = 20


def main() -> None:
    """Differentiate the loss of a batch of dummy data, and say how long that took."""
    arguments = parse_arguments()
    np.random.seed(arguments.seed)

    net = TwoLayerNet(input_size=784, hidden_size=100, output_size=10)
    for name in ("W1", "b1", "W2", "b2"):
        print(f"net.params[{name!r}].shape: {net.params[name].shape}")

    x = np.random.rand(100, 784)  # dummy images
    t = np.random.randint(10, size=100)  # dummy labels

    start = time.perf_counter()
    grads = net.numerical_gradient(x, t)
    first = time.perf_counter() - start
    seconds = median_seconds(net, x, t)

    for name in ("W1", "b1", "W2", "b2"):
        print(f"grads[{name!r}].shape: {grads[name].shape}")
    print(f"First call, which compiles the kernels or loads them from the cache: {first:.3g} s")
    print(f"Gradient calculation took {seconds:.3g} seconds (median of the next {CALLS} calls)")

    if arguments.reference:
        compare_with_textbook(net, x, t, grads, seconds)


def median_seconds(net: TwoLayerNet, x: Array, t: Array) -> float:
    """Time the gradient again, now that its kernels are there."""
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        net.numerical_gradient(x, t)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def compare_with_textbook(
    net: TwoLayerNet, x: Array, t: Array, grads: dict[str, Array], seconds: float
) -> None:
    """Run the textbook's loop on its own net, and print how much longer it takes.

    Parameters
    ----------
    net : TwoLayerNet
        The textbook's net gets the same parameters.
    x, t : ndarray
        The batch.
    grads : dict of ndarray
        The gradient that `net` computed.
    seconds : float
        The time that this took.
    """
    inputs, hidden = net.params["W1"].shape
    book = reference.TwoLayerNet(inputs, hidden, len(net.params["b2"]))
    book.params = {name: array.copy() for name, array in net.params.items()}
    expected = {}

    start = time.perf_counter()
    with tqdm(total=2 * net.params.buffer.size, desc="Textbook loop", unit=" losses") as bar:

        def loss(_: Array) -> Any:
            bar.update()
            return book.loss(x, t)

        for name, array in book.params.items():
            expected[name] = reference.numerical_gradient(loss, array)
    loop_seconds = time.perf_counter() - start

    deviation = max(abs(grads[name] - expected[name]).max() for name in expected)
    rounding = np.finfo(float).eps * book.loss(x, t) / 1e-4
    print(f"Textbook loop took {loop_seconds:.3g} seconds: {loop_seconds / seconds:,.0f} times")
    print(
        f"Largest deviation from the loop: {deviation:.1e} "
        f"(whose rounding errors are of the order eps * loss / h = {rounding:.1e})"
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Time the numerical gradient of a network.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--reference", action="store_true", help="run the textbook's loop too")
    parser.add_argument("--seed", type=int, help="0 to 2**32 - 1; None: another each run")
    return parser.parse_args()


if __name__ == "__main__":
    main()
