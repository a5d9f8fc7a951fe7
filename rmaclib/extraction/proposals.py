"""The proposal network run over many images (Section 4.3): region proposals and feature maps."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rmaclib.extraction.batches import ExtractionSettings, Extractor, image_bar
from rmaclib.extraction.images import Item
from rmaclib.foundation.errors import InputError
from rmaclib.images import fitted_size, read_size
from rmaclib.network import RMAC


class ImageProposals(NamedTuple):
    """Proposals of one image file, the most likely first.

    Attributes:
        boxes: (n, 4) float32, (x1, y1, x2, y2) in pixels of the original.
        scores: (n,) float32, 0..1.
        reason: Why the image can't be read, "" where it can.
    """

    boxes: np.ndarray
    scores: np.ndarray
    reason: str


def propose_regions(network: RMAC, paths: Sequence[Path], settings: ExtractionSettings, count: int,
                    progress: bool = True) -> list[ImageProposals]:
    """Propose regions of images.

    Args:
        network: With a trained proposal network; stays as and where it is.
        paths: Image files.
        settings: Its one size is the longer side at which the network gets the images.
        count: Largest number of proposals for an image.
        progress: Whether there is a progress bar, on a terminal.

    Returns:
        Proposals of each image, in the order given.

    Raises:
        InputError: A network without a proposal network, or several sizes.
    """
    network.require_proposer()

    def parts(network: RMAC, images: Sequence[Tensor]) -> Tensor:
        """(B, count, 5): boxes as parts of the image, and scores; -1 where there are fewer."""
        (image,) = images
        height, width = image.shape[-2:]
        rows = torch.full((len(image), count, 5), -1.0)
        proposals = network.require_proposer().propose(network.backbone(image), (height, width), count)
        for row, (boxes, scores, _) in zip(rows, proposals, strict=True):
            row[:len(boxes), :4] = boxes / torch.tensor([width, height] * 2)
            row[:len(boxes), 4] = scores
        return rows

    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    results: list[ImageProposals] = [ImageProposals(*nothing, "")] * len(paths)
    bad: dict[int, str] = {}
    with image_bar(len(paths), progress, "proposing") as bar:
        for indices, rows in _computed(network, paths, settings, parts, bad):
            for index, row in zip(indices, rows.numpy(), strict=True):
                row = row[row[:, 4] >= 0]
                size = np.array([*read_size(paths[index])] * 2, np.float32)
                results[index] = ImageProposals(row[:, :4] * size, row[:, 4], "")
            bar.update(len(indices))
        bar.update(len(bad))
    for index, reason in bad.items():
        results[index] = ImageProposals(*nothing, reason)
    return results


def feature_maps(network: RMAC, paths: Sequence[Path], settings: ExtractionSettings, bad: dict[int, str],
                 mirrored: bool = False) -> Iterator[tuple[int, Tensor, tuple[int, int]]]:
    """Compute the feature maps of images, in any order.

    Args:
        network: Stays as and where it is.
        paths: Image files.
        settings: Its one size is the longer side at which the network gets the images.
        bad: Gets the reason for each image that can't be read, by its index.
        mirrored: Whether the map of the mirror image is computed too: a network is not symmetric, so that it is not
            the mirrored map.

    Yields:
        Index into ``paths``; the map (C, h, w), or both maps (2, C, h, w); and (H, W) in pixels of the image that the
        network got.

    Raises:
        InputError: Several sizes.
    """
    def maps(network: RMAC, images: Sequence[Tensor]) -> Tensor:
        (image,) = images
        views = [image, image.flip(-1)] if mirrored else [image]
        return torch.stack([network.backbone(view) for view in views], 1)  # (B, 1 or 2, C, h, w)

    for indices, computed in _computed(network, paths, settings, maps, bad):
        for index, features in zip(indices, computed, strict=True):
            yield index, features if mirrored else features[0], seen_size(paths[index], settings)


def seen_size(path: Path, settings: ExtractionSettings) -> tuple[int, int]:
    """Compute the size at which a network gets an image.

    Args:
        path: Of the image file.
        settings: With one size.

    Returns:
        (H, W) in pixels.

    Raises:
        ImageError: The file can't be read.
    """
    (size,) = settings.sizes
    width, height = fitted_size(*read_size(path), size, None, settings.crop_order, settings.enlarge)
    return height, width


def _computed(network: RMAC, paths: Sequence[Path], settings: ExtractionSettings,
              compute: Callable[[RMAC, Sequence[Tensor]], Tensor],
              bad: dict[int, str]) -> Iterator[tuple[list[int], Tensor]]:
    """Yields indices and results of images at one size."""
    if len(settings.sizes) != 1:
        raise InputError(f"sizes: expected one, regions are proposed at one size; got {settings.sizes}")
    with Extractor(network, settings, compute) as extractor:
        items: list[Item] = [(Path(path), None) for path in paths]
        extractor.choose_precision(items)
        yield from extractor.batches(items, bad)
