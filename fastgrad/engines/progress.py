"""Progress of long work: a bar, or a function that is told how many elements are done."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

from fastgrad.differences.quotients import join
from fastgrad.typing import Array, Moves, Progress, Report, Values

REPORT_SECONDS = 0.1
"""Seconds between two reports, about."""

ELEMENT_TOLERANCE = 1e-6
"""What elements may lack that are reported in parts, by points or steps of theirs."""


@contextmanager
def shown(progress: Progress, total: int, delay: float = 0.0) -> Iterator[Report]:
    """Give the block a function to report progress to.

    Parameters
    ----------
    progress : True or callable
        True shows a bar of tqdm's. A callable is called as ``progress(done, total)``, with more
        done each time, and at the end with all, unless an exception ends the block.
    total : int
        How many elements there are.
    delay : float
        Seconds from which a bar is shown.

    Examples
    --------
    >>> with shown(lambda done, total: print(f"{done} of {total}"), total=3) as report:
    ...     report(1)
    ...     report(2)
    3 of 3
    """
    bar: Any = nullcontext()
    if progress is True:
        from tqdm import tqdm

        bar = tqdm(total=total, desc="Elements", unit="", delay=delay)
    done, told, last = 0.0, 0, time.perf_counter()

    def report(elements: float) -> None:
        nonlocal done, told, last
        done = min(done + elements, total)  # x itself may be evaluated once more
        now, whole = time.perf_counter(), int(done + ELEMENT_TOLERANCE)
        if whole > told and (now - last >= REPORT_SECONDS or whole == total):
            if progress is True:
                bar.update(whole - told)
            elif callable(progress):
                progress(whole, total)
            told, last = whole, now

    with bar:
        yield report
        report(total - done)


def require_progress(progress: object) -> None:
    """Refuse what progress cannot be shown by, and a bar that nothing can draw."""
    if not (callable(progress) or isinstance(progress, bool)):
        raise TypeError(
            f"progress is {progress!r}; pass True for a bar, or a function progress(done, total)"
        )
    if progress is True:
        try:
            import tqdm  # noqa: F401  (is it there?)
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "progress=True draws its bar with tqdm, which is not installed; "
                "pip install 'fastgrad[progress]', or pass a function progress(done, total)",
                name="tqdm",
            ) from None


def in_parts(report: Report | None, part: float) -> Report | None:
    """Return what reports so large a part of each element; None if nobody is told."""
    return None if report is None else lambda elements: report(part * elements)


def reporting(values: Values, report: Report | None) -> Values:
    """Return the same way of evaluating f, in blocks of about 0.1 s, each reported."""
    return values if report is None else partial(_reported, values, report)


def _reported(
    values: Values, report: Report, f: Callable[[Any], Any], x: Array, moves: Moves
) -> Array:
    parts = []
    for part in blocks(values, f, x, moves):
        parts.append(part)
        report(len(part))
    return join(parts)


def blocks(values: Values, f: Callable[[Any], Any], x: Array, moves: Moves) -> Iterator[Array]:
    """Yield what ``values(f, x, moves)`` returns, in blocks of about 0.1 s."""
    start, size, count = 0, 1, len(moves.places)
    while start < count or not start:
        began = time.perf_counter()
        part = values(f, x, moves.part(slice(start, start + size)))
        start += size
        # Twice as many while the time is hardly measurable.
        size = min(
            2 * size, max(1, int(size * REPORT_SECONDS / max(time.perf_counter() - began, 1e-9)))
        )
        yield part
