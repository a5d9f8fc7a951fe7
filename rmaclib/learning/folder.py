"""The folder of a training run: its files, who may write them, and what is done about damaged ones.

All that a run knows is in state.safetensors, which is replaced as a whole. What follows from it (run.json, log.csv, and
best.safetensors when that is the network of the state) is made again where it is damaged, and told.
"""

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.optim import Optimizer

from rmaclib.checkpoints import (
    CheckpointError,
    fingerprint,
    load_network,
    load_tensors,
    save_network,
    save_tensors,
)
from rmaclib.datasets.types import LabelledImages
from rmaclib.foundation.errors import OutputError
from rmaclib.foundation.files import differences, files_fingerprint, need_space, read_json, write_json, write_text
from rmaclib.foundation.folders import LOCK, MARKER, output_folder
from rmaclib.foundation.messages import note
from rmaclib.learning.distributed import is_main
from rmaclib.learning.errors import LearningError
from rmaclib.network import RMAC

BEST, LOG, STATE, RUN, BAD = "best.safetensors", "log.csv", "state.safetensors", "run.json", "bad.txt"
CURVES, WHITENING = "curves.png", "whitening.safetensors"  # of rmac train
_FILES = (BEST, LOG, STATE, RUN, BAD, CURVES, WHITENING)
_MEASURED = "measured"  # a folder in it for the run of one update that is measured
# What killed runs of the version before left of files that were being written.
_LEFT_OVER = re.compile(r"\.(best|log|state|run|bad|curves)\.[0-9]+\.(safetensors|csv|json|txt|png)")
_PARTS = ("model", "optimizer", "step")
_OF_THE_MACHINE = ("device", "save_every", "timeout")  # settings with which a run may go on otherwise
_COPIES = {"sgd": 2, "adamw": 3}  # of the weights in a state


@contextmanager
def training_folder(out: str | os.PathLike) -> Iterator[Path]:
    """The folder of a run, made and locked for other processes; of several that train together, by the main one."""
    if not is_main():
        yield Path(out)
        return
    with output_folder(out, "training", recognise=_older) as folder:
        folder.remove(name for name in folder.listed() if _LEFT_OVER.fullmatch(name))
        folder.remove(folder.listed(_MEASURED))
        folder.will_write(_FILES)
        yield folder.path


@contextmanager
def measured_folder(out: str | os.PathLike) -> Iterator[Path]:
    """A folder, in that of a run, for another run that is only measured. Its files are removed at the end, or by the
    next process that opens the folder of the run when this one is killed."""
    with training_folder(out), output_folder(out, "training") as folder:
        names = [f"{_MEASURED}/{name}" for name in (*_FILES, MARKER, LOCK)]
        folder.will_write(names)
        try:
            yield folder / _MEASURED
        finally:
            folder.remove(names)


def _older(folder: Path) -> list[str] | None:
    """The files of a run of a version that wrote no marker, None of a folder that is none."""
    try:
        run = read_json(folder / RUN, LearningError, "what a training run depends on")
    except LearningError:
        return None
    if not {"stage", "settings", "network", "weights"} <= run.keys():
        return None
    return [name for name in os.listdir(folder) if name in _FILES or _LEFT_OVER.fullmatch(name)]


def tell(text: str) -> None:
    """A line for people, of the main process."""
    if is_main():
        note(text)


def need_room(out: Path, model: nn.Module, optimizer: str) -> None:
    """raises OutputError when the disk has no room for the best network and the state, old and new."""
    if is_main() and not (out / STATE).exists():
        weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        need_space(out, 2 * weights * (1 + _COPIES[optimizer]), "the network and the state of its training")


# --- what a run depends on -----------------------------------------------------------------------------------------


def identity_of(stage: str, network: RMAC, settings, images: LabelledImages, positives: csr_array | None = None,
                validation: LabelledImages | None = None, validation_positives: csr_array | None = None,
                **more) -> dict:
    """What the result of a run depends on, as JSON; settings: LoopSettings; more: names and texts that count too."""
    chosen = {name: value for name, value in asdict(settings).items() if name not in _OF_THE_MACHINE}
    identity = {"stage": stage, "settings": chosen, "network": asdict(network.settings),
                "weights": fingerprint(network), "images": images_identity(images, positives),
                "validation": None if validation is None else images_identity(validation, validation_positives), **more}
    return json.loads(json.dumps(identity))


def images_identity(images: LabelledImages, positives: csr_array | None = None) -> dict:
    """Fingerprints of a collection: its files, labels, boxes and verified pairs."""
    return {"files": files_fingerprint(images.names, images.paths), "labels": _digest(images.labels),
            "boxes": _digest(np.frombuffer(repr(images.boxes).encode(), np.uint8)),
            "positives": None if positives is None else _digest(np.stack(positives.nonzero()))}


def _digest(values) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def expect_same(out: Path, identity: Mapping, state: "State | None") -> None:
    """Writes what the run depends on, or compares with what it was before. raises LearningError"""
    path, on_disk = out / RUN, None
    if path.exists():
        try:
            on_disk = read_json(path, LearningError, "what a training run depends on")
        except LearningError as error:
            if state is not None and state.run is None:
                raise LearningError(f"{error}; choose another folder, or remove this one to train again") from error
            tell(f"{path}: was damaged, written again")
    before = on_disk if state is None or state.run is None else state.run
    if before is not None and (different := differences(before, identity)):
        raise LearningError(f"{out}: holds a training run with other {', '.join(different)}; choose another folder, or "
                            "remove this one to train again")
    if on_disk != identity:
        write_json(path, identity, checksum=True)


# --- the state -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """A run after some of its updates.

    update: the last of them; best: "update" and "score" of the best network; bad: name -> why it can't be read
    lines: of log.csv, without its head; run: what the run depends on, None from an older version
    parts: of _PARTS, name -> tensor
    """

    update: int
    best: dict
    bad: dict[str, str]
    lines: list[str]
    run: dict | None
    parts: Mapping[str, Mapping[str, Tensor]]


def save_state(path: Path, model: nn.Module, optimizer: Optimizer, step: Mapping[str, Tensor], notes: Mapping) -> None:
    """notes: the other fields of a State."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"optimizer.{number}.{name}": tensor for number, values in optimizer.state_dict()["state"].items()
                for name, tensor in values.items()}
    save_tensors(path, tensors | {f"step.{name}": tensor for name, tensor in step.items()}, notes)


def read_state(out: Path) -> State | None:
    """The state of the run in a folder, None before its first. raises LearningError: a damaged file"""
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
    if notes["lines"] is None:
        notes["lines"] = [line for line in _log_lines(out / LOG) if float(line.split(",", 1)[0]) <= notes["update"]]
    return State(**notes, parts=parts)


def _older_notes(path: Path, metadata: Mapping[str, str]) -> dict:
    """update, best, bad of a file without a checksum."""
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


def restore(path: Path, state: State, model: nn.Module, optimizer: Optimizer, step) -> None:
    """Bring everything back to a state. raises LearningError: one that doesn't fit"""
    try:
        model.load_state_dict(state.parts["model"])
        values: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.parts["optimizer"].items():
            number, name = key.split(".", 1)
            values.setdefault(int(number), {})[name] = tensor
        optimizer.load_state_dict({"state": values, "param_groups": optimizer.state_dict()["param_groups"]})
        step.restore(state.parts["step"])
    except (RuntimeError, KeyError, ValueError) as error:
        raise LearningError(f"{path}: doesn't fit the network that is trained ({error}); remove this file to train "
                            "again from the start") from error


def check_best(out: Path, state: State, network: RMAC) -> None:
    """Make sure that the best network so far can be read; network: as it is in the state."""
    if state.best["score"] is None and not state.best["update"]:
        return  # without a validation there is none before the end
    try:
        load_network(out / BEST)
    except CheckpointError as error:
        if state.best["update"] != state.update:
            raise LearningError(f"{error}; the best network of the run is lost, and the state has a later one: remove "
                                f"{out / STATE} to train again from the start") from error
        save_network(out / BEST, network)
        tell(f"{out / BEST}: was damaged, made again from the state")


# --- the log -------------------------------------------------------------------------------------------------------


def read_log(path: str | os.PathLike) -> list[dict[str, float | None]]:
    """Rows of a log.csv; empty fields are None. raises LearningError, naming the file and the line"""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise LearningError(f"{path}: expected the log of a training run, can't be read ({error})") from error
    try:
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        head = next(lines, [])
        if head[:1] != ["update"]:
            raise LearningError(f"{path}: expected the log of a training run, its first line is damaged")
        return [_parsed(path, number, head, fields) for number, fields in enumerate(lines, 2)]
    except csv.Error as error:
        raise LearningError(f"{path}: expected the log of a training run, it is damaged ({error})") from error


def _parsed(path: Path, number: int, head: Sequence[str], fields: Sequence[str]) -> dict[str, float | None]:
    try:
        row = {name: float(value) if value else None for name, value in zip(head, fields, strict=True)}
    except ValueError as error:
        raise LearningError(f"{path}: line {number}: expected {len(head)} numbers or nothing between commas, the line "
                            f"is damaged ({error})") from error
    if row["update"] is None:
        raise LearningError(f"{path}: line {number}: expected the number of an update, found none")
    return row


def _log_lines(path: Path) -> list[str]:
    read_log(path)  # or an error that names it
    return path.read_text(encoding="utf-8").split("\n")[1:-1]


class Log:
    """log.csv, one line after the other. Only the main process writes it, and has its rows.

    lines: those that the state knows; what a killed run wrote after it is cut
    """

    def __init__(self, path: Path, columns: Sequence[str], lines: Iterable[str] = ()):
        self.columns, self.file, self.rows, self.lines = columns, None, [], list(lines)
        if not is_main():
            return
        text = "".join(f"{line}\n" for line in [",".join(columns), *self.lines])
        if self.lines and not _begins(path, text):
            tell(f"{path}: was damaged, made again from the state")
        write_text(path, text)
        self.rows = read_log(path)
        with _writing(path):
            # Without a buffer: what a full disk didn't take is not tried again when the file is closed.
            self.file = path.open("ab", buffering=0)

    def __enter__(self) -> "Log":
        return self

    def __exit__(self, *error) -> None:
        if self.file:
            with _writing(self.file.name):
                self.file.close()

    def write(self, row: Mapping[str, float | None]) -> None:
        if not self.file:
            return
        fields = ["" if row.get(name) is None else f"{row[name]:.7g}" for name in self.columns]
        self.lines.append(",".join(fields))
        line = f"{self.lines[-1]}\n".encode()
        with _writing(self.file.name):
            while line:  # a disk that is nearly full takes a part
                line = line[self.file.write(line):]
        self.rows.append({name: float(value) if value else None
                          for name, value in zip(self.columns, fields, strict=True)})


@contextmanager
def _writing(path: str | os.PathLike) -> Iterator[None]:
    """raises OutputError, naming the file, for what the system says against it"""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path}: can't be written ({error.strerror or error})") from error


def _begins(path: Path, text: str) -> bool:
    try:
        return path.read_bytes().startswith(text.encode())
    except OSError:
        return False


