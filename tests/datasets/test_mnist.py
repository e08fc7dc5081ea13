"""load_mnist gives the book's arrays, from right files only, wherever these come from.

No test reaches the internet or the user's cache: small files stand in for MNIST's, and a server on
this machine for the mirrors. The tests of the real files run where FASTGRAD_DATA names them.
"""

import doctest
import functools
import gzip
import hashlib
import http.server
import os
import pickle
import socket
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pooch
import pytest

from fastgrad import datasets as mnist
from fastgrad.datasets import load_mnist, load_mnist_sample
from tools import make_mnist_sample

REAL_MIRRORS = mnist.MIRRORS
REAL_FOLDER = os.environ.get("FASTGRAD_DATA")
NAMES = list(mnist.CONTENT_SHA256)
needs_real_files = pytest.mark.skipif(
    not REAL_FOLDER, reason="FASTGRAD_DATA names no folder with MNIST's files"
)


def make_arrays():
    rng = np.random.default_rng(0)
    shapes = [(7, 28, 28), (7,), (3, 28, 28), (3,)]
    tops = [256, 10, 256, 10]
    return [rng.integers(0, top, shape, np.uint8) for shape, top in zip(shapes, tops, strict=True)]


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return header + array.tobytes()


CONTENTS = dict(zip(NAMES, map(idx_bytes, make_arrays()), strict=True))
GZIPPED = {name: gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}


def sha256_of_each(files):
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """Small files in place of MNIST's, no mirror, a cache folder of the test's own: returned."""
    monkeypatch.delenv("FASTGRAD_DATA", raising=False)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.setattr(mnist, "MIRRORS", ())
    monkeypatch.setattr(mnist, "CONTENT_SHA256", sha256_of_each(CONTENTS))
    monkeypatch.setattr(mnist, "GZIP_SHA256", sha256_of_each(GZIPPED))
    return tmp_path / "cache" / "fastgrad" / "mnist"


@pytest.fixture
def data_folder(monkeypatch, tmp_path):
    """FASTGRAD_DATA: a folder that holds the four files, gzipped."""
    folder = tmp_path / "data"
    write_files(folder)
    monkeypatch.setenv("FASTGRAD_DATA", str(folder))
    return folder


@pytest.fixture
def real_files(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(mnist, "MIRRORS", ())
    monkeypatch.setenv("FASTGRAD_DATA", REAL_FOLDER)


def write_files(folder):
    folder.mkdir(parents=True)
    for name, data in GZIPPED.items():
        (folder / f"{name}.gz").write_bytes(data)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; refuses paths under /forbidden; promises too much under /truncated."""

    def do_GET(self):
        self.server.requested.append(self.path)
        if self.path.startswith("/forbidden"):
            self.send_error(403)
        elif self.path.startswith("/truncated"):
            data = GZIPPED[Path(self.path).stem]
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
        else:
            super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def mirror(tmp_path):
    """A server of this machine whose folder /good holds the four files and /wrong other ones."""
    write_files(tmp_path / "served" / "good")
    write_files(tmp_path / "served" / "wrong")
    for name in NAMES:
        (tmp_path / "served" / "wrong" / f"{name}.gz").write_bytes(b"<html>Please log in</html>")
    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.requested = []
        server.base = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def use_mirrors(monkeypatch, server, *folders):
    monkeypatch.setattr(mnist, "MIRRORS", tuple(f"{server.base}/{name}/" for name in folders))


def assert_small_digits(loaded):
    (x_train, t_train), (x_test, t_test) = loaded
    expected = make_arrays()
    for array, right in zip((x_train, t_train, x_test, t_test), expected, strict=True):
        np.testing.assert_array_equal(array.reshape(right.shape), right)


# Shapes and dtypes


def test_defaults_are_flat_float32_images_in_0_to_1_and_uint8_labels(data_folder):
    (x_train, t_train), (x_test, t_test) = load_mnist()
    images, labels, _, test_labels = make_arrays()
    assert (x_train.dtype, t_train.dtype, x_test.dtype) == (np.float32, np.uint8, np.float32)
    expected = images.reshape(7, 784).astype(np.float32)
    expected /= 255.0  # the book's own two lines
    np.testing.assert_array_equal(x_train, expected)
    np.testing.assert_array_equal(t_train, labels)
    assert x_test.shape == (3, 784)
    np.testing.assert_array_equal(t_test, test_labels)


def test_normalize_false_gives_the_bytes(data_folder):
    (x_train, _), (x_test, _) = load_mnist(normalize=False)
    assert x_train.dtype == x_test.dtype == np.uint8
    np.testing.assert_array_equal(x_train, make_arrays()[0].reshape(7, 784))


def test_flatten_false_gives_images_with_one_channel(data_folder):
    (x_train, _), (x_test, _) = load_mnist(normalize=False, flatten=False)
    assert x_test.shape == (3, 1, 28, 28)
    np.testing.assert_array_equal(x_train, make_arrays()[0][:, np.newaxis])


def test_one_hot_labels_are_float_rows_with_a_single_one(data_folder):
    (_, t_train), (_, t_test) = load_mnist(one_hot_label=True)
    assert t_train.dtype == np.float64
    assert t_train.shape == (7, 10)
    assert t_test.shape == (3, 10)
    np.testing.assert_array_equal(t_train.argmax(axis=1), make_arrays()[1])
    np.testing.assert_array_equal(np.sort(t_train, axis=1), np.eye(10)[[9] * 7])


@pytest.mark.parametrize("load", [load_mnist, load_mnist_sample])
@pytest.mark.parametrize("converted", [True, False])
def test_the_arrays_can_be_written_to_as_the_books_can(data_folder, load, converted):
    for images, labels in load(normalize=converted, one_hot_label=converted):
        assert images.flags.writeable
        assert labels.flags.writeable
        assert images.flags.c_contiguous


# Where the files are looked for


def test_files_that_are_not_gzipped_are_read_too(data_folder):
    for name, content in CONTENTS.items():
        (data_folder / f"{name}.gz").unlink()
        (data_folder / name).write_bytes(content)
    assert_small_digits(load_mnist(normalize=False))


def test_a_file_gzipped_in_another_way_is_accepted_because_the_content_counts(data_folder):
    name = NAMES[0]
    rewrapped = gzip.compress(CONTENTS[name], compresslevel=1, mtime=1)
    assert rewrapped != GZIPPED[name]
    (data_folder / f"{name}.gz").write_bytes(rewrapped)
    assert_small_digits(load_mnist(normalize=False))


def test_files_missing_in_fastgrad_data_are_taken_from_the_cache(data_folder, isolated):
    write_files(isolated)
    (data_folder / f"{NAMES[2]}.gz").unlink()
    assert_small_digits(load_mnist(normalize=False))


@pytest.mark.parametrize("value", [None, ""])
def test_the_cache_serves_when_fastgrad_data_is_not_set(isolated, monkeypatch, value):
    if value is not None:
        monkeypatch.setenv("FASTGRAD_DATA", value)
    write_files(isolated)
    assert_small_digits(load_mnist(normalize=False))


def test_fastgrad_data_that_is_no_folder_is_an_error_which_no_fallback_hides(
    monkeypatch, tmp_path, isolated
):
    write_files(isolated)
    monkeypatch.setenv("FASTGRAD_DATA", str(tmp_path / "mistyped"))
    with pytest.raises(NotADirectoryError, match=r"FASTGRAD_DATA must name .*mistyped"):
        load_mnist()
    assert not issubclass(NotADirectoryError, ConnectionError)


def test_fastgrad_data_works_without_pooch(data_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    assert_small_digits(load_mnist(normalize=False))


def test_without_pooch_the_error_names_the_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r'pip install "fastgrad\[examples\]"'):
        load_mnist()


# Wrong files are refused


def truncate(data):
    return data[: len(data) // 2]


def damage(data):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


def empty(data):
    return b""


@pytest.mark.parametrize("spoil", [truncate, damage, empty])
@pytest.mark.parametrize("name", NAMES)
def test_a_spoilt_gzip_file_is_refused_by_its_name(data_folder, name, spoil):
    path = data_folder / f"{name}.gz"
    path.write_bytes(spoil(GZIPPED[name]))
    with pytest.raises(ValueError, match=f"{name}.gz is .*; delete it, or set FASTGRAD_DATA"):
        load_mnist()


@pytest.mark.parametrize("spoil", [truncate, damage, empty])
def test_a_spoilt_file_without_gzip_is_refused_by_its_name(data_folder, spoil):
    path = data_folder / NAMES[0]
    path.write_bytes(spoil(CONTENTS[NAMES[0]]))
    with pytest.raises(ValueError, match=f"{NAMES[0]} is not MNIST's .*; delete it"):
        load_mnist()


def test_labels_in_place_of_images_are_refused_by_name_and_checksum(data_folder):
    path = data_folder / f"{NAMES[0]}.gz"
    path.write_bytes(GZIPPED[NAMES[1]])
    with pytest.raises(ValueError, match=f"{NAMES[0]}.gz is not MNIST's {NAMES[0]}") as refusal:
        load_mnist()
    assert hashlib.sha256(CONTENTS[NAMES[0]]).hexdigest() in str(refusal.value)
    assert hashlib.sha256(CONTENTS[NAMES[1]]).hexdigest() in str(refusal.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_gigabytes_is_refused_in_little_memory(data_folder, packed):
    path = data_folder / (f"{NAMES[1]}.gz" if packed else NAMES[1])
    with gzip.open(path, "wb", 1) if packed else path.open("wb") as stream:
        for _ in range(128 * packed):
            stream.write(bytes(1 << 20))
    if not packed:
        os.truncate(path, 1 << 32)  # a hole, which takes no room on the disk
    path.with_name(NAMES[0]).write_bytes(CONTENTS[NAMES[0]])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"{path.name} is not .* more than the 60,008 bytes"):
            load_mnist()
        assert tracemalloc.get_traced_memory()[1] < 60_000_000  # the images have 47,040,016
    finally:
        tracemalloc.stop()


def test_a_spoilt_file_in_the_cache_is_refused_and_not_replaced_silently(
    isolated, mirror, monkeypatch
):
    use_mirrors(monkeypatch, mirror, "good")
    write_files(isolated)
    (isolated / f"{NAMES[3]}.gz").write_bytes(truncate(GZIPPED[NAMES[3]]))
    with pytest.raises(ValueError, match=f"{NAMES[3]}.gz"):
        load_mnist()
    assert mirror.requested == []


def test_nothing_is_ever_unpickled(data_folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "exploded",)

    (data_folder / f"{NAMES[0]}.gz").write_bytes(gzip.compress(pickle.dumps(Bomb())))
    (data_folder / "mnist.pkl").write_bytes(pickle.dumps(Bomb()))  # the book's cache
    with pytest.raises(ValueError, match=NAMES[0]):
        load_mnist()
    assert not (tmp_path / "exploded").exists()


# Downloads


def test_a_download_is_cached_and_serves_the_second_call(isolated, mirror, monkeypatch):
    use_mirrors(monkeypatch, mirror, "good")
    assert_small_digits(load_mnist(normalize=False))
    assert mirror.requested == [f"/good/{name}.gz" for name in NAMES]
    assert sorted(path.name for path in isolated.iterdir()) == sorted(f"{n}.gz" for n in NAMES)
    assert_small_digits(load_mnist(normalize=False))
    assert len(mirror.requested) == len(NAMES)


def test_only_the_missing_files_are_downloaded(data_folder, isolated, mirror, monkeypatch):
    use_mirrors(monkeypatch, mirror, "good")
    (data_folder / f"{NAMES[1]}.gz").unlink()
    assert_small_digits(load_mnist(normalize=False))
    assert [path.name for path in isolated.iterdir()] == [f"{NAMES[1]}.gz"]


@pytest.mark.parametrize("bad", ["forbidden", "absent", "truncated", "wrong"])
def test_the_next_mirror_serves_when_the_first_does_not(isolated, mirror, monkeypatch, bad):
    use_mirrors(monkeypatch, mirror, bad, "good")
    assert_small_digits(load_mnist(normalize=False))
    assert len(list(isolated.iterdir())) == len(NAMES)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [("forbidden", "403"), ("absent", "404"), ("truncated", "bytes"), ("wrong", "SHA256")],
)
def test_a_bad_download_is_an_error_with_its_reason_and_leaves_nothing_in_the_cache(
    isolated, mirror, monkeypatch, bad, reason
):
    use_mirrors(monkeypatch, mirror, bad)
    with pytest.raises(ConnectionError, match=f"{NAMES[0]} .*/{bad}/.*{reason}.*FASTGRAD_DATA"):
        load_mnist()
    assert list(isolated.iterdir()) == []


def test_without_a_network_the_error_names_every_mirror_and_the_remedies(monkeypatch, isolated):
    with socket.create_server(("127.0.0.1", 0)) as closed_at_once:
        port = closed_at_once.getsockname()[1]
    mirrors = (f"http://127.0.0.1:{port}/first/", f"http://127.0.0.1:{port}/second/")
    monkeypatch.setattr(mnist, "MIRRORS", mirrors)
    with pytest.raises(ConnectionError, match=r"first.*second.*FASTGRAD_DATA.*load_mnist_sample"):
        load_mnist()
    assert not isolated.exists()


def test_a_mirror_that_stays_silent_is_given_up_after_a_while(monkeypatch):
    monkeypatch.setattr(mnist, "MAX_ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mirrors = (f"http://127.0.0.1:{silent.getsockname()[1]}/",)
        monkeypatch.setattr(mnist, "MIRRORS", mirrors)
        with pytest.raises(ConnectionError, match=r"no answer within|timed out"):
            load_mnist()


def test_the_mirrors_are_asked_over_https_only():
    assert len(REAL_MIRRORS) == 2
    assert all(mirror.startswith("https://") for mirror in REAL_MIRRORS)


# The embedded sample


def test_the_sample_has_5000_and_1000_digits_in_the_books_shapes():
    (x_train, t_train), (x_test, t_test) = load_mnist_sample()
    assert x_train.shape == (5000, 784)
    assert x_test.shape == (1000, 784)
    assert t_train.shape == (5000,)
    assert t_test.shape == (1000,)
    assert x_train.dtype == x_test.dtype == np.float32
    assert t_train.dtype == t_test.dtype == np.uint8
    assert x_train.min() == x_test.min() == 0
    assert x_train.max() == x_test.max() == 1


def test_the_sample_obeys_the_flags():
    (x_train, t_train), (x_test, _) = load_mnist_sample(
        normalize=False, flatten=False, one_hot_label=True
    )
    assert x_train.shape == (5000, 1, 28, 28)
    assert x_train.dtype == x_test.dtype == np.uint8
    assert x_train.max() == 255
    assert t_train.shape == (5000, 10)
    np.testing.assert_array_equal(t_train.sum(axis=1), np.ones(5000))


def test_the_sample_holds_every_digit_about_as_often_as_mnist_does():
    mnist_counts = np.array([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
    for _, labels in load_mnist_sample():
        share = mnist_counts / mnist_counts.sum()
        deviation = np.sqrt(len(labels) * share * (1 - share))  # of a binomial count
        counts = np.bincount(labels, minlength=10)
        assert (np.abs(counts - len(labels) * share) < 4 * deviation).all()


def test_the_sample_needs_neither_network_nor_cache_nor_pooch(monkeypatch, isolated):
    monkeypatch.setitem(sys.modules, "pooch", None)
    load_mnist_sample()
    assert not isolated.parent.exists()


def test_the_samples_docstring_example_runs():
    example = doctest.DocTestFinder().find(load_mnist_sample, globs={})[0]
    assert doctest.DocTestRunner().run(example).failed == 0


def test_the_sample_s_script_draws_rows_in_order_and_writes_beside_the_loader(monkeypatch):
    rows = np.arange(60000)
    train = np.broadcast_to(rows[:, None], (60000, 784)), rows
    test = train[0][:10000], train[1][:10000]
    monkeypatch.setattr(make_mnist_sample, "load_mnist", lambda normalize: (train, test))
    drawn = make_mnist_sample.draw_sample()
    assert drawn["x_train"].shape == (5000, 28, 28)
    assert drawn["x_test"].shape == (1000, 28, 28)
    assert (np.diff(drawn["t_train"]) > 0).all()
    np.testing.assert_array_equal(drawn["x_test"][:, 0, 0], drawn["t_test"])
    assert make_mnist_sample.SAMPLE.samefile(Path(mnist.__file__).with_name("mnist_sample.npz"))


# The real files


@needs_real_files
def test_the_real_files_give_70000_digits_with_the_known_label_counts(real_files):
    (x_train, t_train), (x_test, t_test) = load_mnist(normalize=False, flatten=False)
    assert x_train.shape == (60000, 1, 28, 28)
    assert x_test.shape == (10000, 1, 28, 28)
    assert t_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(t_train).tolist()[:3] == [5923, 6742, 5958]
    assert np.bincount(t_test).tolist()[:3] == [980, 1135, 1032]


@needs_real_files
def test_the_sample_is_what_its_script_draws_from_the_real_files(
    real_files, monkeypatch, tmp_path, capsys
):
    output = tmp_path / "sample.npz"
    monkeypatch.setattr(sys, "argv", ["make_mnist_sample", "--output", str(output)])
    make_mnist_sample.main()
    assert "bytes" in capsys.readouterr().out
    (x_train, t_train), (x_test, t_test) = load_mnist_sample(normalize=False)
    with np.load(output, allow_pickle=False) as drawn:
        np.testing.assert_array_equal(drawn["x_train"].reshape(-1, 784), x_train)
        np.testing.assert_array_equal(drawn["t_train"], t_train)
        np.testing.assert_array_equal(drawn["x_test"].reshape(-1, 784), x_test)
        np.testing.assert_array_equal(drawn["t_test"], t_test)
