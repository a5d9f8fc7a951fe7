"""Re-ordering the first neighbours by verified matches: beyond the paper, with the means of its Section 3."""

import os
from collections.abc import Sequence

import numpy as np

from rmaclib.boxes import Box
from rmaclib.cleaning import (
    CleanSettings,
    Features,
    Matcher,
    extract_keypoints,
    main_directions,
    root_sift,
    verify_pair,
)
from rmaclib.images import ImageError


def verified_inliers(query: Features, others: Sequence[Features], settings: CleanSettings | None = None) -> np.ndarray:
    """How many matches of the query and each other image agree on one affine transformation.

    returns (R,) int64, 0 where the pair isn't verified
    """
    settings = settings or CleanSettings()
    features = [query, *others]
    directions = main_directions(root_sift(np.concatenate([image.descriptors for image in features])))
    matcher = Matcher(features, directions, settings.matching, settings.verification.min_inliers)
    inliers = np.zeros(len(others), np.int64)
    for number, other in enumerate(others):
        matches = matcher(0, number + 1)
        if len(matches):
            inliers[number] = verify_pair(query, other, matches, settings.verification).inliers.sum()
    return inliers


def inside(features: Features, box: Box | None) -> Features:
    """The keypoints within a box (x1, y1, x2, y2); None keeps all."""
    if box is None:
        return features
    x1, y1, x2, y2 = box
    x, y = features.points.T
    kept = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
    return features._replace(points=features.points[kept], descriptors=features.descriptors[kept])


def rerank(query: str | os.PathLike, paths: Sequence[str | os.PathLike], box: Box | None = None,
           settings: CleanSettings | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A new order for the first neighbours of a query: those with most verified matches first, the others as they were.

    query: image file; paths: R image files, nearest first; box: part of the query to look for
    returns order (R,) of indices into paths, and inliers (R,) of each path; a file that can't be read has 0
    raises ImageError when the query can't be read
    """
    settings = settings or CleanSettings()
    asked = inside(extract_keypoints(query, settings.keypoints), box)
    readable, found = [], []
    for number, path in enumerate(paths):
        try:
            found.append(extract_keypoints(path, settings.keypoints))
            readable.append(number)
        except ImageError:
            continue
    inliers = np.zeros(len(paths), np.int64)
    inliers[readable] = verified_inliers(asked, found, settings)
    return np.argsort(-inliers, kind="stable"), inliers
