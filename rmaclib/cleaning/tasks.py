"""What worker processes do: extract the keypoints of some images; match and verify some pairs (Section 3).

The work on a landmark is cut into tasks that don't depend on each other, so that any ``concurrent.futures.Executor``
can run them: chunks of images to extract keypoints from, then pairs of blocks of images to match.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from rmaclib.cleaning.graph import MatchGraph
from rmaclib.cleaning.keypoints import Features, KeypointSettings, extract_keypoints, root_sift
from rmaclib.cleaning.matching import Matcher, MatchSettings, main_directions
from rmaclib.cleaning.settings import CleanSettings
from rmaclib.cleaning.verification import VerificationSettings, verify_pair
from rmaclib.images import ImageError

CHUNK = 16  # images whose keypoints one task extracts
BLOCK = 64  # images on either side of a matching task: some 4,000 pairs, for 12 MB sent
NO_KEYPOINTS = "no keypoints"
_DIRECTION_IMAGES = 48  # images that the main directions are computed from


class Task(NamedTuple):
    """A call for a worker: ``function(*arguments)``."""

    function: Callable[..., Any]
    arguments: tuple


class Block(NamedTuple):
    """What a matching task gives: E verified pairs, see ``MatchGraph``.

    Attributes:
        pairs: (E, 2) int32, numbers of images in the landmark.
        inliers: (E,) int32.
        affines: (E, 2, 3) float64.
        rectangles: (E, 2, 4) float32.
        compared: Number of pairs compared.
        rejected: Why a pair with enough matches gave no edge → how many.
    """

    pairs: np.ndarray
    inliers: np.ndarray
    affines: np.ndarray
    rectangles: np.ndarray
    compared: int
    rejected: Counter[str]


# --- cutting the work into tasks, and joining the results ------------------------------------------------------------


def keypoint_tasks(paths: Sequence[Path], settings: KeypointSettings, chunk: int = CHUNK) -> list[Task]:
    """Tasks that extract the keypoints of a landmark's images.

    Args:
        paths: The images.
        settings: Settings of the keypoints.
        chunk: Images in a task.

    Returns:
        Tasks in the order of the images.
    """
    return [Task(keypoints_of_images, (paths[start:start + chunk], settings)) for start in range(0, len(paths), chunk)]


def are_usable(features: Sequence[Features | str]) -> np.ndarray:
    """Which images can be matched.

    Args:
        features: Keypoints of N images, or the reason why one can't be read.

    Returns:
        (N,) bool, true for images with keypoints.
    """
    return np.array([not isinstance(image, str) and len(image.points) > 0 for image in features], bool)


def matching_tasks(features: Sequence[Features | str], candidates: np.ndarray, settings: CleanSettings,
                   block: int = BLOCK) -> list[Task]:
    """Tasks that match and verify the candidate pairs of a landmark.

    Args:
        features: Keypoints of N images, or the reason why one can't be read.
        candidates: (N, N) bool, pairs i < j to compare; both images have keypoints.
        settings: Those of matching and verification are used.
        block: Images on either side of a task.

    Returns:
        Tasks of ``match_pairs``; none without a candidate.
    """
    if not candidates.any():
        return []
    usable = np.flatnonzero(are_usable(features))
    sample = usable[np.linspace(0, len(usable) - 1, min(len(usable), _DIRECTION_IMAGES)).astype(int)]
    directions = main_directions(_root_sift_of(features[index] for index in sample))
    tasks = []
    for i in range(0, len(features), block):
        for j in range(i, len(features), block):
            pairs = np.argwhere(candidates[i:i + block, j:j + block]).astype(np.int32) + np.array([i, j], np.int32)
            if len(pairs):
                # The two blocks' images, each once, numbered anew.
                numbers, local = np.unique(pairs, return_inverse=True)
                tasks.append(Task(match_pairs, ([features[index] for index in numbers], numbers, local.reshape(-1, 2),
                                                directions, settings.matching, settings.verification)))
    return tasks


def join_graph(names: Sequence[str], features: Sequence[Features | str], blocks: Sequence[Block],
               settings: Mapping) -> MatchGraph:
    """The graph of a landmark from the results of its tasks.

    Args:
        names: The N images.
        features: Their keypoints, or the reason why one can't be read.
        blocks: What the matching tasks gave, in any order.
        settings: What made them, see ``MatchGraph.settings``.

    Returns:
        The graph, with its pairs in rising order.
    """
    blocks = blocks or [_empty_block()]
    pairs = np.concatenate([block.pairs for block in blocks])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    inliers, affines, rectangles = (np.concatenate([getattr(block, part) for block in blocks])[order]
                                    for part in ("inliers", "affines", "rectangles"))
    reasons = tuple(image if isinstance(image, str) else "" if len(image.points) else NO_KEYPOINTS
                    for image in features)
    sizes = np.array([(0, 0) if isinstance(image, str) else image.size for image in features], np.int32)
    rejected = sum((block.rejected for block in blocks), Counter[str]())
    return MatchGraph(tuple(names), reasons, sizes.reshape(-1, 2), pairs[order], inliers, affines, rectangles,
                      sum(block.compared for block in blocks), dict(rejected), settings)


# --- the tasks -------------------------------------------------------------------------------------------------------


def keypoints_of_images(paths: Sequence[Path], settings: KeypointSettings) -> list[Features | str]:
    """Task: the keypoints of some images.

    Args:
        paths: The images.
        settings: Settings of the keypoints.

    Returns:
        For each image its keypoints, or the reason why it can't be read.
    """
    cv2.setNumThreads(1)  # tasks run beside each other, each on one core
    features: list[Features | str] = []
    for path in paths:
        try:
            features.append(extract_keypoints(path, settings))
        except ImageError as error:
            features.append(error.reason)
    return features


def match_pairs(features: Sequence[Features], numbers: np.ndarray, pairs: np.ndarray, directions: np.ndarray,
                matching: MatchSettings, verification: VerificationSettings) -> Block:
    """Task: match and verify some pairs of images.

    Args:
        features: Keypoints of K images.
        numbers: (K,) int, their numbers in the landmark.
        pairs: (P, 2) int, indices into ``features``.
        directions: (128, 128), see ``matching.main_directions``.
        matching: Settings of matching.
        verification: Settings of verification.

    Returns:
        The verified pairs.
    """
    cv2.setNumThreads(1)
    matcher = Matcher(features, directions, matching, verification.min_inliers)
    edges, inliers, affines, rectangles = [], [], [], []
    rejected: Counter[str] = Counter()
    for i, j in pairs.tolist():
        matches = matcher(i, j)
        if not len(matches):
            continue
        verified = verify_pair(features[i], features[j], matches, verification)
        if verified.reason:
            rejected[verified.reason] += 1
            continue
        left, right = matches[verified.inliers].T
        edges.append(numbers[[i, j]])
        inliers.append(verified.inliers.sum())
        affines.append(verified.affine)
        rectangles.append([_around(features[i], left), _around(features[j], right)])
    if not edges:
        return _empty_block()._replace(compared=len(pairs), rejected=rejected)
    return Block(np.array(edges, np.int32), np.array(inliers, np.int32), np.array(affines, np.float64),
                 np.array(rectangles, np.float32), len(pairs), rejected)


def time_tasks(paths: Sequence[Path], settings: CleanSettings) -> tuple[float, float]:
    """Task: measure the time of the other tasks.

    Args:
        paths: A few images.
        settings: Settings of cleaning.

    Returns:
        Seconds for the keypoints of an image, and for matching a pair.
    """
    started = time.monotonic()
    features = [image for image in keypoints_of_images(paths, settings.keypoints) if not isinstance(image, str)]
    image_seconds = (time.monotonic() - started) / len(paths)
    pairs = np.argwhere(np.triu(np.ones((len(features),) * 2), 1))
    if not len(pairs) or not sum(len(image.points) for image in features):
        return image_seconds, 0
    started = time.monotonic()
    directions = main_directions(_root_sift_of(features))
    match_pairs(features, np.arange(len(features)), pairs, directions, settings.matching, settings.verification)
    return image_seconds, (time.monotonic() - started) / len(pairs)


def _root_sift_of(features: Iterable[Features]) -> np.ndarray:
    """RootSIFT descriptors of several images, one below the other."""
    return root_sift(np.concatenate([image.descriptors for image in features]))


def _around(features: Features, chosen: np.ndarray) -> np.ndarray:
    """Smallest box around the squares that chosen keypoints' descriptors cover: what matched is all of these."""
    points, half = features.points[chosen], features.sides[chosen, None] / 2
    return np.concatenate([(points + 0.5 - half).min(0), (points + 0.5 + half).max(0)])


def _empty_block() -> Block:
    return Block(np.zeros((0, 2), np.int32), np.zeros(0, np.int32), np.zeros((0, 2, 3)),
                 np.zeros((0, 2, 4), np.float32), 0, Counter())
