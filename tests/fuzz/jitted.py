"""Random functions for numba: loops over elements, array expressions, work arrays, globals.

Compiling takes seconds, so each function is met by many inputs, which stand near its constants.
"""

import functools
from dataclasses import dataclass

import numpy as np

from .program import Program
from .writer import blocks, listed

INPUTS = 25
"""How many programs in a row have the same function."""

UNARY = listed("""
    math.sin({a}); math.tanh({a}); np.exp(-({a} * {a})); abs({a}); math.floor({a}); {a} ** 2;
    np.sqrt(abs({a})); {a} ** 3; -{a}; 1 / (1 + {a} * {a}); math.atan({a}); np.cos({a});
    max({a}, {c}); min({a}, {c}); float(int({a} * 3)); round({a}); np.sign({a}); {a} % 0.7;
    math.log(1 + {a} * {a}); ({a} if {a} > {c} else 0.1 * {a}); ({a} > {c}) * 1.0;
    np.maximum({a}, 0.0); math.exp(0.1 * {a});
    {a} * LAM; {a} / 3; np.floor({a}) + {a}; {a} // 1.0; abs({a}) ** 0.7; math.copysign(1.0, {a});
    helper({a}, {c}); math.hypot({a}, 1.0); (0.0 if abs({a} - {c}) < 1e-5 else {a}); {a} + {c};
    np.log1p(abs({a})); math.fabs({a} - {c}); math.pow(abs({a}), 1.5); np.tanh({a}); math.erf({a});
    float({a} >= {c}) * {a};
    (1 / {a} if {a} != 0.0 else 0.0); int({a}) % 3 * {a}; math.expm1({a})
""")

BINARY = listed("""
    {a} + {b}; {a} - {b}; {a} * {b}; max({a}, {b}); min({a}, {b}); {a} / (1 + abs({b}));
    ({a} if {b} > {c} else {b}); math.hypot({a}, {b}); math.atan2({a}, {b}); {a} + 0.5 * {b};
    ({a} if {a} > {b} else {b}); np.minimum({a}, {b}); ({a} > {b}) * {a}; max({a}, {b}, {c});
    {a} * {a} - {b}; np.arctan2({a}, 1 + {b} * {b}); helper({a}, {b}); {a} + LAM * {b}
""")

STATEMENTS = blocks("""
    {t} = {e}

    {t} += {e}

    {t} = {t} * 0.5 + {e}

    if {a} > {c}:
        {t} += {e}
    else:
        {t} -= {e2}

    if {a} > {c} and {t} < {c}:
        {t} = {e}
    elif {a} < {c}:
        {t} = {e2}

    for j in range(3):
        {t} = 0.5 * {t} + {e} / (j + 1)

    for j in range(4):
        if {t} > 2.0:
            break
        {t} += abs({e})

    for j in range(4):
        if j == 2 or {a} > {c}:
            continue
        {t} += {e}

    k = 0
    while {t} > 0.5 and k < 5:
        {t} *= 0.5
        k += 1

    WORK1[i] = {e}
    {t} += WORK1[i]

    WORK1[i] = {e}
    {t} += WORK1[i - 1]

    WORK1[i % 2] += {a}
    {t} += WORK1[i % 2] * 0.1
    WORK1[i % 2] = 0.0

    {t} += x{other} * {e}

    {t} += A[i] * {e}

    if i == 1:
        {t} += {e}

    {t} += A[int(abs({a})) % len(A)]

    a, b = {e}, {e2}
    a, b = b, a + b
    {t} += a * 0.1

    if {a} > 3.0:
        return s

    {t} += NUMBER * {e}
""")

ARRAYS = blocks("""
    s += np.sum(x ** 2)

    s += np.sum(np.tanh(x) * LAM)

    y = x.copy()
    y -= y.max()
    s += np.log(np.sum(np.exp(y)))

    y = np.zeros(x.shape)
    y[...] = x * 2
    s += y.mean()

    y = np.empty_like(x)
    y[:] = np.maximum(x, {c})
    s += (y ** 2).sum()

    s += np.abs(x - {c}).max()

    s += np.where(x > {c}, x, 0.0).sum()

    s += np.dot(x.ravel(), x.ravel())

    s += (x * x).min() + x.max()

    s += np.sort(x.ravel())[0]

    s += x.ravel()[x.argmax()]

    y = x * B
    s += np.var(y)

    s += np.sum(x[::2]) * {c}

    s += np.linalg.norm(x.copy())

    WORK1[:] = 1.0
    s += (WORK1 * WORK2).sum()

    y = x.ravel()
    s += (C @ y).sum()

    y = np.maximum(C @ x.ravel(), 0)
    s += (y * y).sum()

    s += np.cumsum(x.ravel())[-1]

    s += np.prod(0.5 * x + 1)

    for v in x.ravel():
        s += v * v

    s += x.T.sum() + x.size

    s += np.median(x)

    y = np.exp(x) / np.exp(x).sum()
    s -= np.log(y.ravel()[0] + 1e-7)
""")

MODULE = """import math
import numba
LAM = 0.7
@numba.njit
def helper(a, b):
    return a * b if a > b else a - 0.1 * b"""

FUNCTION = """@numba.njit({options})
def f(x, A, B, C, WORK1, WORK2, NUMBER):
    s, WORK1[:] = 0.0, 0.0
BODY
    return s"""

INPUT = """x = {x}
A = np.random.default_rng({seed}).normal(size={length})
B = np.random.default_rng({seed} + 1).normal(size={shape})
C = np.random.default_rng({seed} + 2).normal(size=(3, {size}))
WORK1 = np.zeros({length})
WORK2 = {first}
ARGUMENTS = (A, B, C, WORK1, WORK2, {number})"""


@dataclass
class JittedProgram(Program):
    """A program whose module is built once for all its inputs.

    Attributes
    ----------
    given : str
        The statements that make x and the further arguments.
    lanes : bool
        Whether they are wanted from the beginning.
    """

    given: str = ""
    lanes: bool = False

    engine = "compiled"

    def source(self):
        """Return the module's source, and the input's."""
        return "\n".join(["import numpy as np", *self.setup, self.given, ""])

    def build(self, *, extended=False):
        """Return the namespace; of the compiled function there is one."""
        if extended:
            raise TypeError("numba compiles for float64")
        namespace = _built("\n".join(["import numpy as np", *self.setup]))
        exec(self.given, namespace)
        return dict(namespace)

    def call(self):
        """Return the source of a call that differences f."""
        return f"numerical_gradient(f, x, {self.h!r}, args=ARGUMENTS)  # lanes: {self.lanes}"


@functools.lru_cache(maxsize=2)
def _built(source):
    namespace = {"__name__": "program"}
    exec(compile(source, "<program>", "exec"), namespace)
    return namespace


def write(seed):
    """Return a random program: so-and-so many in a row have the same function."""
    *rest, number = seed
    random = np.random.default_rng([*rest, number // INPUTS])
    program = JittedProgram()
    shape = [(5,), (8,), (4, 3), (12,)][int(random.integers(4))]
    constants = [float(c) for c in random.normal(size=3).round(2)] + [0.0]
    options = ["", "", "", "error_model='numpy'", "boundscheck=True"][int(random.integers(5))]
    body = _Body(random, constants, len(shape)).lines()
    program.setup = [MODULE, FUNCTION.format(options=options).replace("BODY", body)]
    random = np.random.default_rng([*rest, number])
    program.lanes = bool(random.random() < 0.6)
    program.h = float(random.choice([1e-4, 1e-4, 1e-4, 1e-2, 1e-6]))
    program.given = _input(random, shape, constants, program.h)
    if random.random() < 0.1:
        program.given += f"\nLAM = {random.normal():.2f}"
    return program


class _Body:
    """Writes the statements of a function."""

    def __init__(self, random, constants, ndim):
        self.random = random
        self.constants = constants
        self.ndim = ndim

    def lines(self):
        """Return the statements: array expressions, and a loop over the elements of x."""
        lines = []
        for _ in range(self.random.integers(3)):
            lines += self.choose(ARRAYS).replace("{c}", self.constant()).split("\n")
        if self.random.random() < 0.85:
            element = "x[i]"
            lines += [
                "for i in range(len(x)):",
                "    t, u = 0.0, x[i, 0]" if self.ndim == 2 else "    t, u = 0.0, x[i]",
            ]
            margin = "    "
            if self.ndim == 2:
                lines.append("    for l in range(x.shape[1]):")
                margin, element = "        ", "x[i, l]"
            for _ in range(self.random.integers(1, 6)):
                lines += [margin + line for line in self.statement(element).split("\n")]
            lines.append("    s += t + 0.1 * u")
        elif not lines:
            lines = ["s += (x * x).sum()"]
        return "\n".join("    " + line for line in lines)

    def statement(self, element):
        """Return a statement that changes t or u."""
        other = {1: ["[i - 1]", "[0]", "[-1]"], 2: ["[i, 0]", "[i - 1, -1]", "[0, 0]"]}[self.ndim]
        names = [element, "t", "u", "s"]
        parts = {name: self.expression(names, 2) for name in ("e", "e2")}
        parts |= {"a": self.choose(names), "c": self.constant(), "t": self.choose(["t", "t", "u"])}
        return self.choose(STATEMENTS).format(**parts, other=self.choose(other))

    def expression(self, names, depth):
        """Return an expression of some names."""
        if not depth or self.random.random() < 0.2:
            return self.choose(names)
        a, b = (self.expression(names, depth - 1) for _ in range(2))
        form = self.choose(UNARY) if self.random.random() < 0.6 else self.choose(BINARY)
        return form.format(
            a=f"({a})" if " " in a else a, b=f"({b})" if " " in b else b, c=self.constant()
        )

    def constant(self):
        """Return one of the function's constants."""
        return repr(self.choose(self.constants))

    def choose(self, options):
        """Return one of some options."""
        return options[int(self.random.integers(len(options)))]


def _input(random, shape, constants, h):
    """Return statements that make x, some elements near constants, and the further arguments."""
    x = random.normal(size=shape) * random.choice([1, 1, 0.1, 3])
    flat = x.reshape(-1)
    for i in np.flatnonzero(random.random(flat.size) < 0.3):
        share = random.choice([0.0, 1.0, -1.0, *random.uniform(-1.5, 1.5, 4)])
        flat[i] = random.choice(constants) + h * share
    made = f"np.array({x.tolist()})"
    layout = random.random()
    if layout < 0.1:
        made = f"np.asfortranarray({made})"
    elif layout < 0.15:
        made += "[::-1]"
    elif layout < 0.2:
        made = f"np.repeat({made}, 2, axis=0)[::2]"
    first = random.choice(["WORK1", "WORK1[1:]", "np.ones(3)", "A", "WORK1[::-1]"])
    first = first if layout < 0.5 else "np.ones(len(WORK1))"
    return INPUT.format(
        x=made, seed=int(random.integers(10**6)), length=shape[0], shape=shape, size=x.size,
        first=first, number=random.choice(["2.0", "0.5", "-1.0"]),
    )  # fmt: skip
