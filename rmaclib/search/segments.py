"""Segments of an index: vectors that faiss searches together, and their names."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import faiss
import numpy as np

from rmaclib.ranking import normalise_rows
from rmaclib.search.index_folder import SegmentEntry
from rmaclib.search.structures import Structure, create_structure, search_parameters

ROWS = 16384  # rows worked on at a time


class Neighbour(NamedTuple):
    """A neighbour of a query.

    Attributes:
        name: Of the vector; of an image its absolute path.
        similarity: Cosine of the vector and the query. In large segments the vector has 8 bits per dimension.
        inliers: Matches with the query that agree on one affine transformation, 0 where they are too few; None without
            geometric verification.
    """

    name: str
    similarity: float
    inliers: int | None = None


@dataclass
class Segment:
    """Vectors that are searched together.

    Attributes:
        index: faiss' index of N vectors, ℓ2-normalised.
        names: N names.
        removed: (N,) bool, rows that are no longer in the index.
        structure: How it is searched.
        entry: Its entry in meta.json; None until it is saved.
    """

    index: faiss.Index
    names: tuple[str, ...]
    removed: np.ndarray
    structure: Structure
    entry: SegmentEntry | None = None

    def __len__(self) -> int:
        """Number of rows that aren't removed."""
        return len(self.names) - int(self.removed.sum())

    @property
    def is_exact(self) -> bool:
        """Whether it has its vectors in float32. IVF-PQ has them in 8 bits per dimension."""
        return self.structure.name != "ivf-pq"

    def kept(self) -> np.ndarray:
        """Numbers of the rows that aren't removed, rising."""
        return np.flatnonzero(~self.removed)

    def kept_names(self) -> list[str]:
        """Names of the rows that aren't removed, in order."""
        return [self.names[row] for row in self.kept()]

    def blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the vectors of the given rows, ℓ2-normalised, ``ROWS`` at a time."""
        for start in range(0, len(rows), ROWS):
            yield self.index.reconstruct_batch(rows[start:start + ROWS])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Search the nearest rows of each query.

        Args:
            queries: (Q, D) float32, ℓ2-normalised.
            k: Requested neighbours.

        Returns:
            (Q, k) float32 similarities, falling, and (Q, k) int64 row numbers, -1 where there are no more.
        """
        return self.index.search(queries, k, params=search_parameters(self.structure.name, k, self.removed))


def merge_segments(segments: Sequence[Segment], vectors: np.ndarray, names: Sequence[str], structure: Structure,
                   on_added: Callable[[int], object] = lambda count: None) -> Segment:
    """Make one segment of the rows of others that aren't removed, followed by new vectors.

    Args:
        segments: Exact ones.
        vectors: (N, D) of any length; may be a memory map.
        names: N names.
        structure: How the new segment is searched.
        on_added: Called with the number of vectors each time that some were added.
    """
    count = len(vectors) + sum(map(len, segments))
    index = create_structure(structure.name, vectors.shape[1], count, lambda rows: _sample(segments, vectors, rows))
    for segment in segments:  # already ℓ2-normalised: however often a vector is merged, it stays the same to the bit
        for block in segment.blocks(segment.kept()):
            index.add(block)
            on_added(len(block))
    for start in range(0, len(vectors), ROWS):
        block = normalise_rows(vectors[start:start + ROWS])
        index.add(block)
        on_added(len(block))
    merged_names = (*(name for segment in segments for name in segment.kept_names()), *names)
    return Segment(index, merged_names, np.zeros(count, bool), structure)


def _sample(segments: Sequence[Segment], vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """ℓ2-normalised vectors of rising row numbers of what merge_segments() puts together."""
    blocks: list[np.ndarray] = []
    first = 0
    for segment in segments:
        inside = rows[(rows >= first) & (rows < first + len(segment))] - first
        blocks += segment.blocks(segment.kept()[inside])
        first += len(segment)
    return np.concatenate([*blocks, normalise_rows(vectors[rows[rows >= first] - first])])


def join_neighbours(segments: Sequence[Segment], results: Sequence[tuple[np.ndarray, np.ndarray]],
                    k: int) -> list[list[Neighbour]]:
    """Join what each segment found for Q queries to one list for each query.

    Args:
        segments: At least one.
        results: Of each segment's search.
        k: Neighbours to return at most.

    Returns:
        Q lists by falling similarity; equal ones by segment and row, the order in which they were added.
    """
    similarities = np.concatenate([part[0] for part in results], axis=1)  # (Q, sum of each segment's k)
    rows = np.concatenate([part[1] for part in results], axis=1)
    origins = np.repeat(np.arange(len(results)), [part[1].shape[1] for part in results])  # the segment of each column
    neighbours = []
    for query_similarities, query_rows in zip(similarities, rows, strict=True):
        order = np.lexsort((query_rows, origins, -query_similarities))
        order = order[query_rows[order] >= 0][:k]
        neighbours.append([Neighbour(segments[origin].names[row], float(similarity)) for origin, row, similarity
                           in zip(origins[order], query_rows[order], query_similarities[order], strict=True)])
    return neighbours
