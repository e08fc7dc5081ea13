"""Compiled kernels on disk, in numba's cache: used where that works, and where they are whole.

numba gives up where there is no folder that it may write to, where the disk is full, and where a
file cannot be read; and it runs whatever code a damaged file holds. So what it has written for a
kernel is sealed with checksums. What has no seal that fits is deleted, and compiled again.
"""

import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numba

Compiled = TypeVar("Compiled")

_works = True


def compiled(
    name: str, folder: Callable[[], Path], compile_: Callable[[bool], Compiled]
) -> Compiled:
    """Return what is compiled, or loaded from the cache; without the cache where that fails.

    Parameters
    ----------
    name : str
        Of the function: it is in the names of its files.
    folder : callable
        Returns where numba keeps them.
    compile_ : callable
        ``compile_(cache)`` compiles the function, with numba's cache or without.

    Warns
    -----
    RuntimeWarning
        Once, if the cache cannot be used.
    """
    global _works
    if not _works:
        return compile_(False)
    try:
        place = folder()
        known = _drop_unsealed(place, name)
        result = compile_(True)
        if _checksums(place, name) != known:
            _seal(place, name)
        return result
    except Exception as error:  # an error that is not the cache's is raised again, without it
        result = compile_(False)
        _works = False
        warnings.warn(
            f"numba cannot keep compiled code on disk ({type(error).__name__}: {error}), so that "
            "fastgrad's kernels are compiled again in each process; set the environment variable "
            "NUMBA_CACHE_DIR to a folder that can be written to",
            RuntimeWarning,
            stacklevel=2,
        )
        return result


def folder_of(function: Callable[..., None]) -> Path:
    """Return where numba keeps the code of a function; RuntimeError if there is no such folder."""
    return Path(str(numba.njit(cache=True)(function).stats.cache_path))


def _drop_unsealed(folder: Path, name: str) -> dict[str, str]:
    """Delete a function's files unless all are as they were sealed; return their checksums."""
    checksums = _checksums(folder, name)
    try:
        sealed = json.loads(_seal_of(folder, name).read_text())
    except (OSError, ValueError):
        sealed = None
    if checksums == sealed:
        return checksums
    for file in checksums:
        (folder / file).unlink(missing_ok=True)
    return {}


def _seal(folder: Path, name: str) -> None:
    """Write down the checksums of a function's files."""
    seal = _seal_of(folder, name)
    partial = seal.with_suffix(f".{uuid.uuid4().hex}")
    try:
        partial.write_text(json.dumps(_checksums(folder, name)))
        os.replace(partial, seal)
    finally:
        partial.unlink(missing_ok=True)


def _seal_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.seal"


def _checksums(folder: Path, name: str) -> dict[str, str]:
    """Return the checksum of each of the files that numba has written for a function."""
    checksums = {}
    for path in folder.glob(f"*{name}-*.nb[ci]"):
        try:
            checksums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:  # another process has just deleted it
            continue
    return checksums
