"""Which images of a collection show the same landmark (Section 4.2): by verified matches, or by labels."""

import os
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_array

from rmaclib.cleaning.graph import GraphSettings, kept_components, kept_edges, load_graph
from rmaclib.datasets.types import LabelledImages
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import read_json
from rmaclib.foundation.settings import from_mapping
from rmaclib.learning.errors import LearningError


class Relations:
    """Relevance among the N images of a collection.

    Attributes:
        labels: (N,) int64. Images of different labels are irrelevant to each other.
        verified: (N, N) sparse bool, symmetric: the relevant pairs. None: images of one label are relevant.
    """

    def __init__(self, labels: np.ndarray | tuple[int, ...], verified: csr_array | None = None):
        self.labels, self.verified = np.asarray(labels, np.int64), verified
        if verified is not None and verified.shape != (len(self.labels),) * 2:
            raise ValueError(f"verified: expected a row and a column for each of {len(self.labels)} images, "
                             f"got {verified.shape}")

    def relevant(self, images: np.ndarray) -> np.ndarray:
        """Tell which of some images are positives of each other.

        Args:
            images: (n,) indices into the collection.

        Returns:
            (n, n) bool, symmetric; an image is not relevant to itself.
        """
        if self.verified is None:
            pairs = self.labels[images][:, None] == self.labels[images]
        else:
            pairs = self.verified[images][:, images].toarray()
        return pairs & (images[:, None] != images)

    def irrelevant(self, images: np.ndarray) -> np.ndarray:
        """Tell which of some images are negatives of each other.

        Args:
            images: (n,) indices into the collection.

        Returns:
            (n, n) bool, symmetric.
        """
        return self.labels[images][:, None] != self.labels[images]


class Positives(NamedTuple):
    """Pairs of images that show the same landmark, where labels alone are not trusted.

    Attributes:
        training: (N, N) bool, symmetric, of the training images (``verified_pairs``). None: images of one label.
        validation: (V, V) bool, the same of the validation images.
    """

    training: csr_array | None = None
    validation: csr_array | None = None


def verified_pairs(collection: LabelledImages, folder: str | os.PathLike,
                   settings: GraphSettings | None = None) -> csr_array:
    """Read the pairs of images that a verified match joins (Section 3).

    An image is looked up by the end of its path: the name under which it was cleaned. Pairs with an image that is not
    in the collection, or that has another label there, are left out.

    Args:
        collection: N images.
        folder: Of a cleaning run (``rmac clean --out FOLDER``): its ``graphs/*.npz`` are read.
        settings: Which parts of the graphs were kept; a pair has both its images in one of them. Default: those in the
            folder's ``settings.json`` (``rmac clean`` writes it), or without it ``GraphSettings()``.

    Returns:
        (N, N) bool, symmetric.

    Raises:
        LearningError: No graphs in the folder, unreadable settings, or none of their pairs in the collection.
    """
    files = sorted((Path(folder) / "graphs").glob("*.npz"))
    if not files:
        raise LearningError(f"{folder}: expected match graphs graphs/*.npz of a cleaning run, found none")
    settings = settings or _settings_of(Path(folder) / "settings.json")
    indices_of = _Lookup(collection)
    rows: list[int] = []
    columns: list[int] = []
    for file in files:
        try:
            graph = load_graph(file)
        except FileNotFoundError as error:
            raise LearningError(f"{file}: expected a match graph of a cleaning run, found a link to nothing") from error
        for i, j in graph.pairs[kept_edges(graph, settings, kept_components(graph, settings))].tolist():
            for a in indices_of(graph.names[i]):
                for b in indices_of(graph.names[j]):
                    if a != b and collection.labels[a] == collection.labels[b]:
                        rows += (a, b)
                        columns += (b, a)
    if not rows:
        raise LearningError(f"{folder}: none of the pairs with {settings.threshold} inliers joins two images of "
                            f"{collection.name}; images are looked up by the ends of their paths, such as "
                            f"{collection.names[0]}")
    count = len(collection.names)
    pairs = csr_array((np.ones(len(rows), np.bool_), (rows, columns)), shape=(count, count))
    pairs.sum_duplicates()
    return pairs


def _settings_of(file: Path) -> GraphSettings:
    """The settings that a cleaning run has written, or their defaults."""
    if not file.exists():
        return GraphSettings()
    parts = read_json(file, LearningError, "the settings of a cleaning run")
    if "graph" not in parts:
        raise LearningError(f"{file}: expected the settings of a cleaning run, found no part 'graph'")
    try:
        return from_mapping(GraphSettings, parts["graph"], f"{file}: graph")
    except (InputError, TypeError) as error:
        raise LearningError(f"{file}: expected the settings of a cleaning run, found {error}") from error


class _Lookup:
    """Indices of the images whose path ends with a name, as the names of a clean list and of its source differ."""

    def __init__(self, collection: LabelledImages):
        self.parts = [Path(os.path.normpath(path)).parts for path in collection.paths]
        self.ends: dict[int, dict[tuple[str, ...], list[int]]] = {}

    def __call__(self, name: str) -> list[int]:
        end = tuple(part for part in Path(os.path.normpath(name)).parts if part != "..")
        if len(end) not in self.ends:
            places = self.ends[len(end)] = defaultdict(list)
            for index, parts in enumerate(self.parts):
                places[parts[-len(end):]].append(index)
        return self.ends[len(end)].get(end, [])
