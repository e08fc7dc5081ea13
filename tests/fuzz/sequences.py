"""Random sequences of calls, as loops that train make them: the same f again, and what changes.

A program of another kind is called for one array after the other. Between two calls nothing
changes, or data, parameters, batches, flags, or what else f reads: in place, or by another object.
"""

import numpy as np

from . import functions, models, nets
from .program import Sequence
from .writer import blocks, listed

OPTIONS = {
    # setup, what f makes of its loss, and changes; {n} is a number
    "global": ("SCALE = 1.5", "loss = loss * SCALE", "SCALE = {n}"),
    "flag": ("TRAIN = True", "loss = np.tanh(loss) if TRAIN else 0.3 * loss", "TRAIN = not TRAIN"),
    "attribute": (
        "class Options: rate = 0.5\nOPTIONS = Options()", "loss = loss * OPTIONS.rate",
        "OPTIONS.rate = {n}; Options.rate = {n}; vars(OPTIONS).clear()",
    ),
    "list": ("RATES = [1.5]", "loss = loss * RATES[-1]", "RATES.append({n}); RATES[-1] *= {n}"),
    "function": (
        "SQUASH = np.tanh", "loss = SQUASH(loss)",
        "SQUASH = np.sin; SQUASH = np.tanh; SQUASH = lambda v: {n} * v",
    ),
    "helper": (
        "def helper(v, *, k=1.5): return k * v", "loss = helper(loss)",
        "helper.__kwdefaults__ = dict(k={n}); helper.__code__ = (lambda v, *, k: v / 3).__code__",
    ),
    "seed": (
        "SEED = [3]", "np.random.seed(SEED[0])\nloss = loss * np.random.rand()", "SEED[0] += 1"
    ),
    "count": (
        "COUNT = dict(calls=0, layers=2)",
        "COUNT['calls'] += 1\nfor _ in range(COUNT['layers']):\n    loss = np.sin(loss)",
        "COUNT['layers'] = 3; COUNT['layers'] -= 1; COUNT['calls'] = 0",
    ),
    "array": (
        "GAIN = np.array([1.5, 2.0])", "loss = loss * GAIN[1] + GAIN.sum()",
        "GAIN[1] = {n}; GAIN = np.array([1.0, {n}]); GAIN *= {n}; GAIN = GAIN[::-1]",
    ),
    "cell": (
        "def cell(value):\n    def get(): return value\n    def put(new):\n        nonlocal value\n"
        "        value = new\n    return get, put\nget, put = cell(1.5)",
        "loss = loss * get()", "put({n})",
    ),
    "bytes": (
        "BYTES = bytearray(np.ones(1).tobytes())", "loss = loss * np.frombuffer(BYTES)[0]",
        "BYTES[:] = np.array([{n}], np.double).tobytes()",
    ),
    "tuple": ("PAIR = (np.ones(2), 1.5)", "loss = loss * PAIR[1] + PAIR[0].sum() * loss",
              "PAIR = (PAIR[0], {n}); PAIR[0][0] = {n}"),
    "set": ("ON = set()", "loss = loss * len(ON) + loss", "ON.add({n}); ON.clear()"),
    "object array": (
        "BOX = np.array([1.5, None], object)", "loss = loss * BOX[0]", "BOX[0] = {n}"
    ),
}  # fmt: skip

INCOMPARABLE = {"bytes", "object array", "set"}
"""What has no state that could be compared: nothing is computed in advance beside it."""

NEW_VALUES = listed("""
    {a} + 0.1 * {draws}.normal(size={a}.shape); {a} * 0.9; {a} * {draws}.uniform(0.5, 2, {a}.shape);
    {a}[::-1]; np.asfortranarray({a} * 1.1); {a} - 1e-4; np.zeros({a}.shape); {a}.copy();
    np.repeat({a}, 2, axis=0)[::2]
""")

BATCHES = blocks("""
    X, T, ONE_HOT = X[:{k}], T[:{k}], ONE_HOT[:{k}]

    X, T, ONE_HOT = (np.concatenate([a, a[:{k}]]) for a in (X, T, ONE_HOT))

    rows = {draws}.integers(0, len(X), len(X) + {k} - 3)
    X, T, ONE_HOT = X[rows], T[rows], ONE_HOT[rows]

    rows = {draws}.permutation(len(X))
    X[...], T[...], ONE_HOT[...] = X[rows], T[rows], ONE_HOT[rows]

    T[...] = T[::-1].copy()
    ONE_HOT = np.eye(ONE_HOT.shape[1])[T]

    X[0, 0] += 1
""")

FUNCTIONS = listed("""
    KEPT; KEPT; KEPT; KEPT; LOSS; LOSS; lambda _: LOSS({a0}); lambda _: LOSS({a0}); SQUARE; SQUARE;
    lambda _, c={n}: c * LOSS({a0}); functools.partial(KEPT);
    types.FunctionType(KEPT.__code__, globals());
    type('Loss', (), dict(__call__=lambda self, _: LOSS({a0})))()
""")
"""How f is written in a call: kept, or anew, as a learner does. All but LOSS ignore what they are
given."""

LEARNERS = ["KEPT", "NEW()"]
"""How f is written in a loop that trains: as one function, or as a new one of the same code."""

NAMED = """import functools, types
LOSS, KEPT, SQUARE = f, lambda _: LOSS({a0}), lambda _: LOSS({a0}) ** 2 + LOSS({a0})
NEW = lambda: lambda _: LOSS({a0})"""


def write(seed):
    """Return a random sequence."""
    random = np.random.default_rng([*seed, 1])
    trains = bool(random.integers(2))
    kinds = [nets.write, functions.write, functions.write_by_rows, models.write]
    written = kinds[random.choice(4, p=[1, 0, 0, 0] if trains else [0.6, 0.15, 0.1, 0.15])](seed)
    program = Sequence(**vars(written), engine=str(random.choice(["traced", "auto"], p=[0.7, 0.3])))
    program.arrays = program.arrays or ["x"]
    return _Steps(program, random, trains).written()


class _Steps:
    """Writes the steps of a sequence, and tries them."""

    def __init__(self, program, random, trains):
        self.program, self.random, self.trains = program, random, trains
        self.functions = [self._choose(LEARNERS)] if trains else FUNCTIONS
        options = [name for name in OPTIONS if not (trains and name in INCOMPARABLE)]
        names = random.choice(options, 2, replace=False)
        self.options = [OPTIONS[name] for name in names]
        for setup, use, _ in self.options:
            program.setup.append(setup)
            program.result = use + "\n" + program.result
        program.setup.append("")
        self.data = [name for name, value in program.build().items() if _is_data(name, value)]

    def written(self):
        """Return the program with some rounds of calls."""
        first = NAMED.format(a0=self.program.arrays[0])
        trained = self.random.permutation([*dict.fromkeys(self.program.arrays)])[:3]
        for _ in range(self._integer(2) + 2):
            calls = self._training_step(trained) if self.trains else self._round()
            for name, changes in calls:
                self._attempt(first, name, changes)
                first = ""
        return self.program

    def _training_step(self, names):
        """Yield arrays, and how many changes are before: most of them before the first."""
        for k, name in enumerate(names):
            yield name, 1 + self._integer(2) if k == 0 else self._integer(4) == 0

    def _round(self):
        asked = self.random.permutation(self.program.arrays)[:3]
        for name in [*asked, *asked][: max(2, len(asked))]:
            yield name, self._integer(4) == 0
        yield self._choose(self.program.arrays), 1 + self._integer(3)

    def _attempt(self, first, name, changes):
        """Write a call of f with changes before it, unless f has no value then."""
        lines = [first, *(self._change() for _ in range(changes))]
        f = self._filled(self._choose(self.functions))
        if f == "LOSS" and name != self.program.arrays[0]:
            f = "KEPT"
        step = "\n".join(line for line in [*lines, f"f, x = {f}, {name}"] if line)
        steps = self.program.steps
        steps.append(step)
        try:
            with np.errstate(all="ignore"):
                namespace = self.program.build()
                value = float(np.reshape(namespace["f"](namespace["x"]), ()))
            is_suited = abs(value) < 1e6
        except Exception:  # whatever does not go together
            is_suited = False
        if not is_suited:
            steps.pop()
            if first:
                steps.append(f"{first}\nf, x = LOSS, {self.program.arrays[0]}")

    def _change(self):
        """Return a statement that changes what f reads."""
        kind = self._integer(5)
        if kind == 0 and "ONE_HOT" in self.data:
            images = "\nIMAGES = X.reshape(-1, 5, 5)" if "IMAGES" in self.data else ""
            return self._filled(self._choose(BATCHES)) + images
        if kind == 1:
            return self._filled(self._choose(listed(self._choose(self.options)[2])))
        is_parameter = kind == 2 or not self.data
        a = self._choose(self.program.arrays if is_parameter else self.data)
        new = self._filled(self._choose(NEW_VALUES), a=a)
        if self._integer(2):
            return f"{a}[...] = {new}"
        replaced = self.program.replaced if is_parameter else "ARRAY = NEW"
        attribute = a.rpartition(".")[2] if "_replace" in replaced else a
        return replaced.replace("ARRAY", attribute).replace("NEW", f"({new}).astype({a}.dtype)")

    def _filled(self, form, **parts):
        draws = f"np.random.default_rng({self._integer(10**6)})"
        number, k = self._choose(["0.3", "-1.5", "0.7", "2.5"]), self._integer(5) + 1
        a0 = self.program.arrays[0]
        return form.format(draws=draws, n=number, k=k, a0=a0, **parts)

    def _choose(self, options):
        return options[self._integer(len(options))]

    def _integer(self, most):
        return int(self.random.integers(most))


def _is_data(name, value):
    return isinstance(value, np.ndarray) and value.dtype != object and name != "x"
