"""An index of descriptors: which of many are nearest, exactly for small collections and approximately for large ones.

Vectors lie in segments. Adding makes a new segment and leaves larger ones alone; it takes in the last ones that are no
larger than itself, so that few segments stay however often something is added. How a segment is searched
depends on its size, see choose_structure.

On disk an index is a folder. A segment's files have a number, are written once and never changed. meta.json names the
segments that count; it is written last and put in place by a rename, so that the folder holds the state before or
the state after, whenever a process dies. Files that meta.json doesn't name are left-overs; the next save removes them.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from tqdm import tqdm

from rmaclib.errors import RmacError
from rmaclib.files import whole_file, write_json
from rmaclib.search.ranking import unit_rows
from rmaclib.settings import whole_number

FORMAT, VERSION = "rmaclib-index", 1
META = "meta.json"

FLAT_UP_TO = 50_000  # vectors compared one by one in some milliseconds
HNSW_UP_TO = 200_000  # vectors whose graph is built in minutes and, with them, fits in memory

_ROWS = 16384  # rows added at a time
_LINKS, _CONSTRUCTION, _VISITED = 32, 80, 128  # HNSW: links of a vector; candidates when building, when searching
PROBES = 32  # IVF-PQ: cells that are looked into
_REFINED = 20  # IVF-PQ: candidates that are compared again, for each neighbour asked for
_SEGMENT_FILE = re.compile(r"([0-9]{6,})\.(faiss|txt)")
_UNFINISHED_FILE = re.compile(r"\.([0-9]{6,}|meta)\.[0-9]+\.(faiss|txt|json)")


class SearchIndexError(RmacError, RuntimeError):
    """A folder that is no index, not a whole one, or one of another network; the text names it."""


class Neighbour(NamedTuple):
    """A vector found.

    similarity: cosine of it and the query, in large segments of it in 8 bits a number
    inliers: matches with the query that agree on one affine transformation, 0 where too few; None: not looked for
    """

    name: str
    similarity: float
    inliers: int | None = None


class Structure(NamedTuple):
    """How a segment is searched. name: "flat", "hnsw" or "ivf-pq"; reason: why, for people to read."""

    name: str
    reason: str


def choose_structure(count: int) -> Structure:
    """The structure for a segment of `count` vectors."""
    if count <= FLAT_UP_TO:
        return Structure("flat", f"every vector is compared, exact: {count:,} are at most {FLAT_UP_TO:,}")
    if count <= HNSW_UP_TO:
        return Structure("hnsw", f"a graph of neighbours is followed: {count:,} are more than {FLAT_UP_TO:,} and at "
                                 f"most {HNSW_UP_TO:,}")
    return Structure("ivf-pq", f"{PROBES} of {cells(count)} cells are searched by product-quantized codes, the best "
                               f"compared in 8 bits a number: {count:,} are more than {HNSW_UP_TO:,}")


def cells(count: int) -> int:
    """Cells that an IVF-PQ segment of `count` vectors has: the power of two nearest to twice the root."""
    return 2**round(np.log2(2 * count**0.5))


@dataclass
class _Segment:
    """Some vectors that are searched together.

    index: rows 0..N-1; names: N names; removed: (N,) bool, rows that count no more
    number: of its files in the folder of the index, None until it is saved
    """

    index: faiss.Index
    names: tuple[str, ...]
    removed: np.ndarray
    structure: Structure
    number: int | None = None

    def __len__(self) -> int:
        """Rows that count."""
        return len(self.names) - int(self.removed.sum())

    @property
    def can_be_taken_in(self) -> bool:
        """An IVF-PQ segment keeps its vectors in 8 bits a number, which would be rounded again."""
        return self.structure.name != "ivf-pq"

    def kept(self) -> np.ndarray:
        """Numbers of the rows that count."""
        return np.flatnonzero(~self.removed)

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


class VectorIndex:
    """Names and their vectors, to be searched by cosine.

    dim: numbers in a vector; about: what made them, kept in meta.json (anything that JSON can hold)
    """

    def __init__(self, dim: int, about: Mapping | None = None):
        if dim < 1:
            raise ValueError(f"dim: expected at least 1, got {dim}")
        self.dim, self.about = dim, dict(about or {})
        self.home: Path | None = None  # the folder that it was last saved to or loaded from
        self._segments: list[_Segment] = []
        self._generation = 0  # of the state in that folder
        self._places: dict[str, tuple[int, int]] | None = None  # name -> segment and row; None: to be made anew

    def __len__(self) -> int:
        return sum(map(len, self._segments))

    def __contains__(self, name: str) -> bool:
        return name in self._found_places()

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they were added."""
        return tuple(segment.names[row] for segment in self._segments for row in segment.kept())

    def __str__(self) -> str:
        """What it holds and how it is searched, a line for each segment."""
        lines = [f"{len(self):,} vectors of {self.dim} numbers"]
        for segment in self._segments:
            removed = int(segment.removed.sum())
            lines.append(f"  {segment.structure.name}: {segment.structure.reason}"
                         + (f"; {removed:,} of them removed" if removed else ""))
        return "\n".join(lines)

    def add(self, vectors: np.ndarray, names: Sequence[str], progress: bool = True) -> None:
        """Add vectors; existing segments that are larger are not touched.

        vectors: (N, D) of any length, may be a memory map; names: N different ones that are not in the index
        Large segments learn their cells and codebooks on a sample of these vectors.
        raises ValueError: another shape, a row that isn't finite, a name that is there already, twice, or that a
          line of UTF-8 text can't hold. The index is as before then.
        """
        vectors, names = np.asarray(vectors), tuple(names)
        if vectors.shape != (len(names), self.dim):
            raise ValueError(f"vectors: expected shape {(len(names), self.dim)} for {len(names)} names, "
                             f"got {vectors.shape}")
        self._check_new(names)
        if not names:
            return
        first, count = len(self._segments), len(names)
        while first and self._segments[first - 1].can_be_taken_in and len(self._segments[first - 1]) <= count:
            first -= 1
            count += len(self._segments[first])
        taken = self._segments[first:]
        structure = choose_structure(count)
        index = _empty_index(structure.name, self.dim, count, vectors)
        # disable=None: quiet when the output is not a terminal
        with tqdm(total=count, desc="indexing", unit="image", disable=None if progress else True) as bar:
            for block in _blocks(taken, vectors):
                index.add(unit_rows(block))
                bar.update(len(block))
        names = tuple(segment.names[row] for segment in taken for row in segment.kept()) + names
        self._segments[first:] = [_Segment(index, names, np.zeros(count, bool), structure)]
        self._places = None

    def remove(self, names: Sequence[str]) -> None:
        """Take names out; one may be added again later.

        raises ValueError naming those that are not in the index, which is as before then
        """
        names = tuple(names)
        places = self._found_places()
        unknown = [name for name in names if not isinstance(name, str) or name not in places]
        if unknown:
            raise ValueError(f"names: expected some of the index, found {len(unknown)} others: "
                             + ", ".join(map(repr, unknown[:3])))
        for name in names:
            number, row = places[name]
            self._segments[number].removed[row] = True
        self._segments = [segment for segment in self._segments if len(segment)]
        self._places = None

    def search(self, queries: np.ndarray, k: int = 10) -> list[list[Neighbour]]:
        """The nearest of each query, by falling cosine; equal ones in the order in which they were added.

        queries: (Q, D) of any length; k: how many, all where there are fewer. Of more than FLAT_UP_TO vectors now
        and then one is missed, and for a k of thousands fewer may be found.
        raises ValueError: another shape, a query that isn't finite, k that is no whole number of at least 1
        """
        check_count("k", k, 1)
        queries = np.asarray(queries)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"queries: expected (Q, {self.dim}), got shape {queries.shape}")
        queries = unit_rows(queries)
        if not len(queries) or not self._segments:
            return [[] for _ in queries]
        found = [segment.search(queries, min(int(k), len(segment))) for segment in self._segments]
        similarities = np.concatenate([part[0] for part in found], axis=1)  # (Q, sum of k)
        rows = np.concatenate([part[1] for part in found], axis=1)
        origins = np.repeat(np.arange(len(found)), [part[1].shape[1] for part in found])
        result = []
        for values, numbers in zip(similarities, rows, strict=True):
            order = np.lexsort((numbers, origins, -values))
            order = order[numbers[order] >= 0][:k]
            result.append([Neighbour(self._segments[origin].names[row], float(value)) for origin, row, value
                           in zip(origins[order], numbers[order], values[order], strict=True)])
        return result

    # --- on disk --------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike) -> None:
        """Write what the folder does not hold yet; the folder holds the old state until the new one is whole.

        raises SearchIndexError: the folder holds another index, or a state saved by somebody else since this one was
          loaded
        """
        folder = Path(folder).resolve()
        at_home = folder == self.home
        found = _read_meta(folder)["generation"] if (folder / META).exists() else 0
        if found != (self._generation if at_home else 0):
            raise SearchIndexError(f"{folder}: " + (
                "was saved by another process since it was loaded here; load it again" if at_home
                else "holds another index; load that one, or choose another folder"))
        folder.mkdir(parents=True, exist_ok=True)
        # Numbers of left-overs are not used again: a reader may still have them open.
        last = max((int(match[1]) for path in folder.iterdir() if (match := _SEGMENT_FILE.fullmatch(path.name))),
                   default=0)
        entries = []
        for segment in self._segments:
            number = segment.number if at_home else None
            if number is None:
                number = last = last + 1
                _write_segment(folder, number, segment)
            entries.append({"number": number, "structure": segment.structure.name, "reason": segment.structure.reason,
                            "count": len(segment.names),
                            "bytes": [path.stat().st_size for path in _files(folder, number)],
                            "removed": np.flatnonzero(segment.removed).tolist()})
        generation = found + 1
        write_json(folder / META, {"format": FORMAT, "version": VERSION, "generation": generation, "dim": self.dim,
                                   "about": self.about, "segments": entries})
        for segment, entry in zip(self._segments, entries, strict=True):
            segment.number = entry["number"]
        self.home, self._generation = folder, generation
        _remove_left_overs(folder, {entry["number"] for entry in entries})

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "VectorIndex":
        """The index saved in a folder. Its files are mapped into memory: what is not looked at takes none.

        raises SearchIndexError: no index, a part missing or damaged, a newer version
        """
        folder = Path(folder).resolve()
        meta = _read_meta(folder)
        while True:
            try:
                return cls._from_meta(folder, meta)
            except SearchIndexError:
                # A writer may have replaced the state between reading meta.json and opening what it names.
                before, meta = meta, _read_meta(folder)
                if meta["generation"] == before["generation"]:
                    raise

    @classmethod
    def _from_meta(cls, folder: Path, meta: Mapping) -> "VectorIndex":
        try:
            index = cls(meta["dim"], meta["about"])
            index.home, index._generation = folder, meta["generation"]
            index._segments = [_read_segment(folder, entry, index.dim) for entry in meta["segments"]]
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise SearchIndexError(f"{folder / META}: damaged ({type(error).__name__}: {error})") from error
        return index

    def _found_places(self) -> dict[str, tuple[int, int]]:
        if self._places is None:
            self._places = {segment.names[row]: (number, row) for number, segment in enumerate(self._segments)
                            for row in segment.kept().tolist()}
        return self._places

    def _check_new(self, names: Sequence[str]) -> None:
        places = self._found_places()
        seen = set()
        for name in names:
            if not isinstance(name, str) or not is_line(name):
                raise ValueError(f"names: expected text of one line that UTF-8 can hold, got {name!r}")
            if name in places or name in seen:
                raise ValueError(f"names: {name!r} is {'in the index already' if name in places else 'given twice'}")
            seen.add(name)


def is_line(name: str) -> bool:
    """Whether a name can be stored: a line of text that UTF-8 can hold."""
    # A file name that is no valid text comes from the system with surrogates in it.
    return not re.search("[\n\r\ud800-\udfff]", name)


def check_count(what: str, value: int, least: int) -> None:
    """raises ValueError when a value is no whole number, or less than `least`."""
    whole_number(what, value, least, int | np.integer)


def _empty_index(structure: str, dim: int, count: int, vectors: np.ndarray) -> faiss.Index:
    """faiss' index for `count` vectors, trained on a sample of `vectors` where it needs that."""
    if structure == "flat":
        return faiss.IndexFlatIP(dim)
    if structure == "hnsw":
        index = faiss.IndexHNSWFlat(dim, _LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _CONSTRUCTION
        return index
    pieces = max(part for part in range(1, dim // 8 + 2) if dim % part == 0)  # of eight numbers, or a few more
    index = faiss.index_factory(dim, f"IVF{cells(count)},PQ{pieces}x4fs,Refine(SQ8)", faiss.METRIC_INNER_PRODUCT)
    # Forty examples for each cell; evenly taken, in rising order, as a memory map likes it.
    chosen = np.linspace(0, len(vectors) - 1, min(len(vectors), 40 * cells(count))).astype(np.int64)
    index.train(unit_rows(vectors[chosen]))
    return index


def _blocks(segments: Sequence[_Segment], vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Rows of segments that count, then vectors, some at a time."""
    for segment in segments:
        kept = segment.kept()
        for start in range(0, len(kept), _ROWS):
            yield segment.index.reconstruct_batch(kept[start:start + _ROWS])
    for start in range(0, len(vectors), _ROWS):
        yield vectors[start:start + _ROWS]


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number:06d}.faiss", folder / f"{number:06d}.txt"


def _write_segment(folder: Path, number: int, segment: _Segment) -> None:
    vectors, names = _files(folder, number)
    with whole_file(vectors) as temporary:
        faiss.write_index(segment.index, str(temporary))
        _to_disk(temporary)
    with whole_file(names) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in segment.names), encoding="utf-8", newline="\n")
        _to_disk(temporary)


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk itself: meta.json must not come before it, should the power fail."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _read_segment(folder: Path, entry: Mapping, dim: int) -> _Segment:
    vectors, names = _files(folder, entry["number"])
    for path, size in zip((vectors, names), entry["bytes"], strict=True):
        if not path.is_file() or path.stat().st_size != size:
            raise SearchIndexError(f"{path}: expected a file of {size} bytes, found "
                                   + (f"{path.stat().st_size}" if path.is_file() else "none"))
    try:
        index = faiss.read_index(str(vectors), faiss.IO_FLAG_MMAP_IFC)
        lines = tuple(names.read_text(encoding="utf-8").split("\n")[:-1])
    except (RuntimeError, UnicodeDecodeError) as error:
        raise SearchIndexError(f"{folder}: segment {entry['number']} can't be read ({error})") from error
    removed = np.zeros(len(lines), bool)
    removed[entry["removed"]] = True
    if not index.ntotal == len(lines) == entry["count"] or index.d != dim:
        raise SearchIndexError(f"{folder}: segment {entry['number']}: {index.ntotal} vectors of {index.d} numbers and "
                               f"{len(lines)} names, expected {entry['count']} of {dim}")
    return _Segment(index, lines, removed, Structure(entry["structure"], entry["reason"]), entry["number"])


def _read_meta(folder: Path) -> dict:
    path = folder / META
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        found, version, _ = meta["format"], meta["version"], meta["generation"]
    except OSError as error:
        raise SearchIndexError(f"{folder}: expected an index (rmac index), found no {META}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise SearchIndexError(f"{path}: damaged ({type(error).__name__}: {error})") from error
    if found != FORMAT:
        raise SearchIndexError(f"{path}: expected format {FORMAT!r}, found {found!r}")
    if not isinstance(version, int) or version > VERSION:
        raise SearchIndexError(f"{path}: version {version}, this rmaclib reads up to {VERSION}")
    return meta


def _remove_left_overs(folder: Path, numbers: set[int]) -> None:
    for path in folder.iterdir():
        match = _SEGMENT_FILE.fullmatch(path.name)
        if _UNFINISHED_FILE.fullmatch(path.name) or (match and int(match[1]) not in numbers):
            path.unlink(missing_ok=True)
