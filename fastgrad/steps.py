"""Which steps are accepted? Positive, finite real numbers."""

import math
from numbers import Real


def as_positive_number(h: object) -> float:
    """Return the step h as a float.

    Raises
    ------
    TypeError
        If h is not a real number.
    ValueError
        If h is not positive and finite.

    Examples
    --------
    >>> as_positive_number(1)
    1.0
    """
    if isinstance(h, bool) or not isinstance(h, Real):
        raise TypeError(
            f"h is {h!r} of type {type(h).__name__}, but the step is a real number; "
            "pass one such as 1e-4"
        )
    step = float(h)
    if not 0 < step < math.inf:
        raise ValueError(f"h is {step}, but the step is positive and finite; pass one such as 1e-4")
    return step
