"""Descriptors on disk: the folder that a run fills chunk by chunk, and how it is read back.

partial/000000.npz … have the chunks of a run, each with what made it; a run that was killed goes on with the first that
is missing or damaged. At the end they are joined to descriptors.npy; meta.json, written last, says that the folder is
whole, what made it, and the checksums of its files.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmaclib.foundation.errors import RmacError
from rmaclib.foundation.files import (
    as_line,
    checksum,
    differences,
    need_space,
    read_json,
    whole_file,
    write_json,
    write_text,
)
from rmaclib.foundation.folders import LOCK, MARKER, OutputFolder, output_folder
from rmaclib.foundation.messages import note

VECTORS, NAMES, BAD, META, PARTIAL = "descriptors.npy", "names.txt", "bad.txt", "meta.json", "partial"
_CHECKED = (VECTORS, NAMES)  # files whose checksums are in meta.json
_IDENTITY = ("network", "weights", "settings", "images")
_CHUNK = re.compile(r"[0-9]{6,}\.npz")
_FLOAT = np.dtype("<f4")


class DescriptorsError(RmacError, RuntimeError):
    """A folder of descriptors that can't be used or continued; the text names it and says what to do."""


@dataclass(frozen=True)
class Descriptors:
    """Descriptors of a list of images.

    vectors: (N, D) float32, rows of unit length; memory-mapped when they came from a folder
    names: N names, in the list's order; bad: (name, reason) of the images left out
    repeated: names of images that were listed more than once, and extracted once
    """

    vectors: np.ndarray
    names: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]
    repeated: tuple[str, ...] = ()


Chunk = tuple[np.ndarray, list[str]]  # vectors of the good images; per image the reason it is bad, or ""


@contextmanager
def descriptors_folder(folder: str | os.PathLike) -> Iterator[OutputFolder]:
    """The folder locked for writing descriptors; see folders.output_folder."""
    with output_folder(folder, "descriptors", recognise=descriptor_files) as out:
        yield out


def descriptor_files(folder: Path) -> list[str] | None:
    """The files of descriptors that were written by a version without markers; None where there are none."""
    metas = [path for path in (folder / META, folder / PARTIAL / META) if path.is_file()]
    try:
        contents = [read_json(path, DescriptorsError, "descriptors") for path in metas]
    except DescriptorsError:
        return None
    if not contents or not all(set(_IDENTITY) <= content.keys() for content in contents):
        return None
    files = []
    if folder / META in metas:  # it was written last
        files = [VECTORS, NAMES, BAD, META]
        files += [name for name in ("network.safetensors",) if (folder / name).is_file()]  # of rmac describe
    if folder / PARTIAL / META in metas:
        files += [f"{PARTIAL}/{META}", *(f"{PARTIAL}/{name}" for name in os.listdir(folder / PARTIAL)
                                         if _CHUNK.fullmatch(name))]
        # Vectors were written first. Without them what has the other names is the user's.
        files += [VECTORS, NAMES, BAD] if _has_vectors(folder) else []
    return files


def _has_vectors(folder: Path) -> bool:
    try:
        _mapped(folder / VECTORS)
    except DescriptorsError:
        return False
    return True


def remove_descriptors(folder: Path) -> None:
    """Remove the files of a run, and the folder unless something else is in it. raises OutputError"""
    with descriptors_folder(folder) as out:
        out.remove(out.listed())
    for name in (LOCK, MARKER):  # in this order: a folder with a marker is looked at again after a kill
        (folder / name).unlink(missing_ok=True)
    if not os.listdir(folder):
        folder.rmdir()


class Run:
    """A run that fills a folder, opened and locked.

    identity: what the descriptors depend on, with the keys of _IDENTITY, as read from JSON
    sizes: images of each chunk; dim: dimensions of a descriptor
    raises DescriptorsError: the folder has descriptors of another run; OutputError: too little space on the disk
    """

    def __init__(self, out: OutputFolder, identity: Mapping, sizes: Sequence[int], dim: int):
        self.out, self.identity, self.sizes, self.dim = out, identity, sizes, dim
        self._digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.is_finished = self._look_for_result()
        if self.is_finished:
            self.out.remove(self.out.listed(PARTIAL))  # of a run that was killed before it removed them
            return
        of_this_run = self._look_for_chunks()
        self.done = [self._is_whole(number, of_this_run) for number in range(len(sizes))]
        missing = sum(size for size, done in zip(sizes, self.done, strict=True) if not done)
        need_space(out.path, (missing + sum(sizes)) * dim * _FLOAT.itemsize, f"descriptors of {sum(sizes)} images")
        out.will_write([f"{PARTIAL}/{META}", *(f"{PARTIAL}/{name}" for name in map(_chunk_name, range(len(sizes)))),
                        VECTORS, NAMES, BAD, META])
        if not of_this_run:
            write_json(out / PARTIAL / META, identity, checksum=True)

    def _look_for_result(self) -> bool:
        if not (self.out / META).exists():
            return False
        try:
            meta = _read_meta(self.out.path)
        except DescriptorsError as error:
            if not (self.out / PARTIAL / META).exists():
                raise DescriptorsError(f"{error}; remove the folder {self.out.path} to extract again") from error
            note(f"{error}; it is made again from the chunks in {PARTIAL}/")
            return False
        self._expect_same(meta)
        return True

    def _look_for_chunks(self) -> bool:
        """Whether partial/meta.json says that the chunks are those of this run."""
        path = self.out / PARTIAL / META
        if not path.exists():
            return False
        try:
            found = read_json(path, DescriptorsError, "what descriptors are made of")
        except DescriptorsError as error:
            note(f"{error}; it is made again")
            return False
        self._expect_same(found)
        return True

    def _expect_same(self, found: Mapping) -> None:
        if different := differences(found, self.identity):
            raise DescriptorsError(f"{self.out.path}: holds descriptors made otherwise: {', '.join(different)}; choose "
                                   "another folder, or remove this one to extract again")

    def _is_whole(self, number: int, of_this_run: bool) -> bool:
        path = self.out / PARTIAL / _chunk_name(number)
        if not path.exists():
            return False
        try:
            self._read(number, of_this_run)
        except DescriptorsError as error:
            note(f"{error}; its images are computed again")
            return False
        return True

    def _read(self, number: int, of_this_run: bool = True) -> Chunk:
        """raises DescriptorsError naming the file of a chunk that is damaged, or of another run.

        of_this_run: that is known already of a chunk that doesn't say what made it, as older ones don't
        """
        path = self.out / PARTIAL / _chunk_name(number)
        try:
            with np.load(path, allow_pickle=False) as chunk:
                vectors, reasons = chunk["vectors"], chunk["reasons"].tolist()
                mark = str(chunk["mark"]) if "mark" in chunk else self._mark(number) if of_this_run else ""
        except Exception as error:  # zip, zlib and numpy raise whatever comes to them on damaged bytes
            raise DescriptorsError(f"{path}: is damaged ({type(error).__name__}: {error})") from error
        good = sum(not reason for reason in reasons) if isinstance(reasons, list) else -1
        if mark != self._mark(number) or len(reasons) != self.sizes[number]:
            raise DescriptorsError(f"{path}: is of another run, or another part of this one")
        if vectors.dtype != _FLOAT or vectors.shape != (good, self.dim):
            raise DescriptorsError(f"{path}: expected {(good, self.dim)} float32, found {vectors.shape} "
                                   f"{vectors.dtype}")
        if not np.isfinite(vectors).all():
            raise DescriptorsError(f"{path}: expected finite descriptors, found NaN or infinity")
        return vectors, reasons

    def save(self, number: int, chunk: Chunk) -> None:
        """Keep a chunk."""
        vectors, reasons = chunk
        with whole_file(self.out / PARTIAL / _chunk_name(number)) as temporary:
            np.savez(temporary, vectors=vectors, reasons=np.array(reasons, dtype=np.str_),
                     mark=np.array(self._mark(number)))

    def _mark(self, number: int) -> str:
        """What a chunk says about itself: what made it, and which one it is."""
        return f"{self._digest} {number}"

    def finish(self, names: Sequence[str], more_bad: Sequence[tuple[str, str]], repeated: Sequence[str]) -> None:
        """Join the chunks and remove them.

        names: of all images of the chunks, in order; more_bad: images that are in no chunk
        """
        reasons = [reason for number in range(len(self.sizes)) for reason in self._read(number)[1]]
        good = [name for name, reason in zip(names, reasons, strict=True) if not reason]
        bad = [*more_bad, *bad_images(names, reasons)]
        with whole_file(self.out / VECTORS) as temporary, temporary.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": _FLOAT.str, "fortran_order": False,
                                                          "shape": (len(good), self.dim)})
            for number in range(len(self.sizes)):  # one chunk at a time is in memory
                stream.write(self._read(number)[0].tobytes())
        write_text(self.out / NAMES, "".join(f"{name}\n" for name in good))
        write_text(self.out / BAD, "".join(f"{name}\t{' '.join(reason.split())}\n" for name, reason in bad))
        checksums = {name: checksum(self.out / name) for name in _CHECKED}
        write_json(self.out / META, {**self.identity, "bad": bad, "repeated": list(repeated), "checksums": checksums},
                   checksum=True)  # last: it says that the folder is whole
        self.out.remove(self.out.listed(PARTIAL))


def bad_images(names: Sequence[str], reasons: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(name, reason) of those that have a reason."""
    return tuple((name, as_text(reason)) for name, reason in zip(names, reasons, strict=True) if reason)


def as_text(reason: str) -> str:
    """A reason as UTF-8 can hold it: it may name a file that is no valid text."""
    return reason.encode("utf-8", "backslashreplace").decode()


def load_descriptors(folder: str | os.PathLike) -> Descriptors:
    """Descriptors from a folder that extract() wrote; vectors are memory-mapped, read-only.

    raises DescriptorsError when the folder has none, naming the file that is missing, damaged or changed since
    """
    folder = Path(folder)
    meta = _read_meta(folder)
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


def _read_meta(folder: Path) -> dict:
    path, what = folder / META, "what descriptors are made of (rmac describe)"
    meta = read_json(path, DescriptorsError, what)
    if "checksums" in meta:  # an older version wrote none
        meta = read_json(path, DescriptorsError, what, checksum=True)
    bad, repeated, checksums = meta.get("bad"), meta.get("repeated", []), meta.get("checksums", {})
    good = (isinstance(bad, list) and all(isinstance(pair, list) and len(pair) == 2 and _all_text(pair) for pair in bad)
            and isinstance(repeated, list) and _all_text(repeated)
            and isinstance(checksums, dict) and set(checksums) <= set(_CHECKED))
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
    """(N, D) float32 of a .npy file. Its header is not believed: what it says has to fit the file."""
    try:
        with path.open("rb") as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("another version of the format")
            shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
            start = file.tell()
        size = path.stat().st_size
    except Exception as error:  # a header is a Python expression: its reader raises whatever comes to it
        raise DescriptorsError(f"{path}: expected a .npy file of float32, can't be read ({error})") from error
    if (kind != _FLOAT or fortran or len(shape) != 2 or min(shape) < 0
            or size != start + shape[0] * shape[1] * _FLOAT.itemsize):
        raise DescriptorsError(f"{path}: expected (N, D) float32, found {shape} {kind} in {size} bytes")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _chunk_name(number: int) -> str:
    return f"{number:06d}.npz"


def tell_repeated(repeated: Sequence[str]) -> None:
    """Say that images were listed more than once."""
    if repeated:
        note(f"{len(repeated)} images are listed more than once, taken once: {', '.join(map(as_line, repeated[:3]))}"
              + (" …" if len(repeated) > 3 else ""))
