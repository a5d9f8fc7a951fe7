"""Learned regions (Section 4.3): a small network on the feature map that proposes where a landmark is.

At every cell of the map stand boxes of fixed shapes, the anchors. A 3×3 convolution and two 1×1 convolutions say of
each how likely it holds the landmark (objectness), and how to move and stretch it (Ren et al. 2015). Boxes are pixels
of the image that the network was given; anchors are parts of its longer side, so that one network serves every size.

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
OVERLAP = 0.7  # of two proposals, the less likely one goes when they overlap more (IoU)
CANDIDATES = 2000  # most likely boxes that are compared with each other
# An anchor is the landmark from the first, something else below the second overlap with its box. With Ren et al.'s
# 0.7 a box of our size on a map of 10×8 cells has one such anchor, with 0.5 nine: more to learn from.
POSITIVE, NEGATIVE = 0.5, 0.3
_LARGEST_STRETCH = float(np.log(1000 / 16))  # of an anchor, so that exp stays finite
_LEAST_SHAPE = 1e-4  # of an anchor, as a part of the longer side
_SMOOTH = 1 / 9  # where the box loss turns from square to linear


class Proposals(NamedTuple):
    """Proposals of one image, the most likely first.

    boxes: (n, 4) float32, (x1, y1, x2, y2) in pixels of the image given to the network, inside it
    scores: (n,) float32, 0..1; regions: n rectangles of the feature map, no two the same
    """

    boxes: Tensor
    scores: Tensor
    regions: list[Rectangle]


class ProposalNetwork(nn.Module):
    """Objectness and offsets of every anchor at every cell (Section 4.3).

    channels: of the feature map; anchors: see fit_anchors; hidden: channels of the 3×3 convolution
    """

    def __init__(self, channels: int, anchors: Anchors, hidden: int, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.hidden = nn.Conv2d(channels, hidden, 3, padding=1)
            self.objectness = nn.Conv2d(hidden, len(anchors), 1)
            self.offsets = nn.Conv2d(hidden, 4 * len(anchors), 1)
            for layer in (self.hidden, self.objectness, self.offsets):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)
        self.register_buffer("shapes", torch.tensor(anchors, dtype=torch.float32), persistent=False)  # (A, 2)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """features: (B, C, h, w); returns objectness (B, A, h, w), before the sigmoid, and offsets (B, 4A, h, w):
        of each anchor, how far its centre moves (in its width and height) and the logarithm of its stretch."""
        # Maps of a few cells: the convolution is fastest on plain (B, C, h, w), whatever the backbone's layout.
        hidden = functional.relu(self.hidden(features.contiguous()))
        return self.objectness(hidden), self.offsets(hidden)

    def anchors(self, map_size: tuple[int, int], image_size: tuple[int, int]) -> Tensor:
        """Boxes (h·w·A, 4) of the anchors on a map of (h, w) cells of an image of (H, W) pixels, row by row."""
        (rows, columns), (height, width) = map_size, image_size
        like = self.shapes
        y = (torch.arange(rows, device=like.device) + 0.5) * (height / rows)
        x = (torch.arange(columns, device=like.device) + 0.5) * (width / columns)
        centres = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 1, 2).to(like)  # (h·w, 1, 2)
        half = like * (max(height, width) / 2)  # (A, 2)
        return torch.cat([centres - half, centres + half], -1).reshape(-1, 4)

    @torch.no_grad()
    def propose(self, features: Tensor, image_size: tuple[int, int], count: int) -> list[Proposals]:
        """The `count` most likely boxes of each image, or as many as differ.

        features: (B, C, h, w) of images of image_size (H, W) pixels; returns B Proposals
        A box that overlaps a likelier one by more than OVERLAP, or whose cells are those of a likelier one, is left
        out. A box is its cells when its borders are rounded to theirs, one cell at least. Where nothing can be proposed
        (a network that is not finite), the whole image is.
        """
        from torchvision.ops import clip_boxes_to_image, nms

        (height, width), (rows, columns) = image_size, features.shape[-2:]
        # Never in half precision: near-equal boxes would change places.
        with torch.autocast(features.device.type, enabled=False):
            objectness, offsets = self(features.to(self.hidden.weight.dtype))
        anchors = self.anchors((rows, columns), image_size)
        found = []
        for scores, moves in zip(_by_anchor(objectness, 1).sigmoid()[..., 0], _by_anchor(offsets, 4), strict=True):
            boxes = clip_boxes_to_image(move(anchors, moves), image_size)
            usable = torch.isfinite(boxes).all(1) & torch.isfinite(scores) & (boxes[:, 2:] - boxes[:, :2] >= 1).all(1)
            boxes, scores = boxes[usable], scores[usable]
            scores, order = scores.sort(descending=True, stable=True)
            boxes, scores = boxes[order[:CANDIDATES]], scores[:CANDIDATES]
            kept = nms(boxes, scores, OVERLAP)
            boxes, scores = boxes[kept].cpu(), scores[kept].cpu()
            cells: dict[Rectangle, int] = {}
            for place, box in enumerate(boxes.tolist()):
                cells.setdefault(_cells(box, (height, width), (rows, columns)), place)
                if len(cells) == count:
                    break
            if not cells:
                found.append(Proposals(torch.tensor([[0.0, 0, width, height]]), torch.zeros(1),
                                       [Rectangle(0, 0, columns, rows)]))
                continue
            places = list(cells.values())
            found.append(Proposals(boxes[places], scores[places], list(cells)))
        return found


def _by_anchor(values: Tensor, numbers: int) -> Tensor:
    """(B, A·numbers, h, w) → (B, h·w·A, numbers), in the order of ProposalNetwork.anchors."""
    batch, channels, rows, columns = values.shape
    values = values.view(batch, channels // numbers, numbers, rows, columns)
    return values.permute(0, 3, 4, 1, 2).reshape(batch, -1, numbers)


def _cells(box: Sequence[float], image_size: tuple[int, int], map_size: tuple[int, int]) -> Rectangle:
    (height, width), (rows, columns) = image_size, map_size
    x1 = min(int(box[0] / width * columns + 0.5), columns - 1)
    y1 = min(int(box[1] / height * rows + 0.5), rows - 1)
    x2, y2 = int(box[2] / width * columns + 0.5), int(box[3] / height * rows + 0.5)
    return Rectangle(x1, y1, max(1, min(x2, columns) - x1), max(1, min(y2, rows) - y1))


def pixel_boxes(regions: Sequence[Sequence[int]], map_size: tuple[int, int],
                image_size: tuple[int, int]) -> np.ndarray:
    """Regions of a map of (rows, columns) cells as boxes in pixels of an image of (H, W): (R, 4) float64."""
    (rows, columns), (height, width) = map_size, image_size
    cells = np.array([as_rectangle(region) for region in regions], np.float64).reshape(-1, 4)
    corners = np.concatenate([cells[:, :2], cells[:, :2] + cells[:, 2:]], 1)
    return corners * np.array([width / columns, height / rows] * 2)


def move(anchors: Tensor, offsets: Tensor) -> Tensor:
    """Anchors (n, 4) moved and stretched by offsets (n, 4), see ProposalNetwork.forward; inverse of offsets_to."""
    size = anchors[:, 2:] - anchors[:, :2]
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2 + offsets[:, :2] * size
    half = size * offsets[:, 2:].clamp(max=_LARGEST_STRETCH).exp() / 2
    return torch.cat([centre - half, centre + half], 1)


def offsets_to(anchors: Tensor, boxes: Tensor) -> Tensor:
    """Offsets (n, 4) that move anchors (n, 4) to boxes (n, 4)."""
    size, wanted = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    shift = (boxes[:, :2] + boxes[:, 2:] - anchors[:, :2] - anchors[:, 2:]) / 2 / size
    return torch.cat([shift, (wanted / size).log()], 1)


def assign(anchors: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Which anchors are a landmark (Ren et al. 2015).

    anchors: (n, 4), boxes: (m, 4), m may be 0
    returns (n,) 1 for a landmark (IoU of POSITIVE with a box, or the best of all anchors for a box), 0 for
    something else (under NEGATIVE with all), -1 for neither; and (n,) the box that each overlaps most
    """
    from torchvision.ops import box_iou

    if not len(boxes):
        return torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device), \
            torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
    overlap = box_iou(anchors, boxes)  # (n, m)
    most, owner = overlap.max(1)
    labels = torch.full((len(anchors),), -1, dtype=torch.int64, device=anchors.device)
    labels[most < NEGATIVE] = 0
    best = (overlap == overlap.max(0).values) & (overlap > 0)  # (n, m)
    rows, columns = best.nonzero(as_tuple=True)
    labels[rows], owner[rows] = 1, columns
    labels[most >= POSITIVE] = 1
    return labels, owner


class ProposalLoss(NamedTuple):
    """Scalars, summed over images: log loss of the objectness, smooth L1 loss of the offsets; anchors that were
    positive."""

    objectness: Tensor
    boxes: Tensor
    positives: int


def proposal_loss(network: ProposalNetwork, features: Tensor, image_size: tuple[int, int], boxes: Sequence[Tensor],
                  samples: int, random: np.random.Generator) -> ProposalLoss:
    """The two losses (Section 4.3).

    features: (B, C, h, w) of images of image_size (H, W); boxes: of each image (m, 4) in its pixels, of the landmark
    samples: anchors of an image that count, at most half of them positive, drawn at random; its losses are divided
      by their number. Without a box all are something else. Boxes are clipped to the image, one outside of it is
      left out.
    """
    objectness, offsets = network(features)
    anchors = network.anchors(features.shape[-2:], image_size)
    sums, positives = [], 0
    for scores, moves, some in zip(_by_anchor(objectness, 1)[..., 0], _by_anchor(offsets, 4), boxes, strict=True):
        some = usable_boxes(some.to(anchors), image_size)
        labels, owner = assign(anchors, some)
        positive = _drawn((labels == 1).nonzero()[:, 0], samples // 2, random)
        negative = _drawn((labels == 0).nonzero()[:, 0], samples - len(positive), random)
        chosen = torch.cat([positive, negative])
        wanted = offsets_to(anchors[positive], some[owner[positive]])
        losses = (functional.binary_cross_entropy_with_logits(scores[chosen], labels[chosen].to(scores),
                                                              reduction="sum"),
                  functional.smooth_l1_loss(moves[positive], wanted, beta=_SMOOTH, reduction="sum"))
        sums.append(torch.stack(losses) / max(1, len(chosen)))
        positives += len(positive)
    return ProposalLoss(*torch.stack(sums).sum(0), positives)


def usable_boxes(boxes: Tensor, image_size: tuple[int, int]) -> Tensor:
    """(m, 4) boxes clipped to an image of (H, W) pixels, without those of which less than a pixel is in it."""
    from torchvision.ops import clip_boxes_to_image

    boxes = clip_boxes_to_image(boxes.reshape(-1, 4), image_size)
    return boxes[(boxes[:, 2:] - boxes[:, :2] >= 1).all(1)]


def _drawn(indices: Tensor, count: int, random: np.random.Generator) -> Tensor:
    if len(indices) <= count:
        return indices
    return indices[torch.from_numpy(np.sort(random.choice(len(indices), count, replace=False))).to(indices.device)]


def fit_anchors(boxes: Sequence[Box], sizes: Sequence[tuple[int, int]], count: int,
                seed: int = 0) -> tuple[tuple[float, float], ...]:
    """`count` anchor shapes that stand for the boxes of a training list, or as many as differ: the centres of a k-means
    of (log width, log height).

    boxes: one of each image; sizes: (width, height) of the images; returns (width, height), as parts of the
    longer side, by rising area
    raises InputError without a box that overlaps its image
    """
    from scipy.cluster.vq import kmeans2

    shapes = []
    for box, size in zip(boxes, sizes, strict=True):
        clipped = usable_boxes(torch.tensor([box], dtype=torch.float64), (size[1], size[0]))
        if len(clipped):
            shapes.append((clipped[0, 2:] - clipped[0, :2]).numpy() / max(size))
    if not shapes:
        raise InputError("anchors: expected boxes that lie in their images, found none")
    points = np.log(np.array(shapes))
    distinct = np.unique(points.round(6), axis=0)
    centres = distinct
    if len(distinct) > count:
        centres, _ = kmeans2(points, distinct[np.random.default_rng(seed).choice(len(distinct), count, replace=False)],
                             minit="matrix", iter=100, missing="warn")
    sides = [[max(_LEAST_SHAPE, round(float(side), 4)) for side in shape] for shape in np.exp(centres)]
    return tuple(sorted(((width, height) for width, height in sides), key=lambda shape: shape[0] * shape[1]))
