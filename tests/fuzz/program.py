"""A random program: the source of a function f of an array x, and how to build it.

It is built with NumPy, or with a namespace in NumPy's place that computes in extended precision. A
sequence of calls is a program, too: that of the last call.
"""

import types
from dataclasses import dataclass, field, replace
from textwrap import indent

import numpy as np

from fastgrad import schemes

EXTENDED = np.longdouble

SCHEMES = {
    "central": schemes.central(),
    "forward": schemes.forward(),
    "backward": schemes.backward(),
    "central(4)": schemes.central(4),
    "second derivative": schemes.central(derivative=2),
}


@dataclass
class Program:
    """The parts of a program's source.

    Attributes
    ----------
    setup : list of str
        Statements of the module; among them, those that make x and data.
    access : str
        How f gets at x: a statement of f, or "" where the parameter is it.
    body : list of str
        Further statements of f.
    terms : list of str
        What f's result is the sum of.
    result : str
        The last statements of f, which return ``loss``.
    wrapping : str
        The module's source with ``BODY`` where f's is.
    h : float
    scheme : str
        A key of `SCHEMES`.
    arrays : list of str
        x and what else may be differenced: parameters, as the module reaches them.
    replaced : str
        A statement of the module that puts ``NEW`` in the place of ``ARRAY``, one of them.
    """

    setup: list = field(default_factory=list)
    access: str = ""
    body: list = field(default_factory=list)
    terms: list = field(default_factory=list)
    result: str = "return loss"
    wrapping: str = "def f(w):\n    BODY"
    h: float = 1e-4
    scheme: str = "central"
    arrays: list = field(default_factory=list)
    replaced: str = "ARRAY = NEW"

    engine = "traced"
    lanes = False  # whether a compiled function is evaluated in lanes

    def source(self):
        """Return the module's source; ``f`` and ``x`` are its names."""
        lines = [self.access, *self.body, f"loss = {' + '.join(self.terms)}", self.result]
        body = "\n".join(line for line in lines if line)
        before, _, after = self.wrapping.partition("BODY")
        margin = before[before.rfind("\n") + 1 :]
        wrapped = before + indent(body, margin).lstrip() + after
        return "\n".join(["import numpy as np", *self.setup, wrapped, ""])

    def build(self, *, extended=False):
        """Run the source; return its namespace."""
        namespace = {"__name__": "program"}
        source = self.source()
        if extended:
            # What follows is the same source with other numbers: np and float mean extended ones.
            namespace |= {"np": ExtendedNumPy(), "float": EXTENDED}
            source = source.replace("import numpy as np\n", "", 1)
        exec(compile(source, "<program>", "exec"), namespace)
        return namespace

    def start(self):
        """Return the namespace in which all calls are made."""
        return self.build()

    @property
    def calls(self):
        """Pairs of the statements before a call, and the program of which it is the gradient."""
        return [("", self)]

    def call(self):
        """Return the source of a call that differences f."""
        scheme = "" if self.scheme == "central" else f", scheme=<{self.scheme}>"
        return f'numerical_gradient(f, x, {self.h!r}, engine="traced"{scheme})'


@dataclass
class Sequence(Program):
    """A program with calls, one after the other, and what is changed before each of them.

    Attributes
    ----------
    steps : list of str
        Statements of the module; the last one of a step says what f and x are in the next call.
    engine : str
    """

    steps: list = field(default_factory=list)
    engine: str = "traced"

    def source(self):
        """Return the module's source with all steps."""
        return "\n".join([super().source(), *self.steps, ""])

    def start(self):
        """Return the namespace before the first step."""
        return replace(self, steps=[]).build()

    @property
    def calls(self):
        """Return the steps, each with the sequence that ends with it."""
        numbers = range(len(self.steps))
        return [(self.steps[k], replace(self, steps=self.steps[: k + 1])) for k in numbers]

    def call(self):
        """Return the source of a call, and where it is."""
        return super().call() + " after each line f, x = ..."


class ExtendedNumPy(types.ModuleType):
    """NumPy's functions; those that create float64 arrays create extended ones instead."""

    float64 = EXTENDED

    def __init__(self):
        super().__init__("numpy")
        self.random = ExtendedDraws(np.random)

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def array(values, dtype=None, **options):
        return _extended(np.array(values, dtype, **options))

    @staticmethod
    def zeros(shape, dtype=EXTENDED, **options):
        return np.zeros(shape, dtype, **options)

    @staticmethod
    def empty(shape, dtype=EXTENDED, **options):
        return np.zeros(shape, dtype, **options)

    @staticmethod
    def ones(shape, dtype=EXTENDED, **options):
        return np.ones(shape, dtype, **options)

    @staticmethod
    def full(shape, value, dtype=None, **options):
        return _extended(np.full(shape, value, dtype, **options))

    @staticmethod
    def eye(n, dtype=EXTENDED):
        return np.eye(n, dtype=dtype)

    @staticmethod
    def linspace(*arguments):
        return _extended(np.linspace(*arguments))


class ExtendedDraws:
    """The numbers that ``np.random``, or one of its generators, draws, in extended precision."""

    def __init__(self, source):
        self.source = source

    def default_rng(self, seed):
        return ExtendedDraws(np.random.default_rng(seed))

    def __getattr__(self, name):
        draw = getattr(self.source, name)
        return lambda *arguments, **options: _extended(draw(*arguments, **options))


def _extended(value):
    array = np.asarray(value)
    return array.astype(EXTENDED) if array.dtype == np.float64 else value


def data_of(namespace):
    """Return the arrays of floating-point numbers that a module's names hold, by name."""
    return {
        name: value
        for name, value in namespace.items()
        if isinstance(value, np.ndarray) and value.dtype.kind == "f"
    }
