"""Matching keypoints by the ratio of first to second neighbour, a matrix product per pair (Section 3).

Nearly every row of the product of two images fails the ratio test. So each pair is first compared roughly, in the few
directions that contain most of the descriptors' energy. Only the rows that might pass are compared in full. A pair with
fewer such rows than a verified pair needs is given up after the rough product.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from rmaclib.cleaning.keypoints import Features, root_sift
from rmaclib.foundation.settings import Field, settings

DIMENSIONS = 128


@settings
class MatchSettings:
    """How descriptors are matched.

    Attributes:
        ratio: A match is kept when its distance is under ``ratio`` times that to the second neighbour (Lowe 2004).
            The paper's value is not known.
        rough_dim: Directions of the rough comparison, 1..128; 128 compares everything in full at once.
        rough_ratio: Ratio of distances in these directions above which a row is given up after the rough comparison;
            at least ``ratio``. With 32 directions 0.88 gives up 0.4 % of the matches (landmarks48).
    """

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.8
    rough_dim: Annotated[int, Field(ge=1, le=DIMENSIONS)] = 32
    rough_ratio: Annotated[float, Field(gt=0, le=1)] = 0.88

    def __post_init__(self) -> None:
        if self.ratio > self.rough_ratio:
            raise ValueError(f"rough_ratio: expected at least ratio ({self.ratio}), got {self.rough_ratio}")


def main_directions(descriptors: np.ndarray) -> np.ndarray:
    """Directions of RootSIFT descriptors in falling order of the energy they contain.

    The mean is not removed: dot products in all 128 directions are those of the descriptors themselves.

    Args:
        descriptors: (N, 128) float32.

    Returns:
        (128, 128) float32, orthonormal columns.
    """
    values = descriptors.astype(np.float64)
    _, vectors = np.linalg.eigh(values.T @ values)  # rising
    return np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32)


class Matcher:
    """Matches pairs among a set of images, whose descriptors it prepares.

    Args:
        features: Keypoints of the images.
        directions: (128, 128), what ``main_directions`` gives.
        settings: Ratio, and the rough comparison.
        least: Matches that a pair needs; fewer count as none.
    """

    def __init__(self, features: Sequence[Features], directions: np.ndarray, settings: MatchSettings,
                 least: int = 1) -> None:
        self.settings, self.least = settings, least
        turned = [root_sift(image.descriptors) @ directions for image in features]
        rough = [descriptors[:, :settings.rough_dim] for descriptors in turned]
        rest = [descriptors[:, settings.rough_dim:] for descriptors in turned]
        # |a - b|² / 2 = |a|² / 2 - (ab - |b|² / 2): with half the energy as one more column, the largest product of a
        # row belongs to the nearest neighbour in the rough directions. The rest takes it out again.
        self.energy = [(descriptors**2).sum(1) / 2 for descriptors in rough]
        self.left = [_columns(part, 1) for part in rough]
        self.right = [_columns(part, -energy) for part, energy in zip(rough, self.energy, strict=True)]
        self.rest_left = [_columns(part, 1) for part in rest]
        self.rest_right = [_columns(part, energy) for part, energy in zip(rest, self.energy, strict=True)]
        largest = max((len(descriptors) for descriptors in turned), default=0)
        # One buffer for all products: a fresh one each time costs as much as the product.
        self.product = np.empty(largest * largest, np.float32)

    def __call__(self, i: int, j: int) -> np.ndarray:
        """Matches from image i to image j: a keypoint of either image is in one match at most.

        Of several keypoints of i that match one of j, the nearest is kept.

        Args:
            i: Number of an image.
            j: Number of another one.

        Returns:
            (M, 2) int64, indices of keypoints in i and j; none where there are fewer than ``least``.
        """
        left, right = self.left[i], self.right[j]
        # The ratio test needs a second neighbour.
        if len(left) < self.least or len(right) < 2:
            return _no_matches()
        product = self.product[:len(left) * len(right)].reshape(len(left), len(right))
        np.matmul(left, right.T, out=product)
        best, first, second = _neighbours(product)
        rows = np.flatnonzero(_passes(first, second, self.settings.rough_ratio, self.energy[i]))
        if len(rows) < self.least:
            return _no_matches()
        product[rows, best[rows]] = first[rows]
        best, first, second = _neighbours(product[rows] + self.rest_left[i][rows] @ self.rest_right[j].T)
        kept = np.flatnonzero(_passes(first, second, self.settings.ratio, 1.0))
        kept = kept[np.argsort(-first[kept], kind="stable")]  # nearest first
        _, nearest = np.unique(best[kept], return_index=True)  # of each keypoint of j
        kept = kept[nearest]
        return np.stack([rows[kept], best[kept]], 1) if len(kept) >= self.least else _no_matches()


def _neighbours(product: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each row of dot products: column of the largest, its value, the second largest; the largest is erased."""
    rows = np.arange(len(product))
    best = product.argmax(1)
    first = product[rows, best]
    product[rows, best] = -np.inf
    return best, first, product.max(1)


def _passes(first: np.ndarray, second: np.ndarray, ratio: float, energy: np.ndarray | float) -> np.ndarray:
    """Ratio test on a row's largest two products; `energy` less a product is half the squared distance."""
    # Rounding may make a distance a little negative.
    return np.maximum(energy - first, 0) < ratio**2 * np.maximum(energy - second, 0)


def _columns(part: np.ndarray, column: np.ndarray | float) -> np.ndarray:
    """(N, D) with one more column, contiguous: (N, D + 1)."""
    return np.concatenate([part, np.broadcast_to(np.float32(column), len(part))[:, None]], 1)


def _no_matches() -> np.ndarray:
    return np.zeros((0, 2), np.int64)
