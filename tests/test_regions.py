"""The grid against independent references, and against what is published of other implementations."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rmaclib.regions import VARIANTS, Rectangle, Region, as_rectangle, pixel_grid, rigid_grid


def rational_reference(height, width, levels):
    """Every square spelled out in fractions, straight from the definition; counts tried one by one."""
    short, long = min(height, width), max(height, width)
    best, extra = None, 0
    if long > short:
        for count in range(2, 8):
            overlap = 1 - Fraction(long - short, count - 1) / short
            distance = abs(overlap - Fraction(2, 5))
            if best is None or distance < best:
                best, extra = distance, count - 1
    squares = []
    for level in range(1, levels + 1):
        side = math.floor(Fraction(2 * short, level + 1))
        if side == 0:
            continue
        columns = level + (extra if width > height else 0)
        rows = level + (extra if height > width else 0)
        for row in range(rows):
            y = math.floor(Fraction(height - side, rows - 1) * row) if rows > 1 else 0
            for column in range(columns):
                x = math.floor(Fraction(width - side, columns - 1) * column) if columns > 1 else 0
                squares.append((x, y, side))
    return squares


def floating_reference(height, width, levels, kind):
    """The usual formulas, rounding as they are commonly run: numbers (float64) or tensors (float32)."""
    short, long = min(height, width), max(height, width)
    counts = [float(n) for n in range(1, 7)] if kind is float else torch.arange(1, 7, dtype=torch.float32)
    number = float if kind is float else torch.tensor
    extra = 0
    if long > short:
        shifts = [(long - short) / n for n in counts] if kind is float else (long - short) / counts
        misses = [abs((short**2 - short * s) / short**2 - 0.4) for s in shifts]
        extra = misses.index(min(misses)) + 1
    squares = []
    for level in range(1, levels + 1):
        side = math.floor(2 * short / (level + 1))
        if side == 0:
            continue
        half = math.floor(side / 2 - 1)
        columns = level + (extra if width > height else 0)
        rows = level + (extra if height > width else 0)
        across = (width - side) / (columns - 1) if columns > 1 else 0
        down = (height - side) / (rows - 1) if rows > 1 else 0
        xs = [math.floor(half + number(float(k)) * across) - half for k in range(columns)]
        ys = [math.floor(half + number(float(k)) * down) - half for k in range(rows)]
        squares += [(x, y, side) for y in ys for x in xs]
    return squares


def test_exact_equals_rational_reference_on_all_maps_to_64():
    for height in range(1, 65):
        for width in range(1, 65):
            for levels in (1, 2, 3, 4):
                assert rigid_grid(height, width, levels) == rational_reference(height, width, levels), (height, width)


def test_float32_equals_tensor_arithmetic_on_all_maps_to_64():
    for height in range(1, 65):
        for width in range(1, 65):
            assert rigid_grid(height, width, 3, "float32") == floating_reference(height, width, 3, torch.float32)


def test_float32_and_float64_disagree_on_24_maps():
    """Published: 24 of the 2,080 maps with H ≤ W ≤ 64; counts at exact ties; positions off by one cell."""
    maps = [(height, width) for height in range(1, 65) for width in range(height, 65)]
    assert len(maps) == 2080
    double = {size: floating_reference(*size, 3, float) for size in maps}
    single = {size: rigid_grid(*size, 3, "float32") for size in maps}
    assert sum(double[size] != single[size] for size in maps) == 24
    for size in [(5, 9), (10, 18), (15, 27), (20, 36), (25, 45), (30, 54), (35, 63)]:
        assert (len(double[size]), len(single[size]), len(rigid_grid(*size))) == (26, 20, 20)
    assert (len(double[25, 61]), len(single[25, 61]), len(rigid_grid(25, 61))) == (26, 32, 26)
    assert (len(double[15, 55]), len(single[15, 55]), len(rigid_grid(15, 55))) == (44, 38, 38)
    for size in [(2, 32), (3, 63), (8, 36), (9, 35)]:
        assert len(double[size]) == len(single[size]) and double[size] != single[size]
        gaps = np.abs(np.array(double[size]) - np.array(single[size]))
        assert gaps.max() == 1


@pytest.mark.parametrize("size, count", [((14, 14), 14), ((14, 15), 20), ((24, 32), 20), ((18, 32), 20),
                                         ((12, 32), 32), ((8, 32), 44), ((5, 32), 50), ((1, 1), 1), ((1, 5), 7)])
def test_published_counts(size, count):
    assert len(rigid_grid(*size)) == count
    assert len(rigid_grid(*size[::-1])) == count
    assert len(rigid_grid(*size, 3, "global")) == count + 1


def test_worked_by_hand():
    # 3 × 4 cells: of 2..7 squares of side 3, shifts 1, 1/2, 1/3 … overlap 2/3 at best near 2/5: two squares.
    assert rigid_grid(3, 4, 1) == [Region(0, 0, 3), Region(1, 0, 3)]
    assert rigid_grid(3, 4, 2)[2:] == [Region(0, 0, 2), Region(1, 0, 2), Region(2, 0, 2),
                                       Region(0, 1, 2), Region(1, 1, 2), Region(2, 1, 2)]
    assert len(rigid_grid(24, 32, 2)) == 8 and len(rigid_grid(14, 14, 2)) == 5
    assert [len(rigid_grid(24, 32, levels)) for levels in (1, 2, 3)] == [2, 8, 20]
    assert rigid_grid(4, 6, 1, "global")[-1] == Rectangle(0, 0, 6, 4)
    assert rigid_grid(4, 4, 1, "global")[-1] == Region(0, 0, 4)


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 5), st.sampled_from(VARIANTS))
def test_grid_touches_all_borders_and_never_leaves(height, width, levels, variant):
    squares = [as_rectangle(region) for region in rigid_grid(height, width, levels, variant)]
    assert all(x >= 0 and y >= 0 and w >= 1 and h >= 1 and x + w <= width and y + h <= height
               for x, y, w, h in squares)
    assert min(x for x, *_ in squares) == 0 and min(y for _, y, *_ in squares) == 0
    assert max(x + w for x, _, w, _ in squares) == width and max(y + h for _, y, _, h in squares) == height


@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 4))
def test_turning_the_map_turns_the_grid(height, width, levels):
    turned = {(y, x, side) for x, y, side in rigid_grid(width, height, levels)}
    assert turned == set(rigid_grid(height, width, levels))


def test_pixel_grid_differs_from_map_grid_as_published():
    """600×800 pixels, L = 2: one of the eight boxes is the same as on the 19×25 map."""
    pixels, cells = pixel_grid(600, 800, 2, 32), [as_rectangle(r) for r in rigid_grid(19, 25, 2)]
    assert len(pixels) == len(cells) == 8
    assert sum(a == b for a, b in zip(pixels, cells, strict=True)) == 1


def test_pixel_grid_by_hand():
    # 64×96 pixels at stride 32: squares of 64 pixels from x = 0 and 32; last pixels 63 and 95 round to cells
    # 2 (= 1.97) and 3 (= 2.97, cut at the border of the 3-cell map): 3 columns from 0, 2 from 1; 2 rows.
    assert pixel_grid(64, 96, 1, 32) == [Rectangle(0, 0, 3, 2), Rectangle(1, 0, 2, 2)]


@given(st.integers(1, 1500), st.integers(1, 1500), st.integers(1, 4), st.sampled_from([8, 16, 32]))
def test_pixel_grid_stays_inside(height, width, levels, stride):
    rows, columns = math.ceil(height / stride), math.ceil(width / stride)
    for x, y, w, h in pixel_grid(height, width, levels, stride):
        assert 0 <= x < x + w <= columns and 0 <= y < y + h <= rows


@pytest.mark.parametrize("arguments, message", [((0, 5), "at least 1×1"), ((5, 5, 0), "levels"),
                                                ((5, 5, 3, "exakt"), "variant")])
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        rigid_grid(*arguments)
    with pytest.raises(ValueError, match="stride"):
        pixel_grid(5, 5, 1, 0)
