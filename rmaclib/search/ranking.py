"""Ranking a database by cosine similarity, exactly and in bounded memory (Section 5)."""

import numpy as np


def rank(query_vectors: np.ndarray, database_vectors: np.ndarray, top: int | None = None,
         block: int = 2**24) -> np.ndarray:
    """Database indices in order of falling cosine similarity to each query.

    query_vectors: (Q, D); database_vectors: (N, D), may be a memory map; need not be normalised
    top: how many to return, all by default, at most N
    block: scores held in memory at a time (2^24 float32 are 64 MiB); at least one query's N
    returns (Q, min(top, N)) int64; equal scores rank by index. A zero vector has similarity 0 to everything.
    raises ValueError: other shapes, an empty database, top or block under 1, a vector that isn't finite
    """
    queries, database = _floats(query_vectors), _floats(database_vectors)
    if queries.ndim != 2 or database.ndim != 2 or queries.shape[1] != database.shape[1] or not len(database):
        raise ValueError(f"expected vectors of shapes (Q, D) and (N, D) with N > 0, "
                         f"got {queries.shape} and {database.shape}")
    if block < 1 or (top is not None and top < 1):
        raise ValueError(f"expected top and block of at least 1, got {top} and {block}")
    _norms("query", queries)
    norms = _norms("database", database)
    norms[norms == 0] = 1
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


def _floats(vectors: np.ndarray) -> np.ndarray:
    vectors = np.asarray(vectors)
    return vectors.astype(np.result_type(vectors.dtype, np.float32), copy=False)


def _norms(what: str, vectors: np.ndarray) -> np.ndarray:
    """Length of each row, summed in float64: a rounded length would move near ties."""
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    if not np.isfinite(norms).all():
        raise ValueError(f"expected finite {what} vectors, found NaN or infinity in row "
                         f"{np.flatnonzero(~np.isfinite(norms))[0]}")
    return norms.astype(vectors.dtype)
