"""Locks that are free in a forked child: a fork takes them, and releases them on both sides.

The child has one thread. What another thread of its parent held when it was forked would stay held
in it for ever, and the memory that the lock guards half changed.
"""

import os
import sys
from collections.abc import Iterator
from threading import RLock
from typing import Any

_locks: list[Any] = [RLock()]
"""In the order in which they are taken, where one is taken while another is held. The first lets
one thread fork at a time."""

importing = RLock()
"""Held while a module is imported in the midst of a computation: Python's own lock on a module that
another thread imports would be held in the child for ever."""

_held: list[Any] = []


def free_after_fork(lock: Any) -> None:
    """Register a lock that forks wait for, under which no code of users' runs.

    The locks of numba's compiler and of LLVM need not be named; they are taken after it.
    """
    _locks.append(lock)


free_after_fork(importing)


def _all_locks() -> Iterator[Any]:
    """Iterate over all locks, numba's among them if it has been imported."""
    yield from _locks
    for module, path in (
        ("numba.core.compiler_lock", ["global_compiler_lock"]),
        ("llvmlite.binding.ffi", ["lib", "_lock", "_lock"]),
    ):
        lock: Any = sys.modules.get(module)
        for name in path:
            lock = getattr(lock, name, None)  # numba does not promise these names
        if hasattr(lock, "acquire"):
            yield lock


def _take() -> None:
    for lock in _all_locks():
        lock.acquire()
        _held.append(lock)


def _let_go() -> None:
    held = _held.copy()
    _held.clear()
    for lock in reversed(held):
        lock.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_take, after_in_parent=_let_go, after_in_child=_let_go)
