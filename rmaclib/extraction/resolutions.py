"""Descriptors of several resolutions made one (Section 4.4)."""

from collections.abc import Sequence

import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import whole_number
from rmaclib.ranking import normalise_rows

RATIOS = (11 / 16, 1, 21 / 16)  # the paper's longer sides 550, 800 and 1050 against its single 800


def resolutions(size: int) -> tuple[int, ...]:
    """Longer sides in the paper's ratio to `size`: 800 gives 550, 800 and 1050."""
    whole_number("size", size, 1)
    return tuple(round(size * ratio) for ratio in RATIOS)


def combine(vectors: Sequence[np.ndarray], power: float = 1.0) -> np.ndarray:
    """One descriptor from those of several resolutions.

    vectors: an (N, D) array for each resolution, rows of unit length
    power: 1 sums them, the paper's way, as extract() does with several sizes; p takes (mean of v^p)^(1/p) for each
      number, as later work does, and asks for numbers that are not negative
    returns (N, D) float32, of unit length
    raises InputError: arrays of different shapes or none, power not above 0, negative numbers with a power
    """
    shapes = {array.shape for array in vectors}
    if len(shapes) != 1:
        raise InputError(f"vectors: expected arrays of one shape (N, D), got {sorted(shapes)}")
    if not power > 0:
        raise InputError(f"power: expected more than 0, got {power}")
    if power == 1:
        return normalise_rows(sum(vectors[1:], vectors[0]))
    if min(array.min(initial=0) for array in vectors) < 0:
        raise InputError(f"vectors: expected no negative numbers with power {power}, found some")
    return normalise_rows((sum(array.astype(np.float64)**power for array in vectors) / len(vectors))**(1 / power))
