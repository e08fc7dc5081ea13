"""NumPy functions, recorded once and replayed where x is moved.

- Recording: `first_calls` tells whether it may pay; `trace` calls f once more; `recorder` notes the
  `operations` on stand-ins (`stand_in`), which stand where f finds x (`references`, which puts
  everything back) and NumPy (`namespace`). `state` compares all that f can reach with what it was.
- Analysis: `affine` finds where x enters, its units and rows, and the terms of the loss;
  `smoothness` tells what may happen between measured shifts.
- Replay: `strategy` chooses for each term, and keeps what operations tell for the next recording
  of the same; `unit_responses` and `kinks` measure, by `row_losses`, which also tells whether rows
  mix, `replay` and `batched`; `picks` leaves out what masks and maxima do not pick,
  `linear_pieces` adds up moves where no decision changes, by `linear_operations`, and
  `changed_decisions` what is added where few do; `chains` compiles what long replays do between
  products.
- `sparsity`: which elements of a result depend on which of x.

The way in is `trace.trace_call`; the way out is `strategy.choose_strategies`. What cannot be traced
raises `recorder.NotTraceable`, with the reason for the user.

>>> import numpy as np
>>> from fastgrad.tracing.trace import trace_call
>>> trace = trace_call(lambda x: np.log(np.cosh(x)).sum(), np.arange(3.0), h=1e-4)
>>> [node.function.__name__ for node in trace.nodes if node.function]
['cosh', 'log', 'sum']
"""
