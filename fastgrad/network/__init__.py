"""The book's two-layer network and its functions.

`two_layer_net` holds the parameters (`parameters`), checks the batch, divides it among workers if
asked, and chooses an engine of `response`: the one that measures the loss at a few shifts of each
unit, or the one that moves every parameter. Both rest on `propagation`, forward, and backward to
compare with. `functions` are the book's.

>>> import numpy as np
>>> net = TwoLayerNet(input_size=2, hidden_size=3, output_size=2)
>>> net.numerical_gradient(np.ones((1, 2)), np.array([0]))["W1"].shape
(2, 3)
"""

from fastgrad.network.two_layer_net import TwoLayerNet

__all__ = ["TwoLayerNet"]
