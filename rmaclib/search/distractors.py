"""Synthetic distractors: many descriptors made from few, to measure an index larger than any collection at hand."""

from collections.abc import Iterator

import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.ranking import normalise_rows

# Range of the part of a difference that is added. It gives cosines of 0.92 to 0.58 to the original, as between
# photographs of one building. Nearer ones would be near-duplicates, of which no collection contains hundreds.
WEAKEST, STRONGEST = 0.3, 1.0


def synthetic_distractors(vectors: np.ndarray, count: int, seed: int = 0, rows: int = 16384) -> Iterator[np.ndarray]:
    """Make descriptors that are distributed like real ones.

    Each is a + s (b - c), ℓ2-normalised: a, b and c are drawn from the real descriptors, s evenly from
    ``WEAKEST``..``STRONGEST``. So there are near and far ones around each real descriptor, in directions in which real
    descriptors differ. The same arguments give the same blocks.

    Args:
        vectors: (N, D) real descriptors, N at least 3.
        count: How many to make.
        seed: Of the random draws.
        rows: Descriptors per block.

    Yields:
        (n, D) float32 blocks with n at most ``rows``.

    Raises:
        InputError: Fewer than 3 vectors, or a negative count.
    """
    if len(vectors) < 3 or count < 0:
        raise InputError(f"expected at least 3 vectors and a count of at least 0, got {len(vectors)} and {count}")
    rng = np.random.default_rng(seed)
    for start in range(0, count, rows):
        size = min(rows, count - start)
        a, b, c = vectors[rng.integers(0, len(vectors), (3, size))]  # (size, D) each
        strength = rng.uniform(WEAKEST, STRONGEST, (size, 1)).astype(np.float32)
        yield normalise_rows(a + strength * (b - c))
