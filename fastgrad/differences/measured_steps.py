"""Automatic steps, measured: where f's own values show truncation and round-off in balance."""

from typing import Any

import numpy as np

from fastgrad.differences.arguments import element_at, warn_caller
from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import (
    BLOCK_DERIVATIVES,
    at,
    precision,
)
from fastgrad.differences.rounding import (
    EXTRA_CALLS,
    MIN_DISTINCT_VALUES,
    Quotients,
    TrialQuotients,
    column,
    is_flat,
    jumps,
    slope_sizes,
)
from fastgrad.schemes import Scheme
from fastgrad.typing import Array, Flags, Places, Values

PILOTS = 8
"""Elements that are measured first; the others start from how noisy f was found to be there."""

NOISE_FACTOR = 16.0
"""Times the rounding of f's values up to which differences are taken for just that."""

QUOTIENTS = 3
"""Quotients that most elements take."""

SMOOTH_TRUNCATION = 1e-3
"""Relative truncation at the far step below which f is taken to be smooth up to there."""

MAX_ROUNDING = 1e-4
"""Relative rounding at the far step from which f is looked at still farther away."""

RATIO = 8.0
"""Between the steps of a sweep."""

SWEEP_STEPS = 8
"""Steps of a sweep at first."""

EXTENSION_STEPS = 9
"""Steps by which a sweep goes on where it has not ended: with RATIO, a factor of 1e8."""

MIN_CORRECTION, MAX_CORRECTION = 2.0**-6, 2.0**3
"""What one correction multiplies a step by, at least and at most."""

MIN_GAIN = 10.0
"""By how much an error must be too large to be worth another quotient of many points."""

FINAL_TRUNCATION = 1e-7
"""Relative truncation that is left where one other step has been tried: f is smooth, too."""

MAX_RELATIVE_STEP = 0.25
"""The largest step, in units of ``max(abs(x), 1)``."""

CLEAR_SHARE = 0.1
"""Times a contradiction that two steps must agree to for it to be one."""

MAX_SETTLED_ERROR = 0.1
"""The relative error of the best quotient from which the user is told that no step suits f."""

MAX_NOISE = 1e-3
"""The largest noise of f, relative to its values, that is taken for noise: three digits."""


def measured(
    problem: Problem,
    values: Values,
    base: Array | None = None,
    eps: float | None = None,
    *,
    farther: bool = True,
    places: Places | None = None,
    at_once: int = BLOCK_DERIVATIVES,
) -> Problem:
    """Return the problem with a measured step for each element, and the quotients at these steps.

    One whose steps are not automatic is returned as it is.

    Where f is smooth, that takes at most `EXTRA_CALLS` of f an element beside the scheme's own.

    Of a scheme of one or two points three quotients show the step: at the scheme's best step h for
    functions that vary over distances of ``max(abs(x), 1)``; at a far step, the geometric mean of h
    and this distance, whose difference from the first one is the truncation error T there; and at
    the step where T, which falls with ``h**p``, and the round-off R, which grows with ``1 / h**d``,
    are in balance: ``h * (d R / (p T))**(1 / (p + d))``. If the third confirms the first to within
    R, it is the result. Where T is large, a fourth one between h and the far step must show that it
    falls as it should.

    Of more points one quotient shows T already: those on its inner points are less accurate by
    their own truncation errors. Where T and R are far from balance there, a second quotient is
    taken where they are in balance, or, of more than `EXTRA_CALLS` points, at a step so near to
    that as some of its points are known.

    Otherwise f is noisier than R says, varies over short distances, or both; then quotients
    at many steps are compared (`_sweep`). What is found about the noise of f, and about the
    distances over which it varies, in a few elements is what the others start from.

    Parameters
    ----------
    problem : Problem
        Its steps are not looked at; f is called within its bounds.
    values : callable
        How f is evaluated.
    base : array, optional
        f(x), of any shape: steps suit all outputs of f whose derivatives are not 0. Where it is not
        known, f returns a number.
    eps : float, optional
        The relative precision of f's values, if x's type does not say it.
    farther : bool
        Whether a step may be larger than h where f is not noisier than eps. For mixed derivatives
        it may not: nothing is known of how they change along the other element.
    places : array of int, optional
        The elements that are measured, in C order, by default all; what is returned of others has
        no meaning.
    at_once : int
        How many quotients are looked at together, if not those of a single element.

    Returns
    -------
    Problem
        With steps ``(x.size,)`` and quotients ``(x.size, *base.shape)``, in C order.

    Notes
    -----
    Where f raises, it is not defined, unless it does so at all steps. A function that oscillates
    some thousand times within h is not seen through.

    References
    ----------
    R. S. Stepleman and N. D. Winarsky, "Adaptive numerical differentiation", Mathematics of
    Computation 33 (1979), 1257-1264; P. E. Gill, W. Murray, M. A. Saunders, M. H. Wright,
    "Computing forward-difference intervals for numerical optimization", SIAM Journal on Scientific
    and Statistical Computing 4 (1983), 310-321.
    """
    x, n = problem.x, problem.x.size
    if not problem.automatic or not n or problem.scheme.is_complex:
        return problem
    if base is None:
        base = values(problem.f, x, at(x))[0, 0]
        base = np.asarray(base, None if isinstance(base, np.floating) else np.float64)
    eps = precision(x, base) if eps is None else eps
    work = _Measurement(problem, values, base, eps, farther)
    places = np.arange(n) if places is None else places
    if len(places) > 2 * PILOTS:
        first = places[np.linspace(0, len(places) - 1, PILOTS).astype(np.intp)]
        work.measure(first)
        work.noise = float(np.median(work.noises[first]))
        best = problem.scheme.optimal_step(eps * work.noise)
        work.factor = float(np.median(work.steps[first] / (best * work.scales[first])))
        places = np.setdiff1d(places, first)
    block = max(1, at_once // max(base.size, 1))
    for start in range(0, len(places), block):
        work.measure(places[start : start + block])
    work.warn_of_unsettled()
    quotients = work.quotients.reshape(n, *base.shape)
    return problem.replaced(steps=work.steps, quotients=quotients)


class _Measurement(TrialQuotients):
    """The steps and quotients that have been found, for elements as indices in C order."""

    def __init__(
        self, problem: Problem, values: Values, base: Array, eps: float, farther: bool
    ) -> None:
        super().__init__(problem, values, base, eps)
        self.farther, self.factor = farther, 1.0
        self.scales = np.maximum(abs(self.x.astype(np.float64)), 1)
        self.steps = np.empty(self.x.size)
        self.quotients = np.zeros((self.x.size, base.size), self.base.dtype)
        self.noises, self.errors = np.ones(self.x.size), np.zeros(self.x.size)

    def measure(self, places: Places) -> None:
        """Find the steps of these elements."""
        with np.errstate(all="ignore"):
            self._measure(places)
        for place, error in self.raised.items():
            if not np.isfinite(self.quotients[place]).any():
                raise error  # at all steps

    def warn_of_unsettled(self) -> None:
        """Warn of an element at which quotients at neighbouring steps do not agree, for any."""
        place = int(np.argmax(self.errors)) if self.errors.size else 0
        if self.errors.size and self.errors[place] > MAX_SETTLED_ERROR:
            where = element_at(self.problem.name, place, self.problem.x.shape)
            warn_caller(
                f"h is 'auto', but no step suits f at {where}: "
                "quotients at neighbouring steps do not agree. f is noisy there, or varies over "
                "distances that x can hardly hold"
            )

    def _measure(self, places: Places) -> None:
        scheme = self.problem.scheme
        wanted = scheme.optimal_step(self.eps * self.noise) * self.scales[places]
        by = self._by_inner_schemes if len(scheme.outer) > 2 else self._by_a_far_step
        known = by(places, wanted)
        self.noises[places] = self.noise
        self._sweep(places[~known])

    def _by_inner_schemes(self, places: Places, wanted: Array) -> Flags:
        """Find steps by the truncation that shows at one step; return where they suit f.

        It costs no calls: schemes on the nearer ones of the points, of lower accuracy, differ by
        their own truncation, from which that of the scheme follows (`_truncation`). Another step is
        taken where that is worth it, once, and there truncation has to be as small as expected.
        """
        scheme = self.problem.scheme
        p, d = scheme.accuracy, scheme.derivative
        ratios, shared = _cheap_ratios(scheme), len(scheme.outer) > EXTRA_CALLS
        near = self.at(places, wanted * self.factor)
        self._keep(places, near)
        h, rounding, size = near.steps, self.rounding(places, near), self._size(places, near, near)
        truncation, round_off = _largest(near.truncations, size), _largest(rounding, size)
        near_rounding = rounding
        flat: Flags = ~np.any(near.lifts, axis=1)
        falling = np.maximum(truncation, np.finfo(float).tiny)
        ratio = (d * round_off / (p * falling)) ** (1 / (p + d))
        lost = ~size.any(axis=1) | (round_off > MAX_ROUNDING)  # derivatives hardly show
        ratio = np.where(lost, np.inf, ratio)
        ratio = np.clip(ratio, ratios[0], ratios[-1] if self.farther else 1)
        if shared:
            ratio = ratios[np.argmin(abs(np.log(ratio[:, np.newaxis] / ratios)), axis=1)]
        expected = truncation * ratio**p + round_off / ratio**d
        slopes = slope_sizes(scheme, near.values, near.lifts, h)
        sure = SMOOTH_TRUNCATION * slopes + NOISE_FACTOR * rounding
        smooth = np.all(near.truncations <= sure, axis=1)
        known: Flags = smooth & (truncation + round_off <= MIN_GAIN * expected)
        known &= ~lost | (ratio <= 1)
        picked = smooth & ~known
        # Points are shared by quotients of elements whose steps have one ratio.
        for times in np.unique(ratio[picked]) if shared else [ratio]:
            chosen = np.flatnonzero(picked & (ratio == times))
            some = places[chosen]
            third = self.at(some, h[chosen] * ratio[chosen], exactly=shared)
            rounding = self.rounding(some, third)
            farther = column(np.maximum(third.steps / h[chosen], 1) ** p)
            change = abs(third.values - near.values[chosen])  # of each output by itself
            likely = near.truncations[chosen] * farther + near_rounding[chosen] + rounding
            slopes = slope_sizes(scheme, third.values, third.lifts, third.steps)
            enough = FINAL_TRUNCATION * slopes + NOISE_FACTOR * rounding
            is_explained = (change <= NOISE_FACTOR * likely) | (size[chosen] == 0)
            confirmed = (is_explained & (third.truncations <= enough)).all(axis=1)
            confirmed &= ~third.lifts.any(axis=1) | ~flat[chosen]
            known[chosen] = confirmed
            # What rounding explains at a smaller step is no truncation at the larger one.
            rest, changed = _largest(rounding, size[chosen]), _largest(change, size[chosen])
            better = confirmed & ((changed > rest) | (third.steps > h[chosen]))
            self._keep(some[better], third[better])
        return known

    def _by_a_far_step(self, places: Places, wanted: Array) -> Flags:
        """Find steps by a quotient at a far one; return where they suit f."""
        scheme = self.problem.scheme
        p, d = scheme.accuracy, scheme.derivative
        near = self.at(places, wanted)
        self._keep(places, near)
        far = self._far_quotients(places, near)
        self._keep(places, near)
        h, wide = near.steps, far.steps
        rounding, size = self.rounding(places, near), self._size(places, near, far)
        # Of each output by itself: the rounding of one says nothing of what another does.
        of_outputs, noises = _relative(far.values - near.values, size), _relative(rounding, size)
        truncation, round_off = _most(of_outputs), _most(noises)
        is_hidden = of_outputs <= NOISE_FACTOR * noises
        hidden = np.isfinite(truncation) & is_hidden.all(axis=1)
        # Nearer to x, f is nearer to f(x): else there is a peak at x, or noise.
        closer = 4 * far.lifts * column(h / wide) + NOISE_FACTOR * rounding * column(h) ** d
        sound = (near.lifts <= closer + 4 * abs(near.values) * column(h) ** d).all(axis=1)
        sound &= wide > 2 * h
        smooth = (is_hidden | (of_outputs <= SMOOTH_TRUNCATION)).all(axis=1)
        known: Flags = sound & (hidden | smooth)
        asked = np.flatnonzero(sound & ~known & np.isfinite(truncation))
        if len(asked):  # does it fall as truncation does?
            middle = self.at(places[asked], np.sqrt(h[asked] * wide[asked]))
            change = _relative(middle.values - near.values[asked], size[asked])
            fall = column((middle.steps / wide[asked]) ** p)
            least, noise = fall * of_outputs[asked], NOISE_FACTOR * noises[asked]
            # Nor may it vanish: f may be constant at small steps because it is rounded.
            falls = (change <= 4 * least + noise) & (change >= fall * least / 8 - noise)
            known[asked[falls.all(axis=1)]] = True
            seen = (change > noise).any(axis=1)
            of_outputs[asked[seen]], wide[asked[seen]] = change[seen], middle.steps[seen]
            truncation[asked[seen]] = _most(change[seen])
        falling = np.maximum(truncation, round_off)
        # The step at which T(wide) (step / wide)**p and R(h) (h / step)**d are in balance.
        balance = (d * round_off / (p * falling) * wide**p * h**d) ** (1 / (p + d))
        balance = np.where(round_off > 0, np.minimum(balance, wide), wide)
        if not self.farther:
            balance = np.minimum(balance, h)
        nothing = known & (truncation == 0) & (size == 0).all(axis=1)  # f does not depend on it
        picked = np.flatnonzero(known & ~nothing & (self.farther | ~hidden))
        third = self.at(places[picked], balance[picked])
        allowed = noises[picked] * column(1 + (h[picked] / third.steps) ** d)
        largest = np.maximum(third.steps, h[picked]) / wide[picked]
        allowed += of_outputs[picked] * column(largest**p)
        change = _relative(third.values - near.values[picked], size[picked])
        confirmed = (change <= NOISE_FACTOR * allowed).all(axis=1)
        self._keep(places[picked[confirmed]], third[confirmed])
        known[picked[~confirmed]] = False
        return known

    def _far_quotients(self, places: Places, near: Quotients) -> Quotients:
        """Return quotients at far steps; near ones that show as little but rounding become far."""
        d = self.problem.scheme.derivative
        best = self.problem.scheme.optimal_step(self.eps * self.noise)
        far = self.at(places, max(best**0.5, best) * self.scales[places])
        for _ in range(3):  # as far as f is defined
            is_lost = ~np.isfinite(far.values).all(axis=1) & np.isfinite(near.values).all(axis=1)
            lost = np.flatnonzero(is_lost)
            if not len(lost):
                break
            far[lost] = self.at(places[lost], far.steps[lost] / RATIO)
        again: Any = True
        for _ in range(2 if self.farther else 0):  # while little but rounding shows
            poor = (self.rounding(places, far) > MAX_ROUNDING * abs(far.values)).all(axis=1)
            if not np.count_nonzero(poor & again):
                break
            noise = NOISE_FACTOR * self.rounding(places, near)
            same = (abs(far.values - near.values) <= noise).all(axis=1)
            grown = np.flatnonzero(same & poor & again)
            more = self.at(places[grown], far.steps[grown] * RATIO**3)
            better = np.isfinite(more.values).all(axis=1)
            near[grown[better]] = far[grown[better]]
            far[grown[better]] = more[better]
            # Where f changes, and has no derivative to be seen, one look is enough.
            noise = NOISE_FACTOR * self.rounding(places, far) * column(far.steps) ** d
            again = self._size(places, near, far).any(axis=1) | (far.lifts <= noise).all(axis=1)
        return far

    def _sweep(self, places: Places) -> None:
        """Find the steps of elements at which f is noisy, or varies over short distances.

        Quotients at steps in a geometric sequence differ by truncation where the steps are large,
        and by noise where they are small: ``e[j] = D[j-1] / r**d + D[j] / r**p`` is about the error
        at step j, with D the differences of neighbours and r the ratio. The step where e is least
        is taken. Where f is piecewise constant at small steps, e is small there, too: `jumps` tells
        that from what f really is.
        """
        if not len(places):
            return
        scheme = self.problem.scheme
        best = scheme.optimal_step(self.eps * self.noise) * self.scales[places]
        top = np.minimum(
            2.0 ** np.ceil(np.log2(best)) * RATIO ** (SWEEP_STEPS - 2),
            MAX_RELATIVE_STEP * self.scales[places],
        )
        shape = len(places), SWEEP_STEPS + 2 * EXTENSION_STEPS
        steps = np.full(shape, np.nan)
        none = np.full((*shape, self.quotients.shape[1]), np.nan, self.quotients.dtype)
        taken = Quotients(none, steps, none.copy(), none.copy())
        active, start = np.arange(len(places)), 0
        # Downwards, until it converges.
        for end in (SWEEP_STEPS, SWEEP_STEPS + EXTENSION_STEPS, SWEEP_STEPS + 2 * EXTENSION_STEPS):
            some = places[active]
            for k in range(start, end):
                wanted = np.maximum(top[active] * RATIO**-k, self.smallest[some])
                taken[active, k] = self.at(some, wanted)
            start, is_last = end, end > SWEEP_STEPS + EXTENSION_STEPS
            done = [self._choose(places[i], taken[i, :end], is_last) for i in active]
            shrinks = steps[active, end - 1] > 2 * self.smallest[some]
            active = active[~np.array(done) & shrinks]
            if not len(active):
                break

    def _choose(self, place: Any, sweep: Quotients, is_last: bool) -> bool:
        """Keep the best one of an element's steps; return whether there need be no smaller ones."""
        d = self.problem.scheme.derivative
        order = np.unique(sweep.steps, return_index=True)[1]
        sweep = sweep[order]
        sweep = sweep[np.isfinite(sweep.values).all(axis=1) & np.isfinite(sweep.steps)]
        steps, lifts = sweep.steps, sweep.lifts
        if len(steps) < 3:
            if len(steps):
                self._keep(place, sweep[0])
            return False
        rounding = self.rounding(place, sweep)
        size = _middle_size(sweep.values, rounding)
        if not size.any():  # the derivative vanishes; at the largest step least of it is rounding
            self._keep(place, sweep[-1])
            noise = NOISE_FACTOR * rounding[:-1] * column(steps[:-1] ** d)
            is_smooth = bool((lifts[:-1] <= 2 * lifts[1:] / RATIO + noise).all())
            # A cusp, at which quotients cancel: nearer to x, f is hardly nearer to f(x).
            # Or f is undefined beyond steps at which rounding is larger than derivatives can be.
            lost = rounding[-1] * self.scales[place] ** d > MAX_SETTLED_ERROR * self._height(sweep)
            self.errors[place] = not is_smooth or bool(lost.any())
            return is_last or is_smooth
        round_off = _largest(rounding, size)
        differences = _largest(np.diff(sweep.values, axis=0), size)
        errors = self._errors(differences, steps) + round_off
        errors[self._is_contradicted(sweep, size)] = np.inf
        j = int(np.argmin(errors))
        coarser = self._coarser(place, j, sweep, errors, size)
        wrong: float | None = 0.0
        if coarser is not None:
            j = coarser
        else:
            j = self._finer(place, j, sweep, errors, size, rounding)
            j, wrong = self._off_plateau(place, j, sweep)
        certain = wrong is not None
        self._keep(place, sweep[j])
        self._keep_of_others(place, sweep, j, rounding)
        largest = float(np.max(abs(sweep.values[j]), initial=0))
        if largest > 0:  # in units of what is kept, not of all quotients
            found = errors[j] * float(np.max(size)) if wrong is None else wrong
            self.errors[place] = found / largest
        if j > 0:
            tiny = np.finfo(float).tiny
            times = float(np.max(differences[:j] / np.maximum(round_off[:j], tiny)))
            self.noises[place] = max(self.noise, times if times > NOISE_FACTOR else 1.0)
        if certain or is_last:
            return True
        # Below the least error there must be noise, or steps have to become smaller.
        rising = j > 0 and (j == len(differences) or differences[j - 1] >= differences[j] / RATIO)
        explained = errors[j] <= NOISE_FACTOR * RATIO * round_off[j]
        return bool(errors[j] < CLEAR_SHARE and rising and explained)

    def _errors(self, differences: Array, steps: Array) -> Array:
        """Return how wrong quotients are about, by how much those at neighbouring steps differ."""
        p, d = self.problem.scheme.accuracy, self.problem.scheme.derivative
        ratios = steps[1:] / steps[:-1]
        below = np.concatenate([differences[:1], differences / ratios**d])
        above = np.concatenate([differences / ratios**p, differences[-1:]])
        errors: Array = below + above
        return errors

    def _is_contradicted(self, sweep: Quotients, size: Array) -> Flags:
        """Say which steps contradict smaller ones by more than f can be noisy."""
        scheme, steps, found, lifts = self.problem.scheme, sweep.steps, sweep.values, sweep.lifts
        width, noise = column(steps) ** scheme.derivative, MAX_NOISE * self._height(sweep)
        contradicted = np.zeros(len(steps), dtype=bool)
        for k in range(1, len(steps)):
            astray = abs(found[:k] - found[k]) * width[:k] > noise
            if scheme.derivative == 1:
                reach = max(abs(offset) for offset in scheme.outer)
                astray |= lifts[:k] - reach * abs(found[k]) * width[:k] > noise + lifts[k] / 2
            contradicted[k] = (astray & (size > 0)).any()
        return contradicted

    def _height(self, sweep: Quotients) -> Array:
        """Return how large f has been seen to be."""
        height: Array = np.maximum(self.magnitude, np.max(sweep.lifts, axis=0))
        return height

    def _coarser(
        self, place: Any, j: int, sweep: Quotients, errors: Array, size: Array
    ) -> int | None:
        """Return a coarser step that its neighbours confirm as well, if f jumps within it.

        It contradicts step j, which sees nothing of the jumps.
        """
        rivals = []
        for k in range(j + 2, len(errors)):
            contradiction = float(_largest(sweep.values[k] - sweep.values[j], size))
            if errors[k] < CLEAR_SHARE * contradiction and errors[k] <= errors[k - 1]:
                rivals.append(k)
        if not rivals:
            return None
        k = min(rivals, key=lambda k: float(errors[k]))
        output, contradiction = _contradiction(sweep, j, k, size)
        noise = MAX_NOISE * self._height(sweep)[output]
        if contradiction * sweep.steps[j] ** self.problem.scheme.derivative > noise:
            return None
        return k if self._jumps(place, sweep, j, k, size) else None

    def _finer(
        self, place: Any, j: int, sweep: Quotients, errors: Array, size: Array, rounding: Array
    ) -> int:
        """Return a finer step that its neighbours confirm and that contradicts step j, or j.

        f may vary over far smaller distances than step j; if it jumps, small steps see nothing. Nor
        if it is noisy: then quotients at yet smaller steps are off by more than rounding explains.
        """
        found, confirmed = sweep.values, []
        for k in range(2, j - 1):
            contradiction = float(_largest(found[k] - found[j], size))
            least = errors[k] <= min(errors[k - 1], errors[k + 1])
            spread = _largest(found[:k] - found[k], size)
            explained = CLEAR_SHARE * contradiction + NOISE_FACTOR * _largest(rounding[:k], size)
            converges = (spread <= explained).all()
            if least and converges and max(errors[k], errors[j]) < CLEAR_SHARE * contradiction:
                confirmed.append(k)
        if not confirmed:
            return j
        k = min(confirmed, key=lambda k: float(errors[k]))
        return j if self._jumps(place, sweep, k, j, size) else k

    def _jumps(self, place: Any, sweep: Quotients, fine: int, coarse: int, size: Array) -> bool:
        """Say whether f jumps within a coarse step, which contradicts a fine one."""
        output, contradiction = _contradiction(sweep, fine, coarse, size)
        rounding = self.eps * float(self._height(sweep)[output])
        wide, shape = sweep.steps[coarse], self.shape
        return jumps(self.problem, self.values, place, wide, contradiction, rounding, shape, output)

    def _keep_of_others(self, place: Any, sweep: Quotients, j: int, rounding: Array) -> None:
        """Keep quotients at finer steps of outputs that these suit far better than step j.

        Where f has a kink within step j, its other outputs may be lost in rounding at all steps
        that are small enough for it. If it jumps there, small steps see nothing.
        """
        found = sweep.values
        if found.shape[1] < 2 or not j:
            return
        errors = self._errors(abs(np.diff(found, axis=0)), column(sweep.steps)) + rounding
        best = np.argmin(errors[: j + 1], axis=0)
        outputs = np.arange(found.shape[1])
        own = found[best, outputs]
        apart = abs(own - found[j])
        allowed = NOISE_FACTOR * errors[best, outputs] + MAX_SETTLED_ERROR * abs(own)
        for output in np.flatnonzero((best < j) & (apart > allowed)).tolist():
            size = np.zeros(found.shape[1])
            size[output] = 1.0
            if not self._jumps(place, sweep, int(best[output]), j, size):
                self.quotients[place, output] = own[output]

    def _off_plateau(self, place: Any, j: int, sweep: Quotients) -> tuple[int, float | None]:
        """Return the best step at which f changes, and its error, if f is flat but for its jumps.

        Elsewhere j and None: f may be constant around x.
        """
        steps, found = sweep.steps, sweep.values
        changes = found.any(axis=1)
        if found[j].any() or not changes.any():
            return j, None
        nearest = int(np.argmax(changes))
        output = int(np.argmax(abs(found[nearest])))
        # Next to a jump of a staircase others are seen from afar; those of a mask, nowhere.
        look = self.problem, self.values, place
        seen = (self.shape, output, MIN_DISTINCT_VALUES)
        lifts = sweep.lifts[:, output]
        several = int(np.argmax(lifts >= 2 * MIN_DISTINCT_VALUES * lifts[nearest]))
        wide = sorted({nearest, several or nearest, len(steps) - 1})
        if not any(is_flat(*look, 2 * float(steps[k]), *seen) for k in wide):
            return j, None
        # Any value may be wrong by a jump as high as the nearest one; what is left is truncation.
        p, d = self.problem.scheme.accuracy, self.problem.scheme.derivative
        differences, ratios = abs(np.diff(found[:, output])), steps[1:] / steps[:-1]
        wrong = lifts[nearest] / steps**d
        wrong += np.append(differences / ratios**p, differences[-1])
        best = int(np.argmin(np.where(changes, wrong, np.inf)))
        return best, float(wrong[best])

    def _size(self, places: Places, near: Quotients, far: Quotients) -> Array:
        """Return the sizes of derivatives; 0 for those that are only rounding."""
        size = np.fmax(abs(near.values), abs(far.values))
        return np.where(size > 4 * self.rounding(places, far), size, 0)

    def _keep(self, places: Any, quotients: Quotients) -> None:
        self.quotients[places], self.steps[places] = quotients.values, quotients.steps


def _cheap_ratios(scheme: Scheme) -> Array:
    """Return ratios of steps so that a second quotient costs few calls more, for many points.

    Of up to six points all are new. Of more some must be among those of the first quotient.
    """
    if len(scheme.outer) <= EXTRA_CALLS:
        return np.array([MIN_CORRECTION, MAX_CORRECTION])
    ratios = [2.0**k for k in range(-3, 4)]
    points = {*scheme.outer}
    return np.array([r for r in ratios if len({o * r for o in points} - points) <= EXTRA_CALLS])


def _middle_size(quotients: Array, rounding: Array) -> Array:
    """Return how large derivatives are: the middle of the quotients that are not just rounding."""
    seen = abs(quotients) > 4 * rounding
    ascending = np.sort(np.where(seen, abs(quotients), np.inf), axis=0)
    middle = np.maximum(np.sum(seen, axis=0) - 1, 0) // 2
    size = np.take_along_axis(ascending, middle[np.newaxis], axis=0)[0]
    return np.where(size < np.inf, size, 0)


def _contradiction(sweep: Quotients, one: int, other: int, size: Array) -> tuple[int, float]:
    """Return the output whose quotients at two steps differ most, relatively, and by how much."""
    apart = abs(sweep.values[one] - sweep.values[other])
    output = int(np.argmax(_relative(apart, size)))
    return output, float(apart[output])


def _relative(errors: Array, size: Array) -> Array:
    """Return errors in units of the derivatives, where there are any; infinite if not finite."""
    result: Array = np.where(size > 0, abs(errors) / np.where(size > 0, size, 1), 0)
    result[~np.isfinite(errors)] = np.inf
    return result


def _most(errors: Array) -> Array:
    """Return the largest error of all outputs."""
    largest: Array = np.max(errors, axis=-1, initial=0)
    return largest


def _largest(errors: Array, size: Array) -> Array:
    """Return the largest relative error of all outputs; infinite where one is not finite."""
    return _most(_relative(errors, size))
