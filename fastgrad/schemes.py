"""Difference schemes: offsets, and Fornberg's weights as exact fractions."""

import math
import operator
import reprlib
from collections.abc import Iterable, Sequence
from functools import cache
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.lazy import LazyModule, lazy
from fastgrad.typing import Array

if TYPE_CHECKING:
    import fractions
else:  # for other schemes than those that have a name
    fractions = LazyModule("fractions")


def finite_difference_weights(
    offsets: Sequence[Any], derivative: int = 1
) -> "list[fractions.Fraction]":
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
    Fraction = fractions.Fraction
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


class Scheme:
    """A difference scheme: a derivative as a weighted sum of values at points in the distance.

    ``sum(numerators[k] * f(x + offsets[k] * h)) / (denominator * h**derivative)``, which differs
    from the derivative by a multiple of ``h**accuracy``.

    Attributes
    ----------
    offsets : tuple of numbers
        In units of the step, in the order in which f is evaluated. Complex ones move x off the
        real line; of the sum the real part is taken. x itself, offset 0, comes last.
    numerators : tuple of numbers
        The weights, times the denominator.
    denominator : number
        What all weights have in common; for rational offsets the weights are exact.
    derivative : int
        The derivative order. With 2, what is computed is the second derivative with respect to
        each element, the diagonal of the Hessian.

    Raises
    ------
    ValueError
        If offsets are equal, 0 is not the last one, or the weighted sum is not this derivative of
        polynomials of its degree; or some are complex, and others or a weight are not imaginary.

    Examples
    --------
    >>> central(4)
    Scheme(offsets=(1, -1, 2, -2), numerators=(8, -8, -1, 1), denominator=12, derivative=1)
    """

    offsets: tuple[Any, ...]
    numerators: tuple[Any, ...]
    denominator: Any
    derivative: int

    def __init__(
        self,
        offsets: tuple[Any, ...],
        numerators: tuple[Any, ...],
        denominator: Any,
        derivative: int = 1,
    ) -> None:
        # No dataclass, which takes longer to be made than a gradient.
        vars(self).update(
            offsets=offsets, numerators=numerators, denominator=denominator, derivative=derivative
        )
        if len(set(self.offsets)) < len(self.offsets) or 0 in self.offsets[:-1]:
            raise ValueError(
                f"offsets are {self.offsets}; they must differ from each other, and 0 comes last"
            )
        if self.is_complex and (
            self.derivative > 1 or any(complex(n).real for n in (*self.offsets, *self.numerators))
        ):
            raise ValueError(
                f"offsets are {self.offsets} and weights {self.numerators}, but by complex steps, "
                "which are so tiny that nothing may cancel, both are imaginary, and derivative is "
                "1; pass 'complex', or real offsets"
            )
        moments = [self._moment(power) / self.denominator for power in range(self.derivative + 1)]
        wanted = [0] * self.derivative + [math.factorial(self.derivative)]
        exact = zip((float(moment) for moment in moments), wanted, strict=True)
        if self.derivative < 1 or not all(abs(m - w) <= 1e-9 + 1e-5 * w for m, w in exact):
            raise ValueError(
                f"the weights {self.numerators} / {self.denominator} at the offsets {self.offsets} "
                f"do not give derivative {self.derivative}; pass fastgrad.schemes.from_offsets("
                f"{[*self.offsets]}, {self.derivative})"
            )

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: others may have the same scheme."""
        raise AttributeError(f"a Scheme cannot be changed; make one with another {name}")

    def __eq__(self, other: object) -> bool:
        """Say whether both have the same points and weights."""
        return self is other or (isinstance(other, Scheme) and self._parts == other._parts)

    def __hash__(self) -> int:
        """Return a hash of the points and weights."""
        return hash(self._parts)

    def __repr__(self) -> str:
        """Return how it is made."""
        parts = zip(Scheme.__annotations__, self._parts, strict=True)
        return f"Scheme({', '.join(f'{name}={value!r}' for name, value in parts)})"

    @lazy
    def _parts(self) -> tuple[Any, ...]:
        """Return what makes two schemes equal."""
        return self.offsets, self.numerators, self.denominator, self.derivative

    @lazy
    def is_complex(self) -> bool:
        """Whether x is moved off the real line."""
        return any(isinstance(offset, complex) for offset in self.offsets)

    @lazy
    def is_symmetric(self) -> bool:
        """Whether it is odd in the offsets, or even, as the derivative is: errors are even in h."""
        weight = dict(zip(self.offsets, self.numerators, strict=True))
        parity = (-1) ** self.derivative
        return all(weight.get(-o) == parity * w for o, w in weight.items()) and not self.is_complex

    @lazy
    def error_powers(self) -> tuple[int, int]:
        """The first two powers of h in the truncation error; others are as far apart."""
        return self.accuracy, self.accuracy + (2 if self.is_symmetric else 1)

    @property
    def is_central(self) -> bool:
        """Whether it is odd in the offsets, as central quotients are."""
        return self.is_symmetric and self.derivative % 2 == 1

    @lazy
    def outer(self) -> tuple[Any, ...]:
        """The offsets of other points than x itself."""
        return tuple(offset for offset in self.offsets if offset != 0)

    @lazy
    def real(self) -> tuple[Any, ...]:
        """Those of them that are on the real line."""
        return tuple(offset for offset in self.outer if not isinstance(offset, complex))

    @lazy
    def reach(self) -> tuple[float, float]:
        """How far away the nearest and the farthest of these are, in steps."""
        distances = [float(abs(offset)) for offset in self.real]
        return min(distances), max(distances)

    @lazy
    def inner(self) -> "tuple[Scheme, ...]":
        """The schemes on x and the nearer ones of these points, of lower accuracy orders.

        Examples
        --------
        >>> central(6).inner == (central(2), central(4))
        True
        """
        distances = sorted({abs(offset) for offset in self.outer})[:-1]
        nearer = ([o for o in self.offsets if abs(o) <= distance] for distance in distances)
        return tuple(from_offsets(o, self.derivative) for o in nearer if len(o) > self.derivative)

    @lazy
    def interpolation(self) -> tuple[float, ...]:
        """The weights of f at the other points in a polynomial's value at x itself."""
        return tuple(float(weight) for weight in finite_difference_weights(self.outer, 0))

    @lazy
    def accuracy(self) -> int:
        """The accuracy order: the power of h with which the truncation error falls."""
        power = self.derivative + 1
        while not self._moment(power):
            power += 1
        return power - self.derivative

    def _moment(self, power: int) -> Any:
        """Return ``sum(weight * offset**power)``, exactly for integers."""
        exact = [
            o if isinstance(o, (complex, int)) else fractions.Fraction(o) for o in self.offsets
        ]
        terms = [w * o**power for w, o in zip(self.numerators, exact, strict=True)]
        total = sum(terms)
        # Weights that are not integers are rounded.
        largest = max(abs(term) for term in terms)
        total = total.real if isinstance(total, complex) else total
        return total if abs(total) > 1e-9 * largest else 0

    def combine(self, values: Array, steps: Any) -> Array:
        """Return the derivatives.

        Parameters
        ----------
        values : array (places, evaluations, ...)
            ``values[i, k]`` is f where element i is moved by ``offsets[k]`` of its step.
        steps : float or array (places,)
            The steps.

        Returns
        -------
        array (places, ...)
            In the type of the values.
        """
        total = _times(self.numerators[0], values[:, 0])
        for k, numerator in enumerate(self.numerators[1:], start=1):
            if numerator == -1:
                total = total - values[:, k]
            else:
                total = total + _times(numerator, values[:, k])
        if self.is_complex:
            total = total.real
        width = self.denominator * steps**self.derivative
        if isinstance(width, np.ndarray):
            width = np.reshape(width, (-1,) + (1,) * (total.ndim - 1))
        quotients: Array = total / width
        return quotients

    def round_off(self, magnitude: Any, steps: Any, eps: float) -> Any:
        """Return ``eps * magnitude * sum(abs(weights)) / h**derivative``, what rounding costs."""
        return eps * magnitude * self._spread / steps**self.derivative

    def optimal_step(self, eps: float) -> float:
        """Return the step, in units of x's scale, where truncation and round-off are balanced.

        It minimises ``eps W / h**d + C h**p``, with d the derivative order, p the accuracy order,
        W the sum of the weights' magnitudes, and ``C = abs(sum(w o**(p + d))) / (p + d)!``, for a
        function whose derivatives are about as large as its values.

        References
        ----------
        W. H. Press et al., *Numerical Recipes*, 3rd edition, 2007, section 5.7.

        Examples
        --------
        >>> round(central().optimal_step(2.2e-16), 8)
        8.71e-06
        """
        if self.is_complex:  # nothing cancels: as small as need be
            return 1e-20
        p, d = self.accuracy, self.derivative
        spread, constant = self._spread, self._constant
        return float((d * eps * spread / (p * constant)) ** (1 / (p + d)))

    def expected_error(self, steps: Any, eps: float) -> Any:
        """Return what `optimal_step` minimises, ``C h**p + eps W / h**d``; 0 for complex steps."""
        if self.is_complex:
            return np.zeros_like(steps)
        with np.errstate(divide="ignore"):
            return self._constant * steps**self.accuracy + self.round_off(1.0, steps, eps)

    @lazy
    def _spread(self) -> float:
        """The sum of the weights' magnitudes."""
        return float(sum(abs(n) for n in self.numerators) / abs(self.denominator))

    @lazy
    def _constant(self) -> float:
        """By how much of the next derivative and ``h**accuracy`` the quotient is off."""
        n = self.accuracy + self.derivative
        return float(abs(self._moment(n)) / abs(self.denominator)) / math.factorial(n)


def from_offsets(offsets: Iterable[Any], derivative: int = 1) -> Scheme:
    """Return the scheme of the highest accuracy order on these points.

    Parameters
    ----------
    offsets : iterable of real numbers
        Different from each other, in units of the step; more of them than the derivative order.
    derivative : int
        The derivative order, 1 or more.

    Raises
    ------
    TypeError, ValueError
        If an offset is not real and finite, two are equal, or there are too few of them.

    Examples
    --------
    >>> from_offsets([0, 1, 2])
    Scheme(offsets=(1, 2, 0), numerators=(4, -1, -3), denominator=2, derivative=1)
    """
    try:
        given = [*offsets]
    except TypeError:
        raise TypeError(
            f"offsets are {reprlib.repr(offsets)}, which cannot be iterated over; pass a list of "
            "numbers such as [0, 1, 2]"
        ) from None
    if not all(isinstance(offset, Real) for offset in given):
        raise TypeError(f"offsets are {given}, but each must be a real number")
    if not all(math.isfinite(offset) for offset in given):
        raise ValueError(f"offsets are {given}, but each must be finite")
    numbers = [int(offset) if offset == int(offset) else float(offset) for offset in given]
    points = sorted(numbers, key=lambda offset: (offset == 0, abs(offset), -offset))
    if len(set(points)) < len(points):
        raise ValueError(f"offsets are {given}, but they must differ from each other")
    derivative = _whole("derivative", derivative)
    if len(points) <= derivative:
        raise ValueError(
            f"there are {len(points)} offsets for derivative order {derivative}; pass at least "
            f"{derivative + 1}"
        )
    return _most_accurate(tuple(points), derivative)


@cache
def _most_accurate(points: tuple[Any, ...], derivative: int) -> Scheme:
    """Return the scheme on points that have been checked."""
    weights = finite_difference_weights(points, derivative)
    used = [(point, weight) for point, weight in zip(points, weights, strict=True) if weight]
    denominator = math.lcm(*(weight.denominator for _, weight in used))
    numerators = [weight * denominator for _, weight in used]
    if denominator < 2**53 and all(abs(n) < 2**53 for n in numerators):
        exact = tuple(int(n) for n in numerators)
        return Scheme(tuple(point for point, _ in used), exact, denominator, derivative)
    rounded = tuple(float(weight) for _, weight in used)
    return Scheme(tuple(point for point, _ in used), rounded, 1, derivative)


def central(accuracy: int = 2, derivative: int = 1) -> Scheme:
    """Return the scheme on points around x, of an even accuracy order.

    Examples
    --------
    >>> central(2)
    Scheme(offsets=(1, -1), numerators=(1, -1), denominator=2, derivative=1)
    """
    accuracy, derivative = _whole("accuracy", accuracy), _whole("derivative", derivative)
    if accuracy % 2:
        raise ValueError(f"accuracy is {accuracy}, but a central scheme's is even: pass 2, 4, 6, 8")
    half = (derivative + 1) // 2 - 1 + accuracy // 2
    return from_offsets(range(-half, half + 1), derivative)


def forward(accuracy: int = 1, derivative: int = 1) -> Scheme:
    """Return the scheme on x and points above it.

    Examples
    --------
    >>> forward()
    Scheme(offsets=(1, 0), numerators=(1, -1), denominator=1, derivative=1)
    """
    accuracy, derivative = _whole("accuracy", accuracy), _whole("derivative", derivative)
    return from_offsets(range(accuracy + derivative), derivative)


def backward(accuracy: int = 1, derivative: int = 1) -> Scheme:
    """Return the scheme on x and points below it.

    Examples
    --------
    >>> backward()
    Scheme(offsets=(-1, 0), numerators=(-1, 1), denominator=1, derivative=1)
    """
    accuracy, derivative = _whole("accuracy", accuracy), _whole("derivative", derivative)
    return from_offsets(range(1 - accuracy - derivative, 1), derivative)


def _times(numerator: Any, values: Array) -> Array:
    """Return the product, without multiplying by 1."""
    return values if numerator == 1 else numerator * values


def _whole(name: str, value: Any) -> int:
    """Return a whole number of 1 or more."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} is {value!r} of type {type(value).__name__}, but it is a whole number; pass 2"
        ) from None
    if number < 1:
        raise ValueError(f"{name} is {number}, but it is 1 or more; pass 2")
    if number > MAX_ORDER:
        raise ValueError(f"{name} is {reprlib.repr(number)}, but it is {MAX_ORDER} or less; pass 2")
    return number


MAX_ORDER = 100
"""The highest order of a scheme. Weights of some tens of points round away all digits of f."""


central_quotient = Scheme(offsets=(1, -1), numerators=(1, -1), denominator=2)
"""The book's: ``central()``, which need not compute its weights."""

complex_step = Scheme(offsets=(1j,), numerators=(-1j,), denominator=1)
"""``imag(f(x + i h)) / h``: nothing is subtracted, so h may be tiny. For functions that are written
with analytic operations alone (no abs, max or comparisons) and take complex numbers.

W. Squire and G. Trapp, "Using complex variables to estimate derivatives of real functions",
SIAM Review 40 (1998), 110-112.
"""

SCHEMES_BY_NAME = {
    "central": central_quotient,
    "forward": Scheme(offsets=(1, 0), numerators=(1, -1), denominator=1),
    "backward": Scheme(offsets=(-1, 0), numerators=(-1, 1), denominator=1),
    "complex": complex_step,
}
"""The schemes that a name stands for."""


def as_scheme(scheme: str | Scheme) -> Scheme:
    """Return the scheme that is given or named.

    Raises
    ------
    TypeError, ValueError
        If it is neither a `Scheme` nor a name.
    """
    if isinstance(scheme, Scheme):
        return scheme
    if not isinstance(scheme, str):
        raise TypeError(
            f"scheme is a {type(scheme).__name__}; pass a name, or fastgrad.schemes.central(4)"
        )
    if scheme not in SCHEMES_BY_NAME:
        names = ", ".join(repr(name) for name in SCHEMES_BY_NAME)
        raise ValueError(
            f"scheme is {scheme!r}, which does not exist; pass one of {names}, "
            "or a scheme such as fastgrad.schemes.central(4)"
        )
    return SCHEMES_BY_NAME[scheme]


def second_of(first: Scheme) -> Scheme:
    """Return the scheme for second derivatives that goes with one for first derivatives."""
    if min(first.offsets) >= 0:
        return forward(first.accuracy, 2)
    if max(first.offsets) <= 0:
        return backward(first.accuracy, 2)
    return central(first.accuracy, 2)


def first_of(second: Scheme) -> Scheme:
    """Return the scheme for first derivatives that keeps on the same side as another one."""
    if min(second.offsets) >= 0:
        return forward(second.accuracy)
    if max(second.offsets) <= 0:
        return backward(second.accuracy)
    return central(second.accuracy)
