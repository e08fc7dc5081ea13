"""Checks of hand-written gradients against differences of f, which put a fault into words.

`check.py` takes f, x and a gradient, `subject.py` holds them. `numerical.py` differences f, and
`elements.py` looks closer at elements that disagree; `random_directions.py` and `taylor_test.py`
compare along directions, by a few calls of f. What is wrong is guessed and proven by
`hypotheses.py`, `samples.py`, `log_offset.py`, `modes.py` and `reevaluation.py`; `findings.py` puts
it into words, and `report.py` into a table.

    check_gradient(lambda x: (x**2).sum(), x, 2 * x)
"""
