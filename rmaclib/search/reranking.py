"""Geometric verification of the first neighbours of a query.

This goes beyond the paper, with the means of its Section 3: keypoints, matches and one affine transformation per pair.
"""

import os
from collections.abc import MutableMapping, Sequence

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
    """Count the matches of the query and each other image that agree on one affine transformation.

    Args:
        query: Keypoints of the query.
        others: Keypoints of R images.
        settings: Of the matching and the verification.

    Returns:
        (R,) int64 numbers of inliers, 0 where the pair isn't verified.
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
    """Keep the keypoints within a box.

    Args:
        features: Keypoints of an image.
        box: (x1, y1, x2, y2) in pixels of the image; None keeps all.

    Returns:
        The keypoints with x1 ≤ x < x2 and y1 ≤ y < y2, in the same order.
    """
    if box is None:
        return features
    x1, y1, x2, y2 = box
    x, y = features.points.T
    kept = (x1 <= x) & (x < x2) & (y1 <= y) & (y < y2)
    return features._replace(points=features.points[kept], descriptors=features.descriptors[kept])


def rerank(query: str | os.PathLike, paths: Sequence[str | os.PathLike], box: Box | None = None,
           settings: CleanSettings | None = None, *,
           keypoints: MutableMapping[str, Features | None] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Put the first neighbours of a query in a new order: by falling number of inliers.

    Those with equal numbers, such as all that aren't verified, stay in their order.

    Args:
        query: Image file.
        paths: R image files, nearest first. One that can't be read has 0 inliers.
        box: Part of the query to look for, (x1, y1, x2, y2) in its pixels.
        settings: Of keypoints, matching and verification.
        keypoints: Those of images by path, None for one that can't be read. It is filled with those of ``paths``, so
            that queries that share it, and the settings, extract the keypoints of an image once.

    Returns:
        The new order, (R,) int64 indices into ``paths``, and the (R,) int64 inliers of each path.

    Raises:
        ImageError: The query can't be read.
    """
    settings = settings or CleanSettings()
    keypoints = {} if keypoints is None else keypoints
    query_features = inside(extract_keypoints(query, settings.keypoints), box)
    readable, features = [], []
    for number, path in enumerate([os.fspath(path) for path in paths]):
        if path not in keypoints:
            keypoints[path] = _keypoints(path, settings)
        if (of_image := keypoints[path]) is not None:
            features.append(of_image)
            readable.append(number)
    inliers = np.zeros(len(paths), np.int64)
    inliers[readable] = verified_inliers(query_features, features, settings)
    return np.argsort(-inliers, kind="stable"), inliers


def _keypoints(path: str, settings: CleanSettings) -> Features | None:
    """Keypoints of an image, None where it can't be read."""
    try:
        return extract_keypoints(path, settings.keypoints)
    except ImageError:
        return None
