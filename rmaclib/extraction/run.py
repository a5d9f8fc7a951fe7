"""A run that fills a folder of descriptors chunk by chunk, and goes on where it was killed."""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np

from rmaclib.extraction.folder import (
    BAD,
    CHECKED,
    FLOAT,
    META,
    NAMES,
    PARTIAL,
    VECTORS,
    DescriptorsError,
    bad_images,
    read_meta,
)
from rmaclib.extraction.images import Bad
from rmaclib.foundation.files import checksum, differences, need_space, read_json, whole_file, write_json, write_text
from rmaclib.foundation.folders import OutputFolder
from rmaclib.foundation.messages import note

Chunk = tuple[np.ndarray, list[str]]  # vectors of the good images; for each image the reason why it is bad, or ""


class Run:
    """A run that fills a folder, opened and locked.

    Args:
        out: The folder.
        identity: What the descriptors depend on: network, weights, settings, images.
        sizes: Number of images of each chunk.
        dim: Dimensions of a descriptor.

    Attributes:
        is_finished: Whether the folder contains all descriptors already.
        done: For each chunk whether it is there already; not set when the run is finished.

    Raises:
        DescriptorsError: The folder contains descriptors of another run.
        OutputError: The disk has too little space.
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
        need_space(out.path, (missing + sum(sizes)) * dim * FLOAT.itemsize, f"descriptors of {sum(sizes)} images")
        out.will_write([f"{PARTIAL}/{META}", *(f"{PARTIAL}/{name}" for name in map(_chunk_name, range(len(sizes)))),
                        VECTORS, NAMES, BAD, META])
        if not of_this_run:
            write_json(out / PARTIAL / META, identity, checksum=True)

    def _look_for_result(self) -> bool:
        """Whether the folder contains the descriptors of this run, whole."""
        if not (self.out / META).exists():
            return False
        try:
            meta = read_meta(self.out.path)
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
            made_with = read_json(path, DescriptorsError, "what descriptors are made of")
        except DescriptorsError as error:
            note(f"{error}; it is made again")
            return False
        self._expect_same(made_with)
        return True

    def _expect_same(self, made_with: Mapping) -> None:
        if different := differences(made_with, self.identity):
            raise DescriptorsError(f"{self.out.path}: contains descriptors made otherwise: {', '.join(different)}; "
                                   "choose another folder, or remove this one to extract again")

    def _is_whole(self, number: int, of_this_run: bool) -> bool:
        """Whether a chunk is there, whole; a damaged one is noted."""
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
        """Read a chunk; a DescriptorsError names the file of one that is damaged, or of another run.

        Args:
            number: Of the chunk.
            of_this_run: Whether a chunk that doesn't say what made it, as older ones don't, is known to be of this run.
        """
        path = self.out / PARTIAL / _chunk_name(number)
        try:
            with np.load(path, allow_pickle=False) as chunk:
                vectors, reasons = chunk["vectors"], chunk["reasons"].tolist()
                mark = str(chunk["mark"]) if "mark" in chunk else self._mark(number) if of_this_run else ""
        except Exception as error:  # zip, zlib and numpy raise anything on damaged bytes
            raise DescriptorsError(f"{path}: is damaged ({type(error).__name__}: {error})") from error
        good = sum(not reason for reason in reasons) if isinstance(reasons, list) else -1
        if mark != self._mark(number) or len(reasons) != self.sizes[number]:
            raise DescriptorsError(f"{path}: is of another run, or another part of this one")
        if vectors.dtype != FLOAT or vectors.shape != (good, self.dim):
            raise DescriptorsError(f"{path}: expected {(good, self.dim)} float32, found {vectors.shape} "
                                   f"{vectors.dtype}")
        if not np.isfinite(vectors).all():
            raise DescriptorsError(f"{path}: expected finite descriptors, found NaN or infinity")
        return vectors, reasons

    def save(self, number: int, chunk: Chunk) -> None:
        """Write a chunk.

        Raises:
            OutputError: It can't be written.
        """
        vectors, reasons = chunk
        with whole_file(self.out / PARTIAL / _chunk_name(number)) as temporary:
            np.savez(temporary, vectors=vectors, reasons=np.array(reasons, dtype=np.str_),
                     mark=np.array(self._mark(number)))

    def _mark(self, number: int) -> str:
        """What a chunk says about itself: what made it, and its number."""
        return f"{self._digest} {number}"

    def finish(self, names: Sequence[str], more_bad: Sequence[Bad], repeated: Sequence[str]) -> None:
        """Join the chunks and remove them.

        Args:
            names: Of all images of the chunks, in order.
            more_bad: (name, reason) of bad images that are in no chunk.
            repeated: Names of images that were given more than once.

        Raises:
            OutputError: A file can't be written.
        """
        reasons = [reason for number in range(len(self.sizes)) for reason in self._read(number)[1]]
        good = [name for name, reason in zip(names, reasons, strict=True) if not reason]
        bad = [*more_bad, *bad_images(names, reasons)]
        with whole_file(self.out / VECTORS) as temporary, temporary.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, {"descr": FLOAT.str, "fortran_order": False,
                                                          "shape": (len(good), self.dim)})
            for number in range(len(self.sizes)):  # one chunk at a time is in memory
                stream.write(self._read(number)[0].tobytes())
        write_text(self.out / NAMES, "".join(f"{name}\n" for name in good))
        write_text(self.out / BAD, "".join(f"{name}\t{' '.join(reason.split())}\n" for name, reason in bad))
        checksums = {name: checksum(self.out / name) for name in CHECKED}
        write_json(self.out / META, {**self.identity, "bad": bad, "repeated": list(repeated), "checksums": checksums},
                   checksum=True)  # last: it says that the folder is whole
        self.out.remove(self.out.listed(PARTIAL))


def _chunk_name(number: int) -> str:
    return f"{number:06d}.npz"
