"""Random programs, on which traced and compiled gradients are compared with the loop's.

`functions.py` makes programs, line by line, from `expressions.py` and `statements.py`, `nets.py`
networks, `models.py` models, and `jitted.py` functions for numba; their `writer.py` chooses
constants near what they compute. `sequences.py` calls such programs several times, and changes what
they read between the calls. A `program.py` is Python source, which can be printed, built again and
shortened (`shrink.py`). `judge.py` compares its gradients, and tells a wrong one from the loop's
own round-off; `campaign.py` does so many times.
``python -m tests.fuzz --help`` tells how to run it.
"""
