"""Shortlists for cleaning: the nearest images of a class by global descriptor (Section 3, for large classes)."""

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rmaclib.foundation.environment import environment
from rmaclib.foundation.errors import RmacError
from rmaclib.foundation.settings import whole_number
from rmaclib.foundation.workers import end_workers, worker_pool

if TYPE_CHECKING:
    from rmaclib.extraction.batches import ExtractionSettings
    from rmaclib.network import RMAC

# glibc gives memory back that it would keep for the next image, and oneDNN caches only what it made for few shapes of
# images: extraction then takes a quarter of the memory beside that of the libraries.
_SPARING = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "65536",
            "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32"}


class ShortlistError(RmacError, RuntimeError):
    """Shortlists can't be made; the text says why."""


class DescriptorShortlists:
    """Shortlists by global descriptors: extracts those of the images of a class, and ranks them by cosine.

    A process of its own does the extraction, on the CPU: with the libraries that it loads, it takes more memory than
    cleaning a class. An implementation of ``rmaclib.cleaning.types.Shortlists``.

    Args:
        network: A backbone's name or a checkpoint, see ``rmaclib.checkpoints.open_network``.
        size: Longer side of the images in pixels.

    Attributes:
        name: What makes the shortlists, for people to read.
        identity: All that changes a shortlist, for JSON: settings and weights of the network, and the settings of the
            extraction.

    Raises:
        InputError: A size that is no whole number of at least 1.
        CheckpointError: No such checkpoint.
        BackboneError: No such backbone.
        ShortlistError: The process was killed.
    """

    def __init__(self, network: str, size: int = 320) -> None:
        whole_number("size", size, 1)
        self._network, self._size = network, size
        self._process = worker_pool(1)
        try:
            with environment(_SPARING):
                # The process starts with its first task.
                self.name, self.identity = self._process.submit(_name_and_identity, network, size).result()
        except BrokenProcessPool as error:
            raise ShortlistError(f"{network}: the process that loads it for shortlists was killed; it needs a "
                                 "gigabyte of memory") from error
        except BaseException:
            self.close()
            raise

    def __call__(self, paths: Sequence[Path], count: int) -> np.ndarray:
        """The nearest images of each image.

        Args:
            paths: The N images of a class, of which M can be read.
            count: Length of a shortlist.

        Returns:
            (N, min(count, M - 1)) int64, indices into ``paths``, nearest first; -1 for images that can't be read.

        Raises:
            ShortlistError: The process was killed.
        """
        try:
            return self._process.submit(_nearest, self._network, self._size, list(paths), count).result()
        except BrokenProcessPool as error:
            raise ShortlistError(f"{self.name}: the process that extracts descriptors of {len(paths)} images for "
                                 "shortlists was killed; it needs a gigabyte of memory") from error

    def close(self) -> None:
        """End the process, whatever it is doing."""
        end_workers(self._process)


# What follows runs in the process. Only it may load torch.


@lru_cache(maxsize=1)
def _opened(network: str) -> "RMAC":
    from rmaclib.checkpoints import open_network

    return open_network(network)


def _settings(size: int) -> "ExtractionSettings":
    from rmaclib.extraction.batches import ExtractionSettings

    return ExtractionSettings((size,), precision="float32", device="cpu")


def _name_and_identity(network: str, size: int) -> tuple[str, dict]:
    from rmaclib.checkpoints import fingerprint

    opened = _opened(network)
    return (f"{opened.settings.backbone}, R-MAC L={opened.settings.levels}, sizes {[size]}",
            {"network": asdict(opened.settings), "weights": fingerprint(opened), "settings": asdict(_settings(size))})


def _nearest(network: str, size: int, paths: Sequence[Path], count: int) -> np.ndarray:
    from rmaclib.extraction.descriptors import extract
    from rmaclib.ranking import rank_others

    # Names that differ: extract() would take a path that is given twice only once, and each has a shortlist.
    names = [str(number) for number in range(len(paths))]
    descriptors = extract(_opened(network), paths, _settings(size), names=names, progress=False)
    readable = np.array([int(name) for name in descriptors.names], np.int64)
    nearest = np.full((len(paths), max(0, min(count, len(readable) - 1))), -1, np.int64)
    if nearest.shape[1]:
        nearest[readable] = readable[rank_others(descriptors.vectors, nearest.shape[1])]
    return nearest
