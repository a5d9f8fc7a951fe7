"""PCA-whitening of region vectors (Section 4.1): where the shift and the fully connected layer of R-MAC start."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from rmaclib.foundation.errors import InputError, NotFiniteError

_ROWS = 8192  # of an array that are converted to float64 at a time


@dataclass(frozen=True, eq=False)
class Whitening:
    """A linear map y = weight (x + shift) after which the training vectors have the identity as their covariance.

    Attributes:
        shift: (D,) float64, minus the mean of the training vectors.
        weight: (dim, D) float64, one direction a row, by falling variance.
        variances: (dim,) float64, variance of the training vectors along each direction.
        count: Number of training vectors.
    """

    shift: np.ndarray
    weight: np.ndarray
    variances: np.ndarray
    count: int


def fit_whitening(vectors: np.ndarray | Iterable[np.ndarray], dim: int | None = None,
                  shrinkage: float = 0.0) -> Whitening:
    """Fit a PCA-whitening to region vectors (Section 4.1).

    A direction without variance can't be whitened: its row of the weight is zero.

    Args:
        vectors: (N, D), or an iterable of (n, D) blocks. They are read once; the memory needed is that of D² numbers,
            whatever N is.
        dim: Directions to keep, those of largest variance; None keeps all D.
        shrinkage: 0..1, moves the covariance towards a multiple of the identity, so that directions of little variance
            are amplified less; 0 leaves it as it is.

    Returns:
        The whitening; the signs of its rows are fixed, so that equal data give equal weights on every machine.

    Raises:
        InputError: Fewer than two vectors, values that are not finite, ``dim`` or ``shrinkage`` out of range.
        ValueError: Vectors of another shape.
    """
    fit = WhiteningFit(dim, shrinkage)
    for block in _row_blocks(vectors) if isinstance(vectors, np.ndarray) else vectors:
        fit.add(block)
    return fit.whitening()


class WhiteningFit:
    """A whitening that is fitted to vectors as they come; see ``fit_whitening``, also for the arguments.

    Raises:
        InputError: ``shrinkage`` out of range.
    """

    def __init__(self, dim: int | None = None, shrinkage: float = 0.0):
        if not 0 <= shrinkage <= 1:
            raise InputError(f"shrinkage: expected 0..1, got {shrinkage}")
        self.dim, self.shrinkage = dim, shrinkage
        # Of the vectors so far: number N, mean (D,) and scatter (D, D), N − 1 times the covariance.
        self._count, self._mean, self._scatter = 0, np.zeros(0), np.zeros(0)

    def add(self, block: np.ndarray) -> None:
        """Take vectors into account.

        Args:
            block: (n, D).

        Raises:
            NotFiniteError: Values that are not finite.
            ValueError: Another shape.
        """
        block = np.asarray(block, dtype=np.float64)
        if block.ndim != 2:
            raise ValueError(f"vectors: expected blocks (n, D), got shape {block.shape}")
        if not np.isfinite(block).all():
            raise NotFiniteError("vectors: expected finite values, got NaN or infinity")
        if not len(block):
            return
        if not self._count:
            self._mean, self._scatter = np.zeros(block.shape[1]), np.zeros((block.shape[1], block.shape[1]))
        # Chan's update of mean and scatter: plain sums of squares would lose digits far from the origin.
        total, block_mean = self._count + len(block), block.mean(0)
        centred, gap = block - block_mean, block_mean - self._mean
        outer = np.outer(gap, gap) * (self._count * len(block) / total)
        self._scatter = self._scatter + centred.T @ centred + outer
        self._mean, self._count = self._mean + gap * (len(block) / total), total

    def whitening(self) -> Whitening:
        """Compute the whitening of all vectors.

        Raises:
            InputError: Fewer than two vectors, ``dim`` out of range.
        """
        count, shrinkage = self._count, self.shrinkage
        if count < 2:
            raise InputError(f"vectors: expected at least 2 to whiten, got {count}")
        size = len(self._mean)
        dim = size if self.dim is None else self.dim
        if not 1 <= dim <= size:
            raise InputError(f"dim: expected 1..{size} (the vectors' dimension), got {dim}")
        variances, directions = np.linalg.eigh(self._scatter / (count - 1))  # rising
        variances, directions = np.maximum(variances[::-1], 0)[:dim], directions[:, ::-1][:, :dim]
        # The sign of an eigenvector is arbitrary: make its largest component positive.
        signs = np.sign(directions[np.abs(directions).argmax(0), np.arange(dim)])
        shrunk = (1 - shrinkage) * variances + shrinkage * np.trace(self._scatter) / (count - 1) / size
        empty = shrunk <= shrunk.max() * 1e-12
        scale = np.where(empty, 0, 1 / np.sqrt(np.where(empty, 1, shrunk)))
        return Whitening(-self._mean, (directions * signs * scale).T, variances, count)


def _row_blocks(vectors: np.ndarray) -> Iterator[np.ndarray]:
    if vectors.ndim != 2:
        raise ValueError(f"vectors: expected (N, D), got shape {vectors.shape}")
    return (vectors[start:start + _ROWS] for start in range(0, len(vectors), _ROWS))
