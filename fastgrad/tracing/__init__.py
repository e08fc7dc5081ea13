"""NumPy functions, recorded once and replayed where x is moved.

- Recording: `trace` calls f once; `recorder` notes the operations on stand-ins (`stand_in`), which
  `references` and `namespace` put where f finds x and NumPy; `memory` watches other arrays,
  `rollback` puts everything back.
- Analysis of the recorded `graph`: `affine` finds where x enters, and the terms of the loss;
  `dependence` and `row_losses` tell which units and rows it mixes; `smoothness` what may happen
  between measured shifts.
- Replay: `strategy` chooses for each term; `unit_responses` and `kinks` measure, by `replay`,
  `batched` and `operations`.

The way in is `trace.trace_call`; the way out is `strategy.choose_strategies`. What cannot be traced
raises `recorder.NotTraceable`, with the reason for the user.
"""
