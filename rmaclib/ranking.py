"""Ranking a database by similarity, exactly and in bounded memory (Section 5)."""

import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import one_of

SIMILARITIES = ("cosine", "dot")


def normalise_rows(vectors: np.ndarray) -> np.ndarray:
    """ℓ2-normalise the rows of an array.

    Args:
        vectors: (N, D), any real numbers.

    Returns:
        (N, D) float32, rows of length 1; a zero row stays zero.

    Raises:
        InputError: Another shape, no real numbers, or a row that isn't finite.
    """
    vectors = _as_floats(vectors)
    if vectors.ndim != 2:
        raise InputError(f"vectors: expected (N, D), got shape {vectors.shape}")
    norms = _row_norms("vectors", vectors)
    return (vectors / np.where(norms == 0, 1, norms)[:, None]).astype(np.float32)


def rank_others(vectors: np.ndarray, top: int) -> np.ndarray:
    """Rank, for each vector, the other vectors by cosine similarity.

    Args:
        vectors: (N, D); need not be normalised.
        top: How many to return.

    Returns:
        (N, min(top, N - 1)) int64: indices of the nearest others, nearest first.

    Raises:
        InputError: As ``rank``.
    """
    order = rank(vectors, vectors, top + 1)
    own = order == np.arange(len(order))[:, None]
    # A vector that has several copies may be missing from its own ranking; its last neighbour is dropped instead.
    own[~own.any(1), -1] = True
    return order[~own].reshape(len(order), -1)


def rank(query_vectors: np.ndarray, database_vectors: np.ndarray, top: int | None = None,
         block: int = 2**24, similarity: str = "cosine") -> np.ndarray:
    """Rank a database for each query by decreasing similarity (Section 5).

    Equal scores rank by index. A zero vector has similarity 0 to everything.

    Args:
        query_vectors: (Q, D); need not be normalised.
        database_vectors: (N, D), may be a memory map; need not be normalised.
        top: How many indices to return, at most N; None for all.
        block: Scores in memory at a time (2^24 float32 are 64 MiB), at least one query's N.
        similarity: "cosine", or "dot" for the plain product, where the lengths of the database's vectors count
            (``search.expansion.augment``).

    Returns:
        (Q, min(top, N)) int64: database indices, most similar first.

    Raises:
        InputError: Other shapes, an empty database, ``top`` or ``block`` under 1, an unknown similarity, or a vector
            that isn't finite.
    """
    one_of("similarity", similarity, SIMILARITIES)
    queries, database = _as_floats(query_vectors), _as_floats(database_vectors)
    if queries.ndim != 2 or database.ndim != 2 or queries.shape[1] != database.shape[1] or not len(database):
        raise InputError(f"expected vectors of shapes (Q, D) and (N, D) with N > 0, "
                         f"got {queries.shape} and {database.shape}")
    if block < 1 or (top is not None and top < 1):
        raise InputError(f"expected top and block of at least 1, got {top} and {block}")
    _row_norms("query vectors", queries)
    norms = _row_norms("database vectors", database).astype(database.dtype)
    norms[norms == 0] = 1
    if similarity == "dot":
        norms[:] = 1
    count = min(top or len(database), len(database))
    order = np.empty((len(queries), count), dtype=np.int64)  # (Q, top)
    step = max(1, block // len(database))
    for start in range(0, len(queries), step):
        # A query's length doesn't change its ranking: only the database's lengths are divided out.
        scores = queries[start:start + step] @ database.T / norms  # (step, N)
        for row, values in enumerate(scores, start):
            order[row] = _best(values, count)
    return order


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the ``count`` highest of (N,) scores, highest first; equal scores by index."""
    least = np.partition(scores, -count)[-count]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:count]


def _as_floats(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    if vectors.dtype.kind not in "fiub":
        raise InputError(f"vectors: expected real numbers, got {vectors.dtype}")
    return vectors.astype(np.result_type(vectors.dtype, np.float32), copy=False)


def _row_norms(what: str, vectors: np.ndarray) -> np.ndarray:
    """Length of each row, in float64: rounded lengths would change near ties, and long vectors would overflow."""
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    if not np.isfinite(norms).all():
        raise InputError(f"expected finite {what}, found NaN or infinity in row "
                         f"{np.flatnonzero(~np.isfinite(norms))[0]}")
    return norms
