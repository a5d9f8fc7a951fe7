"""Scores of a cleaned collection whose ground truth is known: a rendered one (Section 3).

The ground truth is a CSV file, one line for each image, with the columns path (as in the collection's list), monument
(what is shown, empty for nothing of interest), profile (the viewpoint: front, rear, …), visible (share of the monument
that is seen, 0..1, or true and false), x1, y1, x2, y2 (its box in pixels, empty where there is none). Other columns are
ignored.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmaclib.boxes import Box, check_box, overlaps
from rmaclib.cleaning.types import Cleaned, Landmark
from rmaclib.datasets.files import read_rows
from rmaclib.datasets.types import DatasetError
from rmaclib.foundation.errors import InputError

COLUMNS = ("path", "monument", "profile", "visible", "x1", "y1", "x2", "y2")
LEAST_VISIBLE = 0.5


@dataclass(frozen=True)
class GroundTruth:
    """What an image shows.

    Attributes:
        monument: Name of what is shown, "" for nothing of interest.
        viewpoint: The side that it is seen from; the column "profile".
        visible: Share of the monument that is seen, 0..1.
        box: Around the monument, or None.
    """

    monument: str
    viewpoint: str
    visible: float
    box: Box | None


@dataclass(frozen=True)
class CleaningScores:
    """A cleaned collection against its ground truth.

    Positives of a landmark are the images of its dominant viewpoint: the most frequent (monument, viewpoint) among its
    images; of equally frequent ones, that of which most images were kept. Relevant are those positives that are well
    visible: others aren't missed when they are dropped.

    Attributes:
        precision: ``true_positives`` of ``kept``, NaN when nothing is kept.
        recall: ``relevant_kept`` of ``relevant``, NaN when nothing is relevant.
        first_iou: Median intersection over union of estimated boxes before diffusion and true boxes, over the true
            positives; NaN without any.
        iou: The same after diffusion.
        kept: Number of kept images.
        true_positives: Number of kept images that are positive.
        relevant: Number of relevant images.
        relevant_kept: Number of relevant images that are kept.
        false_positives: Names of kept images that show something else.
    """

    precision: float
    recall: float
    first_iou: float
    iou: float
    kept: int
    true_positives: int
    relevant: int
    relevant_kept: int
    false_positives: tuple[str, ...]


def read_ground_truth(path: str | os.PathLike) -> dict[str, GroundTruth]:
    """Read a file of ground truth.

    Args:
        path: CSV file with the columns above.

    Returns:
        Name of an image → what it shows.

    Raises:
        DatasetError: A missing column or a bad value; the text names file and line.
    """
    path, ground_truth = Path(path), {}
    for row in read_rows(path, COLUMNS):
        try:
            if row.problem:
                raise ValueError(row.problem)
            ground_truth[row.fields["path"]] = _of_row(row.fields)
        except ValueError as error:
            raise DatasetError(f"{path}:{row.line}: {error}") from error
    return ground_truth


def score_cleaning(cleaned: Cleaned, ground_truth: Mapping[str, GroundTruth],
                   least_visible: float = LEAST_VISIBLE) -> CleaningScores:
    """Precision and recall of the dominant viewpoints, and overlap of the boxes.

    Args:
        cleaned: What cleaning gave.
        ground_truth: Name of an image → what it shows.
        least_visible: Share of the monument that is seen in a relevant image.

    Returns:
        Scores over all landmarks.

    Raises:
        InputError: An image of the collection has no ground truth.
    """
    kept = true_positives = relevant = relevant_kept = 0
    false_positives, ious = [], []
    for landmark in cleaned.landmarks:
        names = [cleaned.source.names[index] for index in landmark.images]
        if absent := [name for name in names if name not in ground_truth]:
            raise InputError(f"ground truth: expected a line for each image, none for {absent[0]!r}")
        images = [ground_truth[name] for name in names]
        dominant = _dominant_viewpoint(landmark, images)
        selection = landmark.selection
        for name, image, component, first, box in zip(names, images, selection.component, selection.first,
                                                      selection.boxes, strict=True):
            is_positive = (image.monument, image.viewpoint) == dominant
            is_visible, is_kept = image.visible >= least_visible, component >= 0
            relevant += is_visible and is_positive
            kept += bool(is_kept)
            if is_kept and not is_positive:
                false_positives.append(name)
            elif is_kept:
                true_positives += 1
                relevant_kept += is_visible
                if image.box is not None:
                    ious.append(overlaps(np.stack([first, box]), np.array(image.box))[:, 0])
    first_iou, iou = np.median(ious, 0) if ious else (float("nan"), float("nan"))
    return CleaningScores(true_positives / kept if kept else float("nan"),
                          relevant_kept / relevant if relevant else float("nan"), float(first_iou), float(iou), kept,
                          true_positives, relevant, relevant_kept, tuple(false_positives))


def _dominant_viewpoint(landmark: Landmark, images: Sequence[GroundTruth]) -> tuple[str, str] | None:
    """(monument, viewpoint) of most of a landmark's images, None where all show nothing of interest."""
    viewpoints = [(image.monument, image.viewpoint) for image in images]
    counts = Counter(viewpoint for viewpoint in viewpoints if viewpoint[0])
    kept = Counter(viewpoint for viewpoint, component in zip(viewpoints, landmark.selection.component, strict=True)
                   if component >= 0)
    return max(sorted(counts), key=lambda viewpoint: (counts[viewpoint], kept[viewpoint]), default=None)


def _of_row(row: Mapping[str, str]) -> GroundTruth:
    text = row["visible"].strip().lower()
    visible = {"true": 1.0, "false": 0.0, "": 0.0}.get(text)
    visible = float(text) if visible is None else visible
    if not 0 <= visible <= 1:
        raise ValueError(f"visible: expected 0..1 or true or false, got {text!r}")
    values = [row[column].strip() for column in ("x1", "y1", "x2", "y2")]
    box = check_box(map(float, values)) if any(values) else None
    return GroundTruth(row["monument"].strip(), row["profile"].strip(), visible, box)
