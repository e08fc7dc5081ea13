"""Checks of hand-written gradients, with the fault in words.

In comes a function with x and a gradient, or a net with a batch; out comes a `Report`. In the order
of a check:

- `check`: the stages of a check, one after the other.
- `subject`: what is checked; `noise`: how exact values of f are.
- `numerical`: differences with their errors, and kinks of many elements that disagree at once;
  `probe`: a closer look at one of them.
- `random_directions`: a few directions in place of all elements.
- `log_offset`, `reevaluation`: what explains that a right gradient differs; `right_classes`: what
  is known of the probabilities under a loss's logarithm, `kinks_at_x`: whether f has a kink.
- `diagnosis`: guesses at faults, each of them tested.
- `report`: the rows and sentences.

`array_functions` checks Jacobians and backward passes in that way. `taylor_test` is the other
check; `plots` draws.

>>> import numpy as np
>>> from fastgrad import check_gradient
>>> bool(check_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0]), np.array([6.0, 8.0])))
True
"""
