"""Average precision of one ranking, by the trapezoid rule of the Oxford benchmark (Section 5.1).

It is not the step-wise average precision that most machine-learning libraries compute.
"""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from rmaclib.foundation.errors import InputError


def average_precision(ranking: Sequence[Hashable] | np.ndarray, positives: Iterable[Hashable] | np.ndarray,
                      junk: Iterable[Hashable] | np.ndarray = ()) -> float:
    """Average precision, 0..1: the area under precision over recall, joined by straight lines.

    ranking: items best first, complete or truncated (positives that it lacks count as never found); of an
    item that occurs twice only the first occurrence counts
    positives, junk: items; junk is skipped and doesn't advance the rank
    returns nan when there are no positives
    raises InputError: an item both positive and junk, an array that isn't one-dimensional
    """
    positives = _items(positives)
    return trapezoid(positive_ranks(ranking, positives, junk), len(set(positives)))


def positive_ranks(ranking: Sequence[Hashable] | np.ndarray, positives: Iterable[Hashable] | np.ndarray,
                   junk: Iterable[Hashable] | np.ndarray = ()) -> np.ndarray:
    """Ranks (from 1, junk not counted) at which the ranking has its positives, rising; (H,) int64, H of them
    found. Arguments and errors as average_precision."""
    positives, junk = set(_items(positives)), set(_items(junk))
    if both := positives & junk:
        raise InputError(f"expected every item positive or junk, found both: {next(iter(both))!r}")
    judged = [item for item in dict.fromkeys(_items(ranking)) if item not in junk]
    return np.array([rank for rank, item in enumerate(judged, start=1) if item in positives], dtype=np.int64)


def trapezoid(ranks: np.ndarray, positives: int) -> float:
    """Average precision from the ranks (H,) of the positives found, out of `positives` in all; nan for none.

    Recall only moves at a positive. There the area grows by 1 / positives times the mean of the precision at
    its rank and at the rank before, which is 1 before the first rank.
    """
    if positives == 0:
        return float("nan")
    hits = np.arange(1, len(ranks) + 1)
    before = np.where(ranks == 1, 1.0, (hits - 1) / np.maximum(ranks - 1, 1))
    return float((before + hits / ranks).sum() / (2 * positives))


def _items(values: Iterable[Hashable] | np.ndarray) -> list[Hashable]:
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise InputError(f"expected a one-dimensional array, got shape {values.shape}")
        return values.tolist()  # plain integers hash several times faster than NumPy's
    return list(values)
