"""PCA-whitening of region vectors (Section 4.1): where the shift and the fully connected layer of R-MAC start."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from rmaclib.foundation.errors import InputError, NotFiniteError


class Whitening(NamedTuple):
    """A linear map y = weight (x + shift) under which the training vectors have covariance 1.

    shift: (D,) float64, minus the mean; weight: (dim, D) float64, rows by falling variance
    variances: (dim,) float64, variance of the training vectors along each row's direction
    count: number of training vectors
    """

    shift: np.ndarray
    weight: np.ndarray
    variances: np.ndarray
    count: int


def fit_whitening(vectors: np.ndarray | Iterable[np.ndarray], dim: int | None = None,
                  shrinkage: float = 0.0) -> Whitening:
    """PCA-whitening of region vectors (Section 4.1).

    vectors: (N, D), or an iterable of (n, D) blocks; one pass, memory D² whatever N
    dim: directions to keep, those of largest variance; None keeps D
    shrinkage: 0..1, moves the covariance towards a multiple of the identity (0: none), which amplifies
      directions of little variance less
    A direction without variance can't be whitened: its row of the weight is zero.
    raises InputError: fewer than two vectors, not finite, dim or shrinkage out of range
    """
    if not 0 <= shrinkage <= 1:
        raise InputError(f"shrinkage: expected 0..1, got {shrinkage}")
    count, mean, scatter = 0, 0.0, 0.0
    blocks = _row_blocks(vectors) if hasattr(vectors, "ndim") else vectors
    for block in blocks:
        block = np.asarray(block, dtype=np.float64)  # (n, D)
        if block.ndim != 2:
            raise ValueError(f"vectors: expected blocks (n, D), got shape {block.shape}")
        if not np.isfinite(block).all():
            raise NotFiniteError("vectors: expected finite values, found NaN or infinity")
        if not len(block):
            continue
        # Chan's update of mean and scatter: sums of squares alone would lose digits far from the origin.
        total, block_mean = count + len(block), block.mean(0)
        centred, gap = block - block_mean, block_mean - mean
        scatter = scatter + centred.T @ centred + np.outer(gap, gap) * (count * len(block) / total)
        mean, count = mean + gap * (len(block) / total), total
    if count < 2:
        raise InputError(f"vectors: expected at least 2 to whiten, got {count}")
    size = len(mean)
    dim = size if dim is None else dim
    if not 1 <= dim <= size:
        raise InputError(f"dim: expected 1..{size} (the vectors' dimension), got {dim}")
    variances, directions = np.linalg.eigh(scatter / (count - 1))
    variances, directions = np.maximum(variances[::-1], 0)[:dim], directions[:, ::-1][:, :dim]
    # An eigenvector's sign is arbitrary; fixed so that equal data give equal weights everywhere.
    signs = np.sign(directions[np.abs(directions).argmax(0), np.arange(dim)])
    shrunk = (1 - shrinkage) * variances + shrinkage * np.trace(scatter) / (count - 1) / size
    empty = shrunk <= shrunk.max() * 1e-12
    scale = np.where(empty, 0, 1 / np.sqrt(np.where(empty, 1, shrunk)))
    return Whitening(-mean, (directions * signs * scale).T, variances, count)


def _row_blocks(vectors: np.ndarray, rows: int = 8192):
    if vectors.ndim != 2:
        raise ValueError(f"vectors: expected (N, D), got shape {vectors.shape}")
    return (vectors[start:start + rows] for start in range(0, len(vectors), rows))
