"""From values of f to derivatives. Nothing here chooses an engine.

In comes a function, x and a step; out comes a `Problem` for each array in x, and from it, with any
way of evaluating f (`fastgrad.typing.Values`), its derivatives. In the order of a call:

- `guard`: x is as it was, whatever f does; threads that share arrays wait for each other.
- `arguments`, `bounds`: what users pass, checked, and divided by the arrays in x.
- `conversions`: numbers, tensors and data frames, as arrays.
- `quotients`: steps, points and values become derivatives, by a scheme's weights.
- `problem`: what is to be differenced, once the arguments are right.
- `rounding`: what it does to quotients, and whether f jumps because its values are rounded.
- `measured_steps`: steps for h="auto".
- `analytic`: whether f is, as the complex step assumes.
- `domain`: nan where f raises, and derivatives from the side on which it is defined.
- `richardson`, `adaptive_steps`: limits of quotients, with error estimates, at steps that suit f;
  `derivative_of_one`: the same of one element, in single numbers.

>>> import numpy as np
>>> from fastgrad.engines import loop
>>> from fastgrad.differences.problem import problems
>>> [problem] = problems(lambda x: (x**2).sum(), np.array([3.0, 4.0]), 1e-4)
>>> problem.gradient(loop.values).round(6)
array([6., 8.])
"""
