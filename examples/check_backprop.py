"""A check of a backward pass with five classic faults, and what it says of each.

python examples/check_backprop.py                 the five reports, and pictures in output/
python examples/check_backprop.py --hidden 100    a larger net
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from fastgrad import check_gradient, slope_test
from fastgrad.checking.plots import draw_difference, draw_steps
from fastgrad.datasets import load_mnist_sample
from fastgrad.typing import Array

# The learner's code: a net in plain NumPy, with a backward pass by hand.


def sigmoid(a: Array) -> Array:
    """Squash to 0 ... 1."""
    result: Array = 1 / (1 + np.exp(-a))
    return result


def softmax(a: Array) -> Array:
    """Turn each row of scores into probabilities."""
    powers = np.exp(a - np.max(a, axis=1, keepdims=True))
    result: Array = powers / np.sum(powers, axis=1, keepdims=True)
    return result


class Net:
    """Pixels, a layer of sigmoid units, a layer of softmax units, and weight decay.

    Parameters
    ----------
    inputs, hidden, outputs : int
        The number of pixels, of hidden units and of classes.
    """

    decay = 0.01

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        self.params: dict[str, Array] = {
            "W1": np.random.randn(inputs, hidden) / np.sqrt(inputs),
            "b1": np.zeros(hidden),
            "W2": np.random.randn(hidden, outputs) / np.sqrt(hidden),
            "b2": np.zeros(outputs),
        }

    def predict(self, x: Array) -> Array:
        """Return each class's probability, for every row of x."""
        self.z = sigmoid(np.dot(x, self.params["W1"]) + self.params["b1"])
        return softmax(np.dot(self.z, self.params["W2"]) + self.params["b2"])

    def loss(self, x: Array, t: Array) -> Any:
        """Return the cross entropy, and the penalty on large weights."""
        y = self.predict(x)
        data = -np.sum(np.log(y[np.arange(len(y)), t] + 1e-7)) / len(y)
        penalty: Any = sum(np.sum(self.params[name] ** 2) for name in ("W1", "W2"))
        return data + 0.5 * self.decay * penalty

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient of the loss by backpropagation."""
        dy = self.output_error(self.predict(x), t)
        da = np.dot(dy, self.params["W2"].T) * self.slope()
        return {
            "W1": np.dot(x.T, da) + self.decay * self.params["W1"],
            "b1": np.sum(da, axis=0),
            "W2": np.dot(self.z.T, dy) + self.decay * self.params["W2"],
            "b2": np.sum(dy, axis=0),
        }

    def output_error(self, y: Array, t: Array) -> Array:
        """Return the derivative of the loss by the scores."""
        error = y / len(y)
        error[np.arange(len(y)), t] -= 1 / len(y)
        return error

    def slope(self) -> Array:
        """Return the derivative of the sigmoid."""
        slope: Array = self.z * (1 - self.z)
        return slope


# Five ways to get it wrong


class ForgottenMean(Net):
    """The loss is a mean over the batch, the gradient is not."""

    def output_error(self, y: Array, t: Array) -> Array:
        """Forget to divide by the number of samples."""
        return len(y) * super().output_error(y, t)


class ForgottenSlope(Net):
    """The error does not pass through the sigmoid."""

    def slope(self) -> Array:
        """Forget the derivative of the activation."""
        return np.ones_like(self.z)


class LostSample(Net):
    """A loop over the samples that ends one too early."""

    def output_error(self, y: Array, t: Array) -> Array:
        """Leave the last sample at zero."""
        error = super().output_error(y, t)
        error[-1] = 0
        return error


class ForgottenDecay(Net):
    """The loss has weight decay, the gradient has not."""

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Forget the derivative of the penalty."""
        gradients = super().gradient(x, t)
        for name in ("W1", "W2"):
            gradients[name] = gradients[name] - self.decay * self.params[name]
        return gradients


class LostClass(Net):
    """One class has no gradient."""

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Fill only nine of the ten columns."""
        gradients = super().gradient(x, t)
        gradients["W2"][:, 9] = 0
        return gradients


FAULTS: list[type[Net]] = [ForgottenMean, ForgottenSlope, LostSample, ForgottenDecay, LostClass]


# The demonstration


def main() -> None:
    """Check a right net and five wrong ones, and draw what there is to see."""
    arguments = parse_arguments()
    (digits, labels), _ = load_mnist_sample()
    x, t = digits[: arguments.samples].astype(float), labels[: arguments.samples]
    arguments.output.mkdir(parents=True, exist_ok=True)
    kinds: list[type[Net]] = [Net, *FAULTS]
    for kind in kinds:
        np.random.seed(arguments.seed)
        net = kind(x.shape[1], arguments.hidden, 10)
        report = check_gradient(net, x=x, t=t)
        print(f"{kind.__name__}: {str(kind.__doc__).splitlines()[0]}\n")
        print(report)
        print(f"Slope test. {slope_test(net, x=x, t=t, seed=0)}")
        if report["W2"].verdict == "wrong":
            path = arguments.output / f"{kind.__name__}_W2.png"
            draw_difference(report, "W2", path)
            print(f"Where W2 differs is drawn in {path}")
        print()
    np.random.seed(arguments.seed)
    right = Net(x.shape[1], arguments.hidden, 10)
    draw_steps(right, arguments.output / "steps.png", x=x, t=t, name="W2")
    slope_test(right, x=x, t=t, seed=0).plot(arguments.output / "slope.png")
    print(
        f"The right net's error against the step, and its slope, are drawn in {arguments.output}: "
        "the floor of the V is what the 1e-7 under the logarithm leaves."
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Check a right and five wrong backward passes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--samples", type=int, default=30, help="digits in the batch")
    parser.add_argument("--hidden", type=int, default=20, help="hidden units")
    parser.add_argument("--seed", type=int, default=0, help="0 to 2**32 - 1")
    parser.add_argument(
        "--output", type=Path, default=Path("output"), help="the folder for the pictures"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
