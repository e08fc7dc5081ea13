"""A few hundred random calls of all public functions: results, or fastgrad's own sentences."""

import fuzz_arguments
import numpy as np
import pytest


def test_random_arguments_of_any_kind_give_a_result_or_a_sentence_of_our_own():
    wrong = fuzz_arguments.run(calls=400, seed=0)
    assert not wrong, "\n".join(example for example, _ in wrong.values())


def test_what_is_not_our_own_is_seen():
    def raises(x):
        return np.asarray([1.0, [2.0]])

    fuzz_arguments.FUNCTIONS["internal"] = raises
    try:
        assert "inhomogeneous" in fuzz_arguments.judge("internal", {"x": 1})
    finally:
        del fuzz_arguments.FUNCTIONS["internal"]
    assert fuzz_arguments.judge("sigmoid", {"x": "a"}) is None


@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("numerical_gradient", {"engine": ["loop"]}, "engine is"),
        ("numerical_gradient", {"engine": {}}, "engine is"),
        ("numerical_gradient", {"vectorized": np.ones(2)}, "vectorized is"),
        ("numerical_gradient", {"relative": np.ones(2)}, "relative is"),
        ("numerical_gradient", {"progress": np.ones(2)}, "progress is"),
        ("numerical_gradient", {"h": [1.0, [2.0, 3.0]]}, "h is"),
        ("numerical_gradient", {"h": 10**400}, "h is inf"),
        ("differentiate", {"relative": [1]}, "relative is"),
        ("differentiate", {"tolerance": 10**400}, "tolerance is"),
        ("hessian_vector_product", {"v": [1.0, [2.0]]}, "v is"),
        ("check_gradient", {"gradient": [1.0, [2.0]]}, "gradient is"),
        ("check_gradient", {"gradient": np.ones(3), "fast": "yes"}, "fast is"),
        ("slope_test", {"gradient": np.ones(3), "seed": 0.5}, "seed is"),
    ],
)
def test_options_of_the_wrong_kind_are_named(name, arguments, match):
    def never(x):
        raise AssertionError

    with pytest.raises((TypeError, ValueError), match=match):
        fuzz_arguments.FUNCTIONS[name](never, np.ones(3), **arguments)
