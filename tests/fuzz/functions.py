"""Random NumPy functions: expression graphs, in-place operations, loops, and kinks near x."""

import re

import numpy as np

from . import expressions, statements
from .statements import STATE
from .writer import Unsuited, Writer

ARRAYS = [
    "x = np.random.default_rng({seed}).normal(size={shape})",
    "x = np.random.default_rng({seed}).normal(size={shape}) * {scale}",
    "x = np.asfortranarray(np.random.default_rng({seed}).normal(size={shape}))",
    "whole = np.random.default_rng({seed}).normal(size=({first} * 2, *{rest}))\nx = whole[::2]",
    "whole = np.random.default_rng({seed}).normal(size=({first} + 1, *{rest}))\nx = whole[1:]",
    "x = np.random.default_rng({seed}).normal(size={shape})[::-1]",
    "x = np.random.default_rng({seed}).normal(size={shape}).round(1)",
    "x = np.zeros({shape})",
]

ACCESSES = {
    # access, the module's statements, and f around its body
    "argument": ("", "", "def f(w):\n    BODY"),
    "global": ("w = x", "", "def f(_):\n    BODY"),
    "attribute": ("w = net.W", "class Net: pass\nnet = Net()\nnet.W = x", "def f(_):\n    BODY"),
    "dict": ("w = params['W']", "params = {'W': x}", "def f(_):\n    BODY"),
    "list": ("w = arrays[1]", "arrays = [np.ones(2), x]", "def f(_):\n    BODY"),
    "closure": ("", "", "def make(w):\n    def f(_):\n        BODY\n    return f\nf = make(x)"),
    "method": (
        "w = self.W",
        "",
        "class Net:\n    def __init__(self):\n        self.W = x\n    def loss(self, _):\n"
        "        BODY\nnet = Net()\nf = net.loss",
    ),
    "lambda": ("w = self.params['W']", "", (
        "class Net:\n    def __init__(self):\n        self.params = {'W': x}\n    def loss(self):\n"
        "        BODY\nnet = Net()\nf = lambda _: net.loss()"
    )),
    "view": ("w = flat.reshape({shape})", "flat = x.reshape(-1)", "def f(_):\n    BODY"),
    "part": ("w = part", "part = x[1:]", "def f(_):\n    BODY"),
    "both": ("w = v + 0 * x", "", "def f(v):\n    BODY"),
    "kept view": ("w = v[...]", "", "def f(v):\n    BODY"),
}  # fmt: skip

ENTRIES = [
    "{data} @ w", "w @ {data}", "np.dot({data}, w)", "w * 1.0", "{data} * w", "w + {data}",
    "np.tanh(w)", "{data} @ w + {data2}", "np.einsum('...i,i...->...', {data}, w)", "w.copy()",
    "np.tensordot({data}, w, axes=1)", "w.reshape(-1)", "w[::-1] * 2", "{data} - w", "w ** 2",
]  # fmt: skip

TERMS = {
    "{a}.sum()": 5,
    "{a}.mean()": 3,
    "({a} ** 2).sum()": 4,
    "({a} ** 2).mean()": 3,
    "np.sum({a} * {d})": 4,
    "{n} * np.sum({a})": 2,
    "np.abs({a}).sum()": 1,
    "np.maximum({a}, 0).sum()": 1,
    "np.log(np.exp({a}).sum())": 1,
    "{a}.max()": 0.5,
    "np.linalg.norm({a})": 0.5,
    "np.sqrt(np.sum({a} ** 2) + 1)": 1,
    "np.prod({a})": 0.2,
    "np.var({a})": 0.7,
    "{a}.std()": 0.3,
    "({a} > 0).sum() * {a}.sum()": 0.2,
    "np.dot({a}.ravel(), {d}.ravel())": 0.7,
    "np.mean(np.sum({a} ** 2, axis=-1))": 1,
    "np.mean(-np.log(abs({a}) + 1e-7))": 0.7,
}

RESULTS = {
    "return loss": 6,
    "return float(loss)": 2,
    "return np.sum(loss)": 1,
    "return loss.item()": 0.5,
    "return np.array([loss]).sum()": 0.3,
    "return np.float64(loss)": 0.3,
    "STATE.total += loss\nreturn loss": 0.5,
    "STATE.history.append(loss)\nreturn loss": 0.5,
    "STATE.message = f'{STATE.mean:.3f}'\nSTATE.mean = loss\nreturn loss": 0.5,
    "return loss / 3": 0.5,
    "return np.log(abs(loss) + 1)": 0.5,
    "return max(loss, 0.0) + 1": 0.1,
    "return np.reshape(loss, (1,))": 0.3,
}

STEPS = {1e-4: 12, 1e-3: 1, 1e-2: 1, 1e-5: 1, 1e-6: 0.5, 0.5: 0.3}
SCHEMES = {"central": 14, "forward": 1, "backward": 1, "central(4)": 1, "second derivative": 0.3}


def write(seed):
    """Return a random program."""
    return _written(Writer(np.random.default_rng(seed)))


def write_by_rows(seed):
    """Return a random program in which x enters by a product, whose rows seldom mix."""
    return _written(Writer(np.random.default_rng(seed), by_rows=True))


def _written(writer):
    program = writer.program
    program.h = writer.choose([*STEPS], [*STEPS.values()])
    program.scheme = writer.choose([*SCHEMES], [*SCHEMES.values()])
    if program.scheme == "second derivative":
        program.h = max(program.h, 1e-3)
    writer.define(STATE)
    _array(writer)
    _access(writer)
    with np.errstate(all="ignore"):
        _body(writer)
        _terms(writer)
    program.result = writer.choose([*RESULTS], [*RESULTS.values()])
    if writer.chance(0.15):
        held = writer.choose(["STATE.", "vars(STATE)['", "LOG_OF['"])
        _hold(program, held, "']" * ("[" in held))
    return program


def _hold(program, before, after):
    """Let f hold its variables in an object of the module's, from call to call."""
    program.setup.append("LOG_OF = {}")

    def held(line):
        return re.sub(r"(?<!')\b([vmt]\d+)\b", before + r"\1" + after, line)

    program.body = [held(line) for line in program.body]
    program.terms = [held(term) for term in program.terms]


def _array(writer):
    if writer.by_rows:
        shape = (writer.integer(6) + 3, *([writer.integer(6) + 1] if writer.chance(0.9) else []))
        writer.define(ARRAYS[0].format(seed=writer.integer(10**6), shape=shape))
        return
    most = writer.choose([4, 6])
    shape = tuple(
        writer.integer(most) + 1 for _ in range(writer.choose([0, 1, 2, 3], [0.2, 3, 5, 1]))
    )
    parts = {"shape": shape, "seed": writer.integer(10**6), "scale": writer.choose([0.01, 100.0])}
    if shape:
        form = writer.choose(ARRAYS, [6, 1, 1, 0.5, 0.5, 0.5, 1, 0.7])
        parts |= {"first": shape[0], "rest": shape[1:]}
    else:
        form = "x = np.array(np.random.default_rng({seed}).normal())"
    writer.define(form.format(**parts))


def _access(writer):
    weights = [8, 2, 1, 1, 0.5, 1, 1, 1, 0.5, 0.5, 0.5, 0.5]
    access, setup, wrapping = ACCESSES[writer.choose([*ACCESSES], weights)]
    x = writer.module["x"]
    is_whole = x.ndim == 0 or len(x) < 2
    if (access == "w = part" and is_whole) or ("flat" in access and not x.flags.c_contiguous):
        access, setup, wrapping = ACCESSES["argument"]
    if setup:
        writer.define(setup)
    access = access.format(shape=x.shape) if "{shape}" in access else access
    writer.program.access, writer.program.wrapping = access, wrapping
    views = {"w = part": lambda: x[1:], "w = v + 0 * x": lambda: x + 0}
    writer.local["w"] = views.get(access, lambda: x.reshape(x.shape) if "flat" in access else x)()


def _body(writer):
    if writer.by_rows:
        _enter_by_rows(writer)
    elif writer.chance(0.7):
        writer.attempt([_enter], [1])
    rules = expressions.EXPRESSIONS | statements.STATEMENTS
    if writer.by_rows:
        rules = expressions.BY_ROWS | statements.BY_ROWS
    rules, weights = [*rules], [*rules.values()]
    wanted = len(writer.program.body) + writer.choose([2, 4, 7, 12])
    for _ in range(4 * wanted):
        writer.attempt(rules, weights)
        if len(writer.program.body) >= wanted:
            break


def _enter(writer):
    w = writer.local["w"]
    rows = writer.integer(9) + 1
    form = writer.choose(ENTRIES)
    shape = w.shape
    if "@ w" in form or "dot(" in form or "einsum" in form:
        shape = (rows, w.shape[-2] if w.ndim > 1 else w.shape[0])
        shape = shape if w.ndim < 2 or "einsum" not in form else (*w.shape[1:], w.shape[0])
    elif "w @" in form:
        shape = (w.shape[-1], rows)
    data = writer.data(shape) if "{data}" in form else ""
    data2 = writer.data((1,)) if "{data2}" in form else ""
    writer.assign(form.format(data=data, data2=data2))


def _enter_by_rows(writer):
    """Write a product of data with x, and x, as in a layer of a net."""
    w = writer.local["w"]
    X = writer.data((writer.integer(6) + 4, len(w)))
    form = writer.choose(["{X} @ w", "np.dot({X}, w)", "{X}.dot(w)", "{X} @ w + {b}"])
    b = writer.data((*w.shape[1:],)) if "{b}" in form else ""
    writer.assign(form.format(X=X, b=b))
    del writer.local["w"]  # nothing else reads x


def _terms(writer):
    for _ in range(writer.choose([1, 1, 2, 3])):
        for _ in range(5):
            if writer.attempt([_term], [1]):
                break
    if not writer.program.terms:
        writer.program.terms.append("w.sum()")


def _term(writer):
    a = writer.pick()
    if writer.chance(0.8):
        a = writer.choose(_unused(writer) or [a])
    form = writer.choose([*TERMS], [*TERMS.values()])
    if writer.by_rows and writer.chance(0.8):
        form = writer.choose([*TERMS][:6])
    data = writer.data(np.shape(writer.local[a])) if "{d}" in form else ""
    term = form.format(a=a, d=data, n=writer.number())
    value = writer.evaluated(term)
    if np.size(value) != 1:
        raise Unsuited
    writer.program.terms.append(term)


def _unused(writer):
    """Return the variables that no later statement and no term reads."""
    text = " ".join(writer.program.body + writer.program.terms)
    names = [n for n, value in writer.local.items() if isinstance(value, (np.ndarray, np.floating))]
    return [name for name in names if len(re.findall(rf"\b{name}\b", text)) < 2]
