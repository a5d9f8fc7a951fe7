"""Matching keypoints by the ratio of first to second neighbour, a matrix product per pair (Section 3).

Nearly every row of the product of two images fails the ratio test. So each pair is first compared roughly, in
the few directions that hold most of the descriptors' energy, and only the rows that might pass are compared
in full. A pair with fewer such rows than a verified pair needs is done after the rough product.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rmaclib.cleaning.keypoints import Features, root_sift

DIMENSIONS = 128


@dataclass(frozen=True)
class MatchSettings:
    """How descriptors are matched.

    ratio: a match is kept when its distance is under `ratio` times that to the second neighbour (Lowe 2004);
      the paper's value is not known
    rough_dim: directions of the rough comparison, 1..128; 128 compares everything in full at once
    rough_ratio: ratio above which a row is given up after the rough comparison, at least `ratio`
    """

    ratio: float = 0.8
    rough_dim: int = 48
    rough_ratio: float = 0.9

    def __post_init__(self):
        if not 0 < self.ratio <= self.rough_ratio <= 1:
            raise ValueError("matching: expected 0 < ratio <= rough_ratio <= 1, "
                             f"got {self.ratio} and {self.rough_ratio}")
        if not 1 <= self.rough_dim <= DIMENSIONS:
            raise ValueError(f"rough_dim: expected 1..{DIMENSIONS}, got {self.rough_dim}")


def main_directions(descriptors: np.ndarray) -> np.ndarray:
    """Directions of RootSIFT descriptors in falling order of the energy they hold.

    descriptors: (N, 128) float32; returns (128, 128) float32, orthonormal columns. The mean is not removed: dot
    products in all 128 directions are those of the descriptors themselves.
    """
    values = descriptors.astype(np.float64)
    _, vectors = np.linalg.eigh(values.T @ values)  # rising
    return np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32)


class Matcher:
    """Matches pairs among a set of images; holds their descriptors ready.

    directions: (128, 128), all of main_directions(); least: matches that a pair must have to count
    """

    def __init__(self, features: Sequence[Features], directions: np.ndarray, settings: MatchSettings, least: int = 1):
        self.settings, self.least = settings, least
        turned = [root_sift(image.descriptors) @ directions for image in features]
        self.rough = [np.ascontiguousarray(descriptors[:, :settings.rough_dim]) for descriptors in turned]
        self.rest = [np.ascontiguousarray(descriptors[:, settings.rough_dim:]) for descriptors in turned]
        largest = max((len(descriptors) for descriptors in turned), default=0)
        # One buffer for all products: a fresh one each time costs as much as the product.
        self.product = np.empty(largest * largest, np.float32)

    def __call__(self, i: int, j: int) -> np.ndarray:
        """Matches from image i to image j: (M, 2) indices of keypoints, at most one per keypoint on either side.

        Of several keypoints of i that match one of j, the nearest is kept. Fewer than `least` come back as none.
        """
        left, right = self.rough[i], self.rough[j]
        # A second neighbour needs two keypoints; of one alone it can't be told whether it matches.
        if len(left) < self.least or len(right) < 2:
            return _no_matches()
        product = self.product[:len(left) * len(right)].reshape(len(left), len(right))
        np.matmul(left, right.T, out=product)
        best, first, second = _neighbours(product)
        rows = np.flatnonzero(_passes(first, second, self.settings.rough_ratio))
        if len(rows) < self.least:
            return _no_matches()
        if self.settings.rough_dim < DIMENSIONS:
            product[rows, best[rows]] = first[rows]
            best, first, second = _neighbours(product[rows] + self.rest[i][rows] @ self.rest[j].T)
        else:
            best, first, second = best[rows], first[rows], second[rows]
        kept = np.flatnonzero(_passes(first, second, self.settings.ratio))
        kept = kept[np.argsort(-first[kept], kind="stable")]  # nearest first
        _, one_each = np.unique(best[kept], return_index=True)
        kept = kept[one_each]
        return np.stack([rows[kept], best[kept]], 1) if len(kept) >= self.least else _no_matches()


def _neighbours(product: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each row of dot products: column of the largest, its value, the second largest; the largest is erased."""
    rows = np.arange(len(product))
    best = product.argmax(1)
    first = product[rows, best]
    product[rows, best] = -np.inf
    return best, first, product.max(1)


def _passes(first: np.ndarray, second: np.ndarray, ratio: float) -> np.ndarray:
    # Of unit vectors the squared distance is 2 - 2 * dot product; rounding may make it a little negative.
    return np.maximum(1 - first, 0) < ratio**2 * np.maximum(1 - second, 0)


def _no_matches() -> np.ndarray:
    return np.zeros((0, 2), np.int64)
