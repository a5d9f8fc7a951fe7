"""Learned regions (Section 4.3): a small network on the feature map that proposes where a landmark is.

At every cell of the map lie boxes of fixed shapes, the anchors. A 3×3 convolution and two 1×1 convolutions predict for
each anchor how likely it contains the landmark (objectness), and how to move and stretch it (Ren et al. 2015). Boxes
are in pixels of the image that the network was given; anchors are parts of its longer side, so that one network serves
every size.

torchvision and SciPy are imported where they are used: they take seconds to load, and a network without proposals needs
neither.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rmaclib.boxes import Box
from rmaclib.foundation.errors import InputError
from rmaclib.regions import Rectangle, as_rectangle

Anchors = Sequence[tuple[float, float]]  # width and height of each, as parts of the image's longer side
OVERLAP = 0.7  # non-maximum suppression: of two proposals with a larger IoU the less likely one is dropped
CANDIDATES = 2000  # most likely boxes that go into non-maximum suppression
# An anchor is positive from the first, negative below the second IoU with a box. With Ren et al.'s 0.7 a box of our
# size on a map of 10×8 cells has one positive anchor, with 0.5 nine: more to learn from.
POSITIVE, NEGATIVE = 0.5, 0.3
_LARGEST_STRETCH = float(np.log(1000 / 16))  # of an anchor, so that exp stays finite
_LEAST_SHAPE = 1e-4  # of an anchor, as a part of the longer side
_SMOOTH = 1 / 9  # offset error at which the smooth L1 loss turns from square to linear


class Proposals(NamedTuple):
    """Proposals of one image, the most likely first.

    Attributes:
        boxes: (n, 4) float32, (x1, y1, x2, y2) in pixels of the image given to the network, inside it.
        scores: (n,) float32, 0..1.
        regions: n rectangles of the feature map, no two the same.
    """

    boxes: Tensor
    scores: Tensor
    regions: list[Rectangle]


class ProposalNetwork(nn.Module):
    """Objectness and offsets of every anchor at every cell (Section 4.3).

    Args:
        channels: C of the feature map.
        anchors: A shapes, see fit_anchors.
        hidden: Channels of the 3×3 convolution.
        seed: Of the random weights.
    """

    shapes: Tensor  # (A, 2), width and height

    def __init__(self, channels: int, anchors: Anchors, hidden: int, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.hidden = nn.Conv2d(channels, hidden, 3, padding=1)
            self.objectness = nn.Conv2d(hidden, len(anchors), 1)
            self.offsets = nn.Conv2d(hidden, 4 * len(anchors), 1)
            for layer in (self.hidden, self.objectness, self.offsets):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.register_buffer("shapes", torch.tensor(anchors, dtype=torch.float32), persistent=False)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Predict objectness and offsets of all anchors.

        Args:
            features: (B, C, h, w).

        Returns:
            Objectness (B, A, h, w), before the sigmoid; and offsets (B, 4A, h, w): for each anchor, how far its centre
            moves, in its width and height, and the logarithm of its stretch across and down.
        """
        # Maps of a few cells: the convolution is fastest on plain (B, C, h, w), whatever the backbone's layout.
        hidden = functional.relu(self.hidden(features.contiguous()))
        return self.objectness(hidden), self.offsets(hidden)

    def anchors(self, map_size: Sequence[int], image_size: Sequence[int]) -> Tensor:
        """Lay the anchors over a feature map.

        Args:
            map_size: (h, w) in cells.
            image_size: (H, W) of the image, in pixels.

        Returns:
            Boxes (h·w·A, 4) in pixels, cell by cell, row by row; they may leave the image.
        """
        (rows, columns), (height, width) = map_size, image_size
        like = self.shapes
        y = (torch.arange(rows, device=like.device) + 0.5) * (height / rows)
        x = (torch.arange(columns, device=like.device) + 0.5) * (width / columns)
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 1, 2).to(like)  # (h·w, 1, 2)
        half = like * (max(height, width) / 2)  # (A, 2)
        return torch.cat([centres - half, centres + half], -1).reshape(-1, 4)

    @torch.no_grad()
    def propose(self, features: Tensor, image_size: Sequence[int], count: int) -> list[Proposals]:
        """Propose the ``count`` most likely boxes of each image, fewer where fewer differ.

        Non-maximum suppression drops a box whose IoU with a more likely one exceeds OVERLAP; a box with the same cells
        as a more likely one is dropped too. The cells of a box are those that its borders round to, at least one. Where
        no box is left, as with a network that is not finite, the whole image is proposed, with score 0.

        Args:
            features: (B, C, h, w).
            image_size: (H, W) in pixels of the images that the maps come from.
            count: Largest number of proposals for an image.

        Returns:
            Proposals of each of the B images.
        """
        map_size, anchors = features.shape[-2:], self.anchors(features.shape[-2:], image_size)
        # Never in half precision: near-equal boxes would change places.
        with torch.autocast(features.device.type, enabled=False):
            objectness, offsets = self(features.to(self.hidden.weight.dtype))
        return [_distinct(*_suppressed(move(anchors, of_image), scores, image_size), map_size, image_size, count)
                for scores, of_image in zip(_by_anchor(objectness, 1).sigmoid()[..., 0], _by_anchor(offsets, 4),
                                            strict=True)]


def _suppressed(boxes: Tensor, scores: Tensor, image_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Boxes clipped to the image and their scores after non-maximum suppression, the most likely first."""
    from torchvision.ops import clip_boxes_to_image, nms

    boxes = clip_boxes_to_image(boxes, tuple(image_size))
    usable = torch.isfinite(boxes).all(1) & torch.isfinite(scores) & (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
    boxes, scores = boxes[usable], scores[usable]
    scores, order = scores.sort(descending=True, stable=True)
    boxes, scores = boxes[order[:CANDIDATES]], scores[:CANDIDATES]
    kept = nms(boxes, scores, OVERLAP)
    return boxes[kept].cpu(), scores[kept].cpu()


def _distinct(boxes: Tensor, scores: Tensor, map_size: Sequence[int], image_size: Sequence[int],
              count: int) -> Proposals:
    """The first ``count`` boxes with different cells; the whole image where there is no box."""
    places: dict[Rectangle, int] = {}
    for place, box in enumerate(boxes.tolist()):
        places.setdefault(_cells(box, image_size, map_size), place)
        if len(places) == count:
            break
    if not places:
        (height, width), (rows, columns) = image_size, map_size
        return Proposals(torch.tensor([[0.0, 0, width, height]]), torch.zeros(1), [Rectangle(0, 0, columns, rows)])
    kept = list(places.values())
    return Proposals(boxes[kept], scores[kept], list(places))


def _by_anchor(values: Tensor, size: int) -> Tensor:
    """(B, A·size, h, w) → (B, h·w·A, size), in the order of ProposalNetwork.anchors."""
    batch, channels, rows, columns = values.shape
    values = values.view(batch, channels // size, size, rows, columns)
    return values.permute(0, 3, 4, 1, 2).reshape(batch, -1, size)


def _cells(box: Sequence[float], image_size: Sequence[int], map_size: Sequence[int]) -> Rectangle:
    """The cells that the borders of a box round to, at least one."""
    (height, width), (rows, columns) = image_size, map_size
    x1 = min(int(box[0] / width * columns + 0.5), columns - 1)
    y1 = min(int(box[1] / height * rows + 0.5), rows - 1)
    x2, y2 = int(box[2] / width * columns + 0.5), int(box[3] / height * rows + 0.5)
    return Rectangle(x1, y1, max(1, min(x2, columns) - x1), max(1, min(y2, rows) - y1))


def pixel_boxes(regions: Sequence[Sequence[int]], map_size: Sequence[int],
                image_size: Sequence[int]) -> np.ndarray:
    """Turn regions of a feature map into boxes of the image.

    Args:
        regions: R regions in cells, each (x, y, side) or (x, y, width, height).
        map_size: (h, w) of the map, in cells.
        image_size: (H, W) of the image, in pixels.

    Returns:
        (R, 4) float64, (x1, y1, x2, y2) in pixels.
    """
    (rows, columns), (height, width) = map_size, image_size
    cells = np.array([as_rectangle(region) for region in regions], np.float64).reshape(-1, 4)
    corners = np.concatenate([cells[:, :2], cells[:, :2] + cells[:, 2:]], 1)
    return corners * np.array([width / columns, height / rows] * 2)


def move(anchors: Tensor, offsets: Tensor) -> Tensor:
    """Move and stretch anchors (n, 4) by offsets (n, 4), see ProposalNetwork.forward; the inverse of offsets_to."""
    size = anchors[:, 2:] - anchors[:, :2]
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2 + offsets[:, :2] * size
    half = size * offsets[:, 2:].clamp(max=_LARGEST_STRETCH).exp() / 2
    return torch.cat([centre - half, centre + half], 1)


def offsets_to(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Compute the offsets (n, 4) that move anchors (n, 4) to boxes (n, 4)."""
    size, target = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2 / size
    return torch.cat([shift, (target / size).log()], 1)


def assign(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Decide which anchors are positive and which are negative (Ren et al. 2015).

    Args:
        anchors: (n, 4).
        boxes: (m, 4), of landmarks; m may be 0.

    Returns:
        Labels (n,): 1 for a positive anchor (an IoU of at least POSITIVE with a box, or the largest of all anchors with
        some box), 0 for a negative one (an IoU under NEGATIVE with all boxes), -1 for those between; and (n,) the index
        of the box that each anchor overlaps most.
    """
    from torchvision.ops import box_iou

    labels = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    if not len(boxes):
        return torch.zeros_like(labels), torch.zeros_like(labels)
    overlap = box_iou(anchors, boxes)  # (n, m)
    most, owner = overlap.max(1)
    labels[most < NEGATIVE] = 0
    best = (overlap == overlap.max(0).values) & (overlap > 0)  # (n, m)
    rows, columns = best.nonzero(as_tuple=True)
    labels[rows], owner[rows] = 1, columns
    labels[most >= POSITIVE] = 1
    return labels, owner


class ProposalLoss(NamedTuple):
    """The two losses of a batch, summed over its images.

    Attributes:
        objectness: Log loss of the objectness, a scalar.
        boxes: Smooth L1 loss of the offsets of positive anchors, a scalar.
        positives: Number of positive anchors that were drawn.
    """

    objectness: Tensor
    boxes: Tensor
    positives: int


def proposal_loss(network: ProposalNetwork, features: Tensor, image_size: Sequence[int], boxes: Sequence[Tensor],
                  samples: int, random: np.random.Generator) -> ProposalLoss:
    """Compute the losses of the proposal network on a batch (Section 4.3).

    Args:
        network: With gradients.
        features: (B, C, h, w).
        image_size: (H, W) in pixels of the images that the maps come from.
        boxes: Of each image (m, 4) in its pixels, of landmarks; clipped to the image, left out where they lie outside.
            Without a box all anchors are negative.
        samples: Anchors that are drawn of an image, at most half of them positive. The losses of an image are divided
            by their number.
        random: Draws them.

    Returns:
        The losses.
    """
    objectness, offsets = network(features)
    anchors = network.anchors(features.shape[-2:], image_size)
    sums, positives = [], 0
    for scores, moves, landmarks in zip(_by_anchor(objectness, 1)[..., 0], _by_anchor(offsets, 4), boxes, strict=True):
        landmarks = usable_boxes(landmarks.to(anchors), image_size)
        labels, owner = assign(anchors, landmarks)
        positive = _drawn((labels == 1).nonzero()[:, 0], samples // 2, random)
        negative = _drawn((labels == 0).nonzero()[:, 0], samples - len(positive), random)
        drawn = torch.cat([positive, negative])
        targets = offsets_to(anchors[positive], landmarks[owner[positive]])
        losses = (functional.binary_cross_entropy_with_logits(scores[drawn], labels[drawn].to(scores),
                                                              reduction="sum"),
                  functional.smooth_l1_loss(moves[positive], targets, beta=_SMOOTH, reduction="sum"))
        sums.append(torch.stack(losses) / max(1, len(drawn)))
        positives += len(positive)
    of_objectness, of_boxes = torch.stack(sums).sum(0)
    return ProposalLoss(of_objectness, of_boxes, positives)


def usable_boxes(boxes: Tensor, image_size: Sequence[int]) -> Tensor:
    """Clip boxes (m, 4) to an image of (H, W) pixels; those with less than a pixel in it are left out."""
    from torchvision.ops import clip_boxes_to_image

    boxes = clip_boxes_to_image(boxes.reshape(-1, 4), tuple(image_size))
    return boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(1)]


def _drawn(indices: Tensor, count: int, random: np.random.Generator) -> Tensor:
    """At most ``count`` of the indices, drawn without replacement, in order."""
    if len(indices) <= count:
        return indices
    return indices[torch.from_numpy(np.sort(random.choice(len(indices), count, replace=False))).to(indices.device)]


def fit_anchors(boxes: Sequence[Box], sizes: Sequence[tuple[int, int]], count: int,
                seed: int = 0) -> tuple[tuple[float, float], ...]:
    """Fit anchor shapes to the boxes of a training list: the centres of a k-means of (log width, log height).

    Args:
        boxes: One of each image, in its pixels.
        sizes: (width, height) of the images.
        count: Number of shapes; fewer where fewer boxes differ.
        seed: Draws the first centres.

    Returns:
        (width, height) of each shape, as parts of the image's longer side, by rising area.

    Raises:
        InputError: No box overlaps its image.
    """
    from scipy.cluster.vq import kmeans2

    shapes: list[np.ndarray] = []
    for box, size in zip(boxes, sizes, strict=True):
        clipped = usable_boxes(torch.tensor([box], dtype=torch.float64), (size[1], size[0]))
        if len(clipped):
            shapes.append((clipped[0, 2:] - clipped[0, :2]).numpy() / max(size))
    if not shapes:
        raise InputError("anchors: expected boxes that overlap their images, got none")
    points = np.log(np.array(shapes))
    distinct = np.unique(points.round(6), axis=0)
    centres = distinct
    if len(distinct) > count:
        centres, _ = kmeans2(points, distinct[np.random.default_rng(seed).choice(len(distinct), count, replace=False)],
                             minit="matrix", iter=100, missing="warn")
    sides = [[max(_LEAST_SHAPE, round(float(side), 4)) for side in shape] for shape in np.exp(centres)]
    return tuple(sorted(((width, height) for width, height in sides), key=lambda shape: shape[0] * shape[1]))
