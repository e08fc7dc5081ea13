"""`assert_gradient`: a gradient that is right, in a test, or the whole report as the failure."""

from typing import Any

from fastgrad.checking.check import check_gradient
from fastgrad.typing import GradientEngineName, NetEngineName


def assert_gradient(
    f: Any,
    x: Any = None,
    gradient: Any = None,
    *,
    t: Any = None,
    h: float | None = None,
    args: tuple[Any, ...] = (),
    engine: GradientEngineName | NetEngineName = "auto",
    rtol: float = 0.0,
    fast: bool = False,
    max_seconds: float | None = None,
    outside: Any = None,
) -> None:
    """Raise an AssertionError if a gradient is not that of f; its message says what is wrong.

    As the functions of `numpy.testing` it needs no test runner: a plain ``assert`` in a function,
    for pytest, unittest or none of them.

    Parameters
    ----------
    f, x, gradient, t, h, args, engine, rtol, fast, max_seconds, outside
        As for `fastgrad.check_gradient`.

    Raises
    ------
    AssertionError
        If the gradient is wrong. The message is the report.
    TypeError, ValueError
        As from `fastgrad.check_gradient`.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 3.0])
    >>> assert_gradient(lambda x: (x**2).sum(), x, 2 * x)
    >>> try:
    ...     assert_gradient(lambda x: (x**2).sum(), x, -2 * x)
    ... except AssertionError as error:
    ...     print(str(error).splitlines()[-1])
    - x: the sign is wrong: it is -1 times what it should be. Corrected for that, every element \
agrees.
    """
    __tracebackhide__ = True  # pytest shows the caller's line, not this one
    report = check_gradient(
        f, x, gradient, t=t, h=h, args=args, engine=engine, rtol=rtol, fast=fast,
        max_seconds=max_seconds, outside=outside,
    )  # fmt: skip
    if not report:
        raise AssertionError(f"\n{report}")
