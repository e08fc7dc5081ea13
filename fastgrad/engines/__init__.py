"""Ways of evaluating f where single elements of x are moved: one file each.

`selection` alone chooses, for everything that differentiates, and for what `explain` says; and it
tells whether f depends on x, or is random. There are two kinds of engines, and a table of each in
`selection`. Most are a `fastgrad.typing.Values`, which returns f where elements of x are moved:
`loop` serves any function, and those that take stacks of points, and shows progress; `compiled` one
that numba has compiled; `elementwise` moves all elements of x at once; `workers` share the loop's
calls among `processes`, and `remembered` values are not asked for again. `traced` is a
`fastgrad.typing.GradientEngine`, which gives a gradient at once, and is tried before the loop;
`joint_gradients` keeps those of several arrays that are computed together. A `certificate` compares
a whole gradient with a few calls of f, along random `directions`.

>>> import numpy as np
>>> from fastgrad.engines import loop
>>> from fastgrad.typing import Moves
>>> x = np.array([3.0, 4.0])
>>> loop.values(lambda x: (x**2).sum(), x, Moves(np.array([1]), np.array([[5.0, 6.0]])))
array([[34., 45.]])
"""
