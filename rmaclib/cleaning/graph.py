"""The graph of verified matches of one landmark, and the parts of it that hold together (Section 3).

The paper keeps the largest connected component. One false or accidental match then joins two sides of a building for
good, so that a component is also cut where hardly anything holds it together: at its cut of smallest conductance,
found from the second eigenvector of its normalised Laplacian (Shi and Malik 2000).
"""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rmaclib.foundation.errors import InputError, RmacError
from rmaclib.foundation.files import whole_file
from rmaclib.foundation.settings import Field, settings

# Array -> what it counts, the rest of its shape, its type; N images, E edges.
_ARRAYS = {"sizes": ("N", (2,), "int32"), "pairs": ("E", (2,), "int32"), "inliers": ("E", (), "int32"),
           "affines": ("E", (2, 3), "float64"), "rectangles": ("E", (2, 4), "float32")}
_FAR = 1e9  # pixels
_META = {"names": list, "reasons": list, "compared": int, "rejected": dict, "settings": dict}


class GraphError(RmacError, ValueError):
    """A file that is no match graph; the message names it."""


@dataclass(frozen=True)
class MatchGraph:
    """Verified pairs among the N images of one landmark.

    names: N names; reasons: N texts, why an image can't be matched (unreadable, no keypoints), "" if it can
    sizes: (N, 2) int32, (width, height) in pixels, (0, 0) of an unreadable image
    pairs: (E, 2) int32, indices i < j in rising order; inliers: (E,) int32, the edges' scores
    affines: (E, 2, 3) float64, map points of image i to image j, in pixels of the originals
    rectangles: (E, 2, 4) float32, smallest boxes (x1, y1, x2, y2) around what matched in i and in j: the squares
      that the keypoints' descriptors describe, which may reach out of the image
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


@settings
class GraphSettings:
    """Which part of a landmark's graph is kept.

    threshold: edges with fewer inliers are cut; the paper's value is not known
    conductance: a component is cut in two where the edges between hold less than this share of the inliers of the
      part that has fewer, see parts(); 0 leaves connected components whole, as the paper does
    largest: parts kept; 1 as in the paper, more give a landmark's other profiles as sub-classes
    min_images: a smaller part is no class and not kept
    min_matches: images with fewer matches within their part are dropped from it, until none has fewer; 2 costs some
      right images and leaves hardly a wrong one
    """

    threshold: Annotated[int, Field(ge=3)] = 10  # an affine has three points
    conductance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    largest: Annotated[int, Field(ge=1)] = 1
    min_images: Annotated[int, Field(ge=1)] = 2
    min_matches: Annotated[int, Field(ge=1)] = 1


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


def parts(count: int, pairs: np.ndarray, weights: np.ndarray, conductance: float) -> np.ndarray:
    """Components that are cut in two, and again, as long as a cut has less than the given conductance.

    pairs: (E, 2) indices, each pair once, weights: (E,) positive; returns (count,) int, numbered as components()
    Conductance of a cut: weight of the edges between its sides over the weights at the nodes of the side that has
    less, an edge within it counting at both its ends. Takes N² numbers for a component of N nodes.
    """
    pairs = np.asarray(pairs).reshape(-1, 2)
    held = np.ones(len(pairs), bool)  # edges that no cut goes through
    whole = _groups(components(count, pairs)) if conductance > 0 else []
    while whole:
        nodes = whole.pop()
        inside = np.zeros(count, bool)
        inside[nodes] = True
        inner = np.flatnonzero(held & inside[pairs[:, 0]])
        local = np.searchsorted(nodes, pairs[inner])
        value, side = sparsest_cut(len(nodes), local, weights[inner])
        if value < conductance:
            held[inner] = side[local[:, 0]] == side[local[:, 1]]
            # Either side may be in several pieces.
            whole += [nodes[group] for group in _groups(components(len(nodes), local[held[inner]]))]
    return components(count, pairs[held])


def _groups(numbers: np.ndarray) -> list[np.ndarray]:
    """Nodes of each component, of those that a cut can make smaller: a single edge has conductance 1."""
    return [np.flatnonzero(numbers == number) for number in np.flatnonzero(np.bincount(numbers) > 2)]


def sparsest_cut(count: int, pairs: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The cut of smallest conductance among those between nodes that the second eigenvector of the normalised
    Laplacian puts in order. (Of a graph with symmetries several eigenvectors may be the second; any of them is taken.)

    Arguments as of parts(), of a connected graph of at least 2 nodes; returns the conductance and (count,) bool, one
    of the sides
    """
    joined = np.zeros((count, count))
    joined[tuple(pairs.T)] = joined[tuple(pairs.T[::-1])] = weights
    degrees = joined.sum(1)
    scale = 1 / np.sqrt(degrees)
    _, vectors = eigh(np.eye(count) - scale[:, None] * joined * scale, subset_by_index=[1, 1])
    places = vectors[:, 0] * scale
    # Which way round an eigenvector comes, and its last digits, are the linear algebra library's choice.
    order = np.argsort((places * (np.sign(places[0]) or 1)).round(9), kind="stable")
    volumes = degrees[order].cumsum()  # of the first nodes
    between = volumes - 2 * np.tril(joined[np.ix_(order, order)], -1).sum(1).cumsum()
    values = between[:-1] / np.minimum(volumes[:-1], volumes[-1] - volumes[:-1])
    best = int(values.argmin())
    side = np.zeros(count, bool)
    side[order[:best + 1]] = True
    return float(values[best]), side


def strong_edges(graph: MatchGraph, threshold: int) -> np.ndarray:
    """(E,) bool: the edges with at least `threshold` inliers.

    raises InputError when the graph was made with a higher limit: weaker edges are not in it
    """
    least = graph.settings["verification"]["min_inliers"]
    if threshold < least:
        raise InputError(f"threshold: expected at least {least}, the min_inliers of this graph, got {threshold}")
    return graph.inliers >= threshold


def kept_components(graph: MatchGraph, settings: GraphSettings) -> np.ndarray:
    """(N,) int: number of the kept part that an image belongs to, 0 for the one that was largest before images with few
    matches were dropped; -1 when it is dropped."""
    strong = strong_edges(graph, settings.threshold)
    found = parts(len(graph.names), graph.pairs[strong], graph.inliers[strong], settings.conductance)
    kept = np.where(found < settings.largest, found, -1)
    while settings.min_matches > 1:
        matches = np.bincount(graph.pairs[kept_edges(graph, settings, kept)].ravel(), minlength=len(kept))
        few = (kept >= 0) & (matches < settings.min_matches)
        if not few.any():
            break
        kept[few] = -1
    # A part, or what is left of it, may be too small for a class, and leaves a gap among the numbers.
    left = [number for number in range(kept.max(initial=-1) + 1) if (kept == number).sum() >= settings.min_images]
    return np.array([left.index(number) if number in left else -1 for number in kept.tolist()], np.int64)


def kept_edges(graph: MatchGraph, settings: GraphSettings, kept: np.ndarray) -> np.ndarray:
    """(E,) bool: the strong edges within the kept parts; kept: what kept_components() gave."""
    ends = kept[graph.pairs]  # (E, 2)
    return strong_edges(graph, settings.threshold) & (ends[:, 0] == ends[:, 1]) & (ends[:, 0] >= 0)


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

    raises FileNotFoundError; GraphError naming the file when it is something else, damaged, or its parts don't fit
    together
    """
    path = Path(path)
    try:
        _check_sizes(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in _ARRAYS}
            meta = json.loads(file["meta"].tobytes().decode())
        _check_meta(meta)
        _check_arrays(arrays, meta)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged archive raises zipfile's, zlib's and NumPy's errors alike
        raise GraphError(f"{path}: expected a match graph (.npz of rmac clean), found {type(error).__name__}: "
                         f"{error}") from error
    meta["names"], meta["reasons"] = tuple(meta["names"]), tuple(meta["reasons"])
    return MatchGraph(**meta, **arrays)


def _check_sizes(path: Path) -> None:
    """raises ValueError when a part says to be larger than the file, so that nothing is unpacked to fill the memory"""
    with zipfile.ZipFile(path) as file:
        for part in file.infolist():
            if part.compress_type != zipfile.ZIP_STORED or part.file_size > path.stat().st_size:
                raise ValueError(f"{part.filename} is packed, which it never is")


def _check_meta(meta: object) -> None:
    """raises ValueError when the parts that are no arrays aren't what save_graph writes"""
    if not isinstance(meta, dict) or meta.keys() != _META.keys():
        raise ValueError(f"expected {', '.join(_META)}, found {sorted(meta) if isinstance(meta, dict) else meta!r:.99}")
    for name, kind in _META.items():
        if not isinstance(meta[name], kind) or isinstance(meta[name], bool):
            raise ValueError(f"{name}: expected {kind.__name__}, found {type(meta[name]).__name__}")
    if not all(isinstance(text, str) for text in (*meta["names"], *meta["reasons"])):
        raise ValueError("names, reasons: expected texts")
    if len(meta["reasons"]) != len(meta["names"]):
        raise ValueError(f"reasons: expected {len(meta['names'])}, one for each name, found {len(meta['reasons'])}")
    counts = [meta["compared"], *meta["rejected"].values()]
    if any(not isinstance(count, int) or isinstance(count, bool) or count < 0 for count in counts):
        raise ValueError(f"compared, rejected: expected counts, found {counts}")
    verification = meta["settings"].get("verification")
    least = verification.get("min_inliers") if isinstance(verification, dict) else None
    if not isinstance(least, int) or isinstance(least, bool) or least < 1:
        raise ValueError(f"settings: expected verification.min_inliers, a count, found {least!r:.99}")


def _check_arrays(arrays: Mapping[str, np.ndarray], meta: Mapping) -> None:
    """raises ValueError when the arrays don't fit to each other, or to the names"""
    counts = {"N": len(meta["names"]), "E": arrays["pairs"].shape[0] if arrays["pairs"].ndim else 0}
    for name, (counted, rest, kind) in _ARRAYS.items():
        shape = (counts[counted], *rest)
        if arrays[name].shape != shape or arrays[name].dtype != kind:
            raise ValueError(f"{name}: expected {kind} of shape {shape}, found {arrays[name].dtype} of shape "
                             f"{arrays[name].shape}")
    sizes, pairs, inliers, affines, rectangles = (arrays[name] for name in _ARRAYS)
    first, second = pairs[:, 0].astype(np.int64), pairs[:, 1]
    if ((first < 0) | (first >= second) | (second >= counts["N"])).any():
        raise ValueError(f"pairs: expected indices i < j in 0..{counts['N'] - 1}")
    if len(np.unique(first * counts["N"] + second)) < len(pairs):
        raise ValueError("pairs: expected each pair once")
    if (sizes < 0).any() or (sizes[pairs] < 1).any():
        raise ValueError("sizes: expected widths and heights in pixels, more than 0 of matched images")
    if (inliers < meta["settings"]["verification"]["min_inliers"]).any():
        raise ValueError("inliers: expected at least verification.min_inliers")
    if not (np.abs(affines) < _FAR).all() or not (np.abs(rectangles) < _FAR).all():
        raise ValueError(f"affines, rectangles: expected finite numbers below {_FAR:g}")
    scales = np.linalg.svd(affines[:, :, :2], compute_uv=False)
    if not ((scales > 1e-6) & (scales < 1e6)).all():
        raise ValueError("affines: expected maps that can be inverted")
    if (rectangles[..., :2] >= rectangles[..., 2:]).any():
        raise ValueError("rectangles: expected x1 < x2 and y1 < y2")
