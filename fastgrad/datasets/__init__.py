"""MNIST's digits, from checked files or from a sample that comes with the library.

The data are 70,000 handwritten digits of 28 x 28 pixels by Yann LeCun, Corinna Cortes and
Christopher J. C. Burges, licensed CC BY-SA 3.0 (https://creativecommons.org/licenses/by-sa/3.0/);
``mnist_sample.npz``, a part of them, is under that licence too, not under the library's own.

Every file is checked by the SHA-256 of its uncompressed content, because the same digits circulate
in different gzip wrappings; a download is also checked as it is, before it enters the cache.
Nothing is ever unpickled.
"""

import gzip
import hashlib
import os
import threading
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["load_mnist", "load_mnist_sample"]

Part = tuple[NDArray[Any], NDArray[Any]]
"""Images and labels."""

CONTENT_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""The four files, in the order of the results: x_train, t_train, x_test, t_test."""

CONTENT_BYTES = {
    "train-images-idx3-ubyte": 16 + 60_000 * 28 * 28,
    "train-labels-idx1-ubyte": 8 + 60_000,
    "t10k-images-idx3-ubyte": 16 + 10_000 * 28 * 28,
    "t10k-labels-idx1-ubyte": 8 + 10_000,
}
"""Their sizes: no more is ever read or unpacked of a file, whatever it is."""

GZIP_SHA256 = {
    "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""Of the original .gz files, which the mirrors serve."""

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
"""Hosts that serve the files unchanged; the authors' own one answers 403 nowadays."""

MAX_ANSWER_SECONDS = 4.0
"""How long a mirror may take to answer at all; the download itself may take longer."""


def load_mnist(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False
) -> tuple[Part, Part]:
    """Load MNIST's 60,000 training and 10,000 test digits, as the book's function does.

    The four IDX files, as ``train-images-idx3-ubyte`` or gzipped as
    ``train-images-idx3-ubyte.gz``, are looked for in the folder that the environment variable
    ``FASTGRAD_DATA`` names (if it is set), then in the user's cache folder; one found in neither
    is downloaded (11 MB in all) and cached. Downloading and the cache need pooch, which
    ``pip install "fastgrad[examples]"`` installs; ``FASTGRAD_DATA`` does not.

    Parameters
    ----------
    normalize : bool
        True: pixels are float32 in [0, 1], the byte divided by 255. False: uint8, 0 to 255.
    flatten : bool
        True: images have shape (N, 784). False: (N, 1, 28, 28).
    one_hot_label : bool
        True: labels are float64 rows of shape (N, 10) with a single 1. False: uint8, shape (N,).

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        Images and labels, in the original order; new arrays, which may be written to.

    Raises
    ------
    ConnectionError
        A file was not found, and no mirror served it or the cache cannot be written. This is
        the one to catch in order to go on with `load_mnist_sample`.
    ValueError
        A file was found, but is truncated, corrupt or another file: nothing of it is used.
    NotADirectoryError
        ``FASTGRAD_DATA`` is set to something that is not a folder.
    ImportError
        A file is not in ``FASTGRAD_DATA``, and pooch is not installed.

    References
    ----------
    LeCun, Bottou, Bengio, Haffner (1998), Gradient-based learning applied to document
    recognition, Proceedings of the IEEE 86(11), doi:10.1109/5.726791.

    Examples
    --------
    The first call may download; with no network, a sample of the same digits will do:

    >>> try:  # doctest: +SKIP
    ...     (x_train, t_train), (x_test, t_test) = load_mnist(one_hot_label=True)
    ... except ConnectionError:
    ...     (x_train, t_train), (x_test, t_test) = load_mnist_sample(one_hot_label=True)
    """
    arrays = [_read_idx(_locate(name), name) for name in CONTENT_SHA256]
    return _present(arrays, normalize, flatten, one_hot_label)


def load_mnist_sample(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False
) -> tuple[Part, Part]:
    """Load 5,000 training and 1,000 test digits of MNIST that come with the library.

    They are real digits, drawn at random from the training and the test set respectively by
    ``tools/make_mnist_sample.py``, and need no network.

    Parameters
    ----------
    normalize, flatten, one_hot_label : bool
        As in `fastgrad.load_mnist`.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        As in `fastgrad.load_mnist`, with N = 5,000 and N = 1,000.

    Examples
    --------
    >>> from fastgrad.datasets import load_mnist_sample
    >>> (x_train, t_train), (x_test, t_test) = load_mnist_sample()
    >>> x_train.shape, x_train.dtype, t_test.shape
    ((5000, 784), dtype('float32'), (1000,))
    """
    from importlib.resources import files  # here: it costs `import fastgrad` milliseconds

    with (
        (files("fastgrad.datasets") / "mnist_sample.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as sample,
    ):
        arrays = [sample[name] for name in ("x_train", "t_train", "x_test", "t_test")]
    return _present(arrays, normalize, flatten, one_hot_label)


def _present(
    arrays: list[NDArray[np.uint8]], normalize: bool, flatten: bool, one_hot_label: bool
) -> tuple[Part, Part]:
    """Give x_train, t_train, x_test, t_test, read as bytes, the book's shapes and dtypes."""
    x_train, t_train, x_test, t_test = arrays

    def part(images: NDArray[Any], labels: NDArray[Any]) -> Part:
        if normalize:
            images = images.astype(np.float32)
            images /= 255.0
        if one_hot_label:
            labels = np.eye(10)[labels]
        return images.reshape((-1, 784) if flatten else (-1, 1, 28, 28)), labels

    return part(x_train, t_train), part(x_test, t_test)


def _read_idx(path: Path, name: str) -> NDArray[np.uint8]:
    """Read an IDX file of bytes into a new array; ValueError unless its content is the right one.

    IDX: two zero bytes, one for the type (8: uint8), one for the number of dimensions; then each
    dimension as a big-endian int32; then the elements in C order.
    """
    remedy = "delete it, or set FASTGRAD_DATA to a folder that holds MNIST's own files"
    size, packed = CONTENT_BYTES[name], path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            content = stream.read(size + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is truncated or corrupt: gzip cannot unpack it ({error}); {remedy}"
        ) from error
    if len(content) > size:
        raise ValueError(
            f"{path} is not MNIST's {name}: {'unpacked, ' if packed else ''}it has more than the "
            f"{size:,} bytes of that; {remedy}"
        )
    digest, expected = hashlib.sha256(content).hexdigest(), CONTENT_SHA256[name]
    if digest != expected:
        raise ValueError(
            f"{path} is not MNIST's {name}: the SHA-256 of its uncompressed content must be "
            f"{expected}, but is {digest}; {remedy}"
        )
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", count=dimensions, offset=4)
    elements = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    return elements.reshape(shape).copy()  # bytes are read-only, the book's arrays are not


def _locate(name: str) -> Path:
    """Find a file in FASTGRAD_DATA or in the cache, or download it into the cache."""
    if named := os.environ.get("FASTGRAD_DATA"):
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise NotADirectoryError(
                f"FASTGRAD_DATA must name an existing folder, but is {named!r}; "
                "correct it, or unset it to use the cache folder"
            )
        if path := _find(name, folder):
            return path
    cache = _cache_folder()
    return _find(name, cache) or _download(name, cache)


def _find(name: str, folder: Path) -> Path | None:
    """Return the path of a file in a folder, the uncompressed one first: it loads faster."""
    paths = (folder / name, folder / f"{name}.gz")
    return next(filter(Path.is_file, paths), None)


def _cache_folder() -> Path:
    """Return the user's cache folder for MNIST, which may not exist yet; ImportError sans pooch."""
    try:
        import pooch
    except ImportError as error:
        raise ImportError(
            "load_mnist needs pooch to download and cache MNIST's files, and it cannot be imported;"
            ' run pip install "fastgrad[examples]", or set FASTGRAD_DATA to a folder that holds '
            "the four files, or call load_mnist_sample"
        ) from error
    return Path(pooch.os_cache("fastgrad")) / "mnist"


def _download(name: str, cache: Path) -> Path:
    """Fetch the original .gz from the first mirror that serves it; only a right one is kept."""
    import pooch

    downloader = pooch.HTTPDownloader(
        progressbar=find_spec("tqdm") is not None,
        chunk_size=2**16,
        timeout=(MAX_ANSWER_SECONDS, 30),
    )
    failures = []
    for mirror in MIRRORS:
        url = f"{mirror}{name}.gz"
        try:
            _require_answer(url)
            path = pooch.retrieve(
                url, f"sha256:{GZIP_SHA256[name]}", f"{name}.gz", cache, downloader=downloader
            )
            return Path(path)
        except (OSError, ValueError) as error:  # not served, cut short, not written; wrong hash
            failures.append(f"{url}: {error}")
    raise ConnectionError(
        f"MNIST's {name} is neither in FASTGRAD_DATA nor in {cache}, and could not be "
        f"downloaded ({'; '.join(failures)}); connect to the network, or set FASTGRAD_DATA to a "
        "folder that holds the four files, or call load_mnist_sample"
    )


def _require_answer(url: str) -> None:
    """Raise OSError unless the host answers a HEAD request in time, whatever it says.

    In a thread, because the timeouts of a request bound neither the look-up of the name nor the
    sum over the host's addresses: behind a silent firewall they would add up to minutes.
    """
    import pooch

    failures: list[OSError] = []

    def ask() -> None:
        try:
            pooch.HTTPDownloader(timeout=MAX_ANSWER_SECONDS)(url, None, None, check_only=True)
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(MAX_ANSWER_SECONDS)
    if thread.is_alive():
        raise ConnectionError(f"no answer within {MAX_ANSWER_SECONDS} s")
    if failures:
        raise failures[0]
