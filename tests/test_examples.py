"""The examples print, draw and save what they promise, wherever and however they are run.

The demonstration, the training, the net and the cluster run as a user runs them, in processes of
their own, on the sample of MNIST: the processes find neither a network nor a cache of the user's.
What else the training can do, the checks and the fits are seen in this process, which has read and
compiled everything already, and where no decision depends on time; `.ci/run` starts the last two.
"""

import importlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import matplotlib
import numba
import numpy as np
import pytest
from matplotlib import pyplot

from fastgrad import TwoLayerNet

EXAMPLES = Path(__file__).parent.parent / "examples"
QUICK = ["--iterations", "6", "--hidden-size", "5", "--batch-size", "1000", "--seed", "1"]

needs_jit = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT),
    reason="as plain Python the kernels need minutes for 6,000 digits",
)


def variables(home):
    """Under which nothing is downloaded, shown in a window, or read from the user's caches."""
    with socket.socket() as closed:  # its port is free again when the proxy is asked
        closed.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{closed.getsockname()[1]}"
    names = ("FASTGRAD_DATA", "no_proxy", "NO_PROXY")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return kept | {
        "https_proxy": proxy,
        "HTTPS_PROXY": proxy,
        "all_proxy": proxy,
        "ALL_PROXY": proxy,
        "XDG_CACHE_HOME": str(home / "cache"),
        "HOME": str(home),
        "MPLCONFIGDIR": matplotlib.get_cachedir(),  # or every process would list the fonts anew
        "MPLBACKEND": "Agg",
        "NUMBA_NUM_THREADS": "1",  # on a busy machine several would wait for one another
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "error",
    }


def run(folder, script, *arguments, **changes):
    """Run an example to its end, in a folder of the test's own; return what became of it."""
    return subprocess.run(
        [sys.executable, EXAMPLES / script, *map(str, arguments)],
        env=variables(folder) | changes,
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=120,
    )


def run_well(folder, script, *arguments, **changes):
    """Run an example to its end, which must be a good one; return what it printed."""
    finished = run(folder, script, *arguments, **changes)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Where the quick training has run, no window could open, and what it printed."""
    folder = tmp_path_factory.mktemp("trained")
    screen = {"MPLBACKEND": "TkAgg", "DISPLAY": "", "WAYLAND_DISPLAY": ""}
    return folder, run_well(folder, "train_mnist.py", *QUICK, "--checkpoint", "run", **screen)


@pytest.fixture
def module(monkeypatch):
    """Import an example by its name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.fixture
def start(module, monkeypatch, tmp_path, capsys):
    """Return ``start(name, arguments)``: run an example here, and return what it printed."""
    for name, value in variables(tmp_path).items():
        if not name.startswith("NUMBA"):  # numba has started its threads
            monkeypatch.setenv(name, value)
    for name in set(os.environ) - set(variables(tmp_path)):
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def start(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        module(name).main()
        return capsys.readouterr().out

    yield start
    pyplot.close("all")


@pytest.fixture
def train(start):
    """Return ``train(arguments)``: run the training in this process, and return what it printed."""
    return partial(start, "train_mnist")


def contents(checkpoint):
    """Return what a checkpoint holds, except for the time that the run took."""
    with np.load(checkpoint, allow_pickle=False) as file:
        return {name: file[name].tobytes() for name in file.files if name != "seconds"}


def losses(checkpoint):
    with np.load(checkpoint, allow_pickle=False) as file:
        return file["losses"]


def is_png(path):
    return path.read_bytes().startswith(b"\x89PNG\r\n")


# The article's demonstration


@needs_jit
def test_the_demonstration_prints_shapes_and_seconds(tmp_path):
    printed = run_well(tmp_path, "two_layer_net.py", "--seed", 0)
    shapes = [("W1", "(784, 100)"), ("b1", "(100,)"), ("W2", "(100, 10)"), ("b2", "(10,)")]
    for kind in ("net.params", "grads"):
        for name, shape in shapes:
            assert f"{kind}['{name}'].shape: {shape}\n" in printed
    assert re.search(r"^First call, .*: [\d.e-]+ s$", printed, re.MULTILINE)
    assert re.search(r"^Gradient calculation took [\d.e-]+ seconds", printed, re.MULTILINE)
    assert "Textbook" not in printed


def test_the_demonstration_compares_with_the_textbooks_loop(module, capsys):
    np.random.seed(0)
    net = TwoLayerNet(3, 2, 2)
    x, t = np.random.rand(4, 3), np.array([0, 1, 1, 0])
    grads = net.numerical_gradient(x, t)
    module("two_layer_net").compare_with_textbook(net, x, t, grads, seconds=1e-3)
    printed = capsys.readouterr()
    assert "28/28" in printed.err  # two losses for each of the 14 parameters
    assert re.search(r"Textbook loop took [\d.e-]+ seconds: [\d,]+ times\n", printed.out)
    deviation = re.search(r"Largest deviation from the loop: ([\d.e-]+) ", printed.out)
    assert float(deviation[1]) < 1e-10


# Training


@needs_jit
def test_training_prints_every_epoch(trained):
    _, printed = trained
    share = r"[01]\.\d+"
    epochs = re.findall(rf"^train acc, test acc \| {share}, {share}$", printed, re.MULTILINE)
    assert len(epochs) == 2  # at iterations 0 and 5: an epoch is 5,000 / 1,000 iterations
    assert re.search(rf"^6 iterations .* [\d.]+ s, test accuracy {share}$", printed, re.MULTILINE)


@needs_jit
def test_without_network_training_says_once_that_it_uses_the_sample(trained):
    lines = trained[1].splitlines()
    assert sum("sample" in line for line in lines) == 1
    assert "5,000 + 1,000" in lines[0]


@needs_jit
def test_the_curves_go_to_the_output_folder_where_no_window_can_open(trained):
    assert is_png(trained[0] / "output" / "train_mnist.png")


@needs_jit
@pytest.mark.parametrize("other", [("--gradient", "backprop"), ("--net", "book")])
def test_backpropagation_and_the_books_own_class_train_to_the_same_numbers(
    trained, train, tmp_path, other
):
    train(*QUICK, *other, "--checkpoint", "run")
    # Truncation, h**2 / 6 times the third derivative, is what the gradients differ by.
    np.testing.assert_allclose(
        losses(tmp_path / "run"), losses(trained[0] / "run"), rtol=0, atol=1e-8
    )


@needs_jit
def test_another_seed_gives_another_run_and_the_curves_go_where_they_are_wanted(
    trained, train, tmp_path
):
    train(*QUICK, "--seed", 2, "--checkpoint", "run", "--output", "new folder/curves")
    assert is_png(tmp_path / "new folder" / "curves")
    assert not np.isin(losses(tmp_path / "run"), losses(trained[0] / "run")).any()


@pytest.mark.parametrize(
    ("flag", "value", "complaint"),
    [
        ("--iterations", "0", "not a whole number of at least 1"),
        ("--batch-size", "-3", "not a whole number of at least 1"),
        ("--hidden-size", "2.5", "not a whole number of at least 1"),
        ("--learning-rate", "nan", "not a finite number above 0"),
        ("--learning-rate", "fast", "not a finite number above 0"),
        ("--seed", "4294967296", "not a whole number from 0 to 2**32 - 1"),
        ("--net", "deep", "invalid choice"),
        ("--gradient", "exact", "invalid choice"),
        ("--data", "nowhere", "not a folder"),
        ("--output", ".", "is a folder"),
        ("--checkpoint", "file/run.npz", "cannot be written"),
    ],
)
def test_a_wrong_argument_is_explained(
    module, capsys, monkeypatch, tmp_path, flag, value, complaint
):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_mnist.py", flag, value])
    with pytest.raises(SystemExit) as stopped:
        module("train_mnist").parse_arguments()
    assert stopped.value.code == 2
    assert f"argument {flag}" in (message := capsys.readouterr().err)
    assert complaint in message


def test_the_defaults_are_the_books(module, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train_mnist.py"])
    settings = module("train_mnist").parse_arguments()
    assert (settings.iterations, settings.batch_size, settings.hidden_size) == (10_000, 100, 50)
    assert settings.learning_rate == 0.1


# The page that shows training

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@needs_jit
@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C in another way")
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_a_browser_shows_what_is_learnt(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    settings = tmp_path / "matplotlibrc"
    settings.write_text(f"webagg.port: {port}\nwebagg.open_in_browser: False\n")
    training = subprocess.Popen(
        [sys.executable, EXAMPLES / "train_mnist.py", *QUICK, "--watch"],
        # With some versions of tornado matplotlib's server warns of what it uses.
        env=variables(tmp_path) | {"MATPLOTLIBRC": str(settings), "PYTHONWARNINGS": "default"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        for line in training.stdout:
            if "test accuracy" in line:
                break
        picture = screenshot(f"http://127.0.0.1:{port}", tmp_path / "page.png")
    finally:
        training.send_signal(signal.SIGINT)
        try:
            printed, _ = training.communicate(timeout=60)
        finally:
            training.kill()
    colours = np.unique(picture[..., :3].reshape(-1, 3), axis=0)
    assert len(colours) > 200  # curves, weights and digits, on white
    assert training.returncode == 0, printed
    assert is_png(tmp_path / "output" / "train_mnist.png")


def screenshot(address, path):
    """Return the pixels of a page once its scripts have drawn it."""
    subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=900,1200",
            "--virtual-time-budget=20000",
            f"--screenshot={path}",
            address,
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return pyplot.imread(path)


# Checkpoints: an epoch is 5 iterations here

LONG = [*QUICK, "--iterations", "12"]
STOPPED = """
import os
import signal

import train_mnist


def iterations(start, stop):
    for i in range(start, stop):
        if i == 8:  # the checkpoint of iteration 5 is written, and the one of 10 is not
            os.kill(os.getpid(), signal.SIGKILL)
        yield i


train_mnist.progress_bar = iterations
train_mnist.main()
"""


@needs_jit
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_killed_run_goes_on_to_the_same_bits(train, tmp_path):
    killed = subprocess.run(
        [sys.executable, "-c", STOPPED, *LONG, "--checkpoint", "stopped.npz"],
        env=variables(tmp_path) | {"PYTHONPATH": os.pathsep.join([str(EXAMPLES), *sys.path])},
        cwd=tmp_path,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(losses(tmp_path / "stopped.npz")) == 6
    printed = train(*LONG, "--checkpoint", "stopped.npz")
    assert "Resuming stopped.npz after 6 iterations.\n" in printed
    train(*LONG, "--checkpoint", "whole.npz")
    assert contents(tmp_path / "stopped.npz") == contents(tmp_path / "whole.npz")


@needs_jit
def test_ctrl_c_ends_a_run_with_a_hint(train, module, monkeypatch, tmp_path, capsys):
    def iterations(start, stop):
        for i in range(start, stop):
            if i == 8:
                signal.raise_signal(signal.SIGINT)
            yield i

    monkeypatch.setattr(module("train_mnist"), "progress_bar", iterations)
    with pytest.raises(SystemExit) as stopped:
        train(*LONG, "--checkpoint", "stopped.npz")
    assert stopped.value.code == 130
    errors = capsys.readouterr().err
    assert "The same command goes on from the last epoch, saved in stopped.npz" in errors
    assert len(losses(tmp_path / "stopped.npz")) == 6


@needs_jit
def test_a_finished_run_can_be_extended(trained, train, tmp_path):
    shutil.copy(trained[0] / "run", tmp_path / "extended")
    for name in ("extended", "whole"):
        train(*QUICK, "--iterations", 8, "--checkpoint", name)
    assert contents(tmp_path / "extended") == contents(tmp_path / "whole")


@needs_jit
def test_a_damaged_checkpoint_ends_a_run_with_one_line_and_is_left_alone(train, tmp_path):
    checkpoint = tmp_path / "run.npz"
    checkpoint.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(SystemExit) as stopped:
        train(*QUICK, "--checkpoint", checkpoint)
    assert "run.npz is damaged or no checkpoint of this script" in stopped.value.code
    assert stopped.value.code.count("\n") == 0
    assert checkpoint.read_bytes() == b"PK\x03\x04 and no more"


# A net of the learner's own

FEW = ["--samples", "3", "--steps", "2", "--seed", "0"]


def test_a_net_of_ones_own_is_explained_compared_and_trained(tmp_path):
    finished = run(tmp_path, "your_own_net.py", *FEW)
    assert finished.returncode == 0, finished.stderr
    for name in ("W1", "b1", "W2", "b2"):
        assert f"fastgrad.explain(f, net.params['{name}'])\n" in finished.stdout
    # Whether recording pays for the ten elements of b2 is up to the machine.
    loops = finished.stdout.count("The loop: 20 calls of f.")
    assert (finished.stdout.count("Traced: "), loops) in ((4, 0), (3, 1))
    sizes = [("W1", "78,400"), ("b1", "100"), ("W2", "1,000"), ("b2", "10"), ("all", "79,510")]
    for name, size in sizes:
        times = r"[\d.,e+-]+ s +[\d.,e+-]+ s +[\d,]+"
        assert re.search(rf"^{name} +{size} +{times}", finished.stdout, re.MULTILINE)
    assert "up to 3 elements of each; its time for all is extrapolated" in finished.stdout
    assert re.search(r"^After   2 steps the loss is 2\.\d+$", finished.stdout, re.MULTILINE)
    assert "The loop in W1" in finished.stderr


def test_a_net_of_ones_own_gets_the_loops_gradient_within_its_round_off(module):
    example = module("your_own_net")
    np.random.seed(0)
    net = example.Net(12, 8, 10)
    x, t = np.random.rand(6, 12), np.random.randint(0, 10, 6)
    fast = net.numerical_gradient(x, t)
    for name, values in net.params.items():
        looped = [example.loop_at(lambda _: net.loss(x, t), values, i) for i in range(values.size)]
        # Each of the loop's two losses is rounded by some units in its last place.
        bound = 4 * np.finfo(float).eps * net.loss(x, t) / 1e-4
        np.testing.assert_allclose(fast[name].ravel(), looped, rtol=0, atol=bound)


def test_a_net_of_ones_own_learns(module, capsys):
    example = module("your_own_net")
    np.random.seed(0)
    net = example.Net(5, 4, 2)
    x = np.random.rand(200, 5)
    t = (x[:, 0] > 0.5).astype(int)
    before = net.loss(x, t)
    example.train(net, x, t, 30)
    assert net.loss(x, t) < before
    assert capsys.readouterr().out.count("steps the loss is") == 3


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_number_of_samples_that_is_none_is_refused(module, capsys, monkeypatch, value):
    monkeypatch.setattr(sys, "argv", ["your_own_net.py", "--samples", value])
    with pytest.raises(SystemExit) as stopped:
        module("your_own_net").parse_arguments()
    assert stopped.value.code == 2
    assert "is not a whole number of at least 1" in capsys.readouterr().err


# A cluster


def test_a_cluster_gives_the_same_bits(tmp_path):
    finished = run(tmp_path, "dask_cluster.py", "--bodies", 5)
    assert finished.returncode == 0, finished.stderr
    assert "Workers: 2\n" in finished.stdout
    assert "Elements: 20, each moved up and down\n" in finished.stdout
    assert re.search(r"^This process alone: [\d.]+ s$", finished.stdout, re.MULTILINE)
    assert re.search(r"^The cluster: [\d.]+ s$", finished.stdout, re.MULTILINE)
    assert "Same bits: True\n" in finished.stdout
    assert "20/20" in finished.stderr


# Checks of backward passes


def test_each_planted_fault_is_found_and_drawn(start, tmp_path):
    printed = start("check_backprop", "--samples", 8, "--hidden", 5)
    reports = re.split(r"^(?:Net|Forgotten\w+|Lost\w+): .*\n\n", printed, flags=re.M)[1:]
    assert [report.startswith("The gradient is right.") for report in reports] == [True] + 5 * [
        False
    ]
    named = [
        "8 times too large, which is the number of samples",
        "such as an activation's derivative",
        "sample 7 is left out",
        "0.01 times the parameter itself is missing",
        "column 9 is zero",
    ]
    for report, words in zip(reports[1:], named, strict=True):
        assert words in report
        assert "Slope test. Wrong" in report
    # What the README says of the last one.
    readme = (EXAMPLES.parent / "README.md").read_text(encoding="utf-8")
    findings = [line for line in reports[-1].splitlines() if line.startswith("- ")]
    assert len(findings) == 3
    assert "\n".join(findings) in readme
    for name in ("steps", "slope", "LostClass_W2"):
        assert is_png(tmp_path / "output" / f"{name}.png")


# Fits by SciPy


def test_layers_are_right_and_their_faults_are_named(start, tmp_path):
    printed = start("check_layers")
    reports = {text.partition(":")[0]: text for text in printed.strip().split("\n\n")}
    assert len(reports) == 8
    for name, report in reports.items():
        assert ("The gradient is right." in report) == (not name.endswith("_faulty"))
    assert "which is perhaps the number of samples" in reports["conv_backward_faulty"]
    assert "- q: 2 times too large" in reports["attention_backward_faulty"]


@pytest.mark.usefixtures("torch")
def test_autograd_functions_are_checked_beside_gradcheck(start):
    first, forgotten, doubled, module = start("check_torch").strip().split("\n\n")
    assert "gradcheck" in first
    assert "The gradient is right." in first
    assert "of 200 elements are wrong" in forgotten
    assert "x: 2 times too large" in doubled
    assert "The gradient is right along random directions." in module


def test_the_fits_print_their_tables_and_save_the_picture(start, tmp_path):
    printed = start("fit", "--iterations", 1)
    row = r"{} +(\d\.\d{{8}}) +([\d,]+) +\d+\.\d{{3}}\n"
    ways = ("SciPy, 2-point", "SciPy, 3-point", "fastgrad")
    found = [re.findall(row.format(way), printed) for way in ways]
    assert [len(rows) for rows in found] == [2, 2, 2]
    calls = [int(rows[0][1].replace(",", "")) for rows in found]
    assert calls[2] < calls[0] / 5 < calls[1] / 5  # recorded, and only a part of it is replayed
    losses = [[float(loss) for loss, _ in rows] for rows in found]
    # All are on the way to the same weights, and at the same ring.
    np.testing.assert_allclose(losses[2], losses[1], rtol=1e-3)
    assert is_png(tmp_path / "output" / "fit.png")


def test_the_ring_that_made_an_image_is_found_again(module):
    example = module("fit")
    rows, columns = np.indices((28, 28)).astype(float)
    made = np.array([0.8, 0.25, 14.5, 13.0, 9.0, 6.0, 0.2])
    fit = example.fit_ring(example.ring(made, rows, columns), None)
    np.testing.assert_allclose(fit.solution, made, rtol=1e-5)
