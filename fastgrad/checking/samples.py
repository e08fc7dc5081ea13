"""Hypotheses about the samples that a gradient leaves out, each of them tested."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastgrad.checking.batch import Batch
from fastgrad.checking.diagnosis import Diagnosis, FailedParameter, Hypothesis
from fastgrad.engines import loop
from fastgrad.typing import Array

PLACES = 8
"""Elements at which the samples are told apart, before all of them are compared."""

MANY = 512
"""Samples beyond which single ones are not looked at."""


def diagnose_samples(case: FailedParameter, batch: Batch) -> Diagnosis | None:
    """Return what is wrong with how the samples enter, if that is proven; or None."""
    samples = batch.samples
    if not 1 < samples <= MANY or not case.claim.size:
        return None
    with np.errstate(all="ignore"):
        return case.first_proven([*_one_sample(case, batch), *_wrong_axis(case, batch)])


Prediction = Callable[[Any, Any, Any], Any]

FORMS: dict[str, Prediction] = {
    "sample {n} is left out: the gradient is that of the others.": (
        lambda q, g, samples: q + (q - g) / (samples - 1)
    ),
    "sample {n} is left out of the sum, though it is divided by all {samples}.": (
        lambda q, g, samples: q - g / samples
    ),
    "sample {n} counts twice.": lambda q, g, samples: q + g / samples,
    "only sample {n} counts: the gradients of the others are lost.": lambda q, g, samples: g,
    "only sample {n} counts, and it is divided by all {samples}: sum over the samples.": (
        lambda q, g, samples: g / samples
    ),
}
"""Sentence -> the gradient of that fault, from the right one and that of sample n alone."""


def _one_sample(case: FailedParameter, batch: Batch) -> Iterator[Hypothesis]:
    """Yield the guesses that fit the elements with the largest errors."""
    problem, h = case.numerical.part.problem, case.numerical.h
    error = np.nan_to_num(abs(case.claim - case.value))
    places = np.argsort(-error)[:PLACES]
    old = problem.x.view(np.ndarray).reshape(-1)[places]
    points = np.stack([old + h, old - h], axis=1).astype(problem.x.dtype)
    values = [
        loop.values(batch.loss_of(n), problem.x, places, points) for n in range(batch.samples)
    ]
    each = np.array([(v[:, 0] - v[:, 1]) / (2 * h) for v in values], dtype=case.value.dtype)
    q, x, claim = case.value[places], case.x[places], case.claim[places]
    if not np.allclose(each.mean(axis=0), q, rtol=1e-4, atol=10 * error[places].max() / PLACES):
        return  # the loss is no mean over samples
    for sentence, predict in FORMS.items():
        # A penalty on x, the same in every sample's loss, is not left out with the sample.
        plain = predict(q, each, batch.samples)
        decay = predict(x, x, batch.samples) - x
        for with_decay in (False, True):
            rates = _rates(claim - plain, decay) if with_decay else np.zeros(batch.samples)
            misfit = abs(claim - plain - np.outer(rates, decay)).max(axis=1)
            n = int(np.argmin(misfit))
            if misfit[n] <= 1e-2 * error[places].max():
                alone = case.numerical.subject.quotients_of_sample(case.numerical.part, n, h)
                predicted = predict(case.value, alone, batch.samples)
                predicted = predicted + rates[n] * (predict(case.x, case.x, batch.samples) - case.x)
                yield Hypothesis(
                    sentence.format(n=n, samples=batch.samples),
                    case.claim - predicted + case.value,
                    slack=_slack(case),
                )


def _rates(misfit: Array, decay: Array) -> Array:
    """Return the multiple of the decay that fits best, for each sample."""
    size = float(decay @ decay)
    rates: Array = misfit @ decay / size if size else np.zeros(len(misfit))
    return rates


def _wrong_axis(case: FailedParameter, batch: Batch) -> Iterator[Hypothesis]:
    """Yield the guess that a bias is summed over its units, and not over the samples."""
    samples, numerical = batch.samples, case.numerical
    if case.claim.size != samples or max(case.shape, default=0) != samples:
        return
    each = np.stack(
        [
            numerical.subject.quotients_of_sample(numerical.part, n, numerical.h)
            for n in range(samples)
        ]
    )
    predicted = each.sum(axis=1) / samples
    yield Hypothesis(
        "summed over the wrong axis: it has a sum over the units for each sample; sum over the "
        "samples, by .sum(axis=0).",
        case.claim - predicted + case.value,
        slack=_slack(case) * float(np.sqrt(samples)),
    )


def _slack(case: FailedParameter) -> float:
    """Return what differences of single samples' losses may be wrong by."""
    numerical = case.numerical
    return 8 * numerical.noise.level / numerical.h + 4 * float(numerical.truncation.max(initial=0))
