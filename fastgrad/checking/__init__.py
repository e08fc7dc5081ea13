"""Checks of hand-written gradients, with the fault in words.

In comes a function with x and a gradient, or a net with a batch; out comes a `Report`. In the order
of a check:

- `subject`: what is checked; `noise`: how exact values of f are.
- `comparison`: all elements, or along `random_directions` first, or some that are `sampled`.
- `numerical`: differences with their errors; `probe`: a closer look at elements that disagree.
- `findings`: what explains them (`log_offset`, `reevaluation`); `diagnosis`: guesses at faults,
  each of them tested.
- `report`: the rows and sentences.

`taylor_test` is the other check; `plots` draws.

>>> import numpy as np
>>> from fastgrad import check_gradient
>>> bool(check_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0]), np.array([6.0, 8.0])))
True
"""
