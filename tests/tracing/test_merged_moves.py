"""Moves that put parts of one array together are one move, with the same elements."""

import numpy as np
import pytest
from looped import assert_the_loops

from fastgrad.tracing import operations
from fastgrad.tracing.batched import Stack, batched
from fastgrad.tracing.operations import merge_moves
from fastgrad.tracing.recorder import Recording, record
from fastgrad.tracing.stand_in import Recorded

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(2, 3, 6, 6))


def im2col(images, size, stride=1, pad=0, zeros=np.zeros):
    N, C, H, W = images.shape
    rows = (H + 2 * pad - size) // stride + 1
    columns = (W + 2 * pad - size) // stride + 1
    img = np.pad(images, [(0, 0), (0, 0), (pad, pad), (pad, pad)], "constant")
    col = zeros((N, C, size, size, rows, columns))
    for y in range(size):
        for x in range(size):
            bottom, right = y + stride * rows, x + stride * columns
            col[:, :, y, x, :, :] = img[:, :, y:bottom:stride, x:right:stride]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(N * rows * columns, -1)


def recorded(f):
    """Record a function of the images that starts with 2 times them; return all nodes."""
    recording = Recording(creates=True)
    creators = {name: _creating(recording, name) for name in ("zeros", "ones", "empty")}
    x = recording.start(IMAGES.copy())
    output = record(lambda: np.sum(f(x * 2, **creators)), recording)
    return recording.nodes, output.arguments[0]


def _creating(recording, name):
    return lambda *arguments, **keywords: recording.created(
        getattr(np, name)(*arguments, **keywords)
    )


MERGED = {
    "windows": lambda a, zeros, **_: im2col(a, 3, zeros=zeros),
    "padded windows": lambda a, zeros, **_: im2col(a, 3, pad=1, zeros=zeros),
    "pooled windows": lambda a, zeros, **_: im2col(a, 2, 2, zeros=zeros).reshape(-1, 4),
    "halves that change places": lambda a, **_: np.concatenate([a[:, :, 3:], a[:, :, :3]], 2),
    "some left at zero": lambda a, zeros, **_: put(zeros(a.shape), (slice(None), 1), a[:, 0]),
}

LEFT = {
    "into ones": lambda a, ones, **_: put(ones(a.shape), (slice(None), 1), a[:, 0]),
    "of two arrays": lambda a, **_: np.concatenate([a, np.tanh(a)]),
    "rounded": lambda a, zeros, **_: put(zeros(a.shape, np.float32), ..., a[:]),
    "one move alone": lambda a, **_: a.transpose(0, 2, 1, 3),
}


def put(out, index, values):
    out[index] = values
    return out


@pytest.mark.parametrize("name", MERGED)
def test_moves_are_merged_with_the_same_elements(name):
    nodes, output = recorded(MERGED[name])
    value = output.value.copy()
    merge_moves(nodes)
    assert output.function is operations.gathered
    source = output.arguments[0]
    assert source.function is np.multiply
    assert output.compute((source.value, output.arguments[1])).tobytes() == value.tobytes()
    # Versions, too: of shapes and memory that move in other ways.
    stack = np.stack([source.value, -source.value, np.tanh(source.value)])
    channels_last = np.ascontiguousarray(stack.transpose(0, 1, 3, 4, 2)).transpose(0, 1, 4, 2, 3)
    columns_first = np.ascontiguousarray(stack.transpose(0, 4, 2, 1, 3)).transpose(0, 3, 2, 4, 1)
    for versions in (stack, np.asfortranarray(stack), channels_last, columns_first):
        arguments = (Stack(versions), output.arguments[1])
        moved = batched(output)(arguments, 3)
        for k in range(3):
            np.testing.assert_array_equal(moved[k], output.compute((stack[k], output.arguments[1])))


@pytest.mark.parametrize("name", LEFT)
def test_what_is_not_of_one_array_is_left_alone(name):
    nodes, output = recorded(LEFT[name])
    merge_moves(nodes)
    assert all(node.function is not operations.gathered for node in nodes)
    assert type(output.value) is not Recorded


@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("tied", [False, True])
def test_pooled_convolutions_are_the_loops(pad, tied):
    """Ties of the largest pixel, and changes of it within the step, are seen."""
    images, filters = RANDOM.random((3, 2, 6, 6)), RANDOM.normal(size=(4, 2, 3, 3)) / 3
    if tied:
        images[0, :, :, 3:] = images[0, :, :, 2:3] + 2e-5 * RANDOM.normal(size=(2, 6, 3))
    W, b = RANDOM.normal(size=(4 * (4 + 2 * pad) ** 2 // 4, 5)), np.full(4, 0.1)

    def f(filters):
        N, side = len(images), 4 + 2 * pad
        out = im2col(images, 3, pad=pad) @ filters.reshape(4, -1).T + b
        out = np.maximum(out.reshape(N, side, side, 4).transpose(0, 3, 1, 2), 0)
        col = im2col(out, 2, 2).reshape(-1, 4)
        pooled = np.max(col, axis=1).reshape(N, side // 2, side // 2, 4).transpose(0, 3, 1, 2)
        return np.mean((pooled.reshape(N, -1) @ W) ** 2)

    assert_the_loops(f, filters, engine="traced")


def test_memory_that_is_not_filled_yet_may_hold_signalling_nans():
    held = np.frombuffer(b"\x01\x00\x00\x00\x00\x00\xf0\x7f" * 20).reshape(4, 5)

    def loss(x):
        rows = np.zeros((4, 5))
        rows[...] = held
        for i in range(4):
            rows[i] = x[i]
        return np.sum(rows**2)

    assert_the_loops(loss, RANDOM.normal(size=(4, 5)))
