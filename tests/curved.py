"""A function of three numbers, and its second derivatives by hand."""

import numpy as np


def smooth(x):
    return np.exp(x[0] * x[1]) + x[2] ** 3 * np.sin(x[0]) - x[1] * x[2]


def smooths_hessian(x):
    a, b, c = x
    e = np.exp(a * b)
    off = e * (1 + a * b), 3 * c**2 * np.cos(a), -1.0
    return np.array(
        [
            [b * b * e - c**3 * np.sin(a), off[0], off[1]],
            [off[0], a * a * e, off[2]],
            [off[1], off[2], 6 * c * np.sin(a)],
        ]
    )
