"""A writer of random programs, which runs each statement at x as soon as it has written it.

So it knows the shapes and values of all variables, and chooses kinks and jumps near them.
"""

from textwrap import dedent

import numpy as np

from .program import Program

MOST_ELEMENTS = 240
LARGEST = 1e3
OPERANDS = 6
"""Of so many variables, the newest, an operand is chosen most often."""


def listed(text):
    """Return what a text lists, with semicolons between."""
    return [form.strip() for form in text.split(";")]


def blocks(text):
    """Return what a text lists, with empty lines between."""
    return dedent(text).strip().split("\n\n")


class Unsuited(Exception):
    """No variable or value suits what was to be written."""


class Writer:
    """Writes the statements of f, and the module's.

    Parameters
    ----------
    random : numpy Generator
        Makes all choices.

    Attributes
    ----------
    module : dict
        The namespace of the module's statements so far.
    local : dict
        The variables of f's statements so far, with their values at x.
    by_rows : bool
        Whether rows are not to mix: what goes along an axis goes along the last one.
    """

    def __init__(self, random, *, by_rows=False):
        self.random = random
        self.by_rows = by_rows
        self.program = Program()
        self.module = {"np": np, "__name__": "program"}
        self.local = {}
        self._count = 0

    # Choices ------------------------------------------------------------------------------------

    def chance(self, probability):
        """Say yes with a probability."""
        return self.random.random() < probability

    def choose(self, options, weights=None):
        """Return one of some options."""
        if weights is not None:
            weights = np.array(weights) / sum(weights)
        return options[int(self.random.choice(len(options), p=weights))]

    def number(self):
        """Return a plain number."""
        return self.choose(["2", "0.5", "3.0", "-1", "0.1", "1.5", "-0.7", "1", "0.3"])

    def integer(self, most):
        """Return an index below most."""
        return int(self.random.integers(most))

    def pick(self, suits=lambda value: True):
        """Return the name of a variable, one of the newest most often."""
        names = [n for n, v in self.local.items() if isinstance(v, (np.ndarray, np.floating))]
        names = [name for name in names if suits(self.local[name])]
        if not names:
            raise Unsuited
        return self.choose(names[-OPERANDS:] if self.chance(0.8) else names)

    def partner(self, name):
        """Return another operand for elementwise operations: a variable, data, or the same one."""
        shape = np.shape(self.local[name])

        def suits(value):
            try:
                return np.broadcast_shapes(np.shape(value), shape) in (shape, np.shape(value))
            except ValueError:
                return False

        if self.chance(0.3):
            return self.data(shape if self.chance(0.7) or not shape else shape[-1:])
        return self.pick(suits)

    def near(self, name):
        """Return a number near an element of a variable, within a step or two, or at it."""
        value = np.asarray(self.local[name], np.float64).reshape(-1)
        if not value.size:
            raise Unsuited
        element, h = float(value[self.integer(value.size)]), self.program.h
        kind = self.random.random()
        if kind < 0.5:
            return repr(element + h * float(self.random.uniform(-2, 2)))
        if kind < 0.6:
            return repr(element)
        if kind < 0.65:
            return repr(element + self.choose([-h, h]))
        if kind < 0.8:
            return repr(round(element + float(self.random.normal()), 2))
        return self.choose(["0", "0.0", "0.5"])

    # Writing ------------------------------------------------------------------------------------

    def name(self, prefix):
        """Return a new name."""
        self._count += 1
        return f"{prefix}{self._count}"

    def define(self, statement):
        """Write a statement of the module, and run it."""
        exec(statement, self.module)
        self.program.setup.append(statement)

    def data(self, shape):
        """Define an array of the module that does not depend on x, and return its name."""
        name, seed, size = self.name("A"), self.integer(10**6), tuple(map(int, shape))
        draws = f"np.random.default_rng({seed})"
        forms = {
            f"{draws}.normal(size={size})": 6,
            f"{draws}.random({size})": 2,
            f"{draws}.normal(size={size}).round(1)": 1,
            f"({draws}.random({size}) < 0.4) * 1.0": 1,
            f"{draws}.normal(size={size}) * ({draws}.random({size}) < 0.5)": 1,
            f"{draws}.integers(-2, 3, {size})": 0.5,
            f"np.ones({size})": 0.5,
            f"{draws}.normal(size={size}) * 10": 0.5,
            f"np.asfortranarray({draws}.normal(size={size}))": 0.5,
        }
        self.define(f"{name} = {self.choose([*forms], [*forms.values()])}")
        return name

    def evaluated(self, expression):
        """Return an expression's value at x, if it suits a variable."""
        return self._require_suited(eval(expression, {**self.module, **self.local}))

    def assign(self, expression):
        """Write a new variable of f; return its name."""
        value = self.evaluated(expression)
        name = self.name("v")
        self.local[name] = value
        self.program.body.append(f"{name} = {expression}")
        return name

    def run(self, statement, changed=()):
        """Write a statement of f that changes variables, or makes new ones."""
        before = dict(self.local)
        contents = {name: np.copy(self.local[name]) for name in self.local if self.is_array(name)}
        try:
            scope = {**self.module, **self.local}
            exec(statement, scope)
            self.local.update((n, v) for n, v in scope.items() if n not in self.module)
            for name in set(changed) | (self.local.keys() - before.keys()):
                self._require_suited(self.local[name])
            for name in before:
                if self.is_array(name) and not np.isfinite(self.local[name]).all():
                    raise Unsuited
        except Exception:
            self.local.clear()
            self.local.update(before)
            for name, content in contents.items():
                if not np.array_equal(self.local[name], content):
                    self.local[name][...] = content
            raise
        self.program.body.append(statement)

    def is_array(self, name):
        """Say whether a variable is an array."""
        return isinstance(self.local[name], np.ndarray)

    def is_own(self, value):
        """Say whether an array is f's own, so that f may change it."""
        held = [v for v in self.module.values() if isinstance(v, np.ndarray)]
        return (
            isinstance(value, np.ndarray)
            and value.size > 0
            and value.dtype == np.float64
            and value.flags.writeable
            and not any(np.may_share_memory(value, array) for array in held)
        )

    def attempt(self, rules, weights):
        """Let one of some rules write something; return whether it could."""
        rule = self.choose(rules, weights)
        try:
            rule(self)
        except Exception:  # whatever it is: shapes that do not go together, say
            return False
        return True

    def _require_suited(self, value):
        if not isinstance(value, (np.ndarray, np.floating, float)):
            raise Unsuited
        array = np.asarray(value)
        if array.dtype.kind != "f" or not 0 < array.size <= MOST_ELEMENTS:
            raise Unsuited
        if not np.isfinite(array).all() or abs(array).max() > LARGEST:
            raise Unsuited
        return value
