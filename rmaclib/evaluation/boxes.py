"""Recall of proposed boxes: how many objects they overlap (Section 4.3)."""

from collections.abc import Sequence

import numpy as np

from rmaclib.boxes import Box, overlaps


def best_overlaps(found: Sequence[np.ndarray], boxes: Sequence[Box], count: int) -> np.ndarray:
    """How much the nearest of the first `count` boxes of each image overlaps its object (IoU); (N,) float64, 0 without
    boxes. Arguments as of object_recall."""
    return np.array([overlaps(proposed[:count], box).max(initial=0)
                     for proposed, box in zip(found, boxes, strict=True)])


def object_recall(found: Sequence[np.ndarray], boxes: Sequence[Box], iou: float, count: int) -> float:
    """Share of the objects that one of the first `count` boxes of their image overlaps by at least `iou`.

    found: (n, 4) of each image, likeliest first; boxes: of each image's object
    returns 0..1, NaN without an image
    """
    best = best_overlaps(found, boxes, count)
    return float((best >= iou).mean()) if len(best) else float("nan")
