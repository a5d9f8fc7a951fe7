"""An index of descriptors: which of many are nearest, exactly for small collections and approximately for large ones.

Vectors lie in segments. Adding makes a new segment and leaves larger ones alone; it takes in the last ones that are no
larger than itself, so that few segments stay however often something is added. How a segment is searched
depends on its size, see choose_structure.

What growing costs. Flat and HNSW segments have their vectors in float32, and are taken in without any loss, however
often. Cells and codebooks of a new IVF-PQ segment are learned on an even sample of all that goes into it. An IVF-PQ
segment has its vectors in 8 bits a number, which would be rounded again, and is never taken in: each vector is rounded
once. Every IVF-PQ segment is made of more than HNSW_UP_TO vectors, so that N vectors that were ever added lie in at
most N / HNSW_UP_TO of them; rows removed from one stay in its files. Behind them the segments get smaller and smaller,
and have at most HNSW_UP_TO vectors each: n additions of equal size leave at most log2(n) + 1.

On disk an index is a folder (folders.output_folder). A segment's files have a number, are written once and never
changed. meta.json names the segments that count, with checksums of their files; it is written last and put in place by
a rename, so that the folder has the state before or the state after, whenever a process dies. Files that meta.json
doesn't name are left-overs; the next save removes those that the folder's marker lists. Only writers lock: a save
applies what this process changed to the state that it finds in the folder, so that no other's addition is lost.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import differences, is_line, write_json
from rmaclib.foundation.folders import OutputFolder
from rmaclib.foundation.settings import from_mapping, whole_number
from rmaclib.ranking import normalise_rows
from rmaclib.search.index_folder import (
    FORMAT,
    META,
    VERSION,
    SearchIndexError,
    index_folder,
    read_meta,
    segment_files,
    segment_number,
)
from rmaclib.search.segments import (
    PROBES,
    Segment,
    SegmentEntry,
    Structure,
    cells,
    merged,
    read_segment,
    with_checksums,
    write_segment,
)

__all__ = ["META", "Neighbour", "SearchIndexError", "Structure", "VectorIndex", "cells", "check_count",
           "choose_structure"]

FLAT_UP_TO = 50_000  # vectors compared one by one in some milliseconds
HNSW_UP_TO = 200_000  # vectors whose graph is built in minutes and, with them, fits in memory


class Neighbour(NamedTuple):
    """A vector found.

    similarity: cosine of it and the query, in large segments of it in 8 bits a number
    inliers: matches with the query that agree on one affine transformation, 0 where too few; None: not looked for
    """

    name: str
    similarity: float
    inliers: int | None = None


def choose_structure(count: int) -> Structure:
    """The structure for a segment of `count` vectors."""
    if count <= FLAT_UP_TO:
        return Structure("flat", f"every vector is compared, exact: {count:,} are at most {FLAT_UP_TO:,}")
    if count <= HNSW_UP_TO:
        return Structure("hnsw", f"a graph of neighbours is followed: {count:,} are more than {FLAT_UP_TO:,} and at "
                                 f"most {HNSW_UP_TO:,}")
    return Structure("ivf-pq", f"{PROBES} of {cells(count)} cells are searched by product-quantized codes, the best "
                               f"compared in 8 bits a number: {count:,} are more than {HNSW_UP_TO:,}")


class VectorIndex:
    """Names and their vectors, to be searched by cosine.

    dim: numbers in a vector; about: what made them, kept in meta.json (anything that JSON can hold)
    """

    def __init__(self, dim: int, about: Mapping | None = None):
        whole_number("dim", dim, 1)
        self.dim, self.about = dim, json.loads(json.dumps(dict(about or {})))  # as it will be when read back
        self.home: Path | None = None  # the folder that it was last saved to or loaded from
        self._segments: list[Segment] = []
        self._state: dict | None = None  # meta.json of that folder, as it was then
        self._added: set[str] = set()  # names added and removed since
        self._removed: set[str] = set()
        self._places: dict[str, tuple[int, int]] | None = None  # name -> segment and row; None: to be made anew

    def __len__(self) -> int:
        return sum(map(len, self._segments))

    def __contains__(self, name: str) -> bool:
        return name in self._name_places()

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they were added."""
        return tuple(segment.names[row] for segment in self._segments for row in segment.kept())

    def __str__(self) -> str:
        """What it contains and how it is searched, a line for each segment."""
        lines = [f"{len(self):,} vectors of {self.dim} numbers"]
        for segment in self._segments:
            removed = int(segment.removed.sum())
            lines.append(f"  {segment.structure.name}: {segment.structure.reason}"
                         + (f"; {removed:,} of them removed" if removed else ""))
        return "\n".join(lines)

    def add(self, vectors: np.ndarray, names: Sequence[str], progress: bool = True) -> None:
        """Add vectors; existing segments that are larger are not touched.

        vectors: (N, D) of any length, may be a memory map; names: N different ones that are not in the index
        Large segments learn their cells and codebooks on a sample of all that goes into them.
        raises InputError: another shape, a row that isn't finite, a name that is there already, twice, or that a
          line of UTF-8 text can't hold. The index is as before then.
        """
        vectors, names = np.asarray(vectors), tuple(names)
        if vectors.shape != (len(names), self.dim):
            raise InputError(f"vectors: expected shape {(len(names), self.dim)} for {len(names)} names, "
                             f"got {vectors.shape}")
        self._check_new(names)
        if names:
            self._put([], vectors, names, progress)

    def _put(self, more: Sequence[Segment], vectors: np.ndarray, names: Sequence[str], progress: bool) -> None:
        """Make a segment of the last ones that are no larger than what comes, of `more`, and of vectors."""
        first, count = len(self._segments), len(names) + sum(map(len, more))
        new = [segment.names[row] for segment in more for row in segment.kept()] + list(names)
        while first and self._segments[first - 1].is_exact and len(self._segments[first - 1]) <= count:
            first -= 1
            count += len(self._segments[first])
        # disable=None: quiet when the output is not a terminal
        with tqdm(total=count, desc="indexing", unit="image", disable=None if progress else True) as bar:
            segment = merged([*self._segments[first:], *more], vectors, names, choose_structure(count), bar.update)
        self._segments[first:] = [segment]
        self._note(added=new)

    def remove(self, names: Sequence[str]) -> None:
        """Take names out; one may be added again later.

        raises InputError naming those that are not in the index, which is as before then
        """
        names = tuple(names)
        places = self._name_places()
        unknown = [name for name in names if not isinstance(name, str) or name not in places]
        if unknown:
            raise InputError(f"names: expected names in the index, got {len(unknown)} others: "
                             + ", ".join(map(repr, unknown[:3])))
        for name in names:
            number, row = places[name]
            self._segments[number].removed[row] = True
        self._segments = [segment for segment in self._segments if len(segment)]
        self._note(removed=names)

    def _note(self, added: Iterable[str] = (), removed: Iterable[str] = ()) -> None:
        """Keep in mind what changed since the state on disk."""
        self._places = None
        if self.home is not None:
            self._removed |= set(removed) - self._added
            self._added = (self._added - set(removed)) | set(added)

    def search(self, queries: np.ndarray, k: int = 10) -> list[list[Neighbour]]:
        """The nearest of each query, by falling cosine; equal ones in the order in which they were added.

        queries: (Q, D) of any length; k: how many, all where there are fewer. Of more than FLAT_UP_TO vectors now
        and then one is missed, and for a k of thousands fewer may be found.
        raises InputError: another shape, a query that isn't finite, k that is no whole number of at least 1;
        SearchIndexError: files that are damaged, or too little memory
        """
        check_count("k", k, 1)
        queries = np.asarray(queries)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(f"queries: expected (Q, {self.dim}), got shape {queries.shape}")
        queries = normalise_rows(queries)
        if not len(queries) or not self._segments:
            return [[] for _ in queries]
        nearest = [self._search_segment(segment, queries, min(int(k), len(segment))) for segment in self._segments]
        similarities = np.concatenate([part[0] for part in nearest], axis=1)  # (Q, sum of k)
        rows = np.concatenate([part[1] for part in nearest], axis=1)
        origins = np.repeat(np.arange(len(nearest)), [part[1].shape[1] for part in nearest])
        result = []
        for values, numbers in zip(similarities, rows, strict=True):
            order = np.lexsort((numbers, origins, -values))
            order = order[numbers[order] >= 0][:k]
            result.append([Neighbour(self._segments[origin].names[row], float(value)) for origin, row, value
                           in zip(origins[order], numbers[order], values[order], strict=True)])
        return result

    def _search_segment(self, segment: Segment, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            return segment.search(queries, k)
        except (RuntimeError, MemoryError) as error:
            place = "the index" if segment.entry is None else self.home / segment_files(segment.entry.number)[0]
            raise SearchIndexError(f"{place}: can't be searched ({type(error).__name__}: "
                                   f"{' '.join(str(error).split())})") from error

    # --- on disk --------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike) -> None:
        """Write what the folder does not have yet; it has the old state until the new one is whole.

        What others saved in the folder since this index was loaded is kept, and taken over: see catch_up.
        raises SearchIndexError: the folder has another index; OutputError: it is not ours, or can't be written
        """
        with index_folder(folder) as out:
            path = Path(folder).resolve()
            at_home = path == self.home and (path / META).exists()
            if not at_home and (path / META).exists():
                raise SearchIndexError(f"{folder}: holds another index; load that one, or choose another folder")
            if at_home:
                self.catch_up()
            self._write(out, path, at_home)

    def _write(self, out: OutputFolder, path: Path, at_home: bool) -> None:
        # Numbers of left-overs are not used again: a reader may still have them open.
        last = max((segment_number(name) or 0 for name in os.listdir(path)), default=0)
        new = [segment for segment in self._segments if not at_home or segment.entry is None]
        numbers = range(last + 1, last + 1 + len(new))
        names = [name for number in numbers for name in segment_files(number)]
        out.will_write([META, *names])
        try:
            written = {id(segment): write_segment(path, number, segment)
                       for number, segment in zip(numbers, new, strict=True)}
            entries = [replace(written.get(id(segment)) or with_checksums(path, segment.entry),
                               removed=tuple(np.flatnonzero(segment.removed).tolist())) for segment in self._segments]
            state = {"format": FORMAT, "version": VERSION,
                     "generation": self._state["generation"] + 1 if at_home else 1, "dim": self.dim,
                     "about": self.about, "segments": list(map(asdict, entries))}
            write_json(path / META, state, checksum=True)
        except BaseException:
            with suppress(OSError, RuntimeError):
                # Of a full disk, say. An interrupt may also come when the new meta.json is in place, which names them.
                out.remove(set(names) - _named_files(path))
            raise
        for segment, entry in zip(self._segments, entries, strict=True):
            segment.entry = entry
        self.home, self._state = path, json.loads(json.dumps(state))
        self._added, self._removed = set(), set()
        current = {name for entry in entries for name in segment_files(entry.number)}
        out.remove(name for name in out.listed() if segment_number(name) is not None and name not in current)

    def catch_up(self) -> None:
        """Take over what others saved in the home of this index since it was loaded, and apply to it what was added
        and removed here. Of a name that was added on both sides theirs is kept.

        Nobody else may be writing: call it inside output_folder. An addition of ours that lies in an IVF-PQ segment
        brings the segment's files along, with the other rows removed.
        raises SearchIndexError: the folder has another index now, or a damaged one
        """
        if self.home is None or not (self.home / META).exists() or read_meta(self.home) == self._state:
            return
        theirs = VectorIndex.load(self.home)
        on_disk, here = {"dim": theirs.dim, **theirs.about}, {"dim": self.dim, **self.about}
        different = differences(on_disk, here) or differences(here, on_disk)
        if different:
            raise SearchIndexError(f"{self.home}: holds another index since this one was loaded, other in "
                                   f"{', '.join(different)}; load it again, or choose another folder")
        theirs.remove([name for name in self._removed if name in theirs])
        wanted = {name for name in self._added if name not in theirs}
        for segment in self._segments:
            others = np.array([name not in wanted for name in segment.names]) | segment.removed
            ours = Segment(segment.index, segment.names, others, segment.structure)
            if not len(ours):
                continue
            if segment.is_exact:
                theirs._put([ours], np.zeros((0, self.dim), np.float32), (), progress=False)
            else:
                theirs._segments.append(ours)
                theirs._note(added=[ours.names[row] for row in ours.kept()])
        self._segments, self._state, self._places = theirs._segments, theirs._state, None
        self._added, self._removed = theirs._added, theirs._removed

    @classmethod
    def load(cls, folder: str | os.PathLike) -> "VectorIndex":
        """The index saved in a folder. Its files are mapped into memory: what is not looked at takes none.

        raises SearchIndexError: no index, a part missing, damaged or changed since, a newer version
        """
        folder = Path(folder).resolve()
        meta = read_meta(folder)
        while True:
            try:
                return cls._from_meta(folder, meta)
            except SearchIndexError:
                # A writer may have replaced the state between reading meta.json and opening what it names.
                before, meta = meta, read_meta(folder)
                if meta == before:
                    raise

    @classmethod
    def _from_meta(cls, folder: Path, meta: Mapping) -> "VectorIndex":
        index = cls(meta["dim"], meta["about"])
        index.home, index._state = folder, meta
        try:
            entries = [from_mapping(SegmentEntry, fields, f"segment {number}")
                       for number, fields in enumerate(meta["segments"], 1)]
        except InputError as error:
            raise SearchIndexError(f"{folder / META}: damaged ({error})") from error
        if any(len(entry.checksums) != 2 * (meta["version"] > 1) for entry in entries):
            raise SearchIndexError(f"{folder / META}: damaged (expected two checksums of each segment)")
        index._segments = [read_segment(folder, entry, index.dim) for entry in entries]
        if len(index._name_places()) < len(index):
            raise SearchIndexError(f"{folder}: expected different names, found one twice")
        return index

    def _name_places(self) -> dict[str, tuple[int, int]]:
        if self._places is None:
            self._places = {segment.names[row]: (number, row) for number, segment in enumerate(self._segments)
                            for row in segment.kept().tolist()}
        return self._places

    def _check_new(self, names: Sequence[str]) -> None:
        places = self._name_places()
        given = set()
        for name in names:
            if not isinstance(name, str) or not is_line(name):
                raise InputError(f"names: expected text of one line that UTF-8 can hold, got {name!r}")
            if name in places or name in given:
                raise InputError(f"names: {name!r} is {'in the index already' if name in places else 'given twice'}")
            given.add(name)


def _named_files(folder: Path) -> set[str]:
    """The segments' files that meta.json names. raises SearchIndexError: it can't be read"""
    if not (folder / META).exists():
        return set()
    return {name for fields in read_meta(folder)["segments"] for name in segment_files(fields["number"])}


def check_count(what: str, value: int, least: int) -> None:
    """raises InputError when a value is no whole number, or less than `least`."""
    whole_number(what, value, least, int | np.integer)
