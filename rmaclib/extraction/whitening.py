"""The whitening of a network, fitted to training images (Section 4.1)."""

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rmaclib.datasets.types import LabelledImages
from rmaclib.extraction.batches import ExtractionSettings, Extractor, chunks_of, image_bar
from rmaclib.extraction.images import Item
from rmaclib.network import RMAC
from rmaclib.whitening import Whitening, fit_whitening


def learn_whitening(network: RMAC, paths: Sequence[str | os.PathLike], settings: ExtractionSettings | None = None, *,
                    dim: int | None = None, shrinkage: float = 0.0, progress: bool = True) -> Whitening:
    """Fit a PCA-whitening to the region vectors of training images (Section 4.1); never give it a test set.

    Args:
        network: Stays as and where it is.
        paths: Image files; those that can't be read are left out.
        settings: Sizes, precision and device.
        dim: Dimensions to keep, see ``whitening.fit_whitening``.
        shrinkage: 0..1, see ``whitening.fit_whitening``.
        progress: Whether there is a progress bar, on a terminal.

    Returns:
        The whitening, for ``network.set_whitening``.

    Raises:
        InputError: Too few images; ``dim`` or ``shrinkage`` out of range; a device that can't be used.
    """
    items: list[Item] = [(Path(path), None) for path in paths]

    def blocks() -> Iterator[np.ndarray]:
        with Extractor(network, settings or ExtractionSettings(), _all_regions) as extractor:
            extractor.choose_precision(items)
            with image_bar(len(items), progress, "whitening") as bar:
                for chunk in chunks_of(items):
                    for indices, vectors in extractor.batches(chunk, {}):
                        bar.update(len(indices))
                        yield vectors.numpy()

    return fit_whitening(blocks(), dim, shrinkage)


def _all_regions(network: RMAC, images: Sequence[Tensor]) -> Tensor:
    """(B, 3, H, W) at each size to (R, C): region vectors of all images and sizes."""
    return torch.cat([vectors for image in images
                      for vectors in network.region_vectors(network.backbone(image), image.shape[-2:])])


def training_sample(collection: LabelledImages, count: int, seed: int = 0) -> list[Path]:
    """Draw images of a collection without replacement.

    Args:
        collection: Training images.
        count: How many; all where the collection has fewer.
        seed: Draws them.

    Returns:
        Their files.
    """
    paths: Sequence[Path] = collection.paths
    return list(paths) if len(paths) <= count else random.Random(seed).sample(paths, count)
