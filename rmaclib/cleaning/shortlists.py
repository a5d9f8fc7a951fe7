"""Shortlists for cleaning: the nearest images of a class by global descriptor (Section 3, for large classes)."""

from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import numpy as np

from rmaclib.foundation.environment import environment
from rmaclib.foundation.errors import RmacError
from rmaclib.foundation.settings import whole_number
from rmaclib.foundation.workers import end_workers, worker_pool

# glibc gives memory back that it would keep for the next image, and oneDNN keeps what it made for few shapes of images
# only: a quarter of what describing takes beside the libraries.
_SPARING = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "65536",
            "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32"}


class ShortlistError(RmacError, RuntimeError):
    """Shortlists can't be made; the text says why."""


class DescriptorShortlists:
    """A rmaclib.cleaning.pipeline.Neighbours: describes the images of a class and ranks them by cosine.

    network: a backbone's name or a checkpoint, see rmaclib.checkpoints.open_network; size: longer side in pixels
    A process of its own does it, on the CPU: with what it loads, describing takes more memory than cleaning a class.
    name: what it does, for people to read; identity: all that changes a shortlist, for JSON: the settings and weights
      of the network, and how images are brought to it
    raises InputError, CheckpointError, BackboneError; ShortlistError when the process was killed
    """

    def __init__(self, network: str, size: int = 320):
        whole_number("size", size, 1)
        self._ask = network, size
        self._process = worker_pool(1)
        try:
            with environment(_SPARING):
                # It starts with its first task.
                self.name, self.identity = self._process.submit(_name_and_identity, *self._ask).result()
        except BrokenProcessPool as error:
            raise ShortlistError(f"{network}: the process that loads it for shortlists was killed; it needs a "
                                  "gigabyte of memory") from error
        except BaseException:
            self.close()
            raise

    def __call__(self, paths: Sequence[Path], count: int) -> np.ndarray:
        """(N, min(count, M - 1)) int64, nearest first, M the images that can be read; rows of those that can't
        are -1."""
        try:
            return self._process.submit(_nearest, *self._ask, list(paths), count).result()
        except BrokenProcessPool as error:
            raise ShortlistError(f"{self.name}: the process that describes {len(paths)} images for shortlists was "
                                  "killed; it needs a gigabyte of memory") from error

    def close(self) -> None:
        """End the process, whatever it is at."""
        end_workers(self._process)


# What follows runs in the process. Only it may load torch.


@lru_cache(maxsize=1)
def _opened(network: str):
    from rmaclib.checkpoints import open_network

    return open_network(network)


def _settings(size: int):
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

    names = [str(number) for number in range(len(paths))]  # different ones: of a path given twice both have a row
    found = extract(_opened(network), paths, _settings(size), names=names, progress=False)
    good = np.array([int(name) for name in found.names], np.int64)
    nearest = np.full((len(paths), max(0, min(count, len(good) - 1))), -1, np.int64)
    if nearest.shape[1]:
        nearest[good] = good[rank_others(found.vectors, nearest.shape[1])]
    return nearest
