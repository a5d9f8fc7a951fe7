"""Descriptors of several resolutions combined into one (Section 4.4)."""

from collections.abc import Sequence

import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import whole_number
from rmaclib.ranking import normalise_rows

RATIOS = (11 / 16, 1, 21 / 16)  # the paper's longer sides 550, 800 and 1050 against its single 800


def resolutions(size: int) -> tuple[int, ...]:
    """Compute the longer sides in the paper's ratio to a single one.

    >>> resolutions(800)
    (550, 800, 1050)

    Args:
        size: Longer side in pixels.

    Returns:
        Three longer sides in pixels, rising.

    Raises:
        InputError: No whole number, or one under 1.
    """
    whole_number("size", size, 1)
    return tuple(round(size * ratio) for ratio in RATIOS)


def combine(vectors: Sequence[np.ndarray], power: float = 1.0) -> np.ndarray:
    """Combine the descriptors of several resolutions into one.

    Args:
        vectors: For each resolution (N, D), rows ℓ2-normalised.
        power: 1 sums them, as the paper does, and ``extract`` with several sizes. Another p takes (mean of v^p)^(1/p)
            in each dimension, as later work does; no value may be negative then.

    Returns:
        (N, D) float32, rows ℓ2-normalised.

    Raises:
        InputError: No arrays, arrays of different shapes, a power that is not above 0, negative values with a power
            other than 1.
    """
    shapes = {array.shape for array in vectors}
    if len(shapes) != 1:
        raise InputError(f"vectors: expected arrays of one shape (N, D), got {sorted(shapes)}")
    if not power > 0:
        raise InputError(f"power: expected more than 0, got {power}")
    if power == 1:
        return normalise_rows(sum(vectors[1:], vectors[0]))
    if min(array.min(initial=0) for array in vectors) < 0:
        raise InputError(f"vectors: expected no negative values with power {power}")
    return normalise_rows((sum(array.astype(np.float64)**power for array in vectors) / len(vectors))**(1 / power))
