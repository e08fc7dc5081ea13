"""Random nets as learners write them: layers, normalisation, attention, losses, and tied weights.

One array of parameters is x; biases are chosen so that units stand near the kinks of activations.
"""

import re

import numpy as np

from .writer import Unsuited, Writer, blocks, listed

ACTIVATIONS = listed("""
    np.maximum(0, {a}); np.tanh({a}); 1 / (1 + np.exp(-{a})); np.where({a} > 0, {a}, 0.01 * {a});
    {a} * ({a} > 0); np.where({a} > 0, {a}, np.exp(np.minimum({a}, 0)) - 1); np.clip({a}, 0, 6);
    {a} / (1 + np.exp(-{a})); np.log1p(np.exp({a})); {a} / (1 + abs({a})); np.clip({a}, -1, 1); {a};
    0.5 * {a} * (1 + np.tanh(0.79788456 * ({a} + 0.044715 * {a} ** 3))); np.sin({a}); {a} ** 2;
    np.maximum({a}, 0) ** 2; np.clip(0.2 * {a} + 0.5, 0, 1); {a} * np.clip({a} + 3, 0, 6) / 6;
    {a} * np.tanh(np.log1p(np.exp({a}))); np.exp(-({a} ** 2)); np.arctan({a}); abs({a});
    np.where({a} > 0, 1.0507 * {a}, 1.0507 * 1.6733 * (np.exp(np.minimum({a}, 0)) - 1));
    np.maximum({a}, 0.1 * {a}); np.exp({a}) / np.exp({a}).sum(1, keepdims=True)
""")

NORMALISATIONS = listed("""
    ({a} - {a}.mean(0)) / np.sqrt({a}.var(0) + 1e-5);
    ({a} - {a}.mean(1, keepdims=True)) / np.sqrt({a}.var(1, keepdims=True) + 1e-5);
    {a} / np.sqrt(np.mean({a} ** 2, axis=1, keepdims=True) + 1e-6);
    {a} / (np.linalg.norm({a}, axis=1, keepdims=True) + 1e-8);
    ({a} - np.mean({a}, axis=0)) / (np.std({a}, axis=0) + 1e-7); {a} - {a}.max(1, keepdims=True);
    {a} * ({d} > 0.1) / 0.9
""")
"""With ``{d}``: random numbers, as for a mask of dropout that stays the same."""

BATCH_NORMALISATION = """mu = np.mean({a}, axis=0)
xc = {a} - mu
var = np.mean(xc ** 2, axis=0)
std = np.sqrt(var + 10e-7)
xn = xc / std
RUNNING['mu'] = 0.9 * RUNNING['mu'] + 0.1 * mu
{out} = {gamma} * xn + {beta}"""

ATTENTION = """q, k, v = {a} @ {wq}, {a} @ {wk}, {a} @ {wv}
s = q @ k.T / np.sqrt(k.shape[1])
e = np.exp(s - s.max(axis=1, keepdims=True))
{out} = (e / e.sum(axis=1, keepdims=True)) @ v"""

CONVOLUTIONS = blocks("""
    col = np.zeros((len(X), 4, 4, 2, 2))
    for i in range(2):
        for j in range(2):
            col[:, :, :, i, j] = IMAGES[:, i:i + 4, j:j + 4]
    {out} = (col.reshape(-1, 4) @ {w}).reshape(len(X), -1)

    {out} = np.zeros((len(X), 3, 3, {w}.shape[1]))
    for i in range(3):
        for j in range(3):
            {out}[:, i, j] = IMAGES[:, i:i + 2, j:j + 2].reshape(len(X), -1) @ {w}
    {out} = {out}.max(axis=(1, 2))

    windows = np.lib.stride_tricks.sliding_window_view(IMAGES, (2, 2), axis=(1, 2))
    {out} = np.einsum('nijkl,klf->nijf', windows, {w}.reshape(2, 2, -1)).mean(axis=(1, 2))

    windows = np.lib.stride_tricks.sliding_window_view(IMAGES, (2, 2), axis=(1, 2))
    {out} = np.tensordot(windows.reshape(len(X), 16, 4), {w}, axes=1).max(axis=1)
""")

RECURRENT = """h = np.zeros((len(X), {n}))
for step in range(3):
    h = np.tanh({a} @ {w} + h @ {u} + {b})
{out} = h"""

LOSSES = blocks("""
    e = np.exp({a} - np.max({a}, axis=1, keepdims=True))
    y = e / np.sum(e, axis=1, keepdims=True)
    {out} = -np.sum(np.log(y[np.arange(len(X)), T] + 1e-7)) / len(X)

    y = np.exp({a}) / np.sum(np.exp({a}), axis=1, keepdims=True)
    {out} = -np.sum(ONE_HOT * np.log(y + 1e-7)) / len(X)

    m = {a}.max(1)
    {out} = np.mean(m + np.log(np.exp({a} - m[:, None]).sum(1)) - {a}[np.arange(len(X)), T])

    {out} = 0.5 * np.sum(({a} - ONE_HOT) ** 2)

    {out} = np.mean(({a} - ONE_HOT) ** 2)

    {out} = np.mean(np.abs({a} - ONE_HOT))

    margins = np.maximum(0, {a} - {a}[np.arange(len(X)), T][:, np.newaxis] + 1.0)
    margins[np.arange(len(X)), T] = 0
    {out} = np.sum(margins) / len(X)

    p = 1 / (1 + np.exp(-{a}))
    {out} = -np.mean(ONE_HOT * np.log(p + 1e-7) + (1 - ONE_HOT) * np.log(1 - p + 1e-7))

    d = {a} - ONE_HOT
    {out} = np.mean(np.where(abs(d) < 1, 0.5 * d ** 2, abs(d) - 0.5))

    z = {a}.T - {a}.T.max(axis=0)
    y = (np.exp(z) / np.exp(z).sum(axis=0)).T
    {out} = -np.log(y[range(len(X)), T]).mean()

    {out} = np.mean(np.maximum({a}, 0) - {a} * ONE_HOT + np.log1p(np.exp(-abs({a}))))

    {out} = 0.0
    for n in range(len(X)):
        row = {a}[n] - {a}[n].max()
        {out} += -row[T[n]] + np.log(np.sum(np.exp(row)))
    {out} /= len(X)

    s = ONE_HOT @ {a}.T / np.sqrt(({a} ** 2).sum(1) + 1e-3)
    {out} = (s ** 2).mean()
""")

PENALTIES = listed("""
    0.05 * ({w} ** 2).sum(); 0.5 * 0.1 * np.sum({w} ** 2); 0.01 * abs({w}).sum();
    0.1 * ({w} @ {w}.T).sum();
    0.001 * np.linalg.norm({w}); 1e-3 * np.sum(np.maximum(abs({w}) - 0.5, 0))
""")

ACCESSES = {
    # how f reads the parameter W, how the module does, its last statement, and f around its body
    "argument": ("W", "W", "", "def f(WEIGHT):\n    BODY"),
    "global": ("W", "W", "", "def f(_):\n    BODY"),
    "dict": ("P['W']", "P['W']", "P = NAMES", "def f(_):\n    BODY"),
    "attribute": ("NET.W", "NET.W", "class Net: pass\nNET = Net()\nvars(NET).update(NAMES)", (
        "def loss():\n    BODY\nNET.loss = loss\nf = lambda _: NET.loss()"
    )),
    "method": ("self.params['W']", "f.__self__.params['W']", "", (
        "class Net:\n    def __init__(self):\n        self.params = NAMES\n"
        "    def loss(self, _):\n        BODY\nf = Net().loss"
    )),
    "named tuple": ("P.W", "P.W", (
        "import collections\nP = NAMES\nP = collections.namedtuple('Parameters', P)(**P)"
    ), "def f(_):\n    BODY"),
    "layers": ("L['W'].value", "L['W'].value", (
        "import dataclasses\n@dataclasses.dataclass\nclass Layer:\n    value: np.ndarray\n"
        "L = {name: Layer(value) for name, value in NAMES.items()}"
    ), "def f(_):\n    BODY"),
    "flat": ("P['W']", "P['W']", (
        "FLAT = np.concatenate([value.reshape(-1) for value in NAMES.values()])\n"
        "ENDS = np.cumsum([value.size for value in NAMES.values()])\n"
        "P = dict(zip(NAMES, np.split(FLAT, ENDS[:-1])))\n"
        "P = {name: P[name].reshape(value.shape) for name, value in NAMES.items()}"
    ), "def f(_):\n    BODY"),
    "closure": ("LOWER", "f.__closure__[f.__code__.co_freevars.index('LOWER')].cell_contents", "", (
        "def make(ALL_LOWER):\n    def f(_):\n        BODY\n    return f\nf = make(ALL)"
    )),
}  # fmt: skip

LAYOUTS = listed("""
    {w}.astype(np.float32); np.asfortranarray({w}); np.repeat({w}, 2, axis=0)[::2]; {w}[::-1]
""")


def write(seed):
    """Return a random net."""
    random = np.random.default_rng(seed)
    writer = Writer(random)
    writer.program.h = writer.choose([1e-4, 1e-3, 1e-5], [10, 1, 1])
    writer.program.scheme = writer.choose(["central", "forward", "central(4)"], [12, 1, 1])
    with np.errstate(all="ignore"):
        while not Net(writer).finish():
            writer = Writer(random)
    return writer.program


class Net:
    """Writes a net, layer by layer.

    Attributes
    ----------
    result : str
        The name of the last layer's result, an array of a row a sample.
    parameters : list of str
    """

    def __init__(self, writer):
        self.writer = writer
        self.parameters = []
        self.result = "X"
        self._batch()

    def finish(self):
        """Write all layers and the loss; return whether that was possible."""
        writer = self.writer
        first = writer.choose([self.affine, self.convolution, self.recurrence], [8, 1.5, 1])
        if not writer.attempt([lambda _: first()], [1]):
            return False
        others = [self.affine, self.activation, self.normalisation, self.residual, self.attention]
        for _ in range(writer.choose([0, 1, 3, 5])):
            writer.attempt([lambda _, layer=layer: layer() for layer in others], [3, 4, 2, 2, 0.7])
        if not writer.attempt([lambda _: self.loss()], [1]):
            return False
        self._wrap()
        return True

    # Layers -----------------------------------------------------------------------------------

    def affine(self, units=None):
        """Write a product with weights, often with a bias, and an activation."""
        writer, a = self.writer, self.result
        n = self._units()
        units = units or writer.integer(7) + 2
        tied = [w for w in self.parameters if writer.module[w].shape == (n, units)]
        turned = [w for w in self.parameters if writer.module[w].shape == (units, n)]
        w = self._new((n, units))
        if tied and writer.chance(0.5):
            w = writer.choose(tied)
        elif turned and writer.chance(0.5):
            w = writer.choose(turned) + ".T"
        form = writer.choose(["{a} @ {w}", "np.dot({a}, {w})", "{a}.dot({w})"])
        form += writer.choose([" + {b}", ""], [4, 1])
        b = self._new((units,), "b")
        self._write(form, a=a, w=w, b=b)
        for _ in range(writer.choose([0, 1, 4]) if "{b}" in form else 0):
            self._stand_near_a_kink(form.format(a=a, w=w, b=b), b)
        if writer.chance(0.8):
            self.activation()

    def activation(self):
        """Write an activation; some in place or as a class of the book does."""
        writer = self.writer
        if writer.chance(0.15):
            self._write("{a}.copy()\n{out}[{a} <= 0] = 0", a=self.result)
        else:
            self._write(writer.choose(ACTIVATIONS), a=self.result)

    def normalisation(self):
        """Write a normalisation, of samples or features, or a fixed mask."""
        writer, n = self.writer, self._units()
        if writer.chance(0.3):
            gamma, beta = self._new((n,), "g"), self._new((n,), "b")
            self._write(BATCH_NORMALISATION, a=self.result, gamma=gamma, beta=beta)
            return
        form = writer.choose(NORMALISATIONS)
        d = writer.data((len(writer.module["X"]), n)) if "{d}" in form else ""
        self._write(form, a=self.result, d=d)

    def residual(self):
        """Write a branch, and add what it starts from."""
        start, n = self.result, self._units()
        self.affine(n)
        form = self.writer.choose(["{a} + {s}", "{s} + 0.5 * {a}", "{s} - {a}", "{a} * {s} + {s}"])
        if self.writer.chance(0.3):
            form = "{a}.copy()\n{out} += {s}"
        self._write(form, a=self.result, s=start)

    def attention(self):
        """Write attention among the samples."""
        n = self._units()
        wq, wk, wv = self._new((n, 3)), self._new((n, 3)), self._new((n, n))
        self._write(ATTENTION, a=self.result, wq=wq, wk=wk, wv=wv)

    def convolution(self):
        """Write a convolution of the images."""
        w = self._new((4, self.writer.integer(2) + 2))
        self._write(self.writer.choose(CONVOLUTIONS), w=w)

    def recurrence(self):
        """Write three steps of a recurrent layer."""
        n = self.writer.integer(3) + 2
        w, u, b = self._new((self._units(), n)), self._new((n, n)), self._new((n,), "b")
        self._write(RECURRENT, a=self.result, w=w, u=u, b=b, n=n)

    def loss(self):
        """Write scores of as many classes as there are labels, and a loss."""
        writer = self.writer
        self.affine(writer.module["ONE_HOT"].shape[1])
        self._write(writer.choose(LOSSES), a=self.result, rows=False)
        writer.program.terms.append(self.result)
        weights = [name for name in self.parameters if writer.module[name].ndim == 2]
        if writer.chance(0.4):
            writer.program.terms.append(writer.choose(PENALTIES).format(w=writer.choose(weights)))

    # Parts ------------------------------------------------------------------------------------

    def _batch(self):
        writer = self.writer
        rows, columns, classes = (writer.integer(most) + 2 for most in (8, 8, 4))
        seed = writer.integer(10**6)
        draws = f"np.random.default_rng({seed})"
        if writer.chance(0.3):
            columns = 25
        inputs = {
            f"{draws}.normal(size=({rows}, {columns}))": 4,
            f"{draws}.random(({rows}, {columns})) * ({draws}.random(({rows}, {columns})) < 0.5)": 3,
            f"({draws}.random(({rows}, {columns})) < 0.5) * 1.0": 1,
            f"{draws}.integers(0, 256, ({rows}, {columns}))": 0.5,
            f"{draws}.random(({rows}, {columns})) * 30": 0.5,
            f"{draws}.random(({rows}, {columns})) * ({draws}.random(({rows}, 1)) < 0.5)": 1,
            f"{draws}.integers(0, 3, ({rows}, {columns})) * 0.5": 0.5,
        }
        writer.define(f"X = {writer.choose([*inputs], [*inputs.values()])}")
        writer.define(f"T = {draws}.integers(0, {classes}, {rows})")
        writer.define(f"ONE_HOT = np.eye({classes})[T]")
        writer.define("RUNNING = {'mu': 0.0}")
        if columns == 25:
            writer.define(f"IMAGES = X.reshape({rows}, 5, 5)")

    def _units(self):
        return self.writer.evaluated(f"{self.result} * 1.0").shape[1]

    def _new(self, shape, letter="W"):
        """Define a parameter; return its name."""
        writer = self.writer
        name = writer.name(letter)
        scale = (
            writer.choose([1.0, 0.1, 0.01, 5.0, 0.0], [5, 3, 1, 0.5, 0.3]) if letter == "W" else 0.3
        )
        draw = f"np.random.default_rng({writer.integer(10**6)}).normal(size={shape})"
        writer.define(f"{name} = {draw} * {scale}" + (" + 1" if letter == "g" else ""))
        self.parameters.append(name)
        return name

    def _write(self, form, *, rows=True, **parts):
        out = self.writer.name("z")
        if "{out} = " not in form:
            form = "{out} = " + form
        self.writer.run(form.format(out=out, **parts), [out])
        value = self.writer.local[out]
        if rows and (np.ndim(value) != 2 or len(value) != len(self.writer.module["X"])):
            raise Unsuited
        self.result = out

    def _stand_near_a_kink(self, expression, b):
        """Move a bias such that an element is at 0, or within a step or two."""
        writer = self.writer
        value = writer.local[self.result]
        n, j = (writer.integer(length) for length in value.shape)
        reach = writer.program.h * writer.choose([1.0, float(abs(writer.module["X"]).max())])
        moved = float(value[n, j]) - reach * writer.choose([0.0, float(writer.random.normal())])
        writer.define(f"{b}[{j}] -= {moved!r}")
        writer.local[self.result][...] = writer.evaluated(expression)

    def _wrap(self):
        """Choose which parameter is x, and how f reads its parameters."""
        writer, program = self.writer, self.writer.program
        text = "\n".join(program.body + program.terms)
        used = [name for name in self.parameters if re.search(rf"\b{name}\b", text)]
        x = writer.choose(used)
        read, outside, setup, wrapping = ACCESSES[writer.choose([*ACCESSES])]
        if writer.chance(0.15):
            layout = writer.choose(LAYOUTS)
            program.setup += [f"{name} = {layout.format(w=name)}" for name in used]
        names = "{" + ", ".join(f"'{name}': {name}" for name in used) + "}"

        def of(form, name):
            return form.replace("LOWER", name.lower()).replace("W", name)

        if setup:
            program.setup.append(setup.replace("NAMES", names))
        program.setup.append(f"x = {x if outside.startswith('f.') else of(outside, x)}")
        program.wrapping = wrapping.replace("WEIGHT", x).replace("NAMES", names)
        program.wrapping = program.wrapping.replace("ALL_LOWER", ", ".join(used).lower())
        program.wrapping = program.wrapping.replace("ALL", ", ".join(used))
        program.arrays = [of(outside, name) for name in [x, *used]]
        if "P.W" in outside:
            program.replaced = "P = P._replace(ARRAY=NEW)"

        def reading(line):
            return re.sub(rf"\b({'|'.join(used)})\b", lambda m: of(read, m[1]), line)

        lines = program.body, program.terms
        program.body, program.terms = ([reading(line) for line in some] for some in lines)
        if "self" in read and writer.chance(0.5):  # as layers of the book hold what they compute
            lines = program.body, program.terms
            program.body, program.terms = (
                [re.sub(r"\b(z\d+)\b", r"self.\1", line) for line in some] for some in lines
            )
