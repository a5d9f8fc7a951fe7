"""The graph of verified matches of one landmark, and its connected components (Section 3)."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rmaclib.files import whole_file

_ARRAYS = ("sizes", "pairs", "inliers", "affines", "rectangles")


class GraphError(ValueError):
    """A file that is no match graph; the message names it."""


@dataclass(frozen=True)
class MatchGraph:
    """Verified pairs among the N images of one landmark.

    names: N names; reasons: N texts, why an image can't be matched (unreadable, no keypoints), "" if it can
    sizes: (N, 2) int32, (width, height) in pixels, (0, 0) of an unreadable image
    pairs: (E, 2) int32, indices i < j in rising order; inliers: (E,) int32, the edges' scores
    affines: (E, 2, 3) float64, map points of image i to image j, in pixels of the originals
    rectangles: (E, 2, 4) float32, smallest boxes (x1, y1, x2, y2) around the matched keypoints in i and in j
    compared: number of pairs that were compared
    rejected: why a pair with enough matches gave no edge -> how many
    settings: what made it: keypoints, matching, verification, and the files it was made from
    """

    names: tuple[str, ...]
    reasons: tuple[str, ...]
    sizes: np.ndarray
    pairs: np.ndarray
    inliers: np.ndarray
    affines: np.ndarray
    rectangles: np.ndarray
    compared: int
    rejected: Mapping[str, int]
    settings: Mapping


@dataclass(frozen=True)
class GraphSettings:
    """Which part of a landmark's graph is kept.

    threshold: edges with fewer inliers are cut; the paper's value is not known
    largest: components kept; 1 as in the paper, more give a landmark's other profiles as sub-classes
    min_images: a smaller component is no class and not kept
    """

    threshold: int = 12
    largest: int = 1
    min_images: int = 2

    def __post_init__(self):
        if self.threshold < 3 or self.largest < 1 or self.min_images < 1:
            raise ValueError("graph: expected a threshold of at least 3 (an affine has three points), largest and "
                             f"min_images of at least 1, got {self.threshold}, {self.largest}, {self.min_images}")


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Connected component of each of `count` nodes: 0 is the largest, and so on.

    pairs: (E, 2) indices; returns (count,) int. Among components of one size the one with the first node is first.
    """
    if not count:
        return np.zeros(0, np.int64)
    i, j = np.asarray(pairs).reshape(-1, 2).T
    _, found = connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(count, count)), directed=False)
    # Components are numbered by their first node already; a stable sort by size keeps that order among equals.
    order = np.argsort(-np.bincount(found), kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[found]


def strong_edges(graph: MatchGraph, threshold: int) -> np.ndarray:
    """(E,) bool: the edges with at least `threshold` inliers.

    raises ValueError when the graph was made with a higher limit: weaker edges are not in it
    """
    least = graph.settings["verification"]["min_inliers"]
    if threshold < least:
        raise ValueError(f"threshold: expected at least {least}, the min_inliers of this graph, got {threshold}")
    return graph.inliers >= threshold


def kept_components(graph: MatchGraph, settings: GraphSettings) -> np.ndarray:
    """(N,) int: number of the kept component that an image belongs to, 0 for the largest; -1 when it is dropped."""
    found = components(len(graph.names), graph.pairs[strong_edges(graph, settings.threshold)])
    large = np.bincount(found, minlength=1)[found] >= settings.min_images if len(found) else found
    return np.where(large & (found < settings.largest), found, -1)


def save_graph(path: str | os.PathLike, graph: MatchGraph) -> None:
    """Write a graph as .npz, whole or not at all; the same graph gives the same bytes."""
    meta = {"names": graph.names, "reasons": graph.reasons, "compared": graph.compared,
            "rejected": dict(sorted(graph.rejected.items())), "settings": graph.settings}
    text = json.dumps(meta, ensure_ascii=False, allow_nan=False)
    arrays = {name: getattr(graph, name) for name in _ARRAYS}
    with whole_file(path) as temporary:
        np.savez(temporary, meta=np.frombuffer(text.encode(), np.uint8), **arrays)


def load_graph(path: str | os.PathLike) -> MatchGraph:
    """Read a graph that save_graph wrote.

    raises FileNotFoundError; GraphError naming the file when it is something else
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
            meta = json.loads(file["meta"].tobytes().decode())
        meta["names"], meta["reasons"] = tuple(meta["names"]), tuple(meta["reasons"])
        return MatchGraph(**meta, **arrays)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises zipfile's, zlib's and NumPy's errors alike
        raise GraphError(f"{path}: expected a match graph (.npz of rmac clean), found {type(error).__name__}: "
                         f"{error}") from error
