"""Descriptors on disk: what is in their folder, and how they are read. Module run fills it.

partial/000000.npz … are the chunks of a run, each with what made it; a run that was killed goes on with the first that
is missing or damaged. At the end they are joined to descriptors.npy; meta.json, written last, says that the folder is
whole, what made it, and the checksums of its files.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmaclib.foundation.errors import RmacError
from rmaclib.foundation.files import as_line, checksum, read_json
from rmaclib.foundation.folders import LOCK, MARKER, OutputFolder, output_folder
from rmaclib.foundation.messages import note

VECTORS, NAMES, BAD, META, PARTIAL = "descriptors.npy", "names.txt", "bad.txt", "meta.json", "partial"
CHECKED = (VECTORS, NAMES)  # files whose checksums are in meta.json
_IDENTITY = ("network", "weights", "settings", "images")
_CHUNK = re.compile(r"[0-9]{6,}\.npz")
FLOAT = np.dtype("<f4")


class DescriptorsError(RmacError, RuntimeError):
    """A folder of descriptors that can't be used or continued; the text names it and says what to do."""


@dataclass(frozen=True)
class Descriptors:
    """Descriptors of a list of images.

    Attributes:
        vectors: (N, D) float32, rows ℓ2-normalised; memory-mapped when they were read from a folder.
        names: N names, in the order of the list.
        bad: (name, reason) of the images that were left out.
        repeated: Names of the images that were listed more than once, and extracted once.
    """

    vectors: np.ndarray
    names: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]
    repeated: tuple[str, ...] = ()


@contextmanager
def descriptors_folder(folder: str | os.PathLike) -> Iterator[OutputFolder]:
    """Lock a folder for writing descriptors; see ``folders.output_folder``.

    Raises:
        OutputError: The folder contains other files, or can't be written.
    """
    with output_folder(folder, "descriptors", recognise=descriptor_files) as out:
        yield out


def descriptor_files(folder: Path) -> list[str] | None:
    """List the files of descriptors that a version without markers wrote into a folder; None where there are none."""
    metas = [path for path in (folder / META, folder / PARTIAL / META) if path.is_file()]
    try:
        contents = [read_json(path, DescriptorsError, "descriptors") for path in metas]
    except DescriptorsError:
        return None
    if not contents or not all(set(_IDENTITY) <= content.keys() for content in contents):
        return None
    files = []
    if folder / META in metas:  # it is written last
        files = [VECTORS, NAMES, BAD, META]
        files += [name for name in ("network.safetensors",) if (folder / name).is_file()]  # of rmac extract
    if folder / PARTIAL / META in metas:
        files += [f"{PARTIAL}/{META}", *(f"{PARTIAL}/{name}" for name in os.listdir(folder / PARTIAL)
                                         if _CHUNK.fullmatch(name))]
        # Vectors are written first. Without them files of the other names are the user's.
        files += [VECTORS, NAMES, BAD] if _has_vectors(folder) else []
    return files


def _has_vectors(folder: Path) -> bool:
    try:
        _mapped(folder / VECTORS)
    except DescriptorsError:
        return False
    return True


def remove_descriptors(folder: Path) -> None:
    """Remove the files of a run, and the folder unless something else is in it.

    Raises:
        OutputError: The folder is no folder of descriptors, or can't be written.
    """
    with descriptors_folder(folder) as out:
        out.remove(out.listed())
    for name in (LOCK, MARKER):  # in this order: a folder with a marker is looked at again after a kill
        (folder / name).unlink(missing_ok=True)
    if not os.listdir(folder):
        folder.rmdir()


def bad_images(names: Sequence[str], reasons: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pair names and reasons, (name, reason), of the images that have a reason."""
    return tuple((name, as_text(reason)) for name, reason in zip(names, reasons, strict=True) if reason)


def as_text(reason: str) -> str:
    """Escape what UTF-8 can't represent in a reason: it may name a file whose name is no valid text."""
    return reason.encode("utf-8", "backslashreplace").decode()


def load_descriptors(folder: str | os.PathLike) -> Descriptors:
    """Load descriptors that ``extract`` wrote to a folder.

    Args:
        folder: That was given to ``extract`` as ``out``.

    Returns:
        The descriptors, memory-mapped, read-only.

    Raises:
        DescriptorsError: A file is missing, damaged or was changed since; the text names it.
    """
    folder = Path(folder)
    meta = read_meta(folder)
    for name, expected in meta.get("checksums", {}).items():
        _expect_checksum(folder / name, expected)
    try:
        names = tuple((folder / NAMES).read_text(encoding="utf-8").split("\n")[:-1])
    except (OSError, UnicodeDecodeError) as error:
        raise DescriptorsError(f"{folder / NAMES}: expected names, one a line, can't be read ({error})") from error
    vectors = _mapped(folder / VECTORS)
    if len(vectors) != len(names):
        raise DescriptorsError(f"{folder}: {vectors.shape} descriptors and {len(names)} names don't fit together")
    return Descriptors(vectors, names, tuple(map(tuple, meta["bad"])), tuple(meta.get("repeated", ())))


def read_meta(folder: Path) -> dict:
    """Read meta.json of a folder of descriptors.

    Raises:
        DescriptorsError: It is missing or damaged.
    """
    path, what = folder / META, "what descriptors are made of (rmac extract)"
    meta = read_json(path, DescriptorsError, what)
    if "checksums" in meta:  # an older version wrote none
        meta = read_json(path, DescriptorsError, what, checksum=True)
    bad, repeated, checksums = meta.get("bad"), meta.get("repeated", []), meta.get("checksums", {})
    good = (isinstance(bad, list) and all(isinstance(pair, list) and len(pair) == 2 and _all_text(pair) for pair in bad)
            and isinstance(repeated, list) and _all_text(repeated)
            and isinstance(checksums, dict) and set(checksums) <= set(CHECKED))
    if not good:
        raise DescriptorsError(f"{path}: expected {what}, it is damaged (bad, repeated or checksums)")
    return meta


def _all_text(values: Sequence) -> bool:
    return all(isinstance(value, str) for value in values)


def _expect_checksum(path: Path, expected: str) -> None:
    try:
        if checksum(path) != expected:
            raise DescriptorsError(f"{path}: is damaged or was changed (its checksum differs); remove the folder and "
                                   "extract again")
    except OSError as error:
        raise DescriptorsError(f"{path}: can't be read ({error.strerror or error})") from error


def _mapped(path: Path) -> np.ndarray:
    """Map (N, D) float32 of a .npy file. Its header is not trusted: what it says has to fit the file."""
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("another version of the format")
            shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
        size = path.stat().st_size
    except Exception as error:  # a header is a Python expression: its reader raises anything
        raise DescriptorsError(f"{path}: expected a .npy file of float32, can't be read ({error})") from error
    if (kind != FLOAT or fortran or len(shape) != 2 or min(shape) < 0
            or size != start + shape[0] * shape[1] * FLOAT.itemsize):
        raise DescriptorsError(f"{path}: expected (N, D) float32, found {shape} {kind} in {size} bytes")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def tell_repeated(repeated: Sequence[str]) -> None:
    """Note the images that were listed more than once."""
    if repeated:
        note(f"{len(repeated)} images are listed more than once, taken once: {', '.join(map(as_line, repeated[:3]))}"
              + (" …" if len(repeated) > 3 else ""))
