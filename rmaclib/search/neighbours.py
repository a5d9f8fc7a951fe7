"""Shortlists for cleaning: the nearest images of a class by global descriptor (Section 3, for large classes)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rmaclib.rmac import RMAC
from rmaclib.search.descriptors import DescribeSettings, describe
from rmaclib.search.ranking import rank_others


class DescriptorNeighbours:
    """A rmaclib.cleaning.pipeline.Neighbours: describes the images of a class and ranks them by cosine."""

    def __init__(self, network: RMAC, settings: DescribeSettings):
        self.network, self.settings = network, settings
        self.name = f"{network.settings.backbone}, R-MAC L={network.settings.levels}, sizes {list(settings.sizes)}"

    def __call__(self, paths: Sequence[Path], count: int) -> np.ndarray:
        """(N, min(count, M - 1)) int64, nearest first, M the images that can be read; rows of those that can't
        are -1."""
        found = describe(self.network, paths, self.settings, names=[str(n) for n in range(len(paths))],
                         progress=False)
        good = np.array([int(name) for name in found.names], np.int64)
        nearest = np.full((len(paths), max(0, min(count, len(good) - 1))), -1, np.int64)
        if nearest.shape[1]:
            nearest[good] = good[rank_others(found.vectors, nearest.shape[1])]
        return nearest
