"""The graph of verified matches of one landmark, and its connected components (Section 3).

The paper keeps the largest connected component. A single false match joins two sides of a building into one component.
So a component is also cut in two where few inliers join its parts: at its cut of smallest conductance, which the second
eigenvector of its normalised Laplacian gives (Shi and Malik 2000).
"""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from rmaclib.foundation.errors import InputError, RmacError
from rmaclib.foundation.files import whole_file
from rmaclib.foundation.settings import Field, settings

# Array → the length of its first axis, the rest of its shape, its type; N images, E edges.
_ARRAYS = {"sizes": ("N", (2,), "int32"), "pairs": ("E", (2,), "int32"), "inliers": ("E", (), "int32"),
           "affines": ("E", (2, 3), "float64"), "rectangles": ("E", (2, 4), "float32")}
_FAR = 1e9  # pixels: coordinates are smaller
_META = {"names": list, "reasons": list, "compared": int, "rejected": dict, "settings": dict}


class GraphError(RmacError, ValueError):
    """A file that is no match graph; the message names it."""


@dataclass(frozen=True)
class MatchGraph:
    """Verified pairs among the N images of one landmark.

    Attributes:
        names: N names.
        reasons: N texts, why an image can't be matched (unreadable, no keypoints), "" if it can.
        sizes: (N, 2) int32, width and height in pixels, (0, 0) for an unreadable image.
        pairs: (E, 2) int32, indices i < j in rising order.
        inliers: (E,) int32, the scores of the edges.
        affines: (E, 2, 3) float64, map points of image i to image j, in pixels of the originals.
        rectangles: (E, 2, 4) float32, smallest boxes (x1, y1, x2, y2) around what matched in i and in j: the squares
            that the keypoints' descriptors cover, which may reach out of the image.
        compared: Number of pairs that were compared.
        rejected: Why a pair with enough matches gave no edge → how many.
        settings: What made it: keypoints, matching, verification, and a fingerprint of the files.
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

    Attributes:
        threshold: Edges with fewer inliers are cut. The paper's value is not known.
        conductance: A component is cut in two where the edges between the parts have less than this share of the
            inliers of the part that has fewer, see ``parts``. 0 leaves connected components whole, as the paper does.
        largest: Parts kept, largest first. 1: the largest alone; more give a landmark's other viewpoints as classes.
        min_images: A smaller part is no class and not kept.
        min_matches: Images with fewer matches within their part are dropped from it, until none has fewer. 2 drops
            some relevant images and nearly all irrelevant ones.
    """

    threshold: Annotated[int, Field(ge=3)] = 10  # an affine has three points
    conductance: Annotated[float, Field(ge=0, lt=1)] = 0.02
    largest: Annotated[int, Field(ge=1)] = 1
    min_images: Annotated[int, Field(ge=1)] = 2
    min_matches: Annotated[int, Field(ge=1)] = 1


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """Connected component of each node: 0 is the largest, 1 the next.

    Of equally large components that with the first node comes first.

    Args:
        count: Number of nodes.
        pairs: (E, 2) indices of nodes.

    Returns:
        (count,) int64.
    """
    if not count:
        return np.zeros(0, np.int64)
    i, j = np.asarray(pairs).reshape(-1, 2).T
    _, component = connected_components(coo_array((np.ones(len(i)), (i, j)), shape=(count, count)), directed=False)
    # Components are numbered by their first node already; a stable sort by size keeps that order among equals.
    order = np.argsort(-np.bincount(component), kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[component]


def parts(count: int, pairs: np.ndarray, weights: np.ndarray, conductance: float) -> np.ndarray:
    """Connected components, cut in two again and again while a cut has less than the given conductance.

    The conductance of a cut is the weight of the edges between its sides, over the weights at the nodes of the side
    that has less; an edge within that side counts at both its ends.

    Args:
        count: Number of nodes. Memory grows with the square of those in a component.
        pairs: (E, 2) indices of nodes, each pair once.
        weights: (E,) positive.
        conductance: 0 for connected components as they are.

    Returns:
        (count,) int64, numbered as by ``components``.
    """
    pairs = np.asarray(pairs).reshape(-1, 2)
    uncut = np.ones(len(pairs), bool)  # edges that no cut goes through
    whole = _groups(components(count, pairs)) if conductance > 0 else []
    while whole:
        nodes = whole.pop()
        inside = np.zeros(count, bool)
        inside[nodes] = True
        inner = np.flatnonzero(uncut & inside[pairs[:, 0]])
        local = np.searchsorted(nodes, pairs[inner])
        value, side = sparsest_cut(len(nodes), local, weights[inner])
        if value < conductance:
            uncut[inner] = side[local[:, 0]] == side[local[:, 1]]
            # Either side may be in several pieces.
            whole += [nodes[group] for group in _groups(components(len(nodes), local[uncut[inner]]))]
    return components(count, pairs[uncut])


def _groups(numbers: np.ndarray) -> list[np.ndarray]:
    """Nodes of each component of more than two: the cut of a single edge has conductance 1."""
    return [np.flatnonzero(numbers == number) for number in np.flatnonzero(np.bincount(numbers) > 2)]


def sparsest_cut(count: int, pairs: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """The cut of smallest conductance in the order that the second eigenvector of the normalised Laplacian gives.

    A graph with symmetries has several second eigenvectors; any of them is taken.

    Args:
        count: Nodes of a connected graph, at least 2.
        pairs: (E, 2), as those of ``parts``.
        weights: (E,), as those of ``parts``.

    Returns:
        The conductance, and (count,) bool, one of the sides.
    """
    adjacency = np.zeros((count, count))
    adjacency[tuple(pairs.T)] = adjacency[tuple(pairs.T[::-1])] = weights
    degrees = adjacency.sum(1)
    scale = 1 / np.sqrt(degrees)
    _, vectors = eigh(np.eye(count) - scale[:, None] * adjacency * scale, subset_by_index=[1, 1])
    places = vectors[:, 0] * scale
    # The sign of an eigenvector, and its last digits, depend on the linear algebra library.
    order = np.argsort((places * (np.sign(places[0]) or 1)).round(9), kind="stable")
    volumes = degrees[order].cumsum()  # of the first nodes
    between = volumes - 2 * np.tril(adjacency[np.ix_(order, order)], -1).sum(1).cumsum()
    values = between[:-1] / np.minimum(volumes[:-1], volumes[-1] - volumes[:-1])
    best = int(values.argmin())
    side = np.zeros(count, bool)
    side[order[:best + 1]] = True
    return float(values[best]), side


def strong_edges(graph: MatchGraph, threshold: int) -> np.ndarray:
    """The edges with at least ``threshold`` inliers.

    Args:
        graph: A landmark's graph.
        threshold: Inliers that an edge needs.

    Returns:
        (E,) bool.

    Raises:
        InputError: The graph was made with a higher limit, and lacks weaker edges.
    """
    least = graph.settings["verification"]["min_inliers"]
    if threshold < least:
        raise InputError(f"threshold: expected at least {least}, the min_inliers of this graph, got {threshold}")
    return graph.inliers >= threshold


def kept_components(graph: MatchGraph, settings: GraphSettings) -> np.ndarray:
    """The kept part that each image belongs to: the largest connected component.

    Args:
        graph: A landmark's graph.
        settings: Which part is kept.

    Returns:
        (N,) int64: 0 for the part that was largest before images with few matches were dropped, 1 for the next if
        several are kept; -1 for a dropped image.

    Raises:
        InputError: As ``strong_edges`` raises it.
    """
    strong = strong_edges(graph, settings.threshold)
    component = parts(len(graph.names), graph.pairs[strong], graph.inliers[strong], settings.conductance)
    kept = np.where(component < settings.largest, component, -1)
    while settings.min_matches > 1:
        matches = np.bincount(graph.pairs[kept_edges(graph, settings, kept)].ravel(), minlength=len(kept))
        few = (kept >= 0) & (matches < settings.min_matches)
        if not few.any():
            break
        kept[few] = -1
    # A part may be, or have become, too small for a class, and leaves a gap among the numbers.
    large = [number for number in range(kept.max(initial=-1) + 1) if (kept == number).sum() >= settings.min_images]
    return np.array([large.index(number) if number in large else -1 for number in kept.tolist()], np.int64)


def kept_edges(graph: MatchGraph, settings: GraphSettings, kept: np.ndarray) -> np.ndarray:
    """The strong edges within the kept parts.

    Args:
        graph: A landmark's graph.
        settings: The threshold is used.
        kept: (N,), what ``kept_components`` gave.

    Returns:
        (E,) bool.
    """
    ends = kept[graph.pairs]  # (E, 2)
    return strong_edges(graph, settings.threshold) & (ends[:, 0] == ends[:, 1]) & (ends[:, 0] >= 0)


def save_graph(path: str | os.PathLike, graph: MatchGraph) -> None:
    """Write a graph as .npz, whole or not at all; the same graph gives the same bytes.

    Args:
        path: The file.
        graph: A landmark's graph.

    Raises:
        OutputError: The file can't be written.
    """
    meta = {"names": graph.names, "reasons": graph.reasons, "compared": graph.compared,
            "rejected": dict(sorted(graph.rejected.items())), "settings": graph.settings}
    text = json.dumps(meta, ensure_ascii=False, allow_nan=False)
    arrays = {name: getattr(graph, name) for name in _ARRAYS}
    with whole_file(path) as temporary:
        np.savez(temporary, meta=np.frombuffer(text.encode(), np.uint8), **arrays)


def load_graph(path: str | os.PathLike) -> MatchGraph:
    """Read a graph that ``save_graph`` wrote.

    Args:
        path: The file.

    Returns:
        A landmark's graph, checked.

    Raises:
        FileNotFoundError: There is no such file.
        GraphError: It is something else, damaged, or its parts don't fit together; the text names the file.
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
    """Raises ValueError for compressed parts, which are never written: unpacked they could fill the memory."""
    with zipfile.ZipFile(path) as file:
        for part in file.infolist():
            if part.compress_type != zipfile.ZIP_STORED or part.file_size > path.stat().st_size:
                raise ValueError(f"{part.filename}: expected no compression")


def _check_meta(meta: Any) -> None:
    """Raises ValueError when the parts that are no arrays aren't what save_graph writes."""
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
    """Raises ValueError when the arrays don't fit to each other, or to the names."""
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
