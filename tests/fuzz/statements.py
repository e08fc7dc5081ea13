"""What a random program may do with its variables: in-place operations, buffers, loops, state."""

import numpy as np

from .expressions import BINARY, JUMPING, KINKED, SMOOTH
from .writer import blocks, listed

IN_PLACE = listed("""
    {a} += {b}; {a} -= {b}; {a} *= {b}; {a} *= {n}; {a} += {n}; {a} /= {n}; {a} **= 2;
    {a} -= {a}.mean(); {a} -= {a}.max(); {a} /= abs({a}).sum() + 0.1; {a} -= {a}.mean(0);
    np.tanh({a}, out={a}); np.maximum({a}, {c}, out={a}); np.add({a}, {b}, out={a});
    np.multiply({a}, {b}, {a}); np.exp({a} * 0.1, {a}); np.clip({a}, {c}, 1, out={a});
    np.subtract({b}, {a}, out={a}); np.negative({a}, {a}); np.square({a}, out={a});
    np.dot({b}, {b}, out={a}); {a}[0] = {n}; {a}[{i}] += {n}; {a}[-1] *= {n};
    {a}[{i}] = {b}[{i}] * 2; {a}[...] = {b}; {a}[:] = {b} * {n}; {a}[{a} < {c}] = 0;
    {a}[{a} > {c}] = {n}; {a}[{b} > 0] = 0; {a}[1:] += {a}[:-1]; {a}[::2] = 0; {a}[::-1] += {a};
    {a}[:, 0] = 0; {a}[:, 0] += {a}[:, -1]; {a}[..., -1] *= {n}; {a}[[0, -1]] = 1;
    {a}[[0, 0, -1]] += {n}; {a}[np.arange(len({a})), 0] -= 1; {a} = {a} + {b};
    {a}[{a} == {a}.max()] = 0; {a} -= {a}[0]; {a} += {a}.T; {a}[np.ones({a}.shape, bool)] = {n};
    {a} %= 1.5; {a}[{a} < {c}] *= 0.1; {a}[{b} > {c}] -= {n}; {a}[{a} > 0] = {a}[{a} > 0] ** 2;
    {a}[{b} <= 0] = np.exp({a}[{b} <= 0]) - 1
""")

UNUSUAL = listed("""
    {a}.sort(); {a}.fill({n}); np.add.at({a}, [0, 0], {n}); np.copyto({a}, {b}); {a}.flat[0] = {n};
    np.putmask({a}, {b} > 0, 0); {a} @= np.eye({a}.shape[-1]) * 2; {a}[{b} > {c}] *= 0.5;
    np.cumsum({a}, out={a}); {a}.T[...] += {n}; {a}.reshape(-1)[0] = {n};
    {a}[:, None][0] = {n}; {a}[1:], {a}[:-1] = {a}[:-1], {a}[1:]; {a}[0], {a}[-1] = {a}[-1], {a}[0];
    {a}.clip({c}, 2, out={a})
""")

VIEWS = listed("""
    {a}; {a}[1:]; {a}[:, 0]; {a}.T; {a}.reshape(-1); {a}[::-1]; {a}.ravel(); {a}[0];
    np.asarray({a}); {a}[...]; {a}.view(); np.squeeze({a})
""")

CREATED = listed("""
    np.zeros({shape}); np.zeros_like({a}); np.empty({shape}); np.empty_like({a}); np.ones({shape});
    np.ones_like({a}); np.full({shape}, {n}, float); np.zeros(len({a})); np.full_like({a}, {n});
    np.zeros({a}.shape); np.zeros({a}.size).reshape({a}.shape); np.array({a} * 0); {a}.copy();
    np.zeros({shape}, dtype=np.float64); np.zeros({shape}, order='F'); np.full({shape}, {a}.sum());
    np.full_like({a}, {a}.max()); np.empty({a}.shape, float); np.ndarray({a}.shape, float)
""")

FILLED = blocks("""
    {m}[...] = {e}

    {m}[:] = {e}

    {m} += {e}

    for k in range(len({a})):
        {m}[k] = {ek}

    for k in range(len({a})):
        {m}[k] += {ek}

    for k, row in enumerate({a}):
        {m}[k] = row * {n}

    for k in range(len({a})):
        {m}[k] = {ek}
        {m}[k] *= {m}[k]

    for k in range(1, len({a})):
        {m}[k] = {m}[k - 1] * 0.5 + {ek}

    {m}[...] = 0
    {m}[0] = {ek0}

    {m}[...] = 0
    for k in range(0, len({a}), 2):
        {m}[k] = {ek}

    for k in range(len({a})):
        for l in range({a}[k].size):
            {m}[k, l] = {a}[k, l] * (l + 1)

    np.multiply({a}, {n}, out={m})

    np.tanh({a}, out={m})

    np.copyto({m}, {a})

    for k in range(3):
        {m}[0] = {ek0}
        {m} = {m} * 0.9

    for k in range(2):
        {m} += {a}
        {m} *= {n}
""")

LOOPS = blocks("""
    {t} = 0.0
    for k in range(len({a})):
        {t} = {t} + ({ek}).sum()

    {t} = 0
    for k in range(len({a})):
        {t} += ({ek}).mean()

    {t} = sum(({ek}).sum() for k in range(len({a})))

    {t} = np.stack([{ek} for k in range(len({a}))])

    {t} = np.array([({ek}).sum() for k in range(len({a}))])

    {t} = {a}
    for k in range(3):
        {t} = np.tanh({t} + {a})

    {t} = {a}
    for k in range(3):
        {t} = {t} * 0.5 + np.maximum({t}, 0)

    {t} = np.zeros({shape})
    for k in range(3):
        {t} += {e}

    {t}, parts = 0.0, []
    for k in range(len({a})):
        parts.append({ek})
    {t} = np.concatenate([p.reshape(-1) for p in parts])

    D, {t} = np.zeros({shape}), 0.0
    for k in range(len({a})):
        D[...] = 0
        D[k] = {ek}
        {t} = {t} + (D ** 2).sum() + D.sum()

    D, {t} = np.zeros({shape}), 0.0
    for k in range(len({a})):
        D.fill(0)
        D[k] = 1
        {t} = {t} + (D * {a}).sum() ** 2

    D, {t} = np.empty({shape}), 0.0
    for k in range(2):
        D[:] = {a} * (k + 1)
        {t} = {t} + np.tanh(D).sum()

    {t} = {a} if FLAG else {a} ** 2

    if FLAG and {a}.ndim:
        {t} = {e}
    else:
        {t} = -{a}

    {t} = {e}
    if {t}.shape == {a}.shape:
        {t} = {t} + {a}

    {t} = max(({ek}).sum() * 0 + k for k in range(2)) + {a}

    {t} = {a}[0].sum() if {a}.sum() > {c} else {a}[-1].sum()

    {t} = np.where(FLAG, {a}, 0)

    {t} = {a}.max() if {a}.size > 1 else {a}.sum()

    with np.errstate(all='ignore'):
        {t} = {e}

    try:
        {t} = {a}[1000]
    except IndexError:
        {t} = {e}

    act = lambda v: v * 0.5 + np.maximum(v, {c})
    {t} = act({a}) + act({e})

    def power(v, k=2):
        return v ** k + {a}.sum()
    {t} = power({e}, k=3)

    {t} = functools.reduce(lambda u, v: u * 0.5 + v, list({a}))

    {t} = np.stack(list(map(np.tanh, {a})))

    first, *rest = {a}
    {t} = first * 2 + len(rest)

    {t} = next(iter({a})) + [*{a}][-1]

    d = dict(z={a})
    d['z'] = d['z'] + {e}
    {t} = d['z']

    d = [{a}, {e}]
    d[0] *= {n}
    {t} = d[0] + d.pop()

    np.random.seed(3)
    {t} = {a} * (np.random.rand(*{a}.shape) > 0.3)

    {t} = {a} + np.random.default_rng(1).normal(size={a}.shape)

    {t} = {a}
    {t} = {t} + 1
    {t} *= 2
    {t} = {t} + {a}

    {t} = {a} * 1
    u = {t}
    u += {e}
    {t} = {t} * u

    {t} = {a} + 0
    u = {t}[0]
    {t}[0] = 5.0
    {t} = {t} + u

    {t} = {a} + 0
    u = {t}.T
    {t} -= {e}
    {t} = (u * u).sum() + {t}

    {t} = {a} + 0
    u = {t}.reshape(-1)
    u[0] = {a}.sum()
    u += 1
    {t} = {t} * 2

    while True:
        {t} = {e}
        break

    {t} = 0.0
    for k, row in enumerate({a}):
        if k % 2:
            continue
        {t} = {t} + row.sum() * {c}

    {t} = 0.0
    for u, v in zip({a}, {e}):
        {t} = {t} + (u * v).sum()
""")

WORK = blocks("""
    WORK{k}[...] = {a}
    {t} = WORK{k} * {n}

    WORK{k}[:] = {e}
    {t} = WORK{k} + 0

    np.tanh({a}, out=WORK{k})
    {t} = (WORK{k} ** 2).sum()

    WORK{k}[0] = {ek0}
    {t} = WORK{k}.sum() * 1.0
""")

KEPT = listed("""
    STATE.last = {a}; STATE.total += {a}.sum(); STATE.history.append({a}.mean());
    STATE.named['{a}'] = {a}; STATE.named['sum'] += {a}.sum(); STATE.best = {a}.shape;
    STATE.named.setdefault('{a}', []).append({a}); STATE.pair = ({a}, {a}.sum());
    STATE.mask = {a} > 0; LOG.append({a}.sum()); STATE.mean = 0.9 * STATE.mean + 0.1 * {a}.mean();
    STATE.history[-1:] = [{a}]
""")

STATE = """import copy, functools, math, operator
class State:
    def __init__(self):
        self.total, self.mean, self.last = 0.0, 0.0, None
        self.history, self.named = [], {'sum': 0.0}
STATE, LOG, FLAG = State(), [], True"""


def change(writer, *, forms=IN_PLACE):
    """Write an operation in place on an array of f's own."""
    a = writer.pick(writer.is_own)
    statement = writer.choose(forms)
    if "{i}" in statement:
        statement = statement.replace("{i}", str(writer.integer(len(writer.local[a]))))
    _run(writer, statement, a, changed=[a])


def change_unusually(writer):
    """Write an operation in place that is rarely recorded."""
    change(writer, forms=UNUSUAL)


def view(writer):
    """Write another name for an array or a part of it, whose elements may be changed later."""
    a = writer.pick(lambda value: np.ndim(value) > 0)
    writer.assign(writer.choose(VIEWS).format(a=a))


def create(writer):
    """Write a new array, and fill it with an expression, as a whole or element by element."""
    a = writer.pick(lambda value: np.ndim(value) > 0)
    shape = writer.local[a].shape
    m = writer.name("m")
    made = writer.choose(CREATED).format(a=a, shape=shape, n=writer.number())
    filled = writer.choose(FILLED[:2] if "empty" in made else FILLED)
    if writer.chance(0.3):
        filled += "\n" + writer.choose(FILLED)
    parts = _parts(writer, a) | {"m": m}
    writer.run(f"{m} = {made}\n{filled.format(**parts)}")


def loop(writer):
    """Write a loop or a branch on what does not depend on x."""
    a = writer.pick(lambda value: np.ndim(value) > 0)
    _run(writer, writer.choose(LOOPS), a, t=writer.name("t"), shape=writer.local[a].shape)


def work(writer):
    """Write into an array that the module keeps from call to call."""
    a = writer.pick(lambda value: np.ndim(value) > 0)
    k = writer.name("")
    writer.define(f"WORK{k} = np.zeros({writer.local[a].shape})")
    _run(writer, writer.choose(WORK), a, t=writer.name("t"), k=k)


def keep(writer):
    """Keep a variable in an object of the module's."""
    _run(writer, writer.choose(KEPT), writer.pick())


def helper(writer):
    """Define a function of the module, and call it."""
    name, a = writer.name("helper"), writer.pick()
    c = writer.near(a)
    first, second = (
        writer.choose(writer.choose([SMOOTH, KINKED, JUMPING, BINARY]))
        .format(a="v", b="v", c=c, n=writer.number())
        for _ in range(2)
    )  # fmt: skip
    lines = [f"u = {first}", f"u = u + {second}", "return u"]
    if writer.chance(0.3):
        lines.insert(2, "u *= 0.5")
    writer.define(f"def {name}(v):\n    " + "\n    ".join(lines))
    writer.assign(f"{name}({a})")


def _parts(writer, a):
    """Return expressions of a variable, and of its item k and 0."""
    form = writer.choose([*SMOOTH, *KINKED, "{a}", "{a}", "{a} * {n}"])
    c, n = writer.near(a), writer.number()
    if np.ndim(writer.local[a]) == 2 and writer.chance(0.3):
        data = writer.data((writer.local[a].shape[1],) * 2)
        form = f"({{a}} @ {data})"
    e, ek, ek0 = (form.format(a=name, c=c, n=n) for name in (a, f"{a}[k]", f"{a}[0]"))
    return {"a": a, "c": c, "n": n, "e": e, "ek": ek, "ek0": ek0}


def _run(writer, statement, a, changed=(), **more):
    parts = _parts(writer, a) if "{e" in statement else {"a": a}
    if "{b}" in statement:
        more["b"] = writer.partner(a)
    if "{c}" in statement and "c" not in parts:
        more["c"] = writer.near(a)
    if "{n}" in statement and "n" not in parts:
        more["n"] = writer.number()
    writer.run(statement.format(**parts | more), changed)


STATEMENTS = {
    change: 3,
    change_unusually: 0.3,
    view: 0.5,
    create: 2,
    loop: 1.2,
    work: 0.2,
    keep: 0.3,
    helper: 0.7,
}
"""What writes a statement, with how often it is wanted."""

BY_ROWS = {change: 1, helper: 1, keep: 0.2}
"""The same for what seldom mixes rows."""
