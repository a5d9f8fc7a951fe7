"""Boxes, and how much two of them overlap."""

import numpy as np

# (x1, y1, x2, y2) in pixels of the original image, x2 and y2 exclusive.
Box = tuple[float, float, float, float]


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each of N boxes with each of M others.

    boxes: (N, 4), others: (M, 4), both (x1, y1, x2, y2); returns (N, M) float64, 0..1, 0 with an empty box
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 1, 4)
    others = np.asarray(others, np.float64).reshape(1, -1, 4)
    shared = (np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])).clip(min=0)
    intersection = shared.prod(-1)  # (N, M)
    areas = [(group[..., 2:] - group[..., :2]).clip(min=0).prod(-1) for group in (boxes, others)]
    union = areas[0] + areas[1] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
