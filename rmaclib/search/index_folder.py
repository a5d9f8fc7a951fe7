"""The folder of an index: which files it contains, what meta.json says, and who may write there.

This module needs neither torch nor faiss.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from rmaclib.extraction.folder import descriptor_files, remove_descriptors
from rmaclib.foundation.errors import InputError, RmacError
from rmaclib.foundation.files import read_json, write_json
from rmaclib.foundation.folders import MARKER, OutputFolder, output_folder
from rmaclib.foundation.settings import Field, as_tuple, from_mapping, settings

FORMAT, VERSION = "rmaclib-index", 2
META = "meta.json"
CHECKPOINT = "network.safetensors"  # of an index of images
_SEGMENT_FILE = re.compile(r"([0-9]{6,})\.(faiss|txt)")
# Folders inside the index's, for descriptors that aren't in the index yet; each is named after its images.
_PENDING = re.compile(r"describing-[0-9a-f]{16}")


class SearchIndexError(RmacError, RuntimeError):
    """A folder without an index, with a damaged one, or with one of another network; the message names the folder."""


@settings
class SegmentEntry:
    """A segment as meta.json describes it.

    Attributes:
        number: Number in the names of its two files, see :func:`segment_files`.
        structure: How it is searched, see :class:`rmaclib.search.structures.Structure`.
        reason: Why it is searched like that.
        count: Number of its vectors.
        bytes: Sizes of its two files: vectors, names.
        removed: Rows that were removed from the index.
        checksums: CRC-32 of its two files; none in an index of version 1.
    """

    number: Annotated[int, Field(ge=1)]
    structure: str
    reason: str
    count: Annotated[int, Field(ge=1)]
    bytes: Annotated[tuple[int, int], as_tuple]
    removed: Annotated[tuple[Annotated[int, Field(ge=0)], ...], as_tuple] = ()
    checksums: Annotated[tuple[str, ...], as_tuple] = ()


@dataclass(frozen=True)
class IndexMeta:
    """What meta.json says about an index: its state at one save.

    Attributes:
        generation: Number of the save, from 1.
        dim: Dimensions of a vector.
        about: What made the vectors; anything that JSON can hold.
        segments: The segments of the index, oldest first.
    """

    generation: int
    dim: int
    about: dict
    segments: tuple[SegmentEntry, ...]


@contextmanager
def index_folder(folder: str | os.PathLike) -> Iterator[OutputFolder]:
    """Lock a folder for writing an index; see :func:`rmaclib.foundation.folders.output_folder`.

    To build an index where there is none, or to add to it where there is one, check which inside the block.

    Args:
        folder: New, empty, or the folder of an index.

    Yields:
        The folder, to list files before they are written.

    Raises:
        OutputError: The folder contains other things, or can't be written.
    """
    with output_folder(folder, "index", recognise=_files_without_marker) as out:
        yield out


def read_meta(folder: Path) -> IndexMeta:
    """Read meta.json of an index.

    Args:
        folder: The folder of the index.

    Raises:
        SearchIndexError: There is none, it is damaged or was changed, or a newer version wrote it.
    """
    path, what = folder / META, "an index (rmac index)"
    content = read_json(path, SearchIndexError, what)
    if content.get("format") != FORMAT:
        raise SearchIndexError(f"{path}: expected format {FORMAT!r}, found {content.get('format')!r}")
    version = content.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise SearchIndexError(f"{path}: version {version}, this rmaclib reads up to {VERSION}")
    if version > 1:
        content = read_json(path, SearchIndexError, what, checksum=True)
    for field, kind in (("generation", int), ("dim", int), ("about", dict), ("segments", list)):
        if not isinstance(content.get(field), kind) or isinstance(content[field], bool):
            raise SearchIndexError(f"{path}: damaged ({field}: expected {kind.__name__}, got {content.get(field)!r})")
    if content["dim"] < 1:
        raise SearchIndexError(f"{path}: damaged (dim: expected at least 1, got {content['dim']})")
    try:
        entries = tuple(from_mapping(SegmentEntry, fields, f"segment {number}")
                        for number, fields in enumerate(content["segments"], 1))
    except InputError as error:
        raise SearchIndexError(f"{path}: damaged ({error})") from error
    if any(len(entry.checksums) != 2 * (version > 1) for entry in entries):
        raise SearchIndexError(f"{path}: damaged (expected two checksums of each segment)")
    return IndexMeta(content["generation"], content["dim"], content["about"], entries)


def write_meta(folder: Path, meta: IndexMeta) -> None:
    """Write meta.json of an index, whole or not at all.

    Args:
        folder: The folder of the index, locked; its marker lists meta.json and the segments' files.
        meta: What to write.

    Raises:
        OutputError: It can't be written.
    """
    write_json(folder / META, {"format": FORMAT, "version": VERSION, **asdict(meta)}, checksum=True)


def segment_files(number: int) -> tuple[str, str]:
    """Names of a segment's files: vectors, names."""
    return f"{number:06d}.faiss", f"{number:06d}.txt"


def segment_number(file_name: str) -> int | None:
    """The number of the segment that a file belongs to; None for another file."""
    match = _SEGMENT_FILE.fullmatch(file_name)
    return int(match[1]) if match else None


def pending_folder(fingerprint: str) -> str:
    """Name of the folder for descriptors of images with this fingerprint, until they are in the index."""
    return f"describing-{fingerprint[:16]}"


def remove_pending(out: OutputFolder) -> None:
    """Remove folders of descriptors that are in the index now, or of runs that were killed.

    Args:
        out: The folder of the index, locked, so that nobody else is writing such descriptors.

    Raises:
        OutputError: A file can't be removed.
    """
    for name in {listed.split("/")[0] for listed in out.listed() if _PENDING.match(listed)}:
        if (out / name / MARKER).is_file():
            remove_descriptors(out / name)
        out.remove(out.listed(name))


def _files_without_marker(folder: Path) -> list[str] | None:
    """List the files of an index without a marker: of an older version, or killed early. None where there is none."""
    names = os.listdir(folder)
    descriptors = {name: descriptor_files(folder / name) for name in names if _PENDING.fullmatch(name)}
    listed = [f"{name}/{file}" for name, files in descriptors.items() for file in files or ()]
    listed += [name for name in names if name == CHECKPOINT]
    try:
        entries = read_meta(folder).segments
        return [META, *(name for entry in entries for name in segment_files(entry.number)), *listed]
    except SearchIndexError:
        others = [name for name in names if descriptors.get(name) is None and name != CHECKPOINT]
        return None if others or not descriptors else listed
