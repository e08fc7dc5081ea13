"""Is a response a polynomial of few terms? It is fitted by one, and what is left over tells."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_KINKS = 0.05
"""The share of responses that may have a kink; above it, more powers are tried."""

LIMIT = 8
"""How many standard deviations of rounding a response may miss its polynomial by, at one shift."""

USUAL = 3
"""How many it may miss it by in the mean over many shifts, or over the units of a row."""


def fit(
    measured: Array,
    points: Array,
    terms: int,
    noise: Array,
    near: NDArray[np.bool_],
    alive: NDArray[np.bool_],
    signs: tuple[int, ...],
) -> tuple[dict[int, Array], NDArray[np.bool_]] | None:
    """Fit odd polynomials to the responses, and even ones to the curvatures.

    A kink at +s changes both, in proportions that no pair of polynomials has: none escapes both.

    Parameters
    ----------
    measured : array of shape (points, 2, units, rows)
        How the losses change.
    points : array of shape (points,)
        The shifts, as fractions of the largest.
    terms : int
    noise : array of shape (rows, 1)
        The standard deviation of rounding.
    near : bool array of shape (rows, units)
        Which responses may have a kink however well polynomials fit.
    alive : bool array of shape (rows, 1)
        Which rows have a loss.
    signs : tuple of int
        Whose coefficients are wanted.

    Returns
    -------
    coefficients : dict of arrays of shape (terms, rows, units)
        For each sign those of the polynomial; zero where there is a kink.
    kinked : bool array of shape (rows, units)
        Where a fit is not exact to rounding, or may be by chance.

    None if that is so for more than isolated units.
    """
    response, curvature = measured[:, 0] - measured[:, 1], measured[:, 0] + measured[:, 1]
    odd = points[:, np.newaxis] ** (2 * np.arange(terms) + 1)
    even = odd * points[:, np.newaxis]
    residual = np.maximum(_residual(response, odd), _residual(curvature, even)).T
    freedom = len(points) - terms
    kinked = near | ~(residual <= (USUAL + (LIMIT - USUAL) / np.sqrt(freedom)) * noise)
    smooth = np.where(kinked, 0, residual / np.where(noise > 0, noise, 1))
    usual = np.sqrt(np.mean(smooth**2, axis=1))  # of a row
    if np.count_nonzero(kinked[alive[:, 0]]) > MOST_KINKS * np.count_nonzero(alive) * kinked.shape[
        1
    ] or np.any(usual > USUAL):
        return None
    coefficients = {}
    for sign in signs:
        powers, values = (odd, response) if sign < 0 else (even, curvature)
        coefficients[sign] = np.einsum("mi,iun->mnu", np.linalg.pinv(powers), values)
        coefficients[sign][:, kinked] = 0
    return coefficients, kinked


def _residual(values: Array, powers: Array) -> Array:
    """Return how far values are from sums of powers: the root mean square of what is left over."""
    unreached = np.linalg.svd(powers)[0][:, powers.shape[1] :]
    left = np.einsum("ik,i...->k...", unreached, values)
    return np.asarray(np.sqrt(np.mean(left**2, axis=0)))
