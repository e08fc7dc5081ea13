"""What learners' code does with arrays is recorded, and differenced as the loop does it."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import looped
import numpy as np
import pytest
from nets import EPS, IS_EXTENDED, H
from numpy.lib import stride_tricks
from numpy.lib.stride_tricks import as_strided, sliding_window_view

from fastgrad import numerical_gradient
from fastgrad.engines import loop
from fastgrad.tracing.row_losses import RowLosses

assert_the_loops = partial(looped.assert_the_loops, engine="traced")

RANDOM = np.random.default_rng(0)
X, V = RANDOM.normal(size=(9, 6)), RANDOM.normal(size=(4, 3))
W = RANDOM.normal(size=(6, 4))
IMAGES = RANDOM.normal(size=(3, 7, 7))
FILTER = RANDOM.normal(size=(3, 3))
XS = RANDOM.normal(size=(3, 5, 6))
WH = RANDOM.normal(size=(4, 4))

pytestmark = pytest.mark.usefixtures("no_certificate")


def values_put_in_one_by_one(k):
    out = np.zeros((5, 5), k.dtype)
    for i in range(5):
        for j in range(5):
            out[i, j] = np.sum(IMAGES[0, i : i + 3, j : j + 3] * k)
    return np.sum(np.tanh(out) ** 2)


def values_added_one_by_one(k):
    out = np.zeros((5, 5), k.dtype)
    for i in range(5):
        for j in range(5):
            for row in range(3):
                for column in range(3):
                    out[i, j] += IMAGES[0, i + row, j + column] * k[row, column]
    return np.sum(np.tanh(out) ** 2)


def largest_put_in_one_by_one(k):
    windows = sliding_window_view(IMAGES, (3, 3), axis=(1, 2))[:, :4, :4]
    answers = np.einsum("nijkl,kl->nij", windows, k)
    out = np.zeros((3, 2, 2), k.dtype)
    for n in range(3):
        for i in range(2):
            for j in range(2):
                out[n, i, j] = np.max(answers[n, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2])
    return np.sum(np.tanh(out) ** 2)


def moments_read_back(w):
    h = np.zeros((3, 5, 4), w.dtype)
    prev = np.zeros((3, 4), w.dtype)
    for t in range(5):
        h[:, t, :] = np.tanh(XS[:, t, :] @ W + prev @ w)
        prev = h[:, t, :]
    return np.mean((h @ V) ** 2)


def scaled_where_negative(w):
    y = X @ w
    y[y <= 0] *= 0.1
    return np.mean((y @ V) ** 2)


def scaled_where_another_is_negative(w):
    x = X @ w
    y = np.tanh(x)
    y[x <= 0] *= 0.1
    return np.mean((y @ V) ** 2)


def scaled_twice_by_the_same_mask(w):
    y = X @ w
    mask = y <= 0
    y[mask] *= 0.1
    y[mask] -= 0.3
    return np.mean((y @ V) ** 2)


def stable_sigmoid(w):
    x = X @ w
    pos_mask = x >= 0
    neg_mask = x < 0
    z = np.zeros_like(x)
    z[pos_mask] = np.exp(-x[pos_mask])
    z[neg_mask] = np.exp(x[neg_mask])
    top = np.ones_like(x)
    top[neg_mask] = z[neg_mask]
    return np.mean((top / (1 + z) @ V) ** 2)


def sums_of_what_masks_select(w):
    x = X @ w
    return np.sum(x[x > 0] ** 2) + np.mean(np.exp(x[x <= 0]))


def array_of_its_class(w):
    out = np.ndarray((9, 4), w.dtype)
    out[...] = X @ w
    assert isinstance(out, np.ndarray)
    return np.mean((np.tanh(out) @ V) ** 2)


def windows_of_data(k):
    steps = IMAGES[0].strides
    windows = as_strided(IMAGES[0], (5, 5, 3, 3), steps * 2)
    return np.sum(np.tanh(np.einsum("ijkl,kl->ij", windows, k)) ** 2)


def windows_of_what_is_computed(x):
    a = np.tanh(x)
    windows = np.lib.stride_tricks.as_strided(a, shape=(5, 5, 3, 3), strides=a.strides * 2)
    return np.sum(np.einsum("ijkl,kl->ij", windows, FILTER) ** 2)


def windows_of_x(x):
    windows = stride_tricks.as_strided(x, (5, 5, 3, 3), x.strides * 2)
    return np.sum(np.tanh(np.einsum("ijkl,kl->ij", windows, FILTER)) ** 2)


def windows_that_slide(x):
    windows = sliding_window_view(x.T, (3, 3))
    return np.sum(np.tanh(np.einsum("ijkl,kl->ij", windows, FILTER)) ** 2)


def sums_along_diagonals(x):
    a = np.asfortranarray(x * 2)
    diagonal = as_strided(a, (7,), (sum(a.strides),), writeable=False)
    return np.sum(np.tanh(diagonal) ** 2) + np.sum(a**2)


IDIOMS = [
    (values_put_in_one_by_one, FILTER),
    (values_added_one_by_one, FILTER),
    (largest_put_in_one_by_one, FILTER),
    (moments_read_back, WH),
    (scaled_where_negative, W),
    (scaled_where_another_is_negative, W),
    (scaled_twice_by_the_same_mask, W),
    (stable_sigmoid, W),
    (sums_of_what_masks_select, W),
    (array_of_its_class, W),
    (windows_of_data, FILTER),
    (windows_of_what_is_computed, IMAGES[1].copy()),
    (windows_of_x, IMAGES[1].copy()),
    (windows_that_slide, IMAGES[2].copy()),
    (sums_along_diagonals, IMAGES[2].copy()),
]


@pytest.mark.parametrize(("f", "x"), IDIOMS, ids=[f.__name__ for f, _ in IDIOMS])
def test_an_idiom_is_traced(f, x):
    gradient = assert_the_loops(f, x, size=max(1, looped.size_of(f, x)))
    if IS_EXTENDED:
        exact = loop.gradient(f, x.astype(np.longdouble), H)
        assert exact.dtype == np.longdouble
        assert abs(gradient - exact).max() <= 2 * EPS * max(1, looped.size_of(f, x)) / H


@pytest.mark.parametrize("share", [-0.9, -1e-3, 0.0, 0.4, 0.9999])
@pytest.mark.parametrize(
    "f", [scaled_where_negative, scaled_twice_by_the_same_mask, sums_of_what_masks_select]
)
def test_a_mask_that_changes_within_the_step_is_seen(f, share):
    w = W.copy()
    n = np.argmax(abs(X).max(axis=1))  # the sample and unit that are at a share of their shift
    w[:, 1] += (share * H * abs(X[n]).max() - X[n] @ w[:, 1]) * X[n] / (X[n] @ X[n])
    assert_the_loops(f, w, size=2 * max(1, looped.size_of(f, w)))


@pytest.mark.parametrize("share", [-0.9, 0.0, 0.9])
def test_largest_pixels_that_change_within_the_step_are_seen(share):
    images = IMAGES[:, :4, :4].copy()
    images[0, 2, 1] = images[0, 0, 0] + share * H

    def f(x):
        out = np.zeros((3, 2, 2))
        for n in range(3):
            for i in range(2):
                for j in range(2):
                    out[n, i, j] = np.max(x[n, i : i + 3 : 2, j : j + 3 : 2])
        return np.sum(out**2) + np.sum(x[:, ::2, 1])

    images[0, 2, 0] = images[0, 0, 0] + share * H
    assert_the_loops(f, images, size=2 * looped.size_of(f, images))


# Arrays in tuples --------------------------------------------------------------------------------


class Named(NamedTuple):
    W: np.ndarray
    name: str


@dataclass(frozen=True)
class Frozen:
    layers: tuple


W1 = W.copy()

HOLDERS = {
    "a tuple in a tuple": (lambda w: ((w, 1.0), "name"), lambda held: held[0][0]),
    "a named tuple": (lambda w: Named(w, "name"), lambda held: held.W),
    "a named tuple in a tuple": (lambda w: (1, Named(w, "name")), lambda held: held[1].W),
    "a tuple of a frozen object": (lambda w: Frozen(((w,), 2)), lambda held: held.layers[0][0]),
    "a list in a tuple": (lambda w: ([w], 2), lambda held: held[0][0]),
}


@pytest.mark.parametrize("name", HOLDERS)
def test_an_array_in_a_tuple_is_found(name):
    hold, get = HOLDERS[name]
    w = W.copy()
    held = hold(w)
    before = repr(type(held)), id(held)

    class Net:
        def __init__(self):
            self.held = held

        def loss(self, _):
            return np.mean((np.tanh(X @ get(self.held)) @ V) ** 2)

    net = Net()
    assert_the_loops(net.loss, w, size=1)
    assert (repr(type(net.held)), id(net.held)) == before
    assert get(net.held) is w


def test_an_array_in_the_tuple_of_a_default_is_found():
    def loss(_, params=((W1, 0), 1)):
        return np.mean((np.tanh(X @ params[0][0]) @ V) ** 2)

    defaults = loss.__defaults__
    assert_the_loops(loss, W1, size=1)
    assert loss.__defaults__ is defaults


def test_the_arguments_of_a_partial_are_found():
    def loss(data, weights, _, *, scale):
        return scale * np.mean((np.tanh(data.dot(weights[0])) @ V) ** 2)  # a method of the data's

    w = W.copy()
    f = partial(loss, X, (w, 0), scale=2.0)
    held = f.func, f.args, f.keywords
    assert_the_loops(f, w, size=2)
    assert all(new is old for new, old in zip((f.func, f.args, f.keywords), held, strict=True))


def test_strides_that_leave_the_array_are_refused():
    buffer = np.arange(12.0).reshape(6, 2)

    def f(x):
        a = np.exp(x)[:3]
        return as_strided(a, (4, 2), a.strides).sum()

    with pytest.raises(ValueError, match="looks at more than the array"):
        numerical_gradient(f, buffer / 10, engine="traced")


def test_a_window_is_not_used_once_its_array_has_changed():
    def f(x):
        a = np.exp(x)
        windows = as_strided(a, (2, 2), (a.itemsize, a.itemsize))
        a[0] = 3.0
        return (windows**2).sum()

    with pytest.raises(ValueError, match="changed in place since"):
        numerical_gradient(f, np.arange(3.0), engine="traced")


def test_a_window_written_into_changes_its_array():
    def f(x):
        a = np.exp(x)
        windows = as_strided(a, (2, 2), (a.itemsize, a.itemsize))
        windows[0, 0] = 3.0
        return (a**2).sum()

    with pytest.raises(ValueError, match="changed in place since"):
        numerical_gradient(f, np.arange(3.0), engine="traced")


def test_words_that_a_batch_does_not_have_are_not_moved(monkeypatch):
    words = np.array([[1, 7, 1], [12, 7, 3]])
    moved = []

    def noted(self, values, units=None, *more):
        moved.append(self.units if units is None else units)
        return changes(self, values, units, *more)

    changes = RowLosses.changes
    monkeypatch.setattr(RowLosses, "changes", noted)

    def f(vectors):
        h = np.zeros((2, 4))
        for t in range(3):
            h = np.tanh(np.dot(vectors[words[:, t]], W) + np.dot(h, WH))
        return np.sum(h**2)

    gradient = assert_the_loops(f, RANDOM.normal(size=(20, 6)))
    is_word = np.isin(np.arange(20), words)
    assert not gradient[~is_word].any()
    assert gradient[is_word].all()
    assert set(np.concatenate(moved)) == set(1 + np.flatnonzero(np.repeat(is_word, 6)))
