"""A product's subscripts say what it sums over."""

import numpy as np
import pytest
from test_traced_replay import EXPRESSIONS, close, recorded, scale_of

from fastgrad.tracing.operations import factors, product_spec, value_of


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("dot", "ab,bd->ad"),
        ("vector", "ab,b->a"),
        ("vector of it", "a,ac->c"),
        ("inner", "ab,db->ad"),
        ("einsum", "ij,jk->ik"),
        ("einsum implicit", "ij,jk->ik"),
        ("einsum of three", None),
        ("einsum ellipsis", None),
        ("einsum of one", None),
        ("matmul of stacks", None),
    ],
)
def test_products_have_subscripts(name, spec):
    _, node = recorded(EXPRESSIONS[name])
    found = product_spec(node)
    if spec is None or found is None:
        assert found == spec
        return
    letters = dict(
        zip(
            found.replace(",", "").replace("->", ""),
            spec.replace(",", "").replace("->", ""),
            strict=True,
        )
    )
    assert "".join(letters.get(c, c) for c in found) == spec
    assert len(set(letters.values())) == len(letters)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_einsum_by_the_subscripts_gives_what_the_product_gave(name):
    """Of everything that is recorded, what is no product among it has none."""
    nodes, _ = recorded(EXPRESSIONS[name])
    for node in nodes[1:]:
        if node.function not in (np.dot, np.matmul, np.inner, np.tensordot, np.einsum):
            continue
        spec = product_spec(node)
        if spec is not None and not node.keywords:
            result = np.einsum(spec, *map(value_of, factors(node)))
            assert close(result, node.value, scale_of(nodes) ** 2)
