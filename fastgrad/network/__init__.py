"""The book's two-layer network and its functions.

`two_layer_net` holds the parameters (`parameters`) and hands over to `evaluation`, which checks the
batch and chooses an engine: `odd_responses`, which measures the loss at a few shifts of each unit,
or `direct`, which moves every parameter; `backpropagation` is there to compare with, and `shards`
divides a batch among workers. They run `forward`, and the kernels in `kernels`, `matrix_products`
and `sparse`, on arrays from `workspace` and as many threads as `pace` allows.

>>> import numpy as np
>>> net = TwoLayerNet(input_size=2, hidden_size=3, output_size=2)
>>> net.numerical_gradient(np.ones((1, 2)), np.array([0]))["W1"].shape
(2, 3)
"""

from fastgrad.network.functions import cross_entropy_error, sigmoid, softmax
from fastgrad.network.two_layer_net import TwoLayerNet

__all__ = ["TwoLayerNet", "cross_entropy_error", "sigmoid", "softmax"]
