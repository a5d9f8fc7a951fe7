"""Bootstrap intervals: of a mean average precision, of the difference of two, of the agreement of two orders.

The percentile bootstrap of Efron (1979; Efron and Tibshirani 1993): queries are drawn with replacement, and the mean is
taken again. Sakai (2006) brought it to retrieval; Smucker et al. (2007) found that on the mean average precision of
retrieval runs it agrees with the randomisation test and the t-test.

The queries are taken as independent. Where several queries show one landmark they are not quite, and an interval is
somewhat too narrow.
"""

from typing import NamedTuple

import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import whole_number

_BLOCK = 2**22  # drawn values in memory at a time (2^22 float64 are 32 MiB)


class Interval(NamedTuple):
    """A mean over queries and its bootstrap interval.

    Attributes:
        mean: The mean of the values, or of the differences.
        low: Lower end of the interval.
        high: Upper end.
    """

    mean: float
    low: float
    high: float


def paired_bootstrap(before: np.ndarray, after: np.ndarray, resamples: int = 10_000, seed: int = 0,
                     level: float = 0.95) -> Interval:
    """Estimate the difference of two mean average precisions on the same queries, and its interval.

    Each resample draws queries, not scores: both scores of a query are drawn together, so that what makes a query easy
    or hard for both drops out. With several seeds of training the mean over the seeds is taken per query first. The
    interval is then that of the mean network over other queries; it says nothing about other seeds.

    Args:
        before: (Q,) average precision of each query, or (S, Q) of S seeds of training.
        after: (Q,) or (S', Q), of the same queries in the same order.
        resamples: How often Q queries are drawn.
        seed: Draws them.
        level: Share of the resampled means that the interval contains, in its middle; between 0 and 1.

    Returns:
        Mean of after - before, and its interval.

    Raises:
        InputError: Different numbers of queries, fewer than 2, a value that isn't finite, another option out of range.
    """
    before, after = _per_query("before", before), _per_query("after", after)
    if len(before) != len(after):
        raise InputError(f"before and after: expected the same queries, got {len(before)} and {len(after)}")
    return interval(after - before, resamples, seed, level)


def interval(values: np.ndarray, resamples: int = 10_000, seed: int = 0, level: float = 0.95) -> Interval:
    """Estimate the interval of one mean over queries.

    Args:
        values: (Q,), such as the average precision of each query; or (S, Q) of S seeds of training, whose mean is taken
            per query first.
        resamples: How often Q queries are drawn.
        seed: Draws them.
        level: As in :func:`paired_bootstrap`.

    Returns:
        The mean and its interval.

    Raises:
        InputError: As :func:`paired_bootstrap` raises it.
    """
    values = _per_query("values", values)
    _check_options(resamples, seed, level)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _BLOCK // len(values))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        means[start:start + count] = values[random.integers(len(values), size=(count, len(values)))].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def rank_correlation(first: np.ndarray, second: np.ndarray, resamples: int = 10_000, seed: int = 0,
                     level: float = 0.95) -> Interval:
    """Estimate how well two measurements agree in the order of the same settings (Spearman 1904), and its interval.

    Each resample draws settings and ranks them again; a resample in which one of the two is constant has no order and
    is left out.

    Args:
        first: (N,) values, one for each setting.
        second: (N,) of the same settings in the same order.
        resamples: How often N settings are drawn.
        seed: Draws them.
        level: As in :func:`paired_bootstrap`.

    Returns:
        The correlation of the ranks, -1 to 1, equal values having their mean rank; and its interval.

    Raises:
        InputError: Different numbers of settings, fewer than 2, a value that isn't finite, one of the two constant,
            another option out of range.
    """
    first, second = _per_query("first", first), _per_query("second", second)
    if len(first) != len(second):
        raise InputError(f"first and second: expected the same settings, got {len(first)} and {len(second)}")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise InputError("first and second: expected values that differ, got equal ones")
    _check_options(resamples, seed, level)
    drawn = np.random.default_rng(seed).integers(len(first), size=(resamples, len(first)))
    resampled = _correlations(first[drawn], second[drawn])
    low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(_correlations(first[None], second[None])[0]), float(low), float(high))


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(B,) rank correlations of the rows of two (B, N); NaN where a row is constant."""
    from scipy.stats import rankdata  # takes a while to load, and few commands need it

    ranks = [rankdata(values, axis=1) for values in (first, second)]
    centred = [values - values.mean(1, keepdims=True) for values in ranks]
    norms = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    return (centred[0] * centred[1]).sum(1) / np.where(norms > 0, norms, np.nan)


def _check_options(resamples: int, seed: int, level: float) -> None:
    whole_number("resamples", resamples, 1)
    whole_number("seed", seed, 0)
    if not 0 < level < 1:
        raise InputError(f"level: expected a share between 0 and 1, got {level!r}")


def _per_query(name: str, values: np.ndarray) -> np.ndarray:
    """(Q,) float64: one value for each query, the mean over the seeds where there are several."""
    array = np.asarray(values, np.float64)
    if array.ndim not in (1, 2) or array.shape[-1] < 2 or not array.size:
        raise InputError(f"{name}: expected (Q,) or (S, Q) values of at least 2 queries, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: expected finite values, got {array[~np.isfinite(array)][0]}; "
                         "leave out queries that were skipped")
    return array if array.ndim == 1 else array.mean(0)
