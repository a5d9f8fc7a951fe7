"""Query expansion and database-side augmentation (Section 5): vectors averaged with their nearest neighbours.

Both are functions on arrays and work in blocks: an N × N matrix is never in memory. Neighbours are ranked by dot
product, which is the cosine for ℓ2-normalised descriptors.

The weight of a neighbour is in :func:`rank_weights` (augmentation, the paper's), or the power ``alpha`` of its
similarity.
"""

import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.ranking import normalise_rows, rank, rank_others

_BLOCK = 2**24  # values of gathered neighbours in memory at a time (2^24 float32 are 64 MiB)


def rank_weights(k: int) -> np.ndarray:
    """Weights of a vector and its k neighbours in database-side augmentation (Section 5).

    The vector itself and its nearest neighbour count 1, the neighbour of rank r counts (k - r + 1) / k; all are divided
    by their sum.

    Args:
        k: Number of neighbours, at least 0.

    Returns:
        (k + 1,) float64 with sum 1, the vector's own weight first, then its neighbours', nearest first.

    Examples:
        >>> (rank_weights(4) * 3.5).round(2).tolist()
        [1.0, 1.0, 0.75, 0.5, 0.25]
    """
    weights = np.append(1.0, np.arange(k, 0, -1) / max(k, 1))
    return weights / weights.sum()


def expand_queries(queries: np.ndarray, database: np.ndarray, k: int = 1, alpha: float = 0.0) -> np.ndarray:
    """Average each query with its k nearest vectors of the database (query expansion, Section 5).

    Args:
        queries: (Q, D), ℓ2-normalised.
        database: (N, D), ℓ2-normalised or augmented.
        k: Neighbours, at least 1; all N where there are fewer.
        alpha: A neighbour of similarity s has the weight s^alpha, the query 1; a negative s counts as 0. With 0, the
            paper's choice, all have the same weight.

    Returns:
        (Q, D) float32, ℓ2-normalised.

    Raises:
        InputError: k is less than 1, alpha is negative, or the arrays can't be ranked (see
            :func:`rmaclib.ranking.rank`).
    """
    _check_options(k, alpha)
    return _average(queries, database, rank(queries, database, k, similarity="dot"), alpha)


def augment(database: np.ndarray, k: int = 20, alpha: float | None = None,
            neighbours: np.ndarray | None = None) -> np.ndarray:
    """Average each vector of a database with its k nearest others (database-side augmentation, Section 5).

    Args:
        database: (N, D), ℓ2-normalised; may be a memory map.
        k: Neighbours, at least 1; all N - 1 where there are fewer.
        alpha: None, the paper's choice, takes the weights by rank of :func:`rank_weights`. The mean is not normalised
            then: a vector whose neighbours agree with it is longer, and ranks higher by dot product. With a number, a
            neighbour of similarity s has the weight s^alpha, and the result is ℓ2-normalised.
        neighbours: (N, k) row numbers, nearest first, none the row's own. By default they are computed exactly, which
            takes N² D multiplications; for a large database an index
            (:class:`rmaclib.search.vector_index.VectorIndex`) gives them sooner.

    Returns:
        (N, D) float32.

    Raises:
        InputError: k is less than 1, alpha is negative, the neighbours have another shape or range, or the database
            can't be ranked (see :func:`rmaclib.ranking.rank`).
    """
    _check_options(k, alpha or 0.0)
    if neighbours is None:
        neighbours = rank_others(database, k)
    elif (neighbours.ndim != 2 or len(neighbours) != len(database)
          or (neighbours.size and not 0 <= neighbours.min() <= neighbours.max() < len(database))):
        raise InputError(f"neighbours: expected ({len(database)}, k) indices 0..{len(database) - 1}, got shape "
                         f"{neighbours.shape}")
    return _average(database, database, neighbours[:, :k], alpha)


def _average(vectors: np.ndarray, database: np.ndarray, neighbours: np.ndarray, alpha: float | None) -> np.ndarray:
    """Means of (n, D) vectors and their (n, k) neighbours; alpha as in augment."""
    k, dim = neighbours.shape[1], vectors.shape[1]
    means = np.empty(vectors.shape, np.float32)
    rows = max(1, _BLOCK // (max(k, 1) * dim))
    for start in range(0, len(vectors), rows):
        own = np.asarray(vectors[start:start + rows])  # (n, D)
        near = np.asarray(database[neighbours[start:start + rows]])  # (n, k, D)
        if alpha is None:
            weights = rank_weights(k)  # (k + 1,)
            means[start:start + rows] = weights[0] * own + weights[1:].astype(near.dtype) @ near
        else:
            weights = np.maximum(np.einsum("nd,nkd->nk", own, near), 0)**alpha
            means[start:start + rows] = normalise_rows(own + np.einsum("nk,nkd->nd", weights, near))
    return means


def _check_options(k: int, alpha: float) -> None:
    if k < 1 or not alpha >= 0:
        raise InputError(f"expected k of at least 1 and alpha of at least 0, got {k} and {alpha}")
