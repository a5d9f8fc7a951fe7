"""Ranking a database by similarity, exactly and in bounded memory (Section 5)."""

import numpy as np

from rmaclib.foundation.errors import InputError

SIMILARITIES = ("cosine", "dot")



def normalise_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows of an (N, D) array brought to unit length, float32; a zero row stays zero.

    raises InputError: another shape, a row that isn't finite
    """
    vectors = _as_floats(vectors)
    if vectors.ndim != 2:
        raise InputError(f"vectors: expected (N, D), got shape {vectors.shape}")
    norms = _row_norms("vectors", vectors)
    return (vectors / np.where(norms == 0, 1, norms)[:, None]).astype(np.float32)


def rank_others(vectors: np.ndarray, top: int) -> np.ndarray:
    """Of each of N vectors the nearest others by cosine: (N, min(top, N - 1)) int64, nearest first; see rank()."""
    order = rank(vectors, vectors, top + 1)
    own = order == np.arange(len(order))[:, None]
    # A vector is its own nearest, but for copies of it; then the last one makes room.
    own[~own.any(1), -1] = True
    return order[~own].reshape(len(order), -1)


def rank(query_vectors: np.ndarray, database_vectors: np.ndarray, top: int | None = None,
         block: int = 2**24, similarity: str = "cosine") -> np.ndarray:
    """Database indices in order of falling similarity to each query.

    query_vectors: (Q, D); database_vectors: (N, D), may be a memory map; need not be normalised
    top: how many to return, all by default, at most N
    block: scores held in memory at a time (2^24 float32 are 64 MiB); at least one query's N
    similarity: "cosine", or "dot": the product as it is, for databases whose lengths count (expansion.augment)
    returns (Q, min(top, N)) int64; equal scores rank by index. A zero vector has similarity 0 to everything.
    raises InputError: other shapes, an empty database, top or block under 1, a vector that isn't finite
    """
    if similarity not in SIMILARITIES:
        raise InputError(f"similarity: expected one of {SIMILARITIES}, got {similarity!r}")
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
        # The length of a query doesn't change its ranking, so that only the database's is divided out.
        scores = queries[start:start + step] @ database.T / norms  # (step, N)
        for row, values in enumerate(scores, start):
            order[row] = _best(values, count)
    return order


def _best(scores: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` highest of (N,) scores, falling; equal ones by index."""
    least = np.partition(scores, -count)[-count]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:count]


def _as_floats(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    if vectors.dtype.kind not in "fiub":
        raise InputError(f"vectors: expected real numbers, got {vectors.dtype}")
    return vectors.astype(np.result_type(vectors.dtype, np.float32), copy=False)


def _row_norms(what: str, vectors: np.ndarray) -> np.ndarray:
    """Length of each row in float64: a rounded length would move near ties, a huge one would overflow."""
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    if not np.isfinite(norms).all():
        raise InputError(f"expected finite {what}, found NaN or infinity in row "
                         f"{np.flatnonzero(~np.isfinite(norms))[0]}")
    return norms
