"""Shortlists for cleaning: the nearest images of a class by global descriptor (Section 3, for large classes)."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch

from rmaclib.rmac import RMAC
from rmaclib.search.descriptors import DescribeSettings, describe
from rmaclib.search.ranking import rank_others


class DescriptorNeighbours:
    """A rmaclib.cleaning.pipeline.Neighbours: describes the images of a class and ranks them by cosine.

    It does so in a process of its own, whose memory ends with it: describing takes more than cleaning a class does.
    """

    def __init__(self, network: RMAC, settings: DescribeSettings):
        self.network, self.settings = network, settings
        self.name = f"{network.settings.backbone}, R-MAC L={network.settings.levels}, sizes {list(settings.sizes)}"

    def __call__(self, paths: Sequence[Path], count: int) -> np.ndarray:
        """(N, min(count, M - 1)) int64, nearest first, M the images that can be read; rows of those that can't
        are -1."""
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), torch.set_num_threads,
                                 (torch.get_num_threads(),)) as process:
            return process.submit(nearest, self.network, self.settings, list(paths), count).result()


def nearest(network: RMAC, settings: DescribeSettings, paths: Sequence[Path], count: int) -> np.ndarray:
    """See DescriptorNeighbours.__call__."""
    found = describe(network, paths, settings, names=[str(n) for n in range(len(paths))], progress=False)
    good = np.array([int(name) for name in found.names], np.int64)
    nearest = np.full((len(paths), max(0, min(count, len(good) - 1))), -1, np.int64)
    if nearest.shape[1]:
        nearest[good] = good[rank_others(found.vectors, nearest.shape[1])]
    return nearest
