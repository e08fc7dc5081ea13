"""What ends a calculation, and is not to be taken for an exception of f's."""


class LostWorkerError(RuntimeError):
    """A worker process ended before its task."""


def raise_interrupt(error: BaseException) -> None:
    """Raise the KeyboardInterrupt behind a SystemError, if there is one, and a lost worker.

    An interrupt that strikes while a C function computes, and that the function does not look for,
    comes to light at the next call, as "SystemError: <built-in function ...> returned a result with
    an exception set", with the interrupt as its cause.

    Examples
    --------
    >>> error = SystemError("<built-in function get_ident> returned a result with an exception set")
    >>> raise_interrupt(error)
    >>> error.__cause__ = KeyboardInterrupt()
    >>> raise_interrupt(error)
    Traceback (most recent call last):
    KeyboardInterrupt
    """
    while isinstance(error, SystemError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, LostWorkerError) or not isinstance(error, Exception):
        raise error
