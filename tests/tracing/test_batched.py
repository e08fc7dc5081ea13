"""Operations on many versions: their bits do not depend on how versions lie in memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastgrad.tracing.batched import Stack, batched
from fastgrad.tracing.operations import Node, item

ROWS = np.arange(6)
LABELS = np.array([0, 9, 3, 3, 1, 7])


@pytest.mark.parametrize("m", [1, 2, 40])
@pytest.mark.parametrize(
    ("function", "others", "keywords"),
    [
        (np.max, (), {"axis": 1, "keepdims": True}),
        (np.min, (), {"axis": -1}),
        (item, ((ROWS, LABELS),), {}),
    ],
)
def test_what_a_softmax_takes_of_each_row_has_the_same_bits_wherever_versions_lie(
    function: Callable[..., Any], others: tuple[Any, ...], keywords: dict[str, Any], m: int
) -> None:
    scores = np.random.default_rng(0).normal(size=(len(ROWS), 10))
    scores[1, 2] = np.nan
    leaf = Node(None, (), {}, scores, depends=True)
    node = Node(function, (leaf, *others), keywords, function(scores, *others, **keywords), True)
    versions = scores + np.arange(m).reshape(-1, 1, 1)
    apply = batched(node)
    for values in (versions, _side_by_side(versions)):
        found = apply((Stack(values), *others), m)
        expected = [function(version, *others, **keywords) for version in versions]
        assert found.tobytes() == np.stack(expected).tobytes()


@pytest.mark.parametrize("m", [1, 2, 40])
def test_a_result_that_is_written_over_versions_has_the_same_bits_wherever_they_lie(m: int) -> None:
    random = np.random.default_rng(0)
    scores, largest = random.normal(size=(m, 6, 10)), random.normal(size=(m, 6, 1))
    leaves = [Node(None, (), {}, array[0], depends=True) for array in (scores, largest)]
    apply = batched(Node(np.subtract, tuple(leaves), {}, scores[0] - largest[0], depends=True))
    for values in (scores.copy(), _side_by_side(scores)):
        for other in (largest, _side_by_side(largest)):
            spare = values.copy("K")
            found = apply((Stack(spare, is_spare=True), Stack(other)), m)
            assert np.shares_memory(found, spare)
            assert found.tobytes() == (scores - largest).tobytes()


def _side_by_side(versions: Any) -> Any:
    """Return versions in memory of which the last axis is theirs."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(versions, 0, -1)), -1, 0)
