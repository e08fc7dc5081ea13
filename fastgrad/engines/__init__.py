"""Ways of evaluating f where single elements of x are moved: one file each.

`selection` chooses, for everything that differentiates. Every engine is a `fastgrad.typing.Values`:
``values(f, x, places, points, shape)`` returns f at each point, and leaves x as it was. `loop`
serves any function, `vectorized` one that takes stacks of points, `compiled` one that numba has
compiled (its loop is made by `compilation`, and spread over `threads`; `lanes` evaluates several
points at once), and `workers` share the loop's calls. `traced` gives a gradient at once, and so has
an interface of its own; `auto` tries it before the loop. `certificates` compare whole gradients
with a few calls of f, and `probe` tells whether f depends on x, or is random.

>>> import numpy as np
>>> from fastgrad.engines import loop
>>> x = np.array([3.0, 4.0])
>>> loop.values(lambda x: (x**2).sum(), x, np.array([1]), np.array([[5.0, 6.0]]))
array([[34., 45.]])
"""
