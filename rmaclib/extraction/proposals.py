"""The proposal network run over many images (Section 4.3): feature maps, and where landmarks are proposed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rmaclib.extraction.batches import ExtractionSettings, Extractor, image_bar
from rmaclib.foundation.errors import InputError
from rmaclib.images import fitted_size, read_size
from rmaclib.network import RMAC


class ImageProposals(NamedTuple):
    """Proposals of one image file, the most likely first.

    boxes: (n, 4) float32, (x1, y1, x2, y2) in pixels of the original; scores: (n,) float32, 0..1
    reason: why the image can't be read, "" when it could be
    """

    boxes: np.ndarray
    scores: np.ndarray
    reason: str


def propose_regions(network: RMAC, paths: Sequence[Path], settings: ExtractionSettings, count: int,
            progress: bool = True) -> list[ImageProposals]:
    """At most `count` proposals for each image, in the order given.

    settings: its one size is the longer side that the network sees
    raises InputError: a network that has no proposal network, several sizes
    """
    if network.proposer is None:
        raise InputError("expected a network that was trained to propose regions (rmac train --stage proposals), got "
                         "one that was not")

    def parts(network: RMAC, images: Sequence[Tensor]) -> Tensor:
        """(B, count, 5): boxes as parts of the image, and scores; -1 where there are fewer."""
        (image,) = images
        height, width = image.shape[-2:]
        filled = torch.full((len(image), count, 5), -1.0)
        for row, found in zip(filled, network.proposer.propose(network.backbone(image), (height, width), count),
                              strict=True):
            row[:len(found.boxes), :4] = found.boxes / torch.tensor([width, height] * 2)
            row[:len(found.boxes), 4] = found.scores
        return filled

    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
    results: list[ImageProposals] = [ImageProposals(*nothing, "")] * len(paths)
    bad: dict[int, str] = {}
    with image_bar(len(paths), progress, "proposing") as bar:
        for indices, filled in _computed(network, paths, settings, parts, bad):
            for index, row in zip(indices, filled.numpy(), strict=True):
                row = row[row[:, 4] >= 0]
                results[index] = ImageProposals(row[:, :4] * np.float32([*read_size(paths[index])] * 2), row[:, 4], "")
            bar.update(len(indices))
        bar.update(len(bad))
    for index, reason in bad.items():
        results[index] = ImageProposals(*nothing, reason)
    return results


def feature_maps(network: RMAC, paths: Sequence[Path], settings: ExtractionSettings, bad: dict[int, str],
                 mirrored: bool = False) -> Iterator[tuple[int, Tensor, tuple[int, int]]]:
    """Yields (index, map (C, h, w), (H, W) of the image that the network saw) of each image, in any order.

    bad: filled with index -> reason for those that can't be read
    mirrored: two maps of each image, (2, C, h, w), the second that of its mirror image: a network is not symmetric, so
      that the mirrored map is another
    """
    def maps(network: RMAC, images: Sequence[Tensor]) -> Tensor:
        (image,) = images
        pictures = [image, image.flip(-1)] if mirrored else [image]
        return torch.stack([network.backbone(picture) for picture in pictures], 1)  # (B, 1 or 2, C, h, w)

    for indices, computed in _computed(network, paths, settings, maps, bad):
        for index, features in zip(indices, computed, strict=True):
            yield index, features if mirrored else features[0], seen_size(paths[index], settings)


def seen_size(path: Path, settings: ExtractionSettings) -> tuple[int, int]:
    """(H, W) in pixels to which an image is brought before the network sees it. raises ImageError"""
    (size,) = settings.sizes
    width, height = fitted_size(*read_size(path), size, None, settings.crop_order, settings.enlarge)
    return height, width


def _computed(network: RMAC, paths: Sequence[Path], settings: ExtractionSettings, compute,
              bad: dict[int, str]) -> Iterator[tuple[list[int], Tensor]]:
    if len(settings.sizes) != 1:
        raise InputError(f"sizes: expected one, regions are proposed at a size; got {settings.sizes}")
    with Extractor(network, settings, compute) as extractor:
        items = [(Path(path), None) for path in paths]
        extractor.choose_precision(items)
        yield from extractor.batches(items, bad)
