"""Boxes around a landmark from its match graph, and their diffusion over the graph (Section 3).

For each of its verified pairs an image has a rectangle around its inliers. The paper takes the geometric median of
these rectangles, which covers what most pairs share: often only a part of the landmark. By default we take the extent
that the rectangles cover together. ``diffuse`` has the paper's update.
"""

from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import Field, settings

Merge = Literal["extent", "median"]
MERGES = get_args(Merge)
# Quantile of the borders: of an image's rectangles, and of its neighbours' boxes in an update. Chosen on rendered
# pictures with known boxes.
FIRST_EXTENT, EXTENT = 0.9, 0.6
_MEDIAN_ROUNDS = 200
_MEDIAN_TOLERANCE = 1e-6  # of the points' spread


@settings
class BoxSettings:
    """How boxes are estimated and diffused over the graph.

    Attributes:
        merge: How several boxes for one image become one. "extent": each border at a quantile of theirs, FIRST_EXTENT
            for the first estimate and EXTENT in an update, where 1 is the outermost. "median": their geometric median,
            as in the paper.
        alpha: Weight of the neighbours' boxes in an update.
        tolerance: Diffusion has converged when no coordinate moves more than this part of its image's longer side.
            The paper gives no criterion.
        max_rounds: Updates at most.
    """

    merge: Merge = "extent"
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.1
    tolerance: Annotated[float, Field(gt=0)] = 0.001
    max_rounds: Annotated[int, Field(ge=0)] = 200


class Diffusion(NamedTuple):
    """Diffused boxes.

    Attributes:
        boxes: (N, 4) float64.
        rounds: Updates made.
        converged: Whether the last update moved no box by more than the tolerance.
    """

    boxes: np.ndarray
    rounds: int
    converged: bool


def geometric_median(points: np.ndarray) -> np.ndarray:
    """The point with the smallest sum of distances to given points (Vardi and Zhang 2000).

    Points may coincide. Of two points, or an even number on a line, any point between is a median; the one nearest to
    the mean is returned.

    Args:
        points: (M, D) float, M > 0.

    Returns:
        (D,) float64.

    Raises:
        InputError: There are no points.
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or not len(points):
        raise InputError(f"geometric median: expected points of shape (M, D) with M > 0, got {points.shape}")
    return geometric_medians(points, np.zeros(len(points), np.int64))[0]


def geometric_medians(points: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Geometric medians of many groups of points at once.

    Vardi and Zhang's step from the current place y goes to max(0, 1 - n/r) T + min(1, n/r) y. T is the weighted mean of
    the points that are not at y, n the number of points at y, and r the length of the sum of unit vectors from y to
    the others.

    Args:
        points: (M, D) float.
        owners: (M,) int, group of each point, rising; each group 0..G-1 has a point.

    Returns:
        (G, D) float64.
    """
    points = np.asarray(points, np.float64)
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    sizes = np.diff(starts, append=len(points))

    def total(values: np.ndarray) -> np.ndarray:  # (M, …) -> (G, …)
        return np.add.reduceat(values, starts, axis=0)

    median = total(points) / sizes[:, None]
    spread = np.sqrt(total(((points - median[owners])**2).sum(1)) / sizes)  # (G,)
    tiny = np.maximum(spread, np.finfo(float).tiny) * 1e-9
    for _ in range(_MEDIAN_ROUNDS):
        away = points - median[owners]  # (M, D)
        distance = np.sqrt((away**2).sum(1))
        at_place = distance <= tiny[owners]
        weight = np.where(at_place, 0, 1 / np.where(at_place, 1, distance))
        pull = total(away * weight[:, None])  # (G, D), sum of unit vectors
        weights = total(weight)
        at_median, strength = total(at_place.astype(float)), np.sqrt((pull**2).sum(1))  # n and r, (G,)
        free = np.clip(1 - at_median / np.where(strength > 0, strength, 1), 0, 1) * (strength > 0)
        # T - y is pull / weights; where all points are at y, nothing pulls.
        move = free[:, None] * pull / np.where(weights > 0, weights, 1)[:, None]
        median += move
        if (np.sqrt((move**2).sum(1)) <= _MEDIAN_TOLERANCE * spread).all():
            break
    # The steps become small on the way to a median that is one of the points: check whether it is the nearest one.
    distance = np.sqrt(((points - median[owners])**2).sum(1))
    nearest = np.lexsort((distance, owners))[starts]
    cost = total(distance)
    cost_of_nearest = total(np.sqrt(((points - points[nearest][owners])**2).sum(1)))
    return np.where((cost_of_nearest < cost * (1 - 1e-12))[:, None], points[nearest], median)


def extents(boxes: np.ndarray, owners: np.ndarray, quantile: float) -> np.ndarray:
    """One box for each group of boxes, each border at a quantile of theirs, counted outwards.

    Args:
        boxes: (M, 4).
        owners: (M,) as those of ``geometric_medians``.
        quantile: 0..1, 0.5 for the median, 1 for the outermost.

    Returns:
        (G, 4) float64, values between two boxes interpolated.
    """
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    last = np.diff(starts, append=len(boxes)) - 1  # (G,)
    merged = np.empty((len(starts), 4))
    for border, share in enumerate((1 - quantile, 1 - quantile, quantile, quantile)):
        values = boxes[np.lexsort((boxes[:, border], owners)), border]  # rising in each group
        below = np.floor(share * last).astype(np.int64)
        above = np.minimum(below + 1, last)
        part = share * last - below
        merged[:, border] = (1 - part) * values[starts + below] + part * values[starts + above]
    return merged


def _merged(boxes: np.ndarray, owners: np.ndarray, merge: Merge, quantile: float) -> np.ndarray:
    """One box for each group of boxes, see BoxSettings.merge."""
    return geometric_medians(boxes, owners) if merge == "median" else extents(boxes, owners, quantile)


def map_boxes(boxes: np.ndarray, affines: np.ndarray) -> np.ndarray:
    """Upright boxes nearest to affinely mapped boxes.

    A mapped box is a parallelogram. The upright box has its centre and its second moments along x and y. The rectangle
    around the corners would be larger, up to twice in area for a rotation by 45 degrees. Diffusion maps boxes again
    and again, so that they would grow without end.

    Args:
        boxes: (M, 4) as (x1, y1, x2, y2).
        affines: (M, 2, 3).

    Returns:
        (M, 4) float64.
    """
    matrix = affines[:, :, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    centre = np.einsum("mab,mb->ma", matrix, centre) + affines[:, :, 2]
    half = np.sqrt(np.einsum("mab,mb->ma", matrix**2, half**2))
    return np.concatenate([centre - half, centre + half], 1)


def invert_affines(affines: np.ndarray) -> np.ndarray:
    """Inverse maps of affines.

    Args:
        affines: (M, 2, 3).

    Returns:
        (M, 2, 3) float64.

    Raises:
        numpy.linalg.LinAlgError: One is singular.
    """
    matrix = np.linalg.inv(affines[:, :, :2])
    shift = -np.einsum("mab,mb->ma", matrix, affines[:, :, 2])
    return np.concatenate([matrix, shift[:, :, None]], 2)


def clip_boxes(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Boxes clipped to their images, at least one pixel wide and high.

    Args:
        boxes: (N, 4).
        sizes: (N, 2), width and height.

    Returns:
        (N, 4) float64.
    """
    sizes = np.asarray(sizes, np.float64)
    corners = np.clip(boxes.reshape(-1, 2, 2), 0, sizes[:, None, :])  # (N, [x1 y1 | x2 y2], 2)
    low = np.minimum(corners[:, 0], sizes - 1)
    high = np.maximum(corners[:, 1], low + 1)
    return np.concatenate([low, high], 1)


def initial_boxes(count: int, pairs: np.ndarray, rectangles: np.ndarray, sizes: np.ndarray,
                  merge: Merge = "extent") -> np.ndarray:
    """First estimate: an image's box comes from its rectangles, one for each of its pairs.

    Args:
        count: Number of images.
        pairs: (E, 2), see ``MatchGraph``.
        rectangles: (E, 2, 4), see ``MatchGraph``.
        sizes: (count, 2), width and height.
        merge: See ``BoxSettings``.

    Returns:
        (count, 4) float64, clipped; the whole image where it is in no pair.
    """
    boxes = np.concatenate([np.zeros((count, 2)), np.asarray(sizes, np.float64)], 1)
    if len(pairs):
        owners = pairs.reshape(-1)
        order = np.argsort(owners, kind="stable")
        nodes, owners = np.unique(owners[order], return_inverse=True)
        boxes[nodes] = _merged(rectangles.reshape(-1, 4)[order].astype(np.float64), owners, merge, FIRST_EXTENT)
    return clip_boxes(boxes, sizes)


def diffuse(boxes: np.ndarray, pairs: np.ndarray, affines: np.ndarray, sizes: np.ndarray,
            settings: BoxSettings | None = None) -> Diffusion:
    """Diffuse boxes over the graph until they converge (Section 3).

    The update is B_j ← (1 - α) B_j + α A_ij B_i for each neighbour i of image j, and the updates of one image are
    merged. All of them share the term (1 - α) B_j. So the merged update is B_j with weight 1 - α and the merged mapped
    boxes with weight α. All images are updated at once; boxes are clipped to their image each time.

    Args:
        boxes: (N, 4), the first estimate.
        pairs: (E, 2).
        affines: (E, 2, 3), from image i to image j, used both ways.
        sizes: (N, 2), width and height.
        settings: Weight α, how boxes are merged, and when to stop.

    Returns:
        The boxes, clipped, and how the diffusion ended.
    """
    settings = settings or BoxSettings()
    boxes = clip_boxes(np.asarray(boxes, np.float64), sizes)
    if not len(pairs):
        return Diffusion(boxes, 0, True)
    sources = np.concatenate([pairs[:, 0], pairs[:, 1]])
    targets = np.concatenate([pairs[:, 1], pairs[:, 0]])
    order = np.argsort(targets, kind="stable")
    sources, maps = sources[order], np.concatenate([affines, invert_affines(affines)])[order]
    nodes, owners = np.unique(targets[order], return_inverse=True)
    longer = np.asarray(sizes, np.float64).max(1)[nodes, None]
    for rounds in range(1, settings.max_rounds + 1):
        mapped = _merged(map_boxes(boxes[sources], maps), owners, settings.merge, EXTENT)  # A_ij B_i
        # A box is diffused here: B_j <- (1 - alpha) B_j + alpha A_ij B_i.
        updated = clip_boxes((1 - settings.alpha) * boxes[nodes] + settings.alpha * mapped, sizes[nodes])
        converged = (np.abs(updated - boxes[nodes]) <= settings.tolerance * longer).all()
        boxes[nodes] = updated
        if converged:
            return Diffusion(boxes, rounds, True)
    return Diffusion(boxes, settings.max_rounds, False)
