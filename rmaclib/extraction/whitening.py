"""The whitening of a network, learned on training images (Section 4.1)."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rmaclib.datasets.types import LabelledImages
from rmaclib.extraction.batches import ExtractionSettings, Extractor, chunks_of, image_bar
from rmaclib.network import RMAC
from rmaclib.whitening import Whitening, fit_whitening


def learn_whitening(network: RMAC, paths: Sequence[str | os.PathLike], settings: ExtractionSettings | None = None, *,
                    dim: int | None = None, shrinkage: float = 0.0, progress: bool = True) -> Whitening:
    """Whitening fitted on the region vectors of training images (Section 4.1); never give it a test set.

    Images that can't be read are left out. See rmac.fit_whitening for dim, shrinkage and errors.
    """
    def blocks():
        with Extractor(network, settings or ExtractionSettings(), _all_regions) as extractor:
            items = [(Path(path), None) for path in paths]
            extractor.choose_precision(items)
            with image_bar(len(items), progress, "whitening") as bar:
                for chunk in chunks_of(items):
                    for indices, vectors in extractor.batches(chunk, {}):
                        bar.update(len(indices))
                        yield vectors.numpy()
    return fit_whitening(blocks(), dim, shrinkage)


def _all_regions(network: RMAC, images: Sequence[Tensor]) -> Tensor:
    """images: one (B, 3, H, W) per size; returns (R, C): region vectors of all images and sizes."""
    return torch.cat([vectors for image in images
                      for vectors in network.region_vectors(network.backbone(image), image.shape[-2:])])


def training_sample(collection: LabelledImages, count: int, seed: int = 0) -> list[Path]:
    """Paths of `count` images drawn from a collection without replacement (all of them where it has fewer)."""
    paths: Sequence[Path] = collection.paths
    return list(paths) if len(paths) <= count else random.Random(seed).sample(paths, count)
