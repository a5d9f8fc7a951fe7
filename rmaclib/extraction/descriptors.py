"""Describing many images (Section 4.4): one or several resolutions, queries with boxes, memory-mapped output.

The list is worked through in chunks. A chunk's images are grouped by shape, so that equal shapes share a
batch, and decoded by threads while others are computed. Each finished chunk is a file; a run that was killed
goes on with the first chunk that has none, and because batches never cross chunks, it gives the same bytes.

On a CPU every thread decodes and computes batches of its own, each on one core: threads that share the work
of one layer would wait for each other at its end, and the longer the more often a decoder interrupts one.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from rmaclib.boxes import Box
from rmaclib.checkpoints import fingerprint
from rmaclib.datasets.types import NOT_A_LINE
from rmaclib.extraction.batches import (
    ExtractionSettings,
    Extractor,
    Item,
    chunk_count,
    chunks_of,
    image_bar,
    in_evaluation,
    on_device,
    pick_device,
)
from rmaclib.extraction.folder import (
    Chunk,
    Descriptors,
    Run,
    bad_images,
    descriptors_folder,
    load_descriptors,
    tell_repeated,
)
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import as_line, file_state, is_line
from rmaclib.images import fit
from rmaclib.network import RMAC, SharedFeatures
from rmaclib.pooling import l2


def extract(network: RMAC | SharedFeatures, paths: Sequence[str | os.PathLike],
             settings: ExtractionSettings | None = None, *, names: Sequence[str] | None = None,
             boxes: Sequence[Box | None] | None = None, out: str | os.PathLike | None = None,
             left_out: Sequence[tuple[str, str]] = (), progress: bool = True) -> Descriptors:
    """Describe images in the order given (Sections 4.1 and 4.4). The network stays as and where it is.

    names: one per path (default: the path as given); boxes: one per path, (x1, y1, x2, y2) in pixels of the
      original or None, for queries
    out: folder for descriptors.npy (N × D float32), names.txt, bad.txt and meta.json. A killed run given the
      same arguments again goes on where it was; a finished one is only loaded. Another process that writes to the
      folder is waited for. None: everything in memory.
    left_out: (name, reason) of images that a reader left out, to be listed with the bad ones
    Images that can't be read, and those whose name is no line of UTF-8 text, are left out of vectors and names, and
    listed in `bad` and bad.txt. Of images with the same name, file and box one is taken; `repeated` lists them.
    raises DescriptorsError: `out` has descriptors of other images, settings or network; OutputError: it is not ours,
      can't be written, or its disk has too little space
    """
    settings = settings or ExtractionSettings()
    paths = [Path(path) for path in paths]
    names = [os.fspath(path) for path in paths] if names is None else list(names)
    boxes = [None] * len(paths) if boxes is None else list(boxes)
    if not len(paths) == len(names) == len(boxes):
        raise InputError(f"expected as many names and boxes as paths, got {len(paths)} paths, {len(names)} names, "
                         f"{len(boxes)} boxes")
    listed, repeated = _each_once(list(zip(names, paths, boxes, strict=True)))
    tell_repeated(repeated)
    unfit = [*left_out, *((as_line(name), NOT_A_LINE) for name, _, _ in listed if not is_line(name))]
    names = [name for name, _, _ in listed if is_line(name)]
    items = [(path, box) for name, path, box in listed if is_line(name)]
    repeated = tuple(map(as_line, repeated))
    if out is not None:
        return _extract_to_folder(network, items, names, settings, Path(out), progress, unfit, repeated)
    chunks = [chunk for _, chunk in _extracted(network, items, settings, progress, [False] * chunk_count(items))]
    reasons = [reason for _, reasons in chunks for reason in reasons]
    good = tuple(name for name, reason in zip(names, reasons, strict=True) if not reason)
    vectors = np.concatenate([chunk[0] for chunk in chunks]) if chunks else np.zeros((0, network.dim), np.float32)
    return Descriptors(vectors, good, (*unfit, *bad_images(names, reasons)), repeated)


def _each_once(listed: Sequence[tuple]) -> tuple[list[tuple], list[str]]:
    """Images (name, path, box) without repetitions, in order, and the names that were repeated, each once."""
    known, repeated = {}, {}
    for name, path, box in listed:
        key = name, path, None if box is None else tuple(box)
        if key in known:
            repeated[name] = None
        known.setdefault(key, (name, path, box))
    return list(known.values()), list(repeated)



def extract_image(network: RMAC, image: Image.Image, settings: ExtractionSettings | None = None,
                   box: Box | None = None) -> np.ndarray:
    """The descriptor of one RGB picture, (D,) float32 of unit length; always computed in float32. The network stays
    as and where it is; a copy computes where that is not settings.device.

    box: (x1, y1, x2, y2) in pixels of the picture, to be cut out; raises ValueError when it doesn't fit
    """
    settings = settings or ExtractionSettings()
    device = pick_device(settings.device)
    pixels = [np.array(fit(image, size, box, settings.crop_order, settings.enlarge)) for size in settings.sizes]
    with torch.inference_mode(), in_evaluation(on_device(network, device)) as placed:
        images = [torch.from_numpy(array).permute(2, 0, 1)[None].to(device) for array in pixels]  # (1, 3, H, W) each
        return _one_descriptor(placed, images)[0].cpu().numpy()



# --- chunks ---------------------------------------------------------------------------------------------------




def _extracted(network: RMAC, items: Sequence[Item], settings: ExtractionSettings, progress: bool,
               done: Sequence[bool]) -> Iterator[tuple[int, Chunk]]:
    """Yields (number, chunk) of the chunks that are not done."""
    if all(done):
        return
    with Extractor(network, settings, _one_descriptor) as extractor:
        extractor.choose_precision(items)
        with image_bar(len(items), progress, "describing") as bar:
            for number, chunk in enumerate(chunks_of(items)):
                if done[number]:
                    bar.update(len(chunk))
                else:
                    yield number, _extract_chunk(extractor, chunk, network.dim, bar)


def _extract_chunk(extractor: "Extractor", chunk: Sequence[Item], dim: int, bar: tqdm) -> Chunk:
    vectors, bad = np.zeros((len(chunk), dim), np.float32), {}
    for indices, described in extractor.batches(chunk, bad):
        vectors[indices] = described.numpy()
        bar.update(len(indices))
    bar.update(len(bad))
    reasons = [bad.get(index, "") for index in range(len(chunk))]
    return vectors[[not reason for reason in reasons]], reasons


def _extract_to_folder(network: RMAC | SharedFeatures, items: Sequence[Item], names: Sequence[str],
                        settings: ExtractionSettings, folder: Path, progress: bool,
                        unfit: Sequence[tuple[str, str]], repeated: Sequence[str]) -> Descriptors:
    with descriptors_folder(folder) as out:
        made_with = asdict(settings)
        del made_with["device"]  # the machine's, not the descriptors'
        identity = {"network": network_settings(network), "weights": fingerprint(network),
                    "settings": made_with, "images": images_fingerprint(items, names)}
        run = Run(out, identity, [len(chunk) for chunk in chunks_of(items)], network.dim)
        if not run.is_finished:
            for number, chunk in _extracted(network, items, settings, progress, run.done):
                run.save(number, chunk)
            run.finish(names, unfit, repeated)
        return load_descriptors(folder)


def network_settings(network: RMAC | SharedFeatures) -> dict:
    """Settings of a network; of several that share a backbone, those of each by its name."""
    if isinstance(network, SharedFeatures):
        return {name: asdict(part.settings) for name, part in zip(network.names, network.networks, strict=True)}
    return asdict(network.settings)


def images_fingerprint(items: Sequence[Item], names: Sequence[str]) -> str:
    """Changes when a name, a box or a file (size, time of change) does."""
    digest = hashlib.sha256()
    for (path, box), name in zip(items, names, strict=True):
        numbers = None if box is None else tuple(map(float, box))
        digest.update(repr((name, numbers, file_state(path))).encode())
    return digest.hexdigest()



# --- the network's side ---------------------------------------------------------------------------------------


def _one_descriptor(network: RMAC, images: Sequence[Tensor]) -> Tensor:
    """images: one (B, 3, H, W) per size; returns (B, D): the sizes' descriptors, summed and normalised."""
    return l2(torch.stack([network(image).float() for image in images]).sum(0))
