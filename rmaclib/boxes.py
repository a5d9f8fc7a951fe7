"""Boxes in images: the type, the check of its values, and the intersection over union of two sets of boxes."""

import math
from collections.abc import Iterable

import numpy as np

from rmaclib.foundation.errors import InputError

# (x1, y1, x2, y2) in pixels of the original image, x2 and y2 exclusive.
Box = tuple[float, float, float, float]


def check_box(numbers: Iterable[float | str]) -> Box:
    """Convert four numbers, as they are or as written in a file, to a box.

    Args:
        numbers: x1, y1, x2, y2.

    Returns:
        The box: four finite numbers with x1 < x2 and y1 < y2.

    Raises:
        InputError: Not four numbers, a number that isn't finite, or an empty box.
    """
    try:
        x1, y1, x2, y2 = box = tuple(float(number) for number in numbers)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"box: expected four numbers x1, y1, x2, y2 ({error})") from error
    if not all(map(math.isfinite, box)) or x1 >= x2 or y1 >= y2:
        raise InputError(f"box {box} (x1, y1, x2, y2): expected finite numbers with x1 < x2 and y1 < y2")
    return x1, y1, x2, y2


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the intersection over union of each of N boxes with each of M others.

    Args:
        boxes: (N, 4), each x1, y1, x2, y2.
        others: (M, 4), alike.

    Returns:
        (N, M) float64 in 0..1; 0 with an empty box.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 1, 4)
    others = np.asarray(others, np.float64).reshape(1, -1, 4)
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])  # (N, M, 2)
    intersection = sides.clip(min=0).prod(-1)  # (N, M)
    areas = [(group[..., 2:] - group[..., :2]).clip(min=0).prod(-1) for group in (boxes, others)]
    union = areas[0] + areas[1] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
