"""The whitening that a run starts from, kept in the run's folder: one that goes on starts from the same weights."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from rmaclib.checkpoints import fingerprint, load_tensors, save_tensors
from rmaclib.datasets.types import LabelledImages
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.whitening import learn_whitening, training_sample
from rmaclib.foundation.files import differences, files_fingerprint
from rmaclib.learning.distributed import is_main
from rmaclib.learning.errors import LearningError
from rmaclib.learning.folder import RUN, STATE, WHITENING, note_once, training_folder
from rmaclib.network import RMAC
from rmaclib.network_settings import shares
from rmaclib.whitening import Whitening

_ARRAYS = ("shift", "weight", "variances")  # of a whitening


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
        InputError: More dimensions than the feature maps have.
        LearningError: A run that has started from another whitening, or whose file is damaged.
    """
    backbone = network.backbone
    backbone.require_dim(dim)
    if not is_main():
        # The weights are those of the main process as soon as training begins: distributed.agree.
        return network.set_whitening([
            Whitening(np.zeros(layer.channels), np.zeros((share, layer.channels)), np.zeros(share), 0)
            for layer, share in zip(backbone.layers, shares(dim, len(backbone.layers)), strict=True)])
    sample = training_sample(collection, images, seed)
    made_with = {"network": asdict(network.settings), "weights": fingerprint(network), "dim": dim,
                 "images": files_fingerprint([path.name for path in sample], sample),
                 "settings": {**asdict(settings), "device": ""}}
    with training_folder(out) as folder:
        whitenings = _kept(folder, made_with, len(backbone.layers))
        if whitenings is None:
            whitenings = learn_whitening(network, sample, settings, dim=dim, progress=progress)
            arrays = {f"{name}{_suffix(place)}": getattr(whitening, name)
                      for place, whitening in enumerate(whitenings) for name in _ARRAYS}
            counts = {f"count{_suffix(place)}": whitening.count for place, whitening in enumerate(whitenings)}
            save_tensors(folder / WHITENING, {name: torch.from_numpy(np.ascontiguousarray(array))
                                              for name, array in arrays.items()},
                         {"made_with": made_with, **counts})
    return network.set_whitening(whitenings)


def _suffix(place: int) -> str:
    """Behind the names of what belongs to a feature map; nothing behind those of the first."""
    return f".{place}" if place else ""


def _kept(folder: Path, made_with: dict, maps: int) -> Sequence[Whitening] | None:
    """The whitening of the run in a folder, of each feature map; None where none has begun."""
    path = folder / WHITENING
    if not path.exists():
        return None
    try:
        tensors, notes, _ = load_tensors(path, LearningError, "the whitening of a training run")
        if notes is None:
            raise LearningError("it has no notes")
        if not (different := differences(notes["made_with"], made_with)):
            return [Whitening(count=notes[f"count{suffix}"],
                              **{name: tensors[f"{name}{suffix}"].numpy() for name in _ARRAYS})
                    for suffix in map(_suffix, range(maps))]
    except (LearningError, KeyError, TypeError) as error:
        if (folder / STATE).exists():
            raise LearningError(f"{path}: expected the whitening that the run started from, it is damaged ({error}); "
                                f"remove it and {folder / STATE} to train again from the start") from error
        note_once(f"{path}: was damaged, made again")
        return None
    if (folder / RUN).exists():
        raise LearningError(f"{folder}: contains a training run that started from a whitening with other "
                            f"{', '.join(different)}; choose another folder, or remove this one to train again")
    return None  # a run that was stopped before it began
