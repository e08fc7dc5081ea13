"""MNIST, as the book loads it."""

from fastgrad.datasets.mnist import load_mnist, load_mnist_sample

__all__ = ["load_mnist", "load_mnist_sample"]
