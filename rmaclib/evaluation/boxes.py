"""Recall of proposed boxes: how many objects they overlap (Section 4.3)."""

from collections.abc import Sequence

import numpy as np

from rmaclib.boxes import Box, overlaps


def best_overlaps(proposals: Sequence[np.ndarray], boxes: Sequence[Box], count: int) -> np.ndarray:
    """Largest overlap of each image's object with one of its first proposals.

    Args:
        proposals: (n, 4) boxes of each of N images, likeliest first.
        boxes: The object's box in each image.
        count: Proposals of an image that count.

    Returns:
        (N,) float64, intersection over union, 0 for an image without proposals.
    """
    return np.array([overlaps(proposed[:count], np.array(box)).max(initial=0)
                     for proposed, box in zip(proposals, boxes, strict=True)])


def object_recall(proposals: Sequence[np.ndarray], boxes: Sequence[Box], iou: float, count: int) -> float:
    """Share of the objects that one of the first proposals of their image overlaps enough.

    Args:
        proposals: (n, 4) boxes of each image, likeliest first.
        boxes: The object's box in each image.
        iou: Least intersection over union.
        count: Proposals of an image that count.

    Returns:
        0..1, NaN without an image.
    """
    best = best_overlaps(proposals, boxes, count)
    return float((best >= iou).mean()) if len(best) else float("nan")
