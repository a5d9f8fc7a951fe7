"""The rigid grid of R-MAC (Section 4.1): which squares of a feature map are pooled.

Tolias, Sicre and Jégou (2016) cover the map with squares at several levels. With w the shorter side, the
squares of level l have side floor(2w / (l + 1)), and l of them stand along the shorter side. Along the longer
side stand `extra` more, chosen once: of 2 to 7 squares of side w, the count whose neighbours overlap most
nearly by 40 %. Published implementations differ in details that move regions; each is a variant here.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from rmaclib.foundation.errors import InputError

VARIANTS = ("exact", "float32", "global")
_OVERLAP = Fraction(2, 5)
_STEPS = range(2, 8)  # squares along the longer side that are tried


class Region(NamedTuple):
    """A square of a feature map, in cells: left column, top row, side."""

    x: int
    y: int
    side: int


class Rectangle(NamedTuple):
    """A rectangle of a feature map, in cells: left column, top row, width, height."""

    x: int
    y: int
    width: int
    height: int


def as_rectangle(region: Sequence[int]) -> Rectangle:
    """A Region (x, y, side) or a Rectangle (x, y, width, height), as a Rectangle."""
    x, y, *size = region
    return Rectangle(x, y, size[0], size[-1])


def rigid_grid(height: int, width: int, levels: int = 3, variant: str = "exact") -> list[Region]:
    """Squares of R-MAC's rigid grid on a height × width feature map (Section 4.1), in cells, level by level.

    variant
      "exact"    all in rational arithmetic, so that a tie between two counts is a tie: the smaller count wins
      "float32"  the same formulas rounded to float32 where a widely used PyTorch implementation rounds:
                 other regions where a tie or a whole number is missed by a rounding error
      "global"   "exact", and the whole map as one more region, last; it is a Rectangle where it isn't square
    A level whose side would be under one cell is left out (thin maps); level 1 always exists.
    raises ValueError: a side under 1; InputError: a level under 1, an unknown variant
    """
    _check(height, width, levels)
    if variant not in VARIANTS:
        raise InputError(f"variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    if variant == "float32":
        extra, starts = _extra_float32(height, width), _starts_float32
    else:
        extra, starts = _extra(height, width), _starts
    regions = [Region(x, y, side) for side, xs, ys in _squares(height, width, levels, extra, starts)
               for y in ys for x in xs]
    if variant == "global":
        regions.append(Region(0, 0, width) if width == height else Rectangle(0, 0, width, height))
    return regions


def pixel_grid(height: int, width: int, levels: int, stride: int) -> list[Rectangle]:
    """The grid of the authors' 2016 release: laid out in pixels of the image, then pooled on the feature map.

    height, width: of the image, in pixels; stride: pixels per cell of the feature map
    returns rectangles in cells of the ceil(height / stride) × ceil(width / stride) map. As ROI pooling does,
    the first and the last pixel of a square are divided by the stride and rounded to a cell (half away from
    zero), both cells included: a square of pixels needn't be a square of cells.
    raises ValueError: a side or stride under 1; InputError: a level under 1
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
    """Squares to add along the longer side (0 on a square map), exactly; of two equally good, the fewer."""
    shorter, longer = sorted((height, width))
    if shorter == longer:
        return 0

    def miss(count: int) -> Fraction:
        shift = Fraction(longer - shorter, count - 1)
        return abs((shorter - shift) / shorter - _OVERLAP)

    return min(_STEPS, key=miss) - 1


def _extra_float32(height: int, width: int) -> int:
    shorter, longer = sorted((height, width))
    if shorter == longer:
        return 0
    one, area = np.float32, np.float32(shorter**2)
    # PyTorch divides a number by a tensor as number × reciprocal, each rounded: that decides the tie on 11×47.
    shift = one(longer - shorter) * (one(1) / (np.array(_STEPS, dtype=np.float32) - one(1)))
    overlap = (area - one(shorter) * shift) / area
    return int(np.argmin(np.abs(overlap - one(0.4)))) + 1


def _squares(height: int, width: int, levels: int, extra: int, starts):
    """Yields (side, left columns, top rows) of each level."""
    for level in range(1, levels + 1):
        side = 2 * min(height, width) // (level + 1)
        if side < 1:
            return
        across = level + (extra if width > height else 0)
        down = level + (extra if height > width else 0)
        yield side, starts(width, side, across), starts(height, side, down)


def _starts(length: int, side: int, count: int) -> list[int]:
    """First cells of `count` intervals of `side` cells, evenly spread from border to border, rounded down."""
    return [k * (length - side) // (count - 1) for k in range(count)] if count > 1 else [0]


def _starts_float32(length: int, side: int, count: int) -> list[int]:
    # The offset is added before rounding down and taken off after it: it is a whole number, so it changes
    # nothing but the float32 rounding, and that is the point of this variant.
    offset = side // 2 - 1
    shift = np.float32((length - side) / (count - 1)) if count > 1 else np.float32(0)
    return [int(np.floor(np.float32(offset) + np.float32(k) * shift)) - offset for k in range(count)]


def _cells(start: int, side: int, stride: int, limit: int) -> tuple[int, int]:
    """(first cell, number of cells) of `side` pixels from `start`, as ROI pooling rounds them."""
    first = min(_round_half_up(start, stride), limit - 1)
    last = min(_round_half_up(start + side - 1, stride), limit - 1)
    return first, last - first + 1


def _round_half_up(pixels: int, stride: int) -> int:
    return (2 * pixels + stride) // (2 * stride)
