"""The rigid grid of R-MAC (Section 4.1): which squares of a feature map are pooled.

Tolias, Sicre and Jégou (2016) cover the map with squares at several levels. Let w be the shorter side of the map. The
squares of level l have side floor(2w / (l + 1)). There are l of them along the shorter side and l + ``extra`` along the
longer side. ``extra`` is the same for all levels: of 2 to 7 squares of side w along the longer side, the count is
chosen whose neighbours overlap most nearly by 40 % (``OVERLAP``), and ``extra`` is this count less 1.

Published implementations differ in details that move regions. Each is a variant here.
"""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import one_of

VARIANTS = ("exact", "float32", "global")
OVERLAP = Fraction(40, 100)  # the overlap of neighbouring squares that the grid aims at, as a share of their side
COUNTS = range(2, 8)  # numbers of squares along the longer side that are tried
Starts = Callable[[int, int, int], list[int]]  # (length, side, count) → first cells of the squares along a side


class Region(NamedTuple):
    """A square of a feature map.

    Attributes:
        x: Left column.
        y: Top row.
        side: Its side, in cells.
    """

    x: int
    y: int
    side: int


class Rectangle(NamedTuple):
    """A rectangle of a feature map.

    Attributes:
        x: Left column.
        y: Top row.
        width: In cells.
        height: In cells.
    """

    x: int
    y: int
    width: int
    height: int


def as_rectangle(region: Sequence[int]) -> Rectangle:
    """Convert a Region (x, y, side) to a Rectangle; a Rectangle (x, y, width, height) stays as it is."""
    x, y, *size = region
    return Rectangle(x, y, size[0], size[-1])


def rigid_grid(height: int, width: int, levels: int = 3, variant: str = "exact") -> list[Region | Rectangle]:
    """Lay out the squares of R-MAC's rigid grid on a feature map (Section 4.1).

    Args:
        height: Rows of the map.
        width: Columns of the map.
        levels: Number of levels L. A level whose squares would be smaller than a cell is left out (thin maps).
        variant: ``"exact"`` computes with fractions, so that a tie between two counts is a tie: the smaller one is
            taken. ``"float32"`` rounds to float32 where a widely used PyTorch implementation does: it gives other
            regions where rounding breaks a tie or misses a whole number. ``"global"`` is ``"exact"`` with the whole
            map as one more region, the last, which is a Rectangle where the map isn't square.

    Returns:
        The regions in cells, level by level.

    Raises:
        ValueError: A side of the map is under 1.
        InputError: ``levels`` is under 1, or an unknown variant.
    """
    _check(height, width, levels)
    one_of("variant", variant, VARIANTS)
    starts: Starts
    if variant == "float32":
        extra, starts = _extra_float32(height, width), _starts_float32
    else:
        extra, starts = _extra(height, width), _starts
    regions: list[Region | Rectangle] = [
        Region(x, y, side) for side, xs, ys in _squares(height, width, levels, extra, starts) for y in ys for x in xs]
    if variant == "global":
        regions.append(Region(0, 0, width) if width == height else Rectangle(0, 0, width, height))
    return regions


def pixel_grid(height: int, width: int, levels: int, stride: int) -> list[Rectangle]:
    """Lay out the grid of the authors' 2016 release: in pixels of the image, then rounded to cells of the feature map.

    As in ROI pooling, the first and the last pixel of a square are divided by the stride and rounded to a cell (half
    away from zero), and both cells belong to the region. A square of pixels may become a rectangle of cells.

    Args:
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        levels: Number of levels L.
        stride: Pixels per cell of the feature map.

    Returns:
        The regions in cells of the ceil(height / stride) × ceil(width / stride) map, level by level.

    Raises:
        ValueError: A side or the stride is under 1.
        InputError: ``levels`` is under 1.
    """
    _check(height, width, levels)
    if stride < 1:
        raise ValueError(f"stride: expected at least 1 pixel, got {stride}")
    columns, rows = -(-width // stride), -(-height // stride)
    rectangles = []
    for side, xs, ys in _squares(height, width, levels, _extra(height, width), _starts):
        for y in ys:
            top, down = _cells(y, side, stride, rows)
            for x in xs:
                left, across = _cells(x, side, stride, columns)
                rectangles.append(Rectangle(left, top, across, down))
    return rectangles


def _check(height: int, width: int, levels: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"map: expected at least 1×1, got {height}×{width} (height × width)")
    if levels < 1:
        raise InputError(f"levels: expected at least 1, got {levels}")


def _extra(height: int, width: int) -> int:
    """How many squares more than l stand along the longer side: 0 on a square map; of two best counts the smaller."""
    shorter, longer = sorted((height, width))
    if shorter == longer:
        return 0

    def miss(count: int) -> Fraction:
        shift = Fraction(longer - shorter, count - 1)  # from one square of side w to the next
        return abs((shorter - shift) / shorter - OVERLAP)

    return min(COUNTS, key=miss) - 1


def _extra_float32(height: int, width: int) -> int:
    """As _extra, with each step rounded to float32."""
    shorter, longer = sorted((height, width))
    if shorter == longer:
        return 0
    single, area = np.float32, np.float32(shorter**2)
    # PyTorch divides a number by a tensor as number × reciprocal, each rounded: that decides the tie on 11×47.
    shift = single(longer - shorter) * (single(1) / (np.array(COUNTS, dtype=np.float32) - single(1)))
    overlap = (area - single(shorter) * shift) / area
    return int(np.argmin(np.abs(overlap - single(OVERLAP)))) + 1


def _squares(height: int, width: int, levels: int, extra: int,
             starts: Starts) -> Iterator[tuple[int, list[int], list[int]]]:
    """(side, left columns, top rows) of each level."""
    for level in range(1, levels + 1):
        side = 2 * min(height, width) // (level + 1)
        if side < 1:
            return
        across = level + (extra if width > height else 0)
        down = level + (extra if height > width else 0)
        yield side, starts(width, side, across), starts(height, side, down)


def _starts(length: int, side: int, count: int) -> list[int]:
    """First cells of ``count`` intervals of ``side`` cells, evenly spread from border to border, rounded down."""
    return [k * (length - side) // (count - 1) for k in range(count)] if count > 1 else [0]


def _starts_float32(length: int, side: int, count: int) -> list[int]:
    """As _starts, rounded to float32."""
    # The offset is a whole number, added before rounding down and subtracted after it. It changes only the rounding to
    # float32, which this variant has to repeat.
    offset = side // 2 - 1
    shift = np.float32((length - side) / (count - 1)) if count > 1 else np.float32(0)
    return [int(np.floor(np.float32(offset) + np.float32(k) * shift)) - offset for k in range(count)]


def _cells(start: int, side: int, stride: int, limit: int) -> tuple[int, int]:
    """(first cell, number of cells) of ``side`` pixels from ``start``, as ROI pooling rounds them."""
    first = min(_round_half_up(start, stride), limit - 1)
    last = min(_round_half_up(start + side - 1, stride), limit - 1)
    return first, last - first + 1


def _round_half_up(pixels: int, stride: int) -> int:
    return (2 * pixels + stride) // (2 * stride)
