"""Descriptors of many images (Section 4.4): one or several resolutions, queries with boxes, memory-mapped output.

The list is worked through in chunks. A chunk's images are grouped by shape, so that equal shapes share a batch, and
decoded by threads while others are computed. Each finished chunk is a file; a run that was killed goes on with the
first chunk that has none, and because batches never cross chunks, it gives the same bytes.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from rmaclib.boxes import Box
from rmaclib.checkpoints import fingerprint
from rmaclib.extraction.batches import (
    ExtractionSettings,
    Extractor,
    chunk_count,
    chunks_of,
    image_bar,
    in_evaluation,
    on_device,
    pick_device,
)
from rmaclib.extraction.folder import Descriptors, bad_images, descriptors_folder, load_descriptors, tell_repeated
from rmaclib.extraction.images import Bad, ImageList, Images, Item, image_list, images_fingerprint
from rmaclib.extraction.run import Chunk, Run
from rmaclib.foundation.folders import refuse_inside
from rmaclib.images import fit
from rmaclib.network import RMAC, SharedFeatures
from rmaclib.pooling import l2


def extract(network: RMAC | SharedFeatures, images: Images, settings: ExtractionSettings | None = None, *,
            names: Sequence[str] | None = None, boxes: Sequence[Box | None] | None = None,
            out: str | os.PathLike | None = None, left_out: Sequence[Bad] = (), progress: bool = True) -> Descriptors:
    """Extract the descriptors of images, in the order given (Sections 4.1 and 4.4).

    Images that can't be read, and those whose name is no line of UTF-8 text, are left out and listed in ``bad``. Of
    images with the same name, file and box one is taken; ``repeated`` lists them.

    Args:
        network: Stays as and where it is; a copy computes.
        images: A sequence of image files; a folder, sub-folders included; a list or registered name that
            ``datasets.open_images`` takes; or one image file.
        settings: Sizes, precision and device; the paper's single resolution by default.
        names: One of each image. Default: its path.
        boxes: One of each image, (x1, y1, x2, y2) in pixels of the original or None: for queries.
        out: Folder for descriptors.npy (N × D float32), names.txt, bad.txt and meta.json. A killed run with the same
            arguments goes on where it was; a finished one is only loaded. Another process that writes to the folder is
            waited for. None keeps everything in memory.
        left_out: (name, reason) of more images, to be listed with the bad ones.
        progress: Whether there is a progress bar, on a terminal.

    Returns:
        The descriptors, memory-mapped when ``out`` is given.

    Raises:
        InputError: Another number of names or boxes than of images, or a device that can't be used.
        DatasetError: A folder, list or name that can't be opened.
        DescriptorsError: ``out`` contains descriptors of other images, settings or another network.
        OutputError: ``out`` contains other files, lies in the folder of images, can't be written, or its disk has too
            little space.
    """
    settings = settings or ExtractionSettings()
    if out is not None and isinstance(images, str | os.PathLike):
        refuse_inside(out, images)
    listed = image_list(images, names, boxes, left_out)
    tell_repeated(listed.repeated)
    if out is not None:
        return _extract_to_folder(network, listed, settings, Path(out), progress)
    done = [False] * chunk_count(listed.items)
    chunks = [chunk for _, chunk in _extracted(network, listed.items, settings, progress, done)]
    reasons = [reason for _, of_chunk in chunks for reason in of_chunk]
    good = tuple(name for name, reason in zip(listed.names, reasons, strict=True) if not reason)
    vectors = np.concatenate([chunk[0] for chunk in chunks]) if chunks else np.zeros((0, network.dim), np.float32)
    return Descriptors(vectors, good, (*listed.bad, *bad_images(listed.names, reasons)), listed.repeated)


def extract_image(network: RMAC | SharedFeatures, image: Image.Image, settings: ExtractionSettings | None = None,
                  box: Box | None = None) -> np.ndarray:
    """Extract the descriptor of one picture, always in float32.

    Args:
        network: Stays as and where it is; a copy computes where that is not ``settings.device``.
        image: RGB.
        settings: Sizes and device; the paper's single resolution by default.
        box: The part to use, (x1, y1, x2, y2) in pixels of the picture.

    Returns:
        (D,) float32, ℓ2-normalised.

    Raises:
        InputError: A box that doesn't fit the picture, or a device that can't be used.
    """
    settings = settings or ExtractionSettings()
    device = pick_device(settings.device)
    pixels = [np.array(fit(image, size, box, settings.crop_order, settings.enlarge)) for size in settings.sizes]
    with torch.inference_mode(), in_evaluation(on_device(network, device)) as placed:
        images = [torch.from_numpy(array).permute(2, 0, 1)[None].to(device) for array in pixels]  # (1, 3, H, W) each
        return _one_descriptor(placed, images)[0].cpu().numpy()


def _one_descriptor(network: RMAC | SharedFeatures, images: Sequence[Tensor]) -> Tensor:
    """(B, 3, H, W) at each size to (B, D): the descriptors of all sizes, summed and ℓ2-normalised."""
    return l2(torch.stack([network(image).float() for image in images]).sum(0))


def _extracted(network: RMAC | SharedFeatures, items: Sequence[Item], settings: ExtractionSettings, progress: bool,
               done: Sequence[bool]) -> Iterator[tuple[int, Chunk]]:
    """Yields (number, chunk) of the chunks that are not done."""
    if all(done):
        return
    with Extractor(network, settings, _one_descriptor) as extractor:
        extractor.choose_precision(items)
        with image_bar(len(items), progress, "extracting") as bar:
            for number, chunk in enumerate(chunks_of(items)):
                if done[number]:
                    bar.update(len(chunk))
                else:
                    yield number, _extract_chunk(extractor, chunk, network.dim, bar)


def _extract_chunk(extractor: Extractor, chunk: Sequence[Item], dim: int, bar: tqdm) -> Chunk:
    vectors = np.zeros((len(chunk), dim), np.float32)
    bad: dict[int, str] = {}
    for indices, descriptors in extractor.batches(chunk, bad):
        vectors[indices] = descriptors.numpy()
        bar.update(len(indices))
    bar.update(len(bad))
    reasons = [bad.get(index, "") for index in range(len(chunk))]
    return vectors[[not reason for reason in reasons]], reasons


def _extract_to_folder(network: RMAC | SharedFeatures, listed: ImageList, settings: ExtractionSettings, folder: Path,
                       progress: bool) -> Descriptors:
    with descriptors_folder(folder) as out:
        of_extraction = asdict(settings)
        del of_extraction["device"]  # a property of the machine, not of the descriptors
        identity = {"network": network_settings(network), "weights": fingerprint(network),
                    "settings": of_extraction, "images": images_fingerprint(listed.items, listed.names)}
        run = Run(out, identity, [len(chunk) for chunk in chunks_of(listed.items)], network.dim)
        if not run.is_finished:
            for number, chunk in _extracted(network, listed.items, settings, progress, run.done):
                run.save(number, chunk)
            run.finish(listed.names, listed.bad, listed.repeated)
        return load_descriptors(folder)


def network_settings(network: RMAC | SharedFeatures) -> dict[str, Any]:
    """Settings of a network as a dictionary; of several that share a backbone, those of each by its name."""
    if isinstance(network, SharedFeatures):
        return {name: asdict(part.settings) for name, part in zip(network.names, network.parts, strict=True)}
    return asdict(network.settings)
