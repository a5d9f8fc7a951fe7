"""Verifying matches with an affine model, and refusing those that say nothing (Section 3).

An affine transformation is fitted robustly to the matches of a pair; the score is the number of matches that
follow it (inliers), as in Philbin et al. 2007. Two kinds of fits are refused however many inliers they have:
degenerate ones, and marks that were put on top of the photographs: watermarks, logos, captions, borders.
A mark sits at the same place in both pictures, measured from a corner, to a fraction of a pixel, while
everything else differs. So matches at the same place are taken out before the model is fitted. In pictures of different
shapes it is not at the same place; but a caption lies along the border, and what holds such a pair together is there.
"""

from typing import Annotated, NamedTuple

import cv2
import numpy as np

from rmaclib.cleaning.keypoints import Features
from rmaclib.foundation.settings import Field, settings

REASONS = ("few inliers", "mirrored", "scale", "stretch", "thin strip", "caption")
# Enough to find 10 inliers among 50 matches all but surely; half of OpenCV's default, most of a hopeless pair's time.
_ROUNDS = 1000
MARK = "mark"  # reason of a pair that only matches taken out as marks held together


@settings
class VerificationSettings:
    """When matches verify a pair. The paper gives none of these values.

    tolerance: how far a mapped point may lie from its match, as a part of the longer side of the second image
      (5 pixels of 448)
    min_inliers: a pair with fewer is no edge at all; the graph's threshold is at least this
    max_scale: an object's size may differ by this factor at most
    max_stretch: ratio of the affine's singular values at most: more is no view of the same plane
    min_width: the inliers' standard deviation across their main direction, in both images, as a part of the
      longer side at least: an affine through points on a line is any affine
    marks: take out matches at the same place
    mark_tolerance: how far "the same place" may differ, as a part of the longer side (half a pixel of 500)
    caption: part of an image's height, at its top and bottom, where captions are; half of min_inliers, at least, have
      to lie elsewhere in either image. 0 for no such rule
    mark_share: when more than this part of the keypoints (of the image with more) is at the same place, the two
      are one photograph twice, not two with one mark
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
    """What came of a pair.

    affine: (2, 3) float64, maps points of the first image to the second; inliers: (M,) bool, of the matches given
    reason: "" for an edge, else why it is none; affine is None and inliers all False then
    """

    affine: np.ndarray | None
    inliers: np.ndarray
    reason: str


def verify(left: np.ndarray, right: np.ndarray, left_size: tuple[int, int], right_size: tuple[int, int],
           settings: VerificationSettings | None = None, keypoints: int | None = None) -> Verified:
    """Verify the matches of a pair of images.

    left, right: (M, 2) matched points in pixels; sizes: (width, height); keypoints: how many the image with more
    of them has (default: M)
    """
    settings = settings or VerificationSettings()
    left, right = np.asarray(left, np.float64), np.asarray(right, np.float64)
    none = np.zeros(len(left), bool)
    marks = none
    if settings.marks:
        found = same_place(left, right, left_size, right_size, settings.mark_tolerance)
        if found.sum() <= settings.mark_share * (keypoints or len(left)):
            marks = found
    free = np.flatnonzero(~marks)
    # Matches at the same place need to be many to be worth a word: one or two are chance.
    short = MARK if marks.sum() >= settings.min_inliers else "few inliers"
    if len(free) < settings.min_inliers:
        return Verified(None, none, short)
    affine, inside = fit_affine(left[free], right[free], settings.tolerance * max(right_size))
    if inside.sum() < settings.min_inliers:
        return Verified(None, none, short)
    agree = free[inside]
    # In parts of the longer sides: how large a file somebody stored says nothing about the object.
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
    """Verify matches (M, 2), indices of keypoints, from one image to another: see verify."""
    return verify(first.points[matches[:, 0]], second.points[matches[:, 1]], first.size, second.size, settings,
                  max(len(first.points), len(second.points)))


def same_place(left: np.ndarray, right: np.ndarray, left_size: tuple[int, int], right_size: tuple[int, int],
               tolerance: float) -> np.ndarray:
    """(M,) bool: matches that are at the same place in both images.

    The place is measured in pixels from any of the four corners, or in parts of the width and height.
    tolerance: largest difference, as a part of the second image's longer side
    """
    left_size, right_size = np.array(left_size, float), np.array(right_size, float)
    limit = tolerance * right_size.max()
    grown = right_size - left_size
    # From the left or the right side, and from the top or the bottom, each on its own: four corners in all.
    near = np.abs(right - left) <= limit
    far = np.abs(right - left - grown) <= limit
    scaled = np.abs(right - (left + 0.5) * (right_size / left_size) + 0.5) <= limit
    return (near | far).all(1) | scaled.all(1)


def along_border(left: np.ndarray, right: np.ndarray, left_height: int, right_height: int, part: float) -> np.ndarray:
    """(M,) bool: matches that are within this part of the height of the top, or of the bottom, of both images."""
    first, second = (left[:, 1] + 0.5) / left_height, (right[:, 1] + 0.5) / right_height  # pixel centres
    return ((first < part) & (second < part)) | ((first > 1 - part) & (second > 1 - part))


def fit_affine(left: np.ndarray, right: np.ndarray, tolerance: float) -> tuple[np.ndarray | None, np.ndarray]:
    """Robust affine fit (OpenCV's RANSAC with a fixed seed, so that it repeats).

    left, right: (M, 2); tolerance: in pixels of the second image
    returns (2, 3) float64, or None when no three points fit, and the inliers (M,) bool
    """
    if len(left) < 3:
        return None, np.zeros(len(left), bool)
    affine, inside = cv2.estimateAffine2D(left, right, method=cv2.RANSAC, ransacReprojThreshold=tolerance,
                                          maxIters=_ROUNDS)
    if affine is None or not np.isfinite(affine).all():
        return None, np.zeros(len(left), bool)
    return affine, inside.ravel() > 0


def degenerate(matrix: np.ndarray, left: np.ndarray, right: np.ndarray, settings: VerificationSettings) -> str:
    """Why an affine can't be a view of the same thing, one of REASONS; "" when it can.

    matrix: (2, 2), its linear part; left, right: (M, 2) inliers; all in parts of the longer sides of the images
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
