"""Many descriptors made from few, to measure an index at a size that there are no photographs for."""

from collections.abc import Iterator

import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.ranking import normalise_rows

# Parts of a difference that are added: cosines of 0.92 to 0.58 to the original, as between pictures of one building.
# Nearer ones would be copies, which no collection holds hundreds of.
WEAKEST, STRONGEST = 0.3, 1.0


def synthetic_distractors(vectors: np.ndarray, count: int, seed: int = 0, rows: int = 16384) -> Iterator[np.ndarray]:
    """Descriptors that lie as real ones do: each is a real one plus a part of the difference of two others.

    vectors: (N, D) real descriptors, N of at least 3; count: how many to make; rows: of a block
    yields (n, D) float32 blocks of unit rows a + s (b - c), with a, b, c drawn from `vectors` and s evenly from
    WEAKEST..STRONGEST: around each real one there are near and far ones, in directions in which real ones differ. The
    blocks follow from the seed.
    """
    if len(vectors) < 3 or count < 0:
        raise InputError(f"expected at least 3 vectors and a count of at least 0, got {len(vectors)} and {count}")
    rng = np.random.default_rng(seed)
    for start in range(0, count, rows):
        size = min(rows, count - start)
        a, b, c = vectors[rng.integers(0, len(vectors), (3, size))]  # (size, D) each
        strength = rng.uniform(WEAKEST, STRONGEST, (size, 1)).astype(np.float32)
        yield normalise_rows(a + strength * (b - c))
