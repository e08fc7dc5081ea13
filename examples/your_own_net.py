"""The numerical gradient of a net of your own: a learner's net, one import changed.

python examples/your_own_net.py                 every parameter's gradient, then training with it
python examples/your_own_net.py --samples 2000  the loop visits more elements, and its time is surer
"""

import argparse
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import fastgrad
from fastgrad import numerical_gradient  # this line was: from common.gradient import ...
from fastgrad.typing import Array

# The learner's code: plain NumPy, as one writes it on the way through the book's chapters 3 and 4.


def sigmoid(a: Array) -> Array:
    """Squash to 0 ... 1."""
    result: Array = 1 / (1 + np.exp(-a))
    return result


def softmax(a: Array) -> Array:
    """Turn each row of scores into probabilities."""
    powers = np.exp(a - np.max(a, axis=1, keepdims=True))
    result: Array = powers / np.sum(powers, axis=1, keepdims=True)
    return result


def cross_entropy_error(y: Array, t: Array) -> Any:
    """Average the surprise at the right labels."""
    rows = np.arange(len(y))
    return -np.sum(np.log(y[rows, t] + 1e-7)) / len(y)


class Net:
    """Pixels, a layer of sigmoid units, a layer of softmax units.

    Parameters
    ----------
    inputs, hidden, outputs : int
        The number of pixels, of hidden units and of classes.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        self.params: dict[str, Array] = {
            "W1": 0.01 * np.random.randn(inputs, hidden),
            "b1": np.zeros(hidden),
            "W2": 0.01 * np.random.randn(hidden, outputs),
            "b2": np.zeros(outputs),
        }

    def predict(self, x: Array) -> Array:
        """Return each class's probability, for every row of x."""
        a1 = np.dot(x, self.params["W1"]) + self.params["b1"]
        a2 = np.dot(sigmoid(a1), self.params["W2"]) + self.params["b2"]
        return softmax(a2)

    def loss(self, x: Array, t: Array) -> Any:
        """Return how wrong the predictions are."""
        return cross_entropy_error(self.predict(x), t)

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient of the loss for every parameter."""
        return {
            name: numerical_gradient(lambda _: self.loss(x, t), values)
            for name, values in self.params.items()
        }


# The demonstration


def main() -> None:
    """Compare the gradients of a batch with the loop's, then train."""
    arguments = parse_arguments()
    if arguments.data:
        os.environ["FASTGRAD_DATA"] = str(arguments.data)
    x, t = load_digits()
    np.random.seed(arguments.seed)
    net = Net(784, 100, 10)
    batch = np.random.choice(len(x), 100)
    compare_with_loop(net, x[batch], t[batch], arguments.samples)
    train(net, x, t, arguments.steps)


def load_digits() -> tuple[Array, Array]:
    """Load MNIST's training digits; with no network, the sample that comes with fastgrad."""
    try:
        return fastgrad.load_mnist()[0]
    except ConnectionError:
        print("MNIST is not on this machine: these are fastgrad's sample of 5,000 digits.\n")
        return fastgrad.datasets.load_mnist_sample()[0]


def compare_with_loop(net: Net, x: Array, t: Array, samples: int) -> None:
    """Print what `fastgrad.explain` says of each parameter, and the times and quotients by both.

    The loop's time is that of some elements, drawn at random, times the number of all: each costs
    it two calls of the loss, whichever it is.
    """

    def f(_: Array) -> Any:
        return net.loss(x, t)

    f(x)  # warm up
    rows, total = [], np.zeros(2)
    for name, values in net.params.items():
        print(f"fastgrad.explain(f, net.params[{name!r}])")
        fastgrad.explain(f, values)
        print()

        start = time.perf_counter()
        gradient = numerical_gradient(f, values)
        seconds = time.perf_counter() - start

        places = np.random.permutation(values.size)[:samples]
        start = time.perf_counter()
        looped = [loop_at(f, values, i) for i in tqdm(places, f"The loop in {name}", leave=False)]
        loop_seconds = (time.perf_counter() - start) / len(places) * values.size

        deviation = float(abs(gradient.reshape(-1)[places] - looped).max())
        rows.append((name, values.size, loop_seconds, seconds, f"{deviation:.0e}"))
        total += (loop_seconds, seconds)
    size = sum(values.size for values in net.params.values())

    print(f"{'':5}{'elements':>10}{'loop':>14}{'fastgrad':>13}{'ratio':>9}{'deviation':>12}")
    for name, elements, loop, fast, deviation in [*rows, ("all", size, *total, "")]:
        times = f"{loop:>12,.2f} s{fast:>11.4f} s{loop / fast:>9,.0f}"
        print(f"{name:5}{elements:>10,}{times}{deviation:>12}".rstrip())
    round_off = np.finfo(float).eps * f(x) / 1e-4
    print(f"The loop visited up to {samples:,} elements of each; its time for all is extrapolated.")
    print(f"Its own round-off is of the order eps * loss / h = {round_off:.0e}.\n")


def loop_at(f: Any, values: Array, i: int) -> float:
    """Let the book's loop visit one element, which it does to each as long as you let it."""
    return float(fastgrad.reference.numerical_gradient(f, values.reshape(-1)[i : i + 1])[0])


def train(net: Net, x: Array, t: Array, steps: int) -> None:
    """Walk downhill, and show that the loss falls."""
    start = time.perf_counter()
    for step in range(steps):
        batch = np.random.choice(len(x), 100)
        gradients = net.numerical_gradient(x[batch], t[batch])
        for name, gradient in gradients.items():
            net.params[name] -= 0.5 * gradient
        if (step + 1) % 10 == 0 or step + 1 == steps:
            print(f"After {step + 1:3} steps the loss is {net.loss(x[:1000], t[:1000]):.3f}")
    print(f"{steps} steps by numerical gradients took {time.perf_counter() - start:.1f} s.")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Time the numerical gradient of a net in plain NumPy, and train it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--samples", type=positive_integer, default=500, help="elements that the loop visits")
    add("--steps", type=positive_integer, default=60, help="steps to train")
    add("--seed", type=int, help="0 to 2**32 - 1; None: another each run")
    add("--data", type=Path, metavar="FOLDER", help="where MNIST's four files are")
    return parser.parse_args()


def positive_integer(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    main()
