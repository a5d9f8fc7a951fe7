"""Query expansion and database-side augmentation (Section 5): vectors averaged with their nearest neighbours.

Both are functions on arrays and work in blocks: nothing of the size N × N is ever held. Neighbours are found by
dot product, which is the cosine for descriptors of unit length.
"""

import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.ranking import normalise_rows, rank, rank_others

_BLOCK = 2**24  # numbers of gathered neighbours held at a time


def rank_weights(k: int) -> np.ndarray:
    """Weights of a vector and its k neighbours by their rank: [1, 1, (k-1)/k, …, 1/k] over their sum.

    returns (k + 1,) float64
    """
    weights = np.append(1.0, np.arange(k, 0, -1) / max(k, 1))
    return weights / weights.sum()


def expand_queries(queries: np.ndarray, database: np.ndarray, k: int = 1, alpha: float = 0.0) -> np.ndarray:
    """Each query averaged with its k nearest of the database (Section 5), brought back to unit length.

    queries: (Q, D), of unit length; database: (N, D), of unit length or augmented
    k: neighbours, all N where there are fewer
    alpha: a neighbour of similarity s counts s^alpha against the query's 1, negative s as 0; with 0, the
      paper's, all count alike
    returns (Q, D) float32
    raises InputError: k under 1, alpha under 0, and as rank() does
    """
    _check(k, alpha)
    return _averaged(queries, database, rank(queries, database, k, similarity="dot"), alpha)


def augment(database: np.ndarray, k: int = 20, alpha: float | None = None,
            neighbours: np.ndarray | None = None) -> np.ndarray:
    """Each vector of a database averaged with its k nearest others (database-side augmentation, Section 5).

    database: (N, D), of unit length, may be a memory map; k: neighbours, all N - 1 where there are fewer
    alpha: None, the paper's: weights by rank, see rank_weights; the mean is not brought back to unit length, so
      that vectors whose neighbours agree are longer, and win when ranked by dot product. A number: a neighbour
      of similarity s counts s^alpha, and the result has unit length
    neighbours: (N, k) indices, nearest first, none its own row's. They are found exactly when not given, which
      takes N² D multiplications; from an index (vector_index) they come sooner
    returns (N, D) float32
    raises InputError: k under 1, alpha under 0, neighbours of another shape or range, and as rank() does
    """
    _check(k, alpha or 0.0)
    if neighbours is None:
        neighbours = rank_others(database, k)
    elif (neighbours.ndim != 2 or len(neighbours) != len(database)
          or (neighbours.size and not 0 <= neighbours.min() <= neighbours.max() < len(database))):
        raise InputError(f"neighbours: expected ({len(database)}, k) indices 0..{len(database) - 1}, got shape "
                         f"{neighbours.shape}")
    return _averaged(database, database, neighbours[:, :k], alpha)


def _averaged(vectors: np.ndarray, database: np.ndarray, neighbours: np.ndarray, alpha: float | None) -> np.ndarray:
    """Means of (n, D) vectors and their (n, k) neighbours; see augment for alpha."""
    k, dim = neighbours.shape[1], vectors.shape[1]
    means = np.empty(vectors.shape, np.float32)
    step = max(1, _BLOCK // (max(k, 1) * dim))
    for start in range(0, len(vectors), step):
        own = np.asarray(vectors[start:start + step])  # (n, D)
        near = np.asarray(database[neighbours[start:start + step]])  # (n, k, D)
        if alpha is None:
            weights = rank_weights(k)
            means[start:start + step] = weights[0] * own + weights[1:].astype(near.dtype) @ near
        else:
            weights = np.maximum(np.einsum("nd,nkd->nk", own, near), 0)**alpha
            means[start:start + step] = normalise_rows(own + np.einsum("nk,nkd->nd", weights, near))
    return means


def _check(k: int, alpha: float) -> None:
    if k < 1 or not alpha >= 0:
        raise InputError(f"expected k of at least 1 and alpha of at least 0, got {k} and {alpha}")
