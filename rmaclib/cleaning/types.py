"""What cleaning gives: which images of a landmark are kept, and boxes around what they show (Section 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from rmaclib.cleaning.graph import MatchGraph
from rmaclib.datasets.types import LabelledImages
from rmaclib.foundation.errors import RmacError


class CleanError(RmacError, RuntimeError):
    """A folder of graphs that can't be continued; the text names it and says what to do."""


class Shortlists(Protocol):
    """Gives the images of one class that are worth matching; ``rmaclib.cleaning.shortlists`` has an implementation."""

    @property
    def identity(self) -> Mapping:
        """All that changes the shortlists, for JSON: a graph is made again when it differs."""

    def __call__(self, paths: Sequence[Path], count: int) -> np.ndarray:
        """The nearest images of each image, without itself.

        Args:
            paths: The N images of a class.
            count: Length of a shortlist.

        Returns:
            (N, at most count) indices into ``paths``, -1 for none.
        """


class Selection(NamedTuple):
    """What is kept of one landmark with N images.

    Attributes:
        component: (N,) int, 0 for the largest component, 1 for the next, -1 for a dropped image.
        reasons: N texts, why an image was dropped, "" for kept ones.
        first: (N, 4) float64, boxes before diffusion, NaN for dropped images.
        boxes: (N, 4) float64, boxes after diffusion, NaN for dropped images.
        rounds: Updates of the diffusion.
        converged: Whether the diffusion converged, see ``boxes.Diffusion``.
    """

    component: np.ndarray
    reasons: tuple[str, ...]
    first: np.ndarray
    boxes: np.ndarray
    rounds: int
    converged: bool


@dataclass(frozen=True)
class Landmark:
    """One landmark of a cleaned collection.

    Attributes:
        label: Its label in the collection.
        name: Its name in the collection, or the label as text.
        images: Indices into ``Cleaned.source``.
        graph: The verified pairs among these images.
        selection: What is kept of them.
    """

    label: int
    name: str
    images: tuple[int, ...]
    graph: MatchGraph
    selection: Selection


@dataclass(frozen=True)
class Cleaned:
    """A cleaned collection.

    Attributes:
        source: What was cleaned: the collection without what its ``skipped`` lists.
        clean: The kept images with their boxes. Labels are those of the collection; with several components kept,
            new ones from 0, named after landmark and component.
        landmarks: What came of each landmark, in order of labels.
    """

    source: LabelledImages
    clean: LabelledImages
    landmarks: tuple[Landmark, ...]
