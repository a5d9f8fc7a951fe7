"""The folder of a training run: its files, who may write them, and what the run depends on.

All that a run knows is in ``state.safetensors``, which is replaced as a whole. What follows from it (``run.json``,
``log.csv``, and ``best.safetensors`` when that is the network of the state) is made again where it is damaged, and
noted.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from torch import nn

from rmaclib.checkpoints import fingerprint
from rmaclib.datasets.types import LabelledImages
from rmaclib.extraction.folder import as_text
from rmaclib.foundation.files import (
    as_line,
    differences,
    files_fingerprint,
    need_space,
    read_json,
    write_json,
    write_text,
)
from rmaclib.foundation.folders import LOCK, MARKER, output_folder
from rmaclib.foundation.messages import note
from rmaclib.learning.distributed import is_main
from rmaclib.learning.errors import LearningError
from rmaclib.learning.optimization import LoopSettings
from rmaclib.learning.pairs import Positives
from rmaclib.network import RMAC

BEST, LOG, STATE, RUN, BAD = "best.safetensors", "log.csv", "state.safetensors", "run.json", "bad.txt"
CURVES, WHITENING = "curves.png", "whitening.safetensors"  # of training.train
_FILES = (BEST, LOG, STATE, RUN, BAD, CURVES, WHITENING)
_MEASURED = "measured"  # a folder in it for the run of one update that is measured
# What killed runs of the version before left of files that were being written.
_LEFT_OVER = re.compile(r"\.(best|log|state|run|bad|curves)\.[0-9]+\.(safetensors|csv|json|txt|png)")
_OF_THE_MACHINE = ("device", "save_every", "timeout")  # settings with which a run may go on otherwise
_LATER = ("frozen", "patience", "smallest")  # what earlier versions didn't have: their runs were made with None
_COPIES = {"sgd": 2, "adamw": 3}  # of the weights in a state


@contextmanager
def training_folder(out: str | os.PathLike) -> Iterator[Path]:
    """Make the folder of a run, and lock it for other processes.

    Of several processes that train together the main one does so.

    Args:
        out: The folder: new, empty, or of a run.

    Yields:
        Its path.

    Raises:
        OutputError: A folder with other things in it, or one that can't be written.
    """
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
    """Make a folder, in that of a run, for another run that is only measured.

    Its files are removed at the end, or by the next process that opens the folder of the run when this one is killed.

    Args:
        out: The folder of the run.

    Yields:
        The path of the folder in it.
    """
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


def note_once(text: str) -> None:
    """Note something, in the main process only.

    Args:
        text: One line.
    """
    if is_main():
        note(text)


def write_bad(path: Path, bad: Mapping[str, str]) -> None:
    """List the images that can't be read, one a line.

    Args:
        path: The file.
        bad: Name of an image -> why it can't be read.
    """
    write_text(path, "".join(f"{as_line(name)}\t{as_text(' '.join(why.split()))}\n"
                             for name, why in sorted(bad.items())))


def need_room(out: Path, model: nn.Module, optimizer: str) -> None:
    """Check that the disk has room for the best network and the state, old and new.

    Args:
        out: The folder of the run.
        model: What is trained.
        optimizer: A name of ``LoopSettings.optimizer``.

    Raises:
        OutputError: It has too little.
    """
    if is_main() and not (out / STATE).exists():
        weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        need_space(out, 2 * weights * (1 + _COPIES[optimizer]), "the network and the state of its training")


# --- what a run depends on -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """The images of a run.

    Attributes:
        training: What is learned from.
        validation: What chooses the best network, None without validation.
        positives: Their verified pairs.
    """

    training: LabelledImages
    validation: LabelledImages | None = None
    positives: Positives = Positives()


def identity_of(stage: str, network: RMAC, settings: LoopSettings, inputs: Inputs, **more: str) -> dict:
    """Collect what the result of a run depends on.

    Args:
        stage: "classification", "ranking" or "proposals".
        network: As it is before training.
        settings: Of the stage. Those of the machine don't count: device, save_every, timeout. Those that earlier
            versions didn't have count where they aren't None.
        inputs: The images.
        **more: Names and texts that count too.

    Returns:
        A dictionary as JSON gives it.
    """
    counted = {name: value for name, value in asdict(settings).items()
               if name not in _OF_THE_MACHINE and (name not in _LATER or value is not None)}
    identity = {"stage": stage, "settings": counted, "network": asdict(network.settings),
                "weights": fingerprint(network), "images": _images_identity(inputs.training, inputs.positives.training),
                "validation": None if inputs.validation is None else _images_identity(
                    inputs.validation, inputs.positives.validation), **more}
    return json.loads(json.dumps(identity))


def _images_identity(images: LabelledImages, positives: csr_array | None) -> dict:
    """Fingerprints of a collection: its files, labels, boxes and verified pairs."""
    return {"files": files_fingerprint(images.names, images.paths), "labels": _digest(images.labels),
            "boxes": _digest(np.frombuffer(repr(images.boxes).encode(), np.uint8)),
            "positives": None if positives is None else _digest(np.stack(positives.nonzero()))}


def _digest(values: ArrayLike) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def expect_same(out: Path, identity: Mapping, before: Mapping | None, resumed: bool) -> None:
    """Write what the run depends on, or compare it with what it was before.

    Args:
        out: The folder of the run.
        identity: Of ``identity_of``.
        before: The same as the state of the run has it, None where it has none.
        resumed: Whether there is a state.

    Raises:
        LearningError: The folder contains another run, or a file that is damaged.
    """
    path, on_disk = out / RUN, None
    if path.exists():
        try:
            on_disk = read_json(path, LearningError, "what a training run depends on")
        except LearningError as error:
            if resumed and before is None:
                raise LearningError(f"{error}; choose another folder, or remove this one to train again") from error
            note_once(f"{path}: was damaged, written again")
    before = on_disk if before is None else before
    if before is not None and (different := differences(_with_later(before), _with_later(identity))):
        raise LearningError(f"{out}: contains a training run with other {', '.join(different)}; choose another folder, "
                            "or remove this one to train again")
    if on_disk != identity:
        write_json(path, identity, checksum=True)


def _with_later(identity: Mapping) -> dict:
    """What a run depends on, with None for the settings that it leaves out: they are compared too."""
    settings = identity.get("settings")
    return {**identity, "settings": {**dict.fromkeys(_LATER), **settings} if isinstance(settings, dict) else settings}
