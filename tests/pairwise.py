"""A selection of a product's cases, in which each two values of any two factors meet."""

from itertools import combinations, product


def pairwise(*factors):
    """Return few of the cases of a product, such that any two values of two factors meet in one.

    Most faults need two things to come together, and three hardly ever: such a selection finds
    about what the whole product finds, at the cost of the two largest factors' product. The cases
    are the same ones each time: each is the first of those that have the most pairs that have not
    met so far.

    Parameters
    ----------
    *factors : iterable
        The values of each, of two or more.

    Returns
    -------
    list of tuple
        In each a value of each factor, in their order.

    Examples
    --------
    >>> for case in pairwise("ab", [1, 2], (False, True)):
    ...     print(*case)
    a 1 False
    a 2 True
    b 1 True
    b 2 False
    """
    values = [[*factor] for factor in factors]
    sizes = [range(len(factor)) for factor in values]
    unmet = {
        (i, a, j, b)
        for i, j in combinations(range(len(sizes)), 2)
        for a in sizes[i]
        for b in sizes[j]
    }
    chosen = []
    while unmet:
        best = max(product(*sizes), key=lambda case: len(unmet & pairs(case)))
        unmet -= pairs(best)
        chosen.append(tuple(factor[k] for factor, k in zip(values, best, strict=True)))
    return chosen


def pairs(case):
    """Return the pairs of values in a case, each by its factors' numbers and its own."""
    return {(i, a, j, b) for (i, a), (j, b) in combinations(enumerate(case), 2)}
