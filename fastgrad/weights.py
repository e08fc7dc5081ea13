"""Which weights of values at given points make a derivative? Fornberg's, in exact fractions."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any


def finite_difference_weights(offsets: Sequence[Any], derivative: int = 1) -> list[Fraction]:
    """Return the weights w with ``sum(w[k] * f(offsets[k]))`` the derivative of f at 0.

    Exact for polynomials of a degree below the number of offsets, and computed in fractions, so
    that no weight is rounded.

    Parameters
    ----------
    offsets : sequence of real numbers
        Different from each other.
    derivative : int
        The derivative order.

    References
    ----------
    B. Fornberg, "Generation of finite difference formulas on arbitrarily spaced grids",
    Mathematics of Computation 51 (1988), 699-706.

    Examples
    --------
    >>> [str(weight) for weight in finite_difference_weights([-1, 0, 1], 2)]
    ['1', '-2', '1']
    """
    points = [Fraction(offset) for offset in offsets]
    # table[m][k]: the weight of point k in the m-th derivative, on the points up to the newest.
    table = [[Fraction(0)] * len(points) for _ in range(derivative + 1)]
    table[0][0] = Fraction(1)
    product = Fraction(1)
    for newest in range(1, len(points)):
        last, last_product = newest - 1, product
        product = Fraction(math.prod(points[newest] - point for point in points[:newest]))
        old = [row[last] for row in table]
        for k in range(newest):
            distance = points[newest] - points[k]
            for m in range(derivative, -1, -1):
                lower = m * table[m - 1][k] if m else 0
                table[m][k] = (points[newest] * table[m][k] - lower) / distance
        for m in range(derivative + 1):
            lower = m * old[m - 1] if m else 0
            table[m][newest] = last_product / product * (lower - points[last] * old[m])
    return table[derivative]
