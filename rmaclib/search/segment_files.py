"""A segment's two files on disk: its vectors as faiss writes them, and its names, one a line."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np

from rmaclib.foundation.files import checksum, whole_file, write_text
from rmaclib.search.faiss_checks import find_damage
from rmaclib.search.index_folder import SearchIndexError, SegmentEntry, segment_files
from rmaclib.search.segments import Segment
from rmaclib.search.structures import Structure


def write_segment(folder: Path, number: int, segment: Segment) -> SegmentEntry:
    """Write a segment's two files.

    Args:
        folder: The folder of the index.
        number: Of the files.
        segment: What to write; removed rows are written too.

    Returns:
        The entry for meta.json, without the removed rows.

    Raises:
        OutputError: A file can't be written.
    """
    vectors, names = (folder / name for name in segment_files(number))
    # Python writes: when faiss opens the file itself, an error in writing the last bytes is lost.
    with whole_file(vectors) as temporary, temporary.open("wb") as stream:
        faiss.write_index(segment.index, faiss.PyCallbackIOWriter(stream.write))
    write_text(names, "".join(f"{name}\n" for name in segment.names))
    return SegmentEntry(number, *segment.structure, len(segment.names),
                        (vectors.stat().st_size, names.stat().st_size), (), (checksum(vectors), checksum(names)))


def with_checksums(folder: Path, entry: SegmentEntry) -> SegmentEntry:
    """Add the checksums of a segment's files to an entry of version 1; another entry is returned as it is."""
    if entry.checksums:
        return entry
    return replace(entry, checksums=tuple(checksum(folder / name) for name in segment_files(entry.number)))


def read_segment(folder: Path, entry: SegmentEntry, dim: int) -> Segment:
    """Read a segment from its files; the vectors are memory-mapped.

    Args:
        folder: The folder of the index.
        entry: The segment in meta.json.
        dim: Dimensions of a vector.

    Raises:
        SearchIndexError: A file is missing, damaged, changed, or was not written by this library; the message names it.
    """
    vectors, names = (folder / name for name in segment_files(entry.number))
    for number, path in enumerate((vectors, names)):
        _check_file(path, entry.bytes[number], entry.checksums[number] if entry.checksums else None)
    index = _read_vectors(vectors, entry, dim)
    lines = _read_names(names, entry.count)
    removed = np.zeros(len(lines), bool)
    removed[list(entry.removed)] = True
    return Segment(index, lines, removed, Structure(entry.structure, entry.reason), entry)


def _read_vectors(path: Path, entry: SegmentEntry, dim: int) -> faiss.Index:
    try:
        with _no_larger_than(entry.bytes[0]):
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        damage = find_damage(index, entry, dim)
    except (RuntimeError, MemoryError, ValueError, AttributeError, OverflowError) as error:
        damage = " ".join(str(error).split()) or type(error).__name__
    if damage:
        raise SearchIndexError(f"{path}: expected {entry.count} vectors of {dim} dimensions ({entry.structure}), it "
                               f"is damaged ({damage})")
    return index


def _read_names(path: Path, count: int) -> tuple[str, ...]:
    try:
        lines = tuple(path.read_text(encoding="utf-8").split("\n")[:-1])
    except (OSError, UnicodeDecodeError) as error:
        raise SearchIndexError(f"{path}: expected names in UTF-8, can't be read ({error})") from error
    if len(lines) != count:
        raise SearchIndexError(f"{path}: expected {count} names, found {len(lines)}")
    return lines


@contextmanager
def _no_larger_than(size: int) -> Iterator[None]:
    """Limit what faiss allocates: it believes the sizes in a damaged file, and would allocate terabytes."""
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    faiss.set_deserialization_vector_byte_limit(size)
    faiss.set_deserialization_loop_limit(size)
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before[0])
        faiss.set_deserialization_loop_limit(before[1])


def _check_file(path: Path, size: int, expected_checksum: str | None) -> None:
    try:
        actual = path.stat().st_size if path.is_file() else "none"
        if actual != size:
            raise SearchIndexError(f"{path}: expected a file of {size} bytes, found {actual}")
        if expected_checksum is not None and checksum(path) != expected_checksum:
            raise SearchIndexError(f"{path}: is damaged or was changed (its checksum differs); make the index again")
    except OSError as error:
        raise SearchIndexError(f"{path}: can't be read ({error.strerror or error})") from error
