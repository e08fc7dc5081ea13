"""Statistical and other models with random data, sizes and scales: losses of their parameters."""

import numpy as np

from .program import Program
from .writer import blocks

MODELS = blocks("""
    # a mixture of Gaussians, narrow or wide
    X, x = r.uniform(0, 1, N), r.uniform(0, 1, K) + {c}
    mix = np.full(K, 1 / K)
    ---
    p = np.exp(-0.5 * ((X[:, None] - x) / {s}) ** 2) @ mix
    loss = -np.log(p + 1e-12).sum()

    # regression, with a scale to be estimated
    X, y = r.normal(size=(N, K)), r.normal(size=N)
    x = np.append(r.normal(size=K), {c}) * {s}
    ---
    mean = X @ x[:-1]
    scale = np.full_like(mean, np.exp(x[-1]))
    loss = (0.5 * ((y - mean) / scale) ** 2 + np.log(scale)).sum()

    # logistic regression with fixed effects, in a buffer that is filled again
    X, y, g = r.normal(size=(N, K)), np.sign(r.normal(size=N)), np.arange(N) % 3
    x = r.normal(size=K + 3) * {s} * (r.random() < 0.7)
    ---
    D, loss = np.zeros((np.sum(g == 0), 3)), 0.0
    for k in range(3):
        D[...] = 0
        D[:, k] = 1
        rows = np.flatnonzero(g == k)
        z = y[rows] * (X[rows] @ x[:K] + D[:len(rows)] @ x[K:])
        loss = loss + np.log1p(np.exp(-z)).sum()

    # factors of a matrix, some of whose elements are known
    Y, known = r.normal(size=(N, M)), r.random((N, M)) < 0.6
    x = r.normal(size=(N + M, 2)) * {s}
    ---
    U, V = x[:N], x[N:]
    E = np.where(known, Y - U @ V.T, 0)
    loss = (E ** 2).sum() + 0.1 * (x ** 2).sum()

    # distances of all pairs
    x, D = r.normal(size=(N, 2)) * {s}, abs(r.normal(size=(N, N)))
    ---
    d = np.sqrt(((x[:, None] - x[None]) ** 2).sum(-1) + 1e-9)
    loss = ((d - D) ** 2).mean()

    # a chain of hidden states, forward
    x, O = r.normal(size=(3, 3)) * {s}, r.random((M, 3)) + 0.1
    ---
    A = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    a, loss = O[0] / 3, 0.0
    for o in O[1:]:
        a = (a @ A) * o
        total = a.sum()
        loss = loss - np.log(total)
        a = a / total

    # an equation of motion, in steps
    x, y = r.normal(size=4) * {s}, r.normal(size=M)
    ---
    state, loss = np.array([1.0, 0.0]), 0.0
    for k in range(M):
        force = -x[0] * state[0] - x[1] * state[1] + x[2] * np.tanh(state[0] * x[3])
        state = state + 0.1 * np.stack([state[1], force])
        loss = loss + (state[0] - y[k]) ** 2

    # a Gaussian process
    X, y, x = r.normal(size=N), r.normal(size=N), np.array([0.1, 0.2, -1.0]) * {s}
    ---
    Kxx = np.exp(x[0]) * np.exp(-0.5 * (X[:, None] - X) ** 2 / np.exp(2 * x[1]))
    Kxx = Kxx + np.eye(N) * np.exp(x[2])
    loss = 0.5 * y @ np.linalg.solve(Kxx, y) + 0.5 * np.linalg.slogdet(Kxx)[1]

    # quantiles
    X, y, x = r.normal(size=(N, K)), r.normal(size=N), r.normal(size=K) * {s}
    y[:3] = X[:3] @ x + {c}
    ---
    e = y - X @ x
    loss = np.maximum(0.3 * e, -0.7 * e).mean() + 0.01 * abs(x).sum()

    # embedded words, and their cosines
    x, i, j = r.normal(size=(M, 3)) * {s}, r.integers(0, M, N), r.integers(0, M, N)
    ---
    u, v = x[i], x[j]
    c = (u * v).sum(1) / (np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1) + 1e-8)
    loss = np.mean((1 - c) ** 2)

    # triplets
    X, x = r.normal(size=(N, K)), r.normal(size=(K, 2)) * {s}
    ---
    z = X @ x
    near, far = ((z[1:] - z[:-1]) ** 2).sum(1), ((z[1:] - z[0]) ** 2).sum(1)
    loss = np.maximum(0, near - far + 0.2 + {c}).mean()

    # a graph's convolution
    G, X, x = (r.random((N, N)) < 0.4) * 1.0, r.normal(size=(N, K)), r.normal(size=(K, 3)) * {s}
    G = G / np.maximum(G.sum(1, keepdims=True), 1)
    ---
    h = np.maximum(G @ X @ x, 0)
    h = G @ h
    loss = -np.log(np.exp(h[:, 0]) / np.exp(h).sum(1)).mean()

    # gated memory
    X, x = r.normal(size=(M, N, 2)), r.normal(size=(5, 12)) * {s}
    ---
    h, c = np.zeros((N, 3)), np.zeros((N, 3))
    for t in range(M):
        z = np.concatenate([X[t], h], axis=1) @ x
        i, f_, o, g = (z[:, 3 * k:3 * k + 3] for k in range(4))
        c = c / (1 + np.exp(-f_)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
    loss = (h ** 2).mean()

    # soft assignment to centres
    X, x = r.normal(size=(N, 2)), r.normal(size=(K, 2)) * {s}
    ---
    d = ((X[:, None] - x) ** 2).sum(-1)
    w = np.exp(-(d - d.min(1, keepdims=True)) * {t})
    w /= w.sum(1, keepdims=True)
    loss = (w * d).sum() / N

    # counts, by a rate
    X, y, x = r.normal(size=(N, K)), r.integers(0, 4, N), r.normal(size=K) * {s}
    ---
    eta = X @ x
    loss = (np.exp(eta) - y * eta).sum()

    # splines: a sum of kinks, which are parameters, too
    X, y, x = r.uniform(-1, 1, N), r.normal(size=N), r.uniform(-1, 1, (2, K)) * {s}
    X[0] = x[0, 0] + {c}
    ---
    B = np.maximum(X[:, None] - x[0], 0)
    loss = ((B @ x[1] - y) ** 2).mean()

    # a rotation of points
    P, Q, x = r.normal(size=(N, 2)), r.normal(size=(N, 2)), r.normal(size=3) * {s}
    ---
    R = np.array([[1.0, 0.0], [0.0, 1.0]])
    c, s = np.cos(x[0]), np.sin(x[0])
    turned = np.stack([c * P[:, 0] - s * P[:, 1], s * P[:, 0] + c * P[:, 1]], axis=1)
    loss = ((turned @ R + x[1:] - Q) ** 2).sum()

    # a residual around an activation, normalised
    X, V, x = r.normal(size=(N, K)), r.normal(size=(M, M)), r.normal(size=(K, M)) * {s}
    ---
    z = np.tanh(X @ x + {c})
    y = z @ V + 0.5 * z
    y -= y.mean(1, keepdims=True)
    loss = (y ** 2).mean() + np.maximum(z, 0).sum()

    # probabilities of few outcomes, which are bounded
    X, y, x = r.normal(size=(N, K)), r.integers(0, 2, N), r.normal(size=K) * {s}
    ---
    p = np.clip(1 / (1 + np.exp(-(X @ x) * {t})), 1e-7, 1 - 1e-7)
    loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))

    # a filter along time
    y, x = r.normal(size=N + K), r.normal(size=K) * {s}
    ---
    out = np.zeros(N)
    for n in range(N):
        out[n] = (y[n:n + K] * x).sum()
    loss = ((out - y[K:]) ** 2).sum() + abs(np.diff(x)).sum()

    # a portfolio on the simplex
    S, m, x = r.normal(size=(N, K)), r.normal(size=K), r.normal(size=K) * {s}
    ---
    w = np.exp(x - x.max())
    w /= w.sum()
    loss = np.sqrt(((S @ w) ** 2).mean()) - 0.1 * m @ w + 0.01 * np.sum(w * np.log(w + 1e-12))

    # images, convolved and pooled
    I, x = r.random((N, 6, 6)), r.normal(size=(2, 3, 3)) * {s}
    ---
    out = np.zeros((N, 2, 4, 4))
    for i in range(4):
        for j in range(4):
            out[:, :, i, j] = np.tensordot(I[:, i:i + 3, j:j + 3], x, axes=([1, 2], [1, 2]))
    out = np.maximum(out + {c}, 0).reshape(N, 2, 2, 2, 2, 2).max(axis=(3, 5))
    loss = (out.reshape(N, -1) ** 2).mean()
""")
"""Statements of the module, and, below the line, those of f, in which w is x."""

SCALES = {1.0: 5, 0.1: 3, 3.0: 1, 0.01: 1, 1e-4: 0.7, 30.0: 0.3}


def write(seed):
    """Return a random program."""
    random = np.random.default_rng(seed)

    def choose(options):
        return options[int(random.integers(len(options)))]

    weights = np.array([*SCALES.values()])
    scale = float(random.choice([*SCALES], p=weights / weights.sum()))
    h = choose([1e-4, 1e-4, 1e-4, 1e-3, 1e-5])
    near = choose([0.0, h, 0.4 * h, -0.9 * h, 0.3])
    text = choose(MODELS).format(s=scale, t=choose([1.0, 20.0, 3000.0]), c=near)
    data, _, body = text.partition("\n---\n")
    N, M, K = random.integers(3, 12), random.integers(2, 6), random.integers(2, 7)
    return Program(
        setup=[
            f"r = np.random.default_rng({random.integers(10**6)})",
            f"N, M, K = {N}, {M}, {K}",
            data,
        ],
        access="x = w",
        body=[body],
        terms=["loss"],
        result=choose(["return loss", "return float(loss)", "return loss"]),
        h=h,
        scheme=choose(["central"] * 8 + ["forward", "backward", "central(4)"]),
    )
