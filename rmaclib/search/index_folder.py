"""The folder of an index: what is in it, and who may write to it. It needs neither torch nor faiss."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmaclib.extraction.folder import descriptor_files, remove_descriptors
from rmaclib.foundation.errors import RmacError
from rmaclib.foundation.files import read_json
from rmaclib.foundation.folders import MARKER, OutputFolder, output_folder

FORMAT, VERSION = "rmaclib-index", 2
META = "meta.json"
CHECKPOINT = "network.safetensors"  # of an index of images
_FILE = re.compile(r"([0-9]{6,})\.(faiss|txt)")
# Folders in that of the index, of descriptors that aren't in it yet; each is named after its images.
_DESCRIBING = re.compile(r"describing-[0-9a-f]{16}")


class SearchIndexError(RmacError, RuntimeError):
    """A folder that is no index, not a whole one, or one of another network; the text names it."""


@contextmanager
def index_folder(folder: str | os.PathLike) -> Iterator[OutputFolder]:
    """The folder locked for writing an index; see folders.output_folder. Who looks whether it has an index already and
    builds one or adds to it then does both inside."""
    with output_folder(folder, "index", recognise=_older_files) as out:
        yield out


def read_meta(folder: Path) -> dict:
    """meta.json of an index, without its checksum. raises SearchIndexError: none, damaged, changed, or a newer one"""
    path, what = folder / META, "an index (rmac index)"
    meta = read_json(path, SearchIndexError, what)
    if meta.get("format") != FORMAT:
        raise SearchIndexError(f"{path}: expected format {FORMAT!r}, found {meta.get('format')!r}")
    version = meta.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= VERSION:
        raise SearchIndexError(f"{path}: version {version}, this rmaclib reads up to {VERSION}")
    if version > 1:
        meta = read_json(path, SearchIndexError, what, checksum=True)
    for field, kind in (("generation", int), ("dim", int), ("about", dict), ("segments", list)):
        if not isinstance(meta.get(field), kind) or isinstance(meta[field], bool):
            raise SearchIndexError(f"{path}: damaged ({field}: expected {kind.__name__}, got {meta.get(field)!r})")
    if meta["dim"] < 1:
        raise SearchIndexError(f"{path}: damaged (dim: expected at least 1, got {meta['dim']})")
    return meta


def segment_files(number: int) -> tuple[str, str]:
    """Names of a segment's files: vectors, names."""
    return f"{number:06d}.faiss", f"{number:06d}.txt"


def segment_number(file_name: str) -> int | None:
    """The number of the segment that a file belongs to, None for another file."""
    match = _FILE.fullmatch(file_name)
    return int(match[1]) if match else None


def describing_folder(fingerprint: str) -> str:
    """Name of the folder for descriptors of images with this fingerprint."""
    return f"describing-{fingerprint[:16]}"


def remove_descriptions(out: OutputFolder) -> None:
    """Remove descriptors that are in the index now, or of runs that were killed: nobody else is writing here."""
    for name in {listed.split("/")[0] for listed in out.listed() if _DESCRIBING.match(listed)}:
        if (out / name / MARKER).is_file():
            remove_descriptors(out / name)
        out.remove(out.listed(name))


def _older_files(folder: Path) -> list[str] | None:
    """The files of an index that was written by a version without markers, or killed while it was; None where there is
    none."""
    names = os.listdir(folder)
    descriptions = {name: descriptor_files(folder / name) for name in names if _DESCRIBING.fullmatch(name)}
    listed = [f"{name}/{file}" for name, files in descriptions.items() for file in files or ()]
    listed += [name for name in names if name == CHECKPOINT]
    try:
        segments = read_meta(folder)["segments"]
        return [META, *(name for fields in segments for name in segment_files(fields["number"])), *listed]
    except (SearchIndexError, KeyError, TypeError, ValueError):
        others = [name for name in names if descriptions.get(name) is None and name != CHECKPOINT]
        return None if others or not descriptions else listed
