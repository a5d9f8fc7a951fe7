"""Average precision of one ranking, by the trapezoid rule of the Oxford benchmark (Section 5.1).

It is not the step-wise average precision that most machine-learning libraries compute.
"""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from rmaclib.foundation.errors import InputError


def average_precision(ranking: Sequence[Hashable] | np.ndarray, positives: Iterable[Hashable] | np.ndarray,
                      junk: Iterable[Hashable] | np.ndarray = ()) -> float:
    """Average precision: the area under precision over recall, joined by straight lines.

    Args:
        ranking: Items best first, complete or truncated: positives that it lacks count as never retrieved. Of an item
            that occurs twice only the first occurrence counts.
        positives: Relevant items.
        junk: Items that are skipped and don't advance the rank.

    Returns:
        0..1, NaN when there are no positives.

    Raises:
        InputError: An item is both positive and junk, or an array isn't one-dimensional.
    """
    positives = _items(positives)
    return trapezoid(positive_ranks(ranking, positives, junk), len(set(positives)))


def positive_ranks(ranking: Sequence[Hashable] | np.ndarray, positives: Iterable[Hashable] | np.ndarray,
                   junk: Iterable[Hashable] | np.ndarray = ()) -> np.ndarray:
    """Ranks of the positives in a ranking, junk not counted.

    Args:
        ranking: As that of ``average_precision``.
        positives: Relevant items.
        junk: Items that are skipped and don't advance the rank.

    Returns:
        (H,) int64, from 1, rising; H of the positives are in the ranking.

    Raises:
        InputError: As ``average_precision`` raises it.
    """
    positives, junk = set(_items(positives)), set(_items(junk))
    if both := positives & junk:
        raise InputError(f"expected every item positive or junk, got both: {next(iter(both))!r}")
    # Junk is skipped here: it is neither relevant nor irrelevant, and later items move up.
    counted = [item for item in dict.fromkeys(_items(ranking)) if item not in junk]
    return np.array([rank for rank, item in enumerate(counted, start=1) if item in positives], dtype=np.int64)


def trapezoid(ranks: np.ndarray, positives: int) -> float:
    """Average precision from ranks, by the trapezoid rule.

    Recall only grows at a positive. There the area grows by 1 / positives times the mean of the precision at its rank
    and at the rank before, which is 1 before the first rank.

    Args:
        ranks: (H,) of the positives in the ranking, from 1, rising.
        positives: How many there are in all.

    Returns:
        0..1, NaN for no positives.
    """
    if positives == 0:
        return float("nan")
    retrieved = np.arange(1, len(ranks) + 1)  # positives up to each rank
    before = np.where(ranks == 1, 1.0, (retrieved - 1) / np.maximum(ranks - 1, 1))  # precision at the rank before
    return float((before + retrieved / ranks).sum() / (2 * positives))


def _items(values: Iterable[Hashable] | np.ndarray) -> list[Hashable]:
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InputError(f"expected a one-dimensional array, got shape {values.shape}")
        return values.tolist()  # plain integers hash several times faster than NumPy's
    return list(values)
