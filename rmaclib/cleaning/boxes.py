"""Boxes around a landmark from its match graph, diffused over the graph (Section 3).

An image has a rectangle around its inliers for each of its verified pairs. The paper takes their geometric median,
which is what most pairs share and so a part of the landmark. By default we take what they reach together.
"""

from typing import Annotated, Literal, NamedTuple, get_args

import numpy as np

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import Field, settings

Merge = Literal["extent", "median"]
MERGES = get_args(Merge)
# Of the rectangles of one image; of what its neighbours say in an update. Chosen on rendered pictures with known boxes.
FIRST_EXTENT, EXTENT = 0.9, 0.6
_MEDIAN_ROUNDS = 200
_MEDIAN_TOLERANCE = 1e-6  # of the points' spread


@settings
class BoxSettings:
    """How boxes are made and spread over the graph.

    merge: how several boxes for one image become one: "extent", each border at a quantile of theirs (FIRST_EXTENT for
      the first estimate, EXTENT in an update), 1 for the outermost; "median", their geometric median (the paper)
    alpha: weight of what the neighbours say in an update (the paper's 0.1)
    tolerance: stop when no coordinate moves more than this part of its image's longer side; the paper gives none
    max_rounds: stop after so many updates in any case
    """

    merge: Merge = "extent"
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.1
    tolerance: Annotated[float, Field(gt=0)] = 0.001
    max_rounds: Annotated[int, Field(ge=0)] = 200


class Diffusion(NamedTuple):
    """boxes: (N, 4) float64; rounds: updates made; converged: whether the last one moved less than asked."""

    boxes: np.ndarray
    rounds: int
    converged: bool


def geometric_median(points: np.ndarray) -> np.ndarray:
    """The point with the smallest sum of distances to (M, D) points, M > 0 (Vardi and Zhang 2000); (D,).

    Points may coincide. Of two points, or an even number on a line, any point between is a median; theirs nearest
    to the mean is returned.
    raises InputError without points
    """
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or not len(points):
        raise InputError(f"geometric median: expected points of shape (M, D) with M > 0, got {points.shape}")
    return geometric_medians(points, np.zeros(len(points), np.int64))[0]


def geometric_medians(points: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Geometric medians of many groups of points at once.

    points: (M, D) float; owners: (M,) int, group of each point, rising, every group 0..G-1 with a point
    returns (G, D) float64

    Vardi and Zhang's step: the weighted mean T of the points that are not at the current place y, held back by
    those that are: max(0, 1 - n/r) T + min(1, n/r) y, with n points at y and r the length of the sum of unit
    vectors from y to the others.
    """
    points = np.asarray(points, np.float64)
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    sizes = np.diff(starts, append=len(points))

    def total(values):  # (M, …) -> (G, …)
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
        here, strength = total(at_place.astype(float)), np.sqrt((pull**2).sum(1))
        free = np.clip(1 - here / np.where(strength > 0, strength, 1), 0, 1) * (strength > 0)
        # T - y is pull / weights; where all points are at y, nothing pulls.
        move = free[:, None] * pull / np.where(weights > 0, weights, 1)[:, None]
        median += move
        if (np.sqrt((move**2).sum(1)) <= _MEDIAN_TOLERANCE * spread).all():
            break
    # The steps become small on the way to a median that is one of the points: look whether the nearest is it.
    distance = np.sqrt(((points - median[owners])**2).sum(1))
    nearest = np.lexsort((distance, owners))[starts]
    cost = total(distance)
    there = total(np.sqrt(((points - points[nearest][owners])**2).sum(1)))
    return np.where((there < cost * (1 - 1e-12))[:, None], points[nearest], median)


def extents(boxes: np.ndarray, owners: np.ndarray, quantile: float) -> np.ndarray:
    """One box for each group of boxes, each border at a quantile of theirs, counted outwards.

    boxes: (M, 4); owners: (M,) as of geometric_medians; quantile: 0..1, 0.5 for the median, 1 for the outermost
    returns (G, 4) float64, values between two boxes interpolated
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


def _merged(boxes: np.ndarray, owners: np.ndarray, merge: str, quantile: float) -> np.ndarray:
    return geometric_medians(boxes, owners) if merge == "median" else extents(boxes, owners, quantile)


def map_boxes(boxes: np.ndarray, affines: np.ndarray) -> np.ndarray:
    """Upright boxes nearest to affinely mapped boxes.

    boxes: (M, 4) as (x1, y1, x2, y2); affines: (M, 2, 3); returns (M, 4)
    A mapped box is a parallelogram. The upright box has its centre and its second moments along x and y. The
    rectangle around its corners would be larger than what it maps, by up to 2 in area for a turn by 45 degrees,
    and diffusion, which maps boxes again and again, would blow them up.
    """
    matrix = affines[:, :, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    centre = np.einsum("mab,mb->ma", matrix, centre) + affines[:, :, 2]
    half = np.sqrt(np.einsum("mab,mb->ma", matrix**2, half**2))
    return np.concatenate([centre - half, centre + half], 1)


def invert_affines(affines: np.ndarray) -> np.ndarray:
    """Inverse maps of (M, 2, 3) affines. raises numpy.linalg.LinAlgError for a singular one."""
    matrix = np.linalg.inv(affines[:, :, :2])
    shift = -np.einsum("mab,mb->ma", matrix, affines[:, :, 2])
    return np.concatenate([matrix, shift[:, :, None]], 2)


def clip_boxes(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Boxes (N, 4) clipped to images of (width, height) (N, 2), at least one pixel wide and high."""
    sizes = np.asarray(sizes, np.float64)
    corners = np.clip(boxes.reshape(-1, 2, 2), 0, sizes[:, None, :])  # (N, [x1 y1 | x2 y2], 2)
    low = np.minimum(corners[:, 0], sizes - 1)
    high = np.maximum(corners[:, 1], low + 1)
    return np.concatenate([low, high], 1)


def initial_boxes(count: int, pairs: np.ndarray, rectangles: np.ndarray, sizes: np.ndarray,
                  merge: Merge = "extent") -> np.ndarray:
    """First estimate: an image's box comes from its rectangles, one for each of its pairs, see BoxSettings.merge.

    pairs: (E, 2), rectangles: (E, 2, 4), see MatchGraph; sizes: (count, 2); returns (count, 4) float64, clipped;
    images in no pair get the whole image
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
    """Spread boxes over the graph: B_j <- (1 - alpha) B_j + alpha A_ij B_i, until they rest (Section 3).

    boxes: (N, 4) with a first estimate; pairs: (E, 2); affines: (E, 2, 3), from i to j, used both ways;
    sizes: (N, 2), (width, height)
    The updates of one image are merged. All share the term (1 - alpha) B_j, so that is the mean of B_j and of the
    merged mapped boxes, weighted 1 - alpha and alpha. All images are updated at
    once; boxes are clipped to their image each time.
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
        said = _merged(map_boxes(boxes[sources], maps), owners, settings.merge, EXTENT)
        moved = clip_boxes((1 - settings.alpha) * boxes[nodes] + settings.alpha * said, sizes[nodes])
        rests = (np.abs(moved - boxes[nodes]) <= settings.tolerance * longer).all()
        boxes[nodes] = moved
        if rests:
            return Diffusion(boxes, rounds, True)
    return Diffusion(boxes, settings.max_rounds, False)
