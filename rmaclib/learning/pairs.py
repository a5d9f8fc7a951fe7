"""Which images of a collection show the same thing (Section 4.2): by verified matches, or by labels."""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.sparse import csr_array

from rmaclib.cleaning.graph import GraphSettings, kept_components, kept_edges, load_graph
from rmaclib.datasets.types import LabelledImages
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import read_json
from rmaclib.foundation.settings import from_mapping
from rmaclib.learning.errors import LearningError


class Relations:
    """What the N images of a collection are to each other.

    labels: (N,) int64. Images of different labels are irrelevant to each other.
    verified: (N, N) sparse bool, symmetric: the relevant pairs. None: images of one label are relevant.
    """

    def __init__(self, labels: np.ndarray, verified: csr_array | None = None):
        self.labels, self.verified = np.asarray(labels, np.int64), verified
        if verified is not None and verified.shape != (len(self.labels),) * 2:
            raise ValueError(f"verified: expected a row and a column for each of {len(self.labels)} images, "
                             f"got {verified.shape}")

    def relevant(self, images: np.ndarray) -> np.ndarray:
        """(n, n) bool for n images, given by their indices; an image is not relevant to itself."""
        if self.verified is None:
            found = self.labels[images][:, None] == self.labels[images]
        else:
            found = self.verified[images][:, images].toarray()
        return found & (images[:, None] != images)

    def irrelevant(self, images: np.ndarray) -> np.ndarray:
        """(n, n) bool for n images, given by their indices."""
        return self.labels[images][:, None] != self.labels[images]


def verified_pairs(collection: LabelledImages, folder: str | os.PathLike,
                   settings: GraphSettings | None = None) -> csr_array:
    """Pairs of images that a verified match joins (Section 3), (N, N) bool, symmetric.

    folder: of a cleaning run (rmac clean --out FOLDER): its graphs/*.npz are read
    settings: which parts of the graphs were kept; a pair has both its images in one of them. Default: those in the
      folder's settings.json (rmac clean writes it), or without it GraphSettings()
    An image is found by the end of its path: the name that it was cleaned under. Pairs that the collection lacks an
      image of, or has under two labels, are left out.
    raises LearningError: no graphs in the folder, unreadable settings, or none of their pairs in the collection
    """
    files = sorted((Path(folder) / "graphs").glob("*.npz"))
    if not files:
        raise LearningError(f"{folder}: expected match graphs graphs/*.npz of a cleaning run, found none")
    settings = settings or _cleaned_with(Path(folder) / "settings.json")
    find, rows, columns = _Finder(collection), [], []
    for file in files:
        try:
            graph = load_graph(file)
        except FileNotFoundError as error:
            raise LearningError(f"{file}: expected a match graph of a cleaning run, found a link to nothing") from error
        for i, j in graph.pairs[kept_edges(graph, settings, kept_components(graph, settings))].tolist():
            for a in find(graph.names[i]):
                for b in find(graph.names[j]):
                    if a != b and collection.labels[a] == collection.labels[b]:
                        rows += (a, b)
                        columns += (b, a)
    if not rows:
        raise LearningError(f"{folder}: none of the pairs with {settings.threshold} inliers joins two images of "
                            f"{collection.name}; images are found by the ends of their paths, such as "
                            f"{collection.names[0]}")
    count = len(collection.names)
    found = csr_array((np.ones(len(rows), bool), (rows, columns)), shape=(count, count))
    found.sum_duplicates()
    return found


def _cleaned_with(file: Path) -> GraphSettings:
    if not file.exists():
        return GraphSettings()
    found = read_json(file, LearningError, "the settings of a cleaning run")
    if "graph" not in found:
        raise LearningError(f"{file}: expected the settings of a cleaning run, found no part 'graph'")
    try:
        return from_mapping(GraphSettings, found["graph"], f"{file}: graph")
    except (InputError, TypeError) as error:
        raise LearningError(f"{file}: expected the settings of a cleaning run, found {error}") from error


class _Finder:
    """Indices of the images whose path ends with a name, as the names of a clean list and of its source differ."""

    def __init__(self, collection: LabelledImages):
        self.parts = [Path(os.path.normpath(path)).parts for path in collection.paths]
        self.ends: dict[int, dict[tuple[str, ...], list[int]]] = {}

    def __call__(self, name: str) -> list[int]:
        wanted = tuple(part for part in Path(os.path.normpath(name)).parts if part != "..")
        if len(wanted) not in self.ends:
            places = self.ends[len(wanted)] = defaultdict(list)
            for index, parts in enumerate(self.parts):
                places[parts[-len(wanted):]].append(index)
        return self.ends[len(wanted)].get(wanted, [])
