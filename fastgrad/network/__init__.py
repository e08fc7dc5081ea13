"""What does the book's two-layer network consist of? The net and its functions."""

from fastgrad.network.functions import cross_entropy_error, sigmoid, softmax
from fastgrad.network.two_layer_net import TwoLayerNet

__all__ = ["TwoLayerNet", "cross_entropy_error", "sigmoid", "softmax"]
