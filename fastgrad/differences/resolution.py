"""The resolution of f's values: how far apart they are where f rounds them to fewer digits."""

import numpy as np

from fastgrad.typing import Array

DISTINCT = 4
"""Values of f, no two alike, that must all be short numbers: one is, by accident, at times."""

BITS = 43
"""Binary digits of the longest short number: of random ones one in 1,000 is shorter."""

DIGITS = 12
"""Decimal digits of the longest short number: of random ones one in 1,000 is shorter."""


def resolution(values: Array) -> Array:
    """Return the spacing of f's values, where f rounds them itself.

    What is computed in float32 has at most 24 significant binary digits; what is rounded has few
    decimals, what is printed few significant decimal digits. Values of a smooth function at points
    that are no short numbers themselves have all the digits of their type.

    Parameters
    ----------
    values : float array (n, steps, points)
        f where n elements of x are moved by several steps; what is not finite is left out.

    Returns
    -------
    float array (n, steps)
        The distance to the next value that f can have, at each step; 0 where values of f have more
        digits than `BITS` and `DIGITS`.

    Examples
    --------
    >>> resolution(np.array([[[0.123, 0.1], [2.5, 2.25]]])).round(6)
    array([[0.001, 0.01 ]])
    """
    known = np.where(np.isfinite(values), values, 0).astype(float)
    flat = np.sort(known.reshape(len(known), -1), axis=1)
    several = np.count_nonzero(np.diff(flat, axis=1), axis=1) + 1 >= DISTINCT
    spacing = np.zeros(known.shape[:2])
    if several.any():
        known = known[several]
        with np.errstate(all="ignore"):
            decimal = _grid(*_decimal(known), 10.0, DIGITS)
            binary = _grid(*_binary(known), 2.0, BITS)
        spacing[several] = np.maximum(decimal, binary)
    return spacing


def _binary(values: Array) -> tuple[Array, Array]:
    """Return exponents, and the number of binary digits; 0 for 0."""
    fractions, exponents = np.frexp(abs(values))
    whole = np.ldexp(fractions, 53).astype(np.int64)
    digits = 53 - np.log2(np.maximum(whole & -whole, 1))
    return exponents.astype(float), np.where(whole > 0, digits, 0)


def _decimal(values: Array) -> tuple[Array, Array]:
    """Return exponents, and the number of decimal digits; 0 for 0, and more than `DIGITS` if so."""
    size = abs(values)
    exponents = np.floor(np.log10(np.where(size > 0, size, 1))) + 1
    scaled = size * 10.0 ** (DIGITS - exponents)
    whole = np.rint(scaled)
    # Twelve digits are exact to 1e12 eps = 2e-4; the power of ten is rounded, and the product.
    short = abs(scaled - whole) <= 1e-3
    zeros = sum(whole % 10.0**k == 0 for k in range(1, DIGITS + 1))
    return exponents, np.where(size > 0, np.where(short, DIGITS - zeros, np.inf), 0)


def _grid(exponents: Array, digits: Array, base: float, most: int) -> Array:
    """Return the spacing of numbers at each step; 0 where some are long."""
    nonzero = digits > 0
    longest = digits.max(axis=(1, 2), keepdims=True)
    # Either as many significant digits everywhere, or as many behind the point.
    last = np.where(nonzero, exponents - digits, np.inf).min(axis=(1, 2), keepdims=True)
    largest = np.where(nonzero, exponents, -np.inf).max(axis=2, keepdims=True)
    spacing = base ** np.maximum(largest - longest, last)
    result: Array = np.where(longest <= most, spacing, 0)[..., 0]
    return result
