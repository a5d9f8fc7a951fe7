"""The whitening that a run starts from, kept in the run's folder: one that goes on starts from the same weights."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from rmaclib.checkpoints import fingerprint, load_tensors, save_tensors
from rmaclib.datasets.types import LabelledImages
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.whitening import learn_whitening, training_sample
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import differences, files_fingerprint
from rmaclib.learning.distributed import is_main
from rmaclib.learning.errors import LearningError
from rmaclib.learning.folder import RUN, STATE, WHITENING, note_once, training_folder
from rmaclib.network import RMAC
from rmaclib.whitening import Whitening


def whiten(network: RMAC, collection: LabelledImages, settings: ExtractionSettings, *, dim: int, images: int, seed: int,
           out: Path, progress: bool = True) -> RMAC:
    """Give a network a whitening in place: the one that the run in a folder has started from, or a new one.

    Args:
        network: Without a fully connected layer.
        collection: The training images.
        settings: Size, precision and device with which region vectors are extracted.
        dim: Dimensions to keep.
        images: How many images of the collection it is learned on.
        seed: Chooses them.
        out: The folder of the run.
        progress: Show a bar on a terminal.

    Returns:
        The network.

    Raises:
        InputError: More dimensions than channels.
        LearningError: A run that has started from another whitening, or whose file is damaged.
    """
    channels = network.backbone.channels
    if not 1 <= dim <= channels:
        raise InputError(f"dim: expected 1..{channels}, the channels of {network.backbone.name}, got {dim}")
    if not is_main():
        # The weights are those of the main process as soon as training begins: distributed.agree.
        return network.set_whitening(Whitening(np.zeros(channels), np.zeros((dim, channels)), np.zeros(dim), 0))
    sample = training_sample(collection, images, seed)
    made_with = {"network": asdict(network.settings), "weights": fingerprint(network), "dim": dim,
                 "images": files_fingerprint([path.name for path in sample], sample),
                 "settings": {**asdict(settings), "device": ""}}
    with training_folder(out) as folder:
        whitening = _kept(folder, made_with)
        if whitening is None:
            whitening = learn_whitening(network, sample, settings, dim=dim, progress=progress)
            arrays = {"shift": whitening.shift, "weight": whitening.weight, "variances": whitening.variances}
            save_tensors(folder / WHITENING, {name: torch.from_numpy(np.ascontiguousarray(array))
                                              for name, array in arrays.items()},
                         {"made_with": made_with, "count": whitening.count})
    return network.set_whitening(whitening)


def _kept(folder: Path, made_with: dict) -> Whitening | None:
    """The whitening of the run in a folder, None where none has begun."""
    path = folder / WHITENING
    if not path.exists():
        return None
    try:
        tensors, notes, _ = load_tensors(path, LearningError, "the whitening of a training run")
        if notes is None:
            raise LearningError("it has no notes")
        shift, weight, variances = (tensors[name].numpy() for name in ("shift", "weight", "variances"))
        before, whitening = notes["made_with"], Whitening(shift, weight, variances, notes["count"])
    except (LearningError, KeyError, TypeError) as error:
        if (folder / STATE).exists():
            raise LearningError(f"{path}: expected the whitening that the run started from, it is damaged ({error}); "
                                f"remove it and {folder / STATE} to train again from the start") from error
        note_once(f"{path}: was damaged, made again")
        return None
    if not (different := differences(before, made_with)):
        return whitening
    if (folder / RUN).exists():
        raise LearningError(f"{folder}: contains a training run that started from a whitening with other "
                            f"{', '.join(different)}; choose another folder, or remove this one to train again")
    return None  # a run that was stopped before it began
