"""A function that workers must not be trusted with: it reads a module's global.

Workers import this module anew: their `table` is not the array that is moved.
"""

import numpy as np

table = np.arange(1.0, 301.0)


def all_squares(_):
    return float((table**2).sum())


def one_square(x):
    return float(x.sum() + table[200] ** 2)
