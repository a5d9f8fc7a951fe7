"""Verifying matches with an affine model, and rejecting degenerate models and overlays (Section 3).

An affine transformation is fitted robustly to the matches of a pair; the score is the number of matches that follow it
(inliers), as in Philbin et al. 2007. Two kinds of fits are rejected however many inliers they have: degenerate ones,
and overlays that were put on the photographs: watermarks, logos, captions, borders. An overlay is at the same place in
both pictures, measured from a corner, to a fraction of a pixel, while everything else differs. So matches at the same
place are removed before the model is fitted. In pictures of different shapes an overlay is not at the same place. But a
caption lies along the border, and then most inliers of the pair are there.
"""

from typing import Annotated, NamedTuple

import cv2
import numpy as np

from rmaclib.cleaning.keypoints import Features
from rmaclib.foundation.settings import Field, settings

REASONS = ("few inliers", "mirrored", "scale", "stretch", "thin strip", "caption")
# Rounds in which RANSAC finds 10 inliers among 50 matches nearly always. Half of OpenCV's default: a pair without a
# model takes all of them.
_ROUNDS = 1000
MARK = "mark"  # reason for a pair that has enough matches only with those of an overlay


@settings
class VerificationSettings:
    """When matches verify a pair. The paper gives none of these values.

    Attributes:
        tolerance: How far a mapped point may lie from its match, as a part of the longer side of the second image
            (5 pixels of 448).
        min_inliers: A pair with fewer is no edge; the graph's threshold is at least this.
        max_scale: An object's size may differ by this factor at most.
        max_stretch: Ratio of the affine's singular values at most: more is no view of the same plane.
        min_width: The inliers' standard deviation across their main direction, in both images, as a part of the longer
            side at least: points on a line determine no affine.
        caption: Part of an image's height, at its top and bottom, where captions are. At least half of ``min_inliers``
            have to lie elsewhere in either image. 0 for no such rule.
        marks: Whether to remove matches at the same place, which are overlays.
        mark_tolerance: How far "the same place" may differ, as a part of the longer side (half a pixel of 500).
        mark_share: When more than this part of the keypoints, of the image with more, is at the same place, the two
            images are copies of one photograph, not two photographs with one overlay.
    """

    tolerance: Annotated[float, Field(gt=0)] = 0.011
    min_inliers: Annotated[int, Field(ge=3)] = 10  # an affine has three points
    max_scale: Annotated[float, Field(ge=1)] = 4.0
    max_stretch: Annotated[float, Field(ge=1)] = 3.0
    min_width: Annotated[float, Field(ge=0)] = 0.01
    caption: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    marks: bool = True
    mark_tolerance: Annotated[float, Field(ge=0)] = 0.001
    mark_share: Annotated[float, Field(ge=0, le=1)] = 0.25


class Verified(NamedTuple):
    """The result for a pair with M matches.

    Attributes:
        affine: (2, 3) float64, maps points of the first image to the second; None for a rejected pair.
        inliers: (M,) bool, all false for a rejected pair.
        reason: "" for an edge, else why the pair was rejected.
    """

    affine: np.ndarray | None
    inliers: np.ndarray
    reason: str


def verify(left: np.ndarray, right: np.ndarray, left_size: tuple[int, int], right_size: tuple[int, int],
           settings: VerificationSettings | None = None, keypoints: int | None = None) -> Verified:
    """Verify the matches of a pair of images with an affine model (Section 3).

    Args:
        left: (M, 2) matched points of the first image in pixels.
        right: (M, 2) their matches in the second image.
        left_size: Width and height of the first image.
        right_size: Width and height of the second image.
        settings: When a pair is verified.
        keypoints: Of the image with more of them. Default: M.

    Returns:
        The affine model and its inliers, or why the pair was rejected.
    """
    settings = settings or VerificationSettings()
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    none = np.zeros(len(left), bool)
    overlay = none
    if settings.marks:
        fixed = same_place(left, right, left_size, right_size, settings.mark_tolerance)
        if fixed.sum() <= settings.mark_share * (keypoints or len(left)):
            overlay = fixed
    free = np.flatnonzero(~overlay)
    # One or two matches at the same place are chance, and no overlay to be named.
    too_few = MARK if overlay.sum() >= settings.min_inliers else "few inliers"
    if len(free) < settings.min_inliers:
        return Verified(None, none, too_few)
    affine, inside = fit_affine(left[free], right[free], settings.tolerance * max(right_size))
    if affine is None or inside.sum() < settings.min_inliers:
        return Verified(None, none, too_few)
    agree = free[inside]
    # In parts of the longer sides: the resolution of a file says nothing about the object.
    units = max(left_size), max(right_size)
    reason = degenerate(affine[:, :2] * (units[0] / units[1]), left[agree] / units[0], right[agree] / units[1],
                        settings)
    bordering = along_border(left[agree], right[agree], left_size[1], right_size[1], settings.caption)
    if not reason and (~bordering).sum() < settings.min_inliers / 2:
        reason = "caption"
    if reason:
        return Verified(None, none, reason)
    inliers = none.copy()
    inliers[agree] = True
    return Verified(affine, inliers, "")


def verify_pair(first: Features, second: Features, matches: np.ndarray,
                settings: VerificationSettings | None = None) -> Verified:
    """Verify the matches of a pair of images by their keypoints, see ``verify``.

    Args:
        first: Keypoints of the first image.
        second: Keypoints of the second image.
        matches: (M, 2), indices of keypoints in both.
        settings: When a pair is verified.

    Returns:
        The affine model and its inliers, or why the pair was rejected.
    """
    return verify(first.points[matches[:, 0]], second.points[matches[:, 1]], first.size, second.size, settings,
                  max(len(first.points), len(second.points)))


def same_place(left: np.ndarray, right: np.ndarray, left_size: tuple[int, int], right_size: tuple[int, int],
               tolerance: float) -> np.ndarray:
    """Matches that are at the same place in both images, as overlays are.

    The place is measured in pixels from any of the four corners, or in parts of the width and height.

    Args:
        left: (M, 2) points of the first image in pixels.
        right: (M, 2) their matches in the second image.
        left_size: Width and height of the first image.
        right_size: Width and height of the second image.
        tolerance: Largest difference, as a part of the second image's longer side.

    Returns:
        (M,) bool.
    """
    size, other_size = np.array(left_size, float), np.array(right_size, float)
    limit = tolerance * other_size.max()
    # From the left or the right side, and from the top or the bottom, each on its own: four corners in all.
    near = np.abs(right - left) <= limit
    far = np.abs(right - left - (other_size - size)) <= limit
    scaled = np.abs(right - (left + 0.5) * (other_size / size) + 0.5) <= limit
    return (near | far).all(1) | scaled.all(1)


def along_border(left: np.ndarray, right: np.ndarray, left_height: int, right_height: int, part: float) -> np.ndarray:
    """Matches that are along the top, or along the bottom, of both images, as those of captions are.

    Args:
        left: (M, 2) points of the first image in pixels.
        right: (M, 2) their matches in the second image.
        left_height: Height of the first image.
        right_height: Height of the second image.
        part: Part of the height that counts as border, 0..0.5.

    Returns:
        (M,) bool.
    """
    first, second = (left[:, 1] + 0.5) / left_height, (right[:, 1] + 0.5) / right_height  # pixel centres
    return ((first < part) & (second < part)) | ((first > 1 - part) & (second > 1 - part))


def fit_affine(left: np.ndarray, right: np.ndarray, tolerance: float) -> tuple[np.ndarray | None, np.ndarray]:
    """Robust affine fit by OpenCV's RANSAC, whose seed is fixed, so that results repeat.

    Args:
        left: (M, 2) points of the first image.
        right: (M, 2) their matches in the second image.
        tolerance: In pixels of the second image.

    Returns:
        (2, 3) float64, None when no three points fit; and (M,) bool, the inliers.
    """
    if len(left) < 3:
        return None, np.zeros(len(left), bool)
    affine, inside = cv2.estimateAffine2D(left, right, method=cv2.RANSAC, ransacReprojThreshold=tolerance,
                                          maxIters=_ROUNDS)
    if affine is None or not np.isfinite(affine).all():
        return None, np.zeros(len(left), bool)
    return affine, inside.ravel() > 0


def degenerate(matrix: np.ndarray, left: np.ndarray, right: np.ndarray, settings: VerificationSettings) -> str:
    """Why an affine model is degenerate: it can't be a view of the same thing.

    Args:
        matrix: (2, 2), its linear part. Like the points in parts of the longer sides of the images.
        left: (M, 2) inliers in the first image.
        right: (M, 2) inliers in the second image.
        settings: Limits of scale, stretch and width.

    Returns:
        One of REASONS; "" for a model that is not degenerate.
    """
    large, small = np.linalg.svd(matrix, compute_uv=False)
    if np.linalg.det(matrix) <= 0:
        return "mirrored"
    if large > settings.max_stretch * small:
        return "stretch"
    widths = [np.linalg.eigvalsh(np.cov(points.T))[0] for points in (left, right)]  # squared
    if min(widths) < settings.min_width**2:
        return "thin strip"
    if not 1 / settings.max_scale <= np.sqrt(large * small) <= settings.max_scale:
        return "scale"
    return ""
