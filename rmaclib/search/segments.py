"""Segments of an index: some vectors that faiss searches together, their names, and their two files on disk.

A segment's structure says how it is searched: "flat" compares every vector, "hnsw" follows a graph of neighbours,
"ivf-pq" looks into some cells of short codes and compares the best again in 8 bits a number.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import faiss
import numpy as np

from rmaclib.foundation.files import checksum, whole_file, write_text
from rmaclib.foundation.settings import Field, as_tuple, settings
from rmaclib.ranking import normalise_rows
from rmaclib.search.index_folder import SearchIndexError, segment_files

ROWS = 16384  # rows worked on at a time
PROBES = 32  # IVF-PQ: cells that are looked into
_LINKS, _CONSTRUCTION, _VISITED = 32, 80, 128  # HNSW: links of a vector; candidates when building, when searching
_REFINED = 20  # IVF-PQ: candidates that are compared again, for each neighbour asked for
_EXAMPLES = 40  # IVF-PQ: training vectors for each cell


class Structure(NamedTuple):
    """How a segment is searched. name: "flat", "hnsw" or "ivf-pq"; reason: why, for people to read."""

    name: str
    reason: str


@settings
class SegmentEntry:
    """A segment in meta.json.

    number: of its files; structure, reason: see Structure; count: vectors; removed: rows that count no more
    bytes, checksums: of its two files; an index of version 1 has no checksums
    """

    number: Annotated[int, Field(ge=1)]
    structure: str
    reason: str
    count: Annotated[int, Field(ge=1)]
    bytes: Annotated[tuple[int, int], as_tuple]
    removed: Annotated[tuple[Annotated[int, Field(ge=0)], ...], as_tuple] = ()
    checksums: Annotated[tuple[str, ...], as_tuple] = ()


@dataclass
class Segment:
    """Some vectors that are searched together.

    index: rows 0..N-1; names: N names; removed: (N,) bool, rows that count no more
    entry: of its files in the folder of the index, None until it is saved
    """

    index: faiss.Index
    names: tuple[str, ...]
    removed: np.ndarray
    structure: Structure
    entry: SegmentEntry | None = None

    def __len__(self) -> int:
        """Rows that count."""
        return len(self.names) - int(self.removed.sum())

    @property
    def is_exact(self) -> bool:
        """Whether it has its vectors as they were given. IVF-PQ keeps them in 8 bits a number."""
        return self.structure.name != "ivf-pq"

    def kept(self) -> np.ndarray:
        """Numbers of the rows that count."""
        return np.flatnonzero(~self.removed)

    def blocks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Vectors of some rows, ROWS at a time, of unit length."""
        for start in range(0, len(rows), ROWS):
            yield self.index.reconstruct_batch(rows[start:start + ROWS])

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """(Q, k) similarities, falling, and rows; -1 where there are no more."""
        options = {}
        if self.removed.any():
            allowed = np.packbits(~self.removed, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(allowed)
        if self.structure.name == "flat":
            parameters = faiss.SearchParameters(**options)
        elif self.structure.name == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=max(_VISITED, 2 * k), **options)
        else:
            inner = faiss.SearchParametersIVF(nprobe=PROBES, **options)
            refined = max(1.0, min(_REFINED, len(self.names) / k))
            parameters = faiss.IndexRefineSearchParameters(k_factor=refined, base_index_params=inner)
        return self.index.search(queries, k, params=parameters)


def cells(count: int) -> int:
    """Cells that an IVF-PQ segment of `count` vectors has: the power of two nearest to twice the root."""
    return 2**round(np.log2(2 * count**0.5))


def merged(taken: Sequence[Segment], vectors: np.ndarray, names: Sequence[str], structure: Structure,
           added=lambda count: None) -> Segment:
    """A segment of the rows of others that count, and of new vectors behind them.

    taken: segments that are exact; vectors: (N, D) of any length, may be a memory map; added: told how many, as it goes
    """
    count = len(vectors) + sum(map(len, taken))
    index = _empty_index(structure.name, vectors.shape[1], count, lambda rows: _sample(taken, vectors, rows))
    for segment in taken:  # of unit length already: what is taken in again and again stays the same to the bit
        for block in segment.blocks(segment.kept()):
            index.add(block)
            added(len(block))
    for start in range(0, len(vectors), ROWS):
        block = normalise_rows(vectors[start:start + ROWS])
        index.add(block)
        added(len(block))
    every = tuple(segment.names[row] for segment in taken for row in segment.kept()) + tuple(names)
    return Segment(index, every, np.zeros(count, bool), structure)


def _empty_index(structure: str, dim: int, count: int, sample) -> faiss.Index:
    """faiss' index for `count` vectors; sample: gives the vectors of some of their rows, for cells and codebooks."""
    if structure == "flat":
        return faiss.IndexFlatIP(dim)
    if structure == "hnsw":
        index = faiss.IndexHNSWFlat(dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _CONSTRUCTION
        return index
    pieces = max(part for part in range(1, dim // 8 + 2) if dim % part == 0)  # of eight numbers, or a few more
    index = faiss.index_factory(dim, f"IVF{cells(count)},PQ{pieces}x4fs,Refine(SQ8)", faiss.METRIC_INNER_PRODUCT)
    # Evenly taken from all that go in, old and new, in rising order, as a memory map likes it.
    index.train(sample(np.linspace(0, count - 1, min(count, _EXAMPLES * cells(count))).astype(np.int64)))
    return index


def _sample(taken: Sequence[Segment], vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Unit vectors of some rows, rising, of what merged() puts together."""
    parts, first = [], 0
    for segment in taken:
        inside = rows[(rows >= first) & (rows < first + len(segment))] - first
        parts += segment.blocks(segment.kept()[inside])
        first += len(segment)
    return np.concatenate([*parts, normalise_rows(vectors[rows[rows >= first] - first])])


# --- on disk ------------------------------------------------------------------------------------------------------


def write_segment(folder: Path, number: int, segment: Segment) -> SegmentEntry:
    """Write a segment's two files; returns what they are, without the rows removed.

    raises OutputError when they can't be written
    """
    vectors, names = (folder / name for name in segment_files(number))
    # Python writes: of a file that faiss itself opened, an error of the last bytes is lost.
    with whole_file(vectors) as temporary, temporary.open("wb") as stream:
        faiss.write_index(segment.index, faiss.PyCallbackIOWriter(stream.write))
    write_text(names, "".join(f"{name}\n" for name in segment.names))
    return SegmentEntry(number, *segment.structure, len(segment.names),
                        (vectors.stat().st_size, names.stat().st_size), (), (checksum(vectors), checksum(names)))


def with_checksums(folder: Path, entry: SegmentEntry) -> SegmentEntry:
    """The entry itself, or of a segment of version 1 with what its files are now."""
    if entry.checksums:
        return entry
    return replace(entry, checksums=tuple(checksum(folder / name) for name in segment_files(entry.number)))


def read_segment(folder: Path, entry: SegmentEntry, dim: int) -> Segment:
    """A segment from its files, the vectors mapped into memory.

    raises SearchIndexError naming the file that is missing, damaged, changed, or no segment of this library
    """
    vectors, names = (folder / name for name in segment_files(entry.number))
    for number, path in enumerate((vectors, names)):
        _check_file(path, entry.bytes[number], entry.checksums[number] if entry.checksums else None)
    try:
        with _no_larger_than(entry.bytes[0]):
            index = faiss.read_index(str(vectors), faiss.IO_FLAG_MMAP_IFC)
        problem = _problem(index, entry, dim)
    except (RuntimeError, MemoryError, ValueError, AttributeError, OverflowError) as error:
        problem = " ".join(str(error).split()) or type(error).__name__
    if problem:
        raise SearchIndexError(f"{vectors}: expected {entry.count} vectors of {dim} numbers ({entry.structure}), it "
                               f"is damaged ({problem})")
    try:
        lines = tuple(names.read_text(encoding="utf-8").split("\n")[:-1])
    except (OSError, UnicodeDecodeError) as error:
        raise SearchIndexError(f"{names}: expected names in UTF-8, can't be read ({error})") from error
    if len(lines) != entry.count:
        raise SearchIndexError(f"{names}: expected {entry.count} names, found {len(lines)}")
    removed = np.zeros(len(lines), bool)
    removed[list(entry.removed)] = True
    return Segment(index, lines, removed, Structure(entry.structure, entry.reason), entry)


@contextmanager
def _no_larger_than(size: int) -> Iterator[None]:
    """faiss believes the sizes that a file names: it would set up terabytes, or count for hours, for a damaged one."""
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    faiss.set_deserialization_vector_byte_limit(size)
    faiss.set_deserialization_loop_limit(size)
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before[0])
        faiss.set_deserialization_loop_limit(before[1])


def _check_file(path: Path, size: int, expected: str | None) -> None:
    try:
        found = path.stat().st_size if path.is_file() else "none"
        if found != size:
            raise SearchIndexError(f"{path}: expected a file of {size} bytes, found {found}")
        if expected is not None and checksum(path) != expected:
            raise SearchIndexError(f"{path}: is damaged or was changed (its checksum differs); make the index again")
    except OSError as error:
        raise SearchIndexError(f"{path}: can't be read ({error.strerror or error})") from error


def _problem(index: faiss.Index, entry: SegmentEntry, dim: int) -> str | None:
    """Why an index that faiss has read can't be searched, None when it can: faiss itself reads what doesn't fit
    together, and would then crash."""
    if entry.removed and max(entry.removed) >= entry.count:
        return f"row {max(entry.removed)} is removed"
    checks = {"flat": _flat_problem, "hnsw": _graph_problem, "ivf-pq": _cells_problem}
    if entry.structure not in checks:
        return f"structure {entry.structure!r}"
    return _outer_problem(index, entry.count, dim) or checks[entry.structure](index, entry.count, dim)


def _outer_problem(index: faiss.Index, count: int, dim: int) -> str | None:
    if (index.ntotal, index.d) != (count, dim):
        return f"it has {index.ntotal} of {index.d} numbers"
    if index.metric_type != faiss.METRIC_INNER_PRODUCT or not index.is_trained:
        return "another metric, or not trained"
    return None


def _flat_problem(index: faiss.Index, count: int, dim: int) -> str | None:
    if not isinstance(index, faiss.IndexFlatIP):
        return type(index).__name__
    if index.code_size != 4 * dim or index.codes.size() != 4 * dim * count:
        return "codes of another size"
    return None


def _graph_problem(index: faiss.Index, count: int, dim: int) -> str | None:
    if not isinstance(index, faiss.IndexHNSWFlat):
        return type(index).__name__
    storage, graph = faiss.downcast_index(index.storage), index.hnsw
    if problem := _outer_problem(storage, count, dim) or _flat_problem(storage, count, dim):
        return problem
    levels, offsets, links, of_level = (faiss.vector_to_array(part).astype(np.int64) for part in (
        graph.levels, graph.offsets, graph.neighbors, graph.cum_nneighbor_per_level))
    if (len(levels) != count or len(offsets) != count + 1 or not np.all((levels >= 1) & (levels < len(of_level)))
            or np.any(np.diff(of_level) < 0) or offsets[0] != 0 or offsets[-1] != len(links)
            or np.any(np.diff(offsets) != of_level[levels])):
        return "a graph whose parts don't fit together"
    if np.any((links < -1) | (links >= count)) or not 0 <= graph.entry_point < count:
        return "a graph with links to nowhere"
    if graph.max_level != levels[graph.entry_point] - 1 or graph.max_level != levels.max() - 1:
        return "a graph with other levels"
    return _level_problem(levels, offsets, links, of_level)


def _level_problem(levels: np.ndarray, offsets: np.ndarray, links: np.ndarray, of_level: np.ndarray) -> str | None:
    """A link of a level leads to a vector that is in that level, or the search would leave the array."""
    for level in range(1, int(levels.max())):
        for row in np.flatnonzero(levels > level):
            targets = links[offsets[row] + of_level[level]:offsets[row] + of_level[level + 1]]
            if np.any(levels[targets[targets >= 0]] <= level):
                return "a graph with links to another level"
    return None


def _cells_problem(index: faiss.Index, count: int, dim: int) -> str | None:
    if not isinstance(index, faiss.IndexRefine):
        return type(index).__name__
    coarse, fine = faiss.downcast_index(index.base_index), faiss.downcast_index(index.refine_index)
    if not isinstance(coarse, faiss.IndexIVFPQFastScan) or not isinstance(fine, faiss.IndexScalarQuantizer):
        return f"{type(coarse).__name__} and {type(fine).__name__}"
    centres, pieces = faiss.downcast_index(coarse.quantizer), coarse.pq
    if problem := (_outer_problem(coarse, count, dim) or _outer_problem(fine, count, dim)
                   or _outer_problem(centres, coarse.nlist, dim) or _flat_problem(centres, coarse.nlist, dim)):
        return problem
    if (fine.sq.qtype != faiss.ScalarQuantizer.QT_8bit or fine.code_size != dim or fine.codes.size() != dim * count
            or fine.sq.trained.size() != 2 * dim):
        return "codes of another size"
    if (pieces.d != dim or pieces.M != coarse.M or pieces.nbits != 4 or dim % pieces.M or coarse.bbs != 32
            or pieces.centroids.size() != 16 * dim or coarse.M2 != pieces.M + pieces.M % 2):
        return "codebooks of another size"
    return _lists_problem(coarse, count)


def _lists_problem(coarse: faiss.Index, count: int) -> str | None:
    lists = faiss.downcast_InvertedLists(coarse.invlists)
    if (not isinstance(lists, faiss.BlockInvertedLists) or lists.nlist != coarse.nlist
            or lists.n_per_block != coarse.bbs or lists.block_size != coarse.bbs * coarse.M2 // 2):
        return "cells of another kind"
    sizes = [lists.list_size(number) for number in range(lists.nlist)]
    if sum(sizes) != count:
        return "cells of another size"
    rows = np.concatenate([faiss.rev_swig_ptr(lists.get_ids(number), size)
                           for number, size in enumerate(sizes) if size])
    if not np.array_equal(np.sort(rows), np.arange(count)):
        return "cells that don't have each vector once"
    return None
