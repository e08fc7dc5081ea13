"""A network learns to read digits by central differences alone: the book's training run.

python examples/train_mnist.py                       10,000 steps; draws output/train_mnist.png
python examples/train_mnist.py --checkpoint run.npz  the same, and may be stopped and resumed
python examples/train_mnist.py --net book            the book's own class, in plain NumPy
python examples/train_mnist.py --watch               a page in the browser shows what is learnt
"""

import argparse
import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from checkpoint import Checkpoint, History, how_to_resume
from numpy.typing import NDArray
from tqdm import tqdm
from watch import watch

from fastgrad import TwoLayerNet, load_mnist, numerical_gradient, reference
from fastgrad.datasets import load_mnist_sample

Part = tuple[NDArray[Any], NDArray[Any]]  # images, labels


class BooksNet(reference.TwoLayerNet):
    """The book's own class in plain NumPy, of which one import is changed: numerical_gradient."""

    def numerical_gradient(self, x: NDArray[Any], t: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the gradient of the loss for every parameter, of one after the other."""
        return {
            name: numerical_gradient(lambda _: self.loss(x, t), values)
            for name, values in self.params.items()
        }


NETS: dict[str, Any] = {"fastgrad": TwoLayerNet, "book": BooksNet}

GRADIENTS = {"numerical": "numerical_gradient", "backprop": "gradient"}  # methods of the nets


def train(settings: argparse.Namespace, digits: tuple[Part, Part]) -> Iterator[tuple[Any, History]]:
    """Follow the gradient of one random batch after the other, as chapter 4 of the book does.

    Yields
    ------
    network, history
        After every step.
    """
    (x_train, t_train), (x_test, t_test) = digits
    train_size = len(x_train)
    iter_per_epoch = max(train_size // settings.batch_size, 1)

    np.random.seed(settings.seed)
    network = NETS[settings.net](784, settings.hidden_size, 10)
    gradient = getattr(network, GRADIENTS[settings.gradient])
    history = History()
    checkpoint = Checkpoint(settings, train_size)
    checkpoint.restore(network, history)
    start = time.perf_counter() - history.seconds

    for i in progress_bar(len(history.losses), settings.iterations):
        batch_mask = np.random.choice(train_size, settings.batch_size)
        x_batch = x_train[batch_mask]
        t_batch = t_train[batch_mask]

        grads = gradient(x_batch, t_batch)
        for key in ("W1", "b1", "W2", "b2"):
            network.params[key] -= settings.learning_rate * grads[key]

        history.losses.append(network.loss(x_batch, t_batch))

        if i % iter_per_epoch == 0:
            train_acc = network.accuracy(x_train, t_train)
            test_acc = network.accuracy(x_test, t_test)
            history.accuracies.append((i, train_acc, test_acc))
            tqdm.write(f"train acc, test acc | {train_acc:.4f}, {test_acc:.4f}")
            history.seconds = time.perf_counter() - start
            checkpoint.save(network, history)
        yield network, history

    history.seconds = time.perf_counter() - start
    checkpoint.save(network, history)
    print(
        f"{len(history.losses):,} iterations with {settings.gradient} gradients: "
        f"{history.seconds:.1f} s, test accuracy {network.accuracy(x_test, t_test):.4f}"
    )
    yield network, history


def main() -> None:
    """Train a network as the command line says, and draw how it learnt."""
    settings = parse_arguments()
    if settings.data:
        os.environ["FASTGRAD_DATA"] = str(settings.data)
    digits = load_digits()
    steps = train(settings, digits)
    try:
        history = watch(steps, *digits[1]) if settings.watch else deque(steps, maxlen=1)[0][1]
    except KeyboardInterrupt:
        print(f"\nStopped. {how_to_resume(settings.checkpoint)}", file=sys.stderr)
        sys.exit(130)  # as shells report Ctrl-C
    draw(history, settings)


def load_digits() -> tuple[Part, Part]:
    """Load MNIST; with no network, the sample of it that comes with fastgrad."""
    try:
        return load_mnist(normalize=True, one_hot_label=True)
    except ConnectionError:
        print(
            "No network, no MNIST here: training on fastgrad's sample of 5,000 + 1,000 digits."
            "\n(If you have MNIST's files, name their folder by --data.)"
        )
        return load_mnist_sample(normalize=True, one_hot_label=True)


def progress_bar(start: int, stop: int) -> Any:
    """Return ``range(start, stop)``, which shows on the screen how far it has come."""
    return tqdm(range(start, stop), desc="Training", initial=start, total=stop)


def draw(history: History, settings: argparse.Namespace) -> None:
    """Save the curves of losses and accuracies as a PNG; show them where there is a screen."""
    figure, (upper, lower) = new_figure()
    figure.suptitle(
        f"MNIST learnt by {settings.gradient} gradients: {settings.hidden_size} hidden units, "
        f"batches of {settings.batch_size}, learning rate {settings.learning_rate:g}"
    )

    losses = np.array(history.losses)
    window = min(100, len(losses))
    mean = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    upper.plot(losses, color="lightsteelblue", linewidth=0.5, label="each batch")
    upper.plot(
        np.arange(len(mean)) + window / 2, mean, color="tab:blue", label=f"mean of {window} batches"
    )
    upper.set(ylabel="loss", ylim=(0, None))

    iterations, train_acc, test_acc = zip(*history.accuracies, strict=True)
    lower.plot(iterations, train_acc, "o-", color="tab:green", markersize=4, label="training set")
    lower.plot(iterations, test_acc, "s--", color="tab:orange", markersize=4, label="test set")
    lower.set(xlabel="iteration", ylabel="accuracy", ylim=(0, 1))

    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(settings.output, format="png", dpi=150)
    print(f"The curves are in {settings.output}")
    if figure.canvas.required_interactive_framework:  # None where nothing can be shown
        plt.show()


def new_figure() -> Any:
    """Make two axes, one above the other."""
    try:
        return plt.subplots(2, 1, sharex=True, figsize=(8, 7), layout="constrained")
    except ImportError:  # matplotlib is set to a window system, and there is no screen
        plt.switch_backend("agg")
        return new_figure()


def parse_arguments() -> argparse.Namespace:
    """Read the command line; the defaults are the book's."""
    parser = argparse.ArgumentParser(
        description="Train the book's two-layer network on MNIST by numerical gradients.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--iterations", type=positive_integer, default=10_000, help="steps to make")
    add("--batch-size", type=positive_integer, default=100, help="digits to a step")
    add("--hidden-size", type=positive_integer, default=50, help="hidden units")
    add("--learning-rate", type=positive_number, default=0.1, help="step over gradient")
    add(
        "--net",
        choices=list(NETS),
        default="fastgrad",
        help="fastgrad's TwoLayerNet, or the book's",
    )
    add("--gradient", choices=list(GRADIENTS), default="numerical", help="how to compute it")
    add("--seed", type=seed, help="of the random numbers; None: another each run")
    add("--data", type=folder, metavar="FOLDER", help="where MNIST's four files are")
    add("--output", type=file, metavar="FILE", default="output/train_mnist.png", help="the curves")
    add("--checkpoint", type=file, metavar="FILE", help="save every epoch, and resume from there")
    add("--watch", action="store_true", help="show the net in the browser while it learns")
    return parser.parse_args()


def positive_integer(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def positive_number(text: str) -> float:
    """Read a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number above 0")
    return number


def seed(text: str) -> int:
    """Read a number that np.random.seed takes."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**32 - 1")
    return int(text)


def folder(text: str) -> Path:
    """Read the path of a folder that exists."""
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return path


def file(text: str) -> Path:
    """Read the path of a file to write, and make its folder: better now than after the training."""
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {error}") from error
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} is a folder, or in one that is read-only")
    return path


if __name__ == "__main__":
    main()
