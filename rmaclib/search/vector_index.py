"""An index of vectors: which of many are nearest to a query, exactly for few and approximately for many.

Vectors are in segments. An addition makes a new segment and merges it with the last ones that are no larger; larger
ones are left alone. So there are few segments, however often something is added. How a segment is searched depends on
its size, see :func:`rmaclib.search.structures.choose_structure`.

The cost of growing. Flat and HNSW segments have their vectors in float32 and are merged without loss. An IVF-PQ segment
has its vectors in 8 bits per dimension; merging would round them again, so it is never merged: each vector is rounded
once. Its cells and codebooks are learned on an even sample of all its vectors. It has more vectors than
``StructureLimits.hnsw_up_to``, so N vectors that were ever added are in at most N / ``hnsw_up_to`` such segments; rows
that were removed stay in their files. The segments after them have falling sizes: n additions of equal size leave at
most log2(n) + 1.

On disk an index is a folder (:func:`rmaclib.foundation.folders.output_folder`). A segment's files have a number; they
are written once and never changed. meta.json lists the current segments, with checksums of their files. It is written
last and renamed into place: whenever a process dies, the folder has the state before or the state after. Files that
meta.json doesn't list are left-overs; the next save removes those that the folder's marker lists. Only writers lock. A
save applies the changes of this process to the state in the folder, so that no other process' addition is lost.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import differences, is_line
from rmaclib.foundation.folders import OutputFolder
from rmaclib.foundation.settings import whole_number
from rmaclib.ranking import normalise_rows
from rmaclib.search.index_folder import (
    META,
    IndexMeta,
    SearchIndexError,
    SegmentEntry,
    index_folder,
    read_meta,
    segment_files,
    segment_number,
    write_meta,
)
from rmaclib.search.segment_files import read_segment, with_checksums, write_segment
from rmaclib.search.segments import Neighbour, Segment, join_neighbours, merge_segments
from rmaclib.search.structures import LIMITS, StructureLimits, choose_structure


class VectorIndex:
    """Names and their vectors, to be searched by cosine.

    Args:
        dim: Dimensions of a vector.
        about: What made the vectors; anything that JSON can hold. It is kept in meta.json.
        limits: Up to how many vectors the search is exact. Not kept on disk: a segment stays as it is.

    Raises:
        InputError: dim is not a whole number of at least 1.

    Attributes:
        home: The folder that the index was last saved to or loaded from; None before.

    Examples:
        >>> index = VectorIndex(2)
        >>> index.add(np.array([[1.0, 0.0], [0.6, 0.8]]), ["a", "b"])
        >>> [(neighbour.name, round(neighbour.similarity, 2)) for neighbour in index.search(np.array([[2.0, 0.0]]))[0]]
        [('a', 1.0), ('b', 0.6)]
    """

    def __init__(self, dim: int, about: Mapping | None = None, limits: StructureLimits = LIMITS):
        whole_number("dim", dim, 1)
        self.dim, self.limits = dim, limits
        self.about: dict = json.loads(json.dumps(dict(about or {})))  # as it will be when read back
        self.home: Path | None = None
        self._segments: list[Segment] = []
        self._saved: IndexMeta | None = None  # meta.json of that folder when this index was loaded or saved
        self._added: set[str] = set()  # names added and removed since
        self._removed: set[str] = set()
        self._places: dict[str, tuple[int, int]] | None = None  # name -> segment and row; None: to be computed

    def __len__(self) -> int:
        return sum(map(len, self._segments))

    def __contains__(self, name: str) -> bool:
        return name in self._name_places()

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they were added."""
        return tuple(name for segment in self._segments for name in segment.kept_names())

    def __str__(self) -> str:
        """What it contains and how it is searched, a line for each segment."""
        lines = [f"{len(self):,} vectors of {self.dim} dimensions"]
        for segment in self._segments:
            removed = int(segment.removed.sum())
            lines.append(f"  {segment.structure.name}: {segment.structure.reason}"
                         + (f"; {removed:,} of them removed" if removed else ""))
        return "\n".join(lines)

    def add(self, vectors: np.ndarray, names: Sequence[str], progress: bool = True) -> None:
        """Add vectors. Larger segments are not touched.

        Args:
            vectors: (N, D) of any length; may be a memory map.
            names: N different names that are not in the index.
            progress: Show a progress bar on a terminal.

        Raises:
            InputError: Another shape, a row that isn't finite, a name that is in the index already, that is given
                twice, or that is no line of UTF-8 text. The index stays as it was.
        """
        vectors, names = np.asarray(vectors), tuple(names)
        if vectors.shape != (len(names), self.dim):
            raise InputError(f"vectors: expected shape {(len(names), self.dim)} for {len(names)} names, "
                             f"got {vectors.shape}")
        self._check_new(names)
        if names:
            self._append([], vectors, names, progress)

    def _append(self, segments: Sequence[Segment], vectors: np.ndarray, names: Sequence[str], progress: bool) -> None:
        """Merge the last segments that are no larger than the addition with it: exact segments, and vectors."""
        first, count = len(self._segments), len(names) + sum(map(len, segments))
        added = [*(name for segment in segments for name in segment.kept_names()), *names]
        while first and self._segments[first - 1].is_exact and len(self._segments[first - 1]) <= count:
            first -= 1
            count += len(self._segments[first])
        structure = choose_structure(count, self.limits)
        # disable=None: quiet when the output is not a terminal
        with tqdm(total=count, desc="indexing", unit="image", disable=None if progress else True) as bar:
            merged = merge_segments([*self._segments[first:], *segments], vectors, names, structure, bar.update)
        self._segments[first:] = [merged]
        self._note_changes(added=added)

    def remove(self, names: Sequence[str]) -> None:
        """Remove names; a removed name may be added again later.

        Args:
            names: Names in the index.

        Raises:
            InputError: Some are not in the index, which stays as it was; the message names the first of them.
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
        self._note_changes(removed=names)

    def _note_changes(self, added: Iterable[str] = (), removed: Iterable[str] = ()) -> None:
        """Remember what changed since the state on disk."""
        self._places = None
        if self.home is not None:
            self._removed |= set(removed) - self._added
            self._added = (self._added - set(removed)) | set(added)

    def search(self, queries: np.ndarray, k: int = 10) -> list[list[Neighbour]]:
        """Search the nearest vectors of each query.

        Up to ``limits.flat_up_to`` vectors the search is exact. Among more vectors a neighbour is missed now and then,
        and for a k of thousands fewer may be returned.

        Args:
            queries: (Q, D) of any length.
            k: Neighbours per query, at least 1; all where there are fewer.

        Returns:
            Q lists, by falling cosine; equal ones in the order in which they were added.

        Raises:
            InputError: Another shape, a query that isn't finite, or k is not a whole number of at least 1.
            SearchIndexError: The files are damaged, or there is too little memory.
        """
        whole_number("k", k, 1, int | np.integer)
        queries = np.asarray(queries)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(f"queries: expected (Q, {self.dim}), got shape {queries.shape}")
        queries = normalise_rows(queries)
        if not len(queries) or not self._segments:
            return [[] for _ in queries]
        results = [self._search_segment(segment, queries, min(int(k), len(segment))) for segment in self._segments]
        return join_neighbours(self._segments, results, int(k))

    def _search_segment(self, segment: Segment, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            return segment.search(queries, k)
        except (RuntimeError, MemoryError) as error:
            place = "the index"
            if self.home is not None and segment.entry is not None:
                place = str(self.home / segment_files(segment.entry.number)[0])
            raise SearchIndexError(f"{place}: can't be searched ({type(error).__name__}: "
                                   f"{' '.join(str(error).split())})") from error

    # --- on disk --------------------------------------------------------------------------------------------------

    def save(self, folder: str | os.PathLike) -> None:
        """Write what the folder does not contain yet. It has the old state until the new one is complete.

        What other processes saved in the folder since this index was loaded is kept, see :meth:`catch_up`.

        Args:
            folder: New, empty, or the home of this index.

        Raises:
            SearchIndexError: The folder contains another index.
            OutputError: The folder contains other things, or can't be written.
        """
        with index_folder(folder) as out:
            path = Path(folder).resolve()
            at_home = path == self.home and (path / META).exists()
            if not at_home and (path / META).exists():
                raise SearchIndexError(f"{folder}: contains another index; load that one, or choose another folder")
            if at_home:
                self.catch_up()
            self._write(out, path, at_home)

    def _write(self, out: OutputFolder, path: Path, at_home: bool) -> None:
        # Numbers of left-overs are not used again: a reader may still have them open.
        last = max((segment_number(name) or 0 for name in os.listdir(path)), default=0)
        saved = {id(segment): segment.entry for segment in self._segments if at_home and segment.entry is not None}
        numbers = range(last + 1, last + 1 + len(self._segments) - len(saved))
        files = [name for number in numbers for name in segment_files(number)]
        out.will_write([META, *files])
        try:
            entries = tuple(self._write_segments(path, saved, numbers))
            generation = self._saved.generation + 1 if at_home and self._saved else 1
            state = IndexMeta(generation, self.dim, self.about, entries)
            write_meta(path, state)
        except BaseException:
            with suppress(OSError, RuntimeError):
                # A full disk, say. After an interrupt the new meta.json may be in place, and list the new files.
                out.remove(set(files) - _current_files(path))
            raise
        for segment, entry in zip(self._segments, entries, strict=True):
            segment.entry = entry
        self.home, self._saved = path, state
        self._added, self._removed = set(), set()
        current = {name for entry in entries for name in segment_files(entry.number)}
        out.remove(name for name in out.listed() if segment_number(name) is not None and name not in current)

    def _write_segments(self, path: Path, saved: Mapping[int, SegmentEntry],
                        numbers: Iterable[int]) -> Iterator[SegmentEntry]:
        """Write the segments that aren't saved, under the given numbers. Yields the entry of every segment."""
        unused = iter(numbers)
        for segment in self._segments:
            entry = saved.get(id(segment))
            entry = with_checksums(path, entry) if entry else write_segment(path, next(unused), segment)
            yield replace(entry, removed=tuple(np.flatnonzero(segment.removed).tolist()))

    def catch_up(self) -> None:
        """Load what other processes saved in the home of this index since, and apply the changes made here to it.

        Of a name that was added on both sides, the other side's vector is kept. An IVF-PQ segment that was made here
        stays whole, with the rows removed that are not needed.

        Nobody else may be writing: call it inside :func:`rmaclib.search.index_folder.index_folder`.

        Raises:
            SearchIndexError: The folder contains another index now, or a damaged one.
        """
        if self.home is None or not (self.home / META).exists() or read_meta(self.home) == self._saved:
            return
        theirs = VectorIndex.load(self.home, self.limits)
        on_disk, here = {"dim": theirs.dim, **theirs.about}, {"dim": self.dim, **self.about}
        different = differences(on_disk, here) or differences(here, on_disk)
        if different:
            raise SearchIndexError(f"{self.home}: contains another index since this one was loaded, with other "
                                   f"{', '.join(different)}; load it again, or choose another folder")
        theirs.remove([name for name in self._removed if name in theirs])
        wanted = {name for name in self._added if name not in theirs}
        for segment in self._segments:
            unwanted = np.array([name not in wanted for name in segment.names]) | segment.removed
            ours = Segment(segment.index, segment.names, unwanted, segment.structure)
            if not len(ours):
                continue
            if segment.is_exact:
                theirs._append([ours], np.zeros((0, self.dim), np.float32), (), progress=False)
            else:
                theirs._segments.append(ours)
                theirs._note_changes(added=ours.kept_names())
        self._segments, self._saved, self._places = theirs._segments, theirs._saved, None
        self._added, self._removed = theirs._added, theirs._removed

    @classmethod
    def load(cls, folder: str | os.PathLike, limits: StructureLimits = LIMITS) -> "VectorIndex":
        """Load the index saved in a folder. Its vectors are memory-mapped: those that no search needs take no memory.

        Args:
            folder: The folder of an index.
            limits: For segments that are made by additions; those in the folder stay as they are.

        Raises:
            SearchIndexError: There is no index, a file is missing, damaged or changed, or a newer version wrote it.
        """
        folder = Path(folder).resolve()
        meta = read_meta(folder)
        while True:
            try:
                return cls._from_meta(folder, meta, limits)
            except SearchIndexError:
                # A writer may have replaced the state between reading meta.json and opening the files that it lists.
                before, meta = meta, read_meta(folder)
                if meta == before:
                    raise

    @classmethod
    def _from_meta(cls, folder: Path, meta: IndexMeta, limits: StructureLimits) -> "VectorIndex":
        index = cls(meta.dim, meta.about, limits)
        index.home, index._saved = folder, meta
        index._segments = [read_segment(folder, entry, index.dim) for entry in meta.segments]
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


def _current_files(folder: Path) -> set[str]:
    """The segments' files that meta.json lists. Raises SearchIndexError when it can't be read."""
    if not (folder / META).exists():
        return set()
    return {name for entry in read_meta(folder).segments for name in segment_files(entry.number)}
