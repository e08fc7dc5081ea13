"""Checkpoints of a training run: all its state in a file, from which it goes on."""

import argparse
import io
import json
import os
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class History:
    """What is recorded of a run.

    Attributes
    ----------
    losses : list of float
        The loss of every batch, after the step that was made for it.
    accuracies : list of (iteration, training set, test set)
        The shares of digits that are read rightly, once an epoch.
    seconds : float
        The time spent.
    """

    losses: list[float] = field(default_factory=list)
    accuracies: list[tuple[int, float, float]] = field(default_factory=list)
    seconds: float = 0.0


class Checkpoint:
    """A file that holds all that a run depends on.

    It is an .npz file of plain arrays: the parameters, the history, the state of np.random, and
    the settings as JSON. It is replaced as a whole, so the run may be killed at any moment.

    Parameters
    ----------
    settings : argparse.Namespace
        With `checkpoint`, the file (None: nothing is ever saved or restored), and the run's
        settings.
    train_size : int
        The number of training samples, which tells MNIST from the sample of it.
    """

    # Not `iterations`: a finished run may go on.
    DECISIVE = ("seed", "batch_size", "hidden_size", "learning_rate", "net", "gradient")

    def __init__(self, settings: argparse.Namespace, train_size: int) -> None:
        self.path: Path | None = settings.checkpoint
        self.iterations: int = settings.iterations
        self.settings = {name: getattr(settings, name) for name in self.DECISIVE}
        self.settings["train_size"] = train_size

    def save(self, network: Any, history: History) -> None:
        """Write a file of its own beside the last one, and put it in that one's place.

        Raises
        ------
        SystemExit
            With the message for the user, if it cannot be written; the last one is as it was.
        """
        if self.path is None:
            return
        _, key, *position = np.random.get_state()
        arrays = {
            "settings": np.array(json.dumps(self.settings)),
            "params": np.concatenate([values.ravel() for values in network.params.values()]),
            "losses": np.array(history.losses),
            "accuracies": np.array(history.accuracies),
            "seconds": np.array(history.seconds),
            "random_key": key,
            "random_position": np.array(json.dumps(position)),
        }
        try:
            self._replace(self.path, arrays)
        except OSError as error:  # such as a full disk
            sys.exit(
                f"{self.path} cannot be written ({error.strerror or error}), and is as it was "
                "before; make room, or name another file with --checkpoint"
            )

    def _replace(self, path: Path, arrays: dict[str, Any]) -> None:
        """Write arrays to a new file, which then gets the name."""
        np.savez(content := io.BytesIO(), **arrays)
        # A name of its own: another run may be saving to the same checkpoint.
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("xb") as stream:
                stream.write(content.getbuffer())
                stream.flush()
                os.fsync(stream.fileno())  # or a power cut could spare the new name, not the data
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def restore(self, network: Any, history: History) -> None:
        """Set the network, the history and np.random to what the file holds, if there is one.

        Raises
        ------
        SystemExit
            With the message for the user, if the file is damaged, or of another run.
        """
        if self.path is None or not self.path.exists():
            return
        try:
            with self.path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                state = dict(arrays)
            self._require_same(json.loads(str(state["settings"])))
            sizes = [values.size for values in network.params.values()]
            parts = np.split(state["params"], np.cumsum(sizes)[:-1])
            for values, part in zip(network.params.values(), parts, strict=True):
                values[...] = part.reshape(values.shape)
            history.losses = state["losses"].tolist()
            history.accuracies = [(int(i), a, b) for i, a, b in state["accuracies"].tolist()]
            history.seconds = float(state["seconds"])
            position = json.loads(str(state["random_position"]))
            np.random.set_state(("MT19937", state["random_key"], *position))
        except Exception as error:  # whatever the reading of an arbitrary file may end in
            sys.exit(
                f"{self.path} is damaged or no checkpoint of this script "
                f"({type(error).__name__}: {error}); delete it, or name another file"
            )
        if len(history.losses) > self.iterations:
            sys.exit(
                f"{self.path} holds {len(history.losses)} iterations already, but this run is to "
                f"have {self.iterations}; pass at least as many, or name another file"
            )
        print(f"Resuming {self.path} after {len(history.losses):,} iterations.")

    def _require_same(self, saved: dict[str, Any]) -> None:
        """Exit if the run in the file had other settings (SystemExit is no Exception)."""
        if changed := [name for name in self.settings if saved[name] != self.settings[name]]:
            values = ", ".join(f"{n}: {saved[n]} there, {self.settings[n]} here" for n in changed)
            sys.exit(
                f"{self.path} is the checkpoint of a run with other settings ({values}); "
                "pass the same ones, or name another file"
            )


def how_to_resume(checkpoint: Path | None) -> str:
    """Say what can be done after Ctrl-C."""
    if checkpoint is None:
        return "Nothing was saved; with --checkpoint FILE a run can be resumed."
    if not checkpoint.exists():
        return "Nothing had been saved yet."
    return f"The same command goes on from the last epoch, saved in {checkpoint}."
