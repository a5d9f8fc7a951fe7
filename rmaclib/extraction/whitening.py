"""The whitening of a network, fitted to training images (Section 4.1)."""

import os
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rmaclib.datasets.types import LabelledImages
from rmaclib.extraction.batches import ExtractionSettings, Extractor, chunks_of, image_bar
from rmaclib.extraction.images import Item
from rmaclib.network import RMAC
from rmaclib.network_settings import shares
from rmaclib.whitening import Whitening, WhiteningFit


def learn_whitening(network: RMAC, paths: Sequence[str | os.PathLike], settings: ExtractionSettings | None = None, *,
                    dim: int | None = None, shrinkage: float = 0.0, progress: bool = True) -> tuple[Whitening, ...]:
    """Fit a PCA-whitening to the region vectors of training images (Section 4.1); never give it a test set.

    Args:
        network: Stays as and where it is.
        paths: Image files; those that can't be read are left out.
        settings: Sizes, precision and device.
        dim: Dimensions to keep, which several feature maps share evenly; None: as many as they have.
        shrinkage: 0..1, see ``whitening.fit_whitening``.
        progress: Whether there is a progress bar, on a terminal.

    Returns:
        The whitening of each feature map, for ``network.set_whitening``.

    Raises:
        InputError: Too few images; ``dim`` or ``shrinkage`` out of range; a device that can't be used.
    """
    backbone = network.backbone
    dim = backbone.dims[-1] if dim is None else dim
    backbone.require_dim(dim)
    fits = [WhiteningFit(share, shrinkage) for share in shares(dim, len(backbone.layers))]
    items: list[Item] = [(Path(path), None) for path in paths]
    with Extractor(network, settings or ExtractionSettings(), _all_regions) as extractor:
        extractor.choose_precision(items)
        with image_bar(len(items), progress, "whitening") as bar:
            for chunk in chunks_of(items):
                for indices, vectors in extractor.batches(chunk, {}):
                    bar.update(len(indices))
                    for fit, of_map in zip(fits, vectors, strict=True):
                        fit.add(of_map.numpy())
    return tuple(fit.whitening() for fit in fits)


def _all_regions(network: RMAC, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """(B, 3, H, W) at each size to, for each feature map, (R, C): region vectors of all images and sizes."""
    of_sizes = [network.region_vectors(network.backbone.maps(image), image.shape[-2:]) for image in images]
    return tuple(torch.cat([vectors for of_images in of_map for vectors in of_images])
                 for of_map in zip(*of_sizes, strict=True))


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
