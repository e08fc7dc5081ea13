"""How far has it come? A bar, or a function that is told how many elements are done."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences import Report, Values

Array = NDArray[Any]

PERIOD = 0.1
"""Seconds between two reports, about."""


@contextmanager
def shown(progress: bool | Callable[[int, int], Any], total: int) -> Iterator[Report | None]:
    """Give the block a function to report progress to, or None if none is to be shown.

    Parameters
    ----------
    progress : bool or callable
        True shows a bar of tqdm's. A callable is called as ``progress(done, total)``, with more
        done each time, and at the end with all, unless an exception ends the block.
    total : int
        How many elements there are.

    Raises
    ------
    TypeError
        If progress is neither.
    ModuleNotFoundError
        If a bar is asked for, and tqdm is not installed.

    Examples
    --------
    >>> with shown(lambda done, total: print(f"{done} of {total}"), total=3) as report:
    ...     report(1)
    ...     report(1)
    1 of 3
    2 of 3
    3 of 3
    """
    if progress is False:
        yield None
    elif callable(progress):
        yield from _counted(progress, total)
    elif progress is True:
        with _bar(total) as bar:
            yield from _counted(lambda done, _: bar.update(done - bar.n), total)
    else:
        raise TypeError(
            f"progress is {progress!r}; pass True for a bar, or a function progress(done, total)"
        )


def reporting(values: Values, report: Report) -> Values:
    """Return the same way of evaluating f, in blocks of about 0.1 s, each reported."""
    from fastgrad.engines.workers import join

    def in_blocks(
        f: Callable[[Any], Any],
        x: Array,
        places: NDArray[np.intp],
        points: Array,
        shape: tuple[int, ...] = (),
    ) -> Array:
        parts: list[Array] = []
        start, size, unreported = 0, 1, 0
        last = time.perf_counter()
        while start < len(places) or not parts:
            block = slice(start, start + size)
            began = time.perf_counter()
            parts.append(values(f, x, places[block], points[block], shape))
            now = time.perf_counter()
            unreported += len(places[block])
            if now - last >= PERIOD:
                report(unreported)
                last, unreported = now, 0
            start += size
            # Twice as many while the time is hardly measurable.
            size = min(2 * size, max(1, int(size * PERIOD / max(now - began, 1e-9))))
        if unreported:
            report(unreported)
        return join(parts)

    return in_blocks


def _counted(progress: Callable[[int, int], Any], total: int) -> Iterator[Report]:
    done = 0

    def report(places: int) -> None:
        nonlocal done
        before, done = done, min(done + places, total)  # x itself may be evaluated once more
        if done > before:
            progress(done, total)

    yield report
    report(total - done)


def _bar(total: int) -> Any:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "progress=True draws its bar with tqdm, which is not installed; "
            "pip install 'fastgrad[progress]', or pass a function progress(done, total)",
            name="tqdm",
        ) from None
    return tqdm(total=total, desc="Elements", unit="")
