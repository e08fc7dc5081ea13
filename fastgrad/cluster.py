"""An adapter that lets a Dask cluster's workers evaluate f; it is passed as `workers`."""

from collections.abc import Callable, Iterable, Iterator
from numbers import Integral
from typing import Any


def dask_map(
    client: Any, *, retries: int = 3
) -> Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]:
    """Return ``map(function, items)`` that runs on the cluster, for ``workers=``.

    The function, with all that belongs to it, travels to every worker once. What a lost worker had
    to do another one does again.

    Parameters
    ----------
    client : dask.distributed.Client
        Connected to a cluster whose workers have fastgrad with its extra "dask", in the same
        versions as here. All its threads are used, each with a copy of f and x of its own.
    retries : int
        How often a task is tried again that fails for another reason than an exception of f; 0 or
        more.

    Returns
    -------
    callable
        Yields the results in the order of the items. If it is left early, as by Ctrl-C, tasks that
        have not begun are cancelled; those that run end on their workers.

    Raises
    ------
    TypeError, ValueError
        If client is no client of Dask's, or retries is no whole number of 0 or more.

    Examples
    --------
    >>> from dask.distributed import Client
    >>> import numpy as np
    >>> from fastgrad import numerical_gradient
    >>> with Client(processes=False, n_workers=1, dashboard_address=":0") as client:
    ...     workers = dask_map(client)
    ...     numerical_gradient(lambda x: (x**2).sum(), np.arange(3.0), workers=workers).round(6)
    array([0., 2., 4.])
    """
    if not (hasattr(client, "scatter") and hasattr(client, "map")):
        raise TypeError(f"client is a {type(client).__name__}; pass a dask.distributed.Client")
    if isinstance(retries, bool) or not isinstance(retries, Integral):
        raise TypeError(f"retries is {retries!r}, but it is a whole number; pass one such as 3")
    if retries < 0:
        raise ValueError(f"retries is {retries}, but it is 0 or more; pass 0 for none")

    def mapped(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        # Without hash: what was scattered for an earlier gradient must not be taken for this.
        shared = client.scatter(function, broadcast=True, hash=False)
        futures = client.map(_call, [*items], function=shared, pure=False, retries=retries)
        try:
            for future in futures:
                yield future.result()
        finally:
            client.cancel(futures)

    return mapped


def _call(item: Any, function: Callable[[Any], Any]) -> Any:
    """Call a function with an item."""
    return function(item)
