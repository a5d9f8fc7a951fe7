"""The state of a training run: what it must know to go on, saved, read and put back."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from rmaclib.checkpoints import CheckpointError, load_network, load_tensors, save_network, save_tensors
from rmaclib.learning.errors import LearningError
from rmaclib.learning.folder import BEST, LOG, STATE, note_once
from rmaclib.learning.log import lines_until
from rmaclib.network import RMAC

_PARTS = ("model", "optimizer", "step")


@dataclass
class Best:
    """The best network so far.

    Attributes:
        update: After how many updates; 0 is the untrained one.
        score: Its validation score, None where none was measured.
    """

    update: int = 0
    score: float | None = None


@dataclass(frozen=True)
class State:
    """A run after some of its updates.

    Attributes:
        update: The last of them.
        best: The best network so far, which is in a file of its own.
        bad: Name of an image -> why it can't be read.
        lines: Of log.csv, without its head.
        run: What the run depends on (``folder.identity_of``); None from an older version.
        parts: Of the model, the optimizer and the step of the stage: name -> tensor.
    """

    update: int
    best: Best
    bad: dict[str, str]
    lines: list[str]
    run: dict | None
    parts: Mapping[str, Mapping[str, Tensor]]


def save_state(path: Path, model: nn.Module, optimizer: Optimizer, step: Mapping[str, Tensor], notes: Mapping) -> None:
    """Write a state, whole or not at all.

    Args:
        path: The file.
        model: What is trained.
        optimizer: With what it remembers of earlier updates.
        step: What the step of the stage must know.
        notes: The other fields of a ``State``, as JSON.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"optimizer.{number}.{name}": tensor for number, values in optimizer.state_dict()["state"].items()
                for name, tensor in values.items()}
    save_tensors(path, tensors | {f"step.{name}": tensor for name, tensor in step.items()}, notes)


def read_state(out: Path) -> State | None:
    """Read the state of the run in a folder.

    Args:
        out: The folder.

    Returns:
        The last state; None before the first.

    Raises:
        LearningError: A damaged file.
    """
    path = out / STATE
    if not path.exists():
        return None
    try:
        tensors, notes, metadata = load_tensors(path, LearningError, "the state of a training run")
        if notes is None:
            notes = {**_older_notes(path, metadata), "run": None, "lines": None}
        parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
        for key, tensor in tensors.items():
            part, _, name = key.partition(".")
            if part not in parts:
                raise LearningError(f"{path}: expected the state of a training run, found the tensor {key!r}")
            parts[part][name] = tensor
    except LearningError as error:
        raise LearningError(f"{error}; remove this file to train again from the start") from error
    lines = notes["lines"]
    if lines is None:
        lines = lines_until(out / LOG, notes["update"])
    return State(notes["update"], Best(**notes["best"]), notes["bad"], lines, notes["run"], parts)


def _older_notes(path: Path, metadata: Mapping[str, str]) -> dict:
    """The update, the best network and the bad images in a file without a checksum."""
    try:
        notes = json.loads(metadata["notes"])
        update, best, bad = notes["update"], notes["best"], notes["bad"]
        whole = (type(update) is int and type(best["update"]) is int and isinstance(best["score"], float | None)
                 and all(isinstance(text, str) for pair in bad.items() for text in pair))
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise LearningError(f"{path}: expected the state of a training run, its metadata are damaged")
    return {"update": update, "best": best, "bad": bad}


def restore(path: Path, state: State, model: nn.Module, optimizer: Optimizer,
            restore_step: Callable[[Mapping[str, Tensor]], None]) -> None:
    """Put everything back to a state, in place.

    Args:
        path: The file that the state comes from, for the error.
        state: The state.
        model: What is trained.
        optimizer: Of its parameters.
        restore_step: Puts back the step of the stage.

    Raises:
        LearningError: The state doesn't fit.
    """
    try:
        model.load_state_dict(state.parts["model"])
        values: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.parts["optimizer"].items():
            number, name = key.split(".", 1)
            values.setdefault(int(number), {})[name] = tensor
        optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
        restore_step(state.parts["step"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise LearningError(f"{path}: doesn't fit the network that is trained ({error}); remove this file to train "
                            "again from the start") from error


def check_best(out: Path, state: State, network: RMAC) -> None:
    """Make sure that the best network so far can be read.

    Args:
        out: The folder of the run.
        state: Its state.
        network: The network of that state, from which the file is made again if it is damaged and the same.

    Raises:
        LearningError: The file is damaged, and the state has a later network.
    """
    if state.best.score is None and not state.best.update:
        return  # without a validation there is none before the end
    try:
        load_network(out / BEST)
    except CheckpointError as error:
        if state.best.update != state.update:
            raise LearningError(f"{error}; the best network of the run is lost, and the state has a later one: remove "
                                f"{out / STATE} to train again from the start") from error
        save_network(out / BEST, network)
        note_once(f"{out / BEST}: was damaged, made again from the state")
