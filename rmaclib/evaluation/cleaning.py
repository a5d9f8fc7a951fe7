"""Judging a cleaned collection whose truth is known: a rendered one (Section 3).

GroundTruth is a CSV file, one line per image, with the columns
path (as in the collection's list), monument (what is shown, empty for nothing of interest), profile (from which
side), visible (share of the monument that is seen, 0..1, or true and false), x1, y1, x2, y2 (its box in pixels,
empty where there is none); others are passed over.
"""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmaclib.boxes import Box, check_box, overlaps
from rmaclib.cleaning.pipeline import Cleaned
from rmaclib.datasets.files import read_rows
from rmaclib.datasets.types import DatasetError
from rmaclib.foundation.errors import InputError

COLUMNS = ("path", "monument", "profile", "visible", "x1", "y1", "x2", "y2")
LEAST_VISIBLE = 0.5


@dataclass(frozen=True)
class GroundTruth:
    """What an image shows: monument "" for nothing of interest; visible 0..1; box or None."""

    monument: str
    profile: str
    visible: float
    box: Box | None


@dataclass(frozen=True)
class Judgement:
    """A cleaned collection against the truth. A landmark's right images are those of its dominant profile: the
    most frequent (monument, profile) among its images; of equally frequent ones, that which was kept most.

    precision: share of the kept images that show the dominant profile
    recall: share of the dominant profile's well visible images that are kept
    first_iou, iou: median overlap of estimated and true boxes before and after diffusion, over kept images of the
      dominant profile; NaN without any
    kept, right, hits, wanted: counts; precision is right of kept, recall hits of wanted
    mistakes: names of kept images that show something else
    """

    precision: float
    recall: float
    first_iou: float
    iou: float
    kept: int
    right: int
    hits: int
    wanted: int
    mistakes: tuple[str, ...]


def read_ground_truth(path: str | os.PathLike) -> dict[str, GroundTruth]:
    """Image name -> what it shows. raises DatasetError naming file and line: a missing column, a bad value"""
    path, truths = Path(path), {}
    for row in read_rows(path, COLUMNS):
        try:
            if row.problem:
                raise ValueError(row.problem)
            truths[row.fields["path"]] = _truth(row.fields)
        except ValueError as error:
            raise DatasetError(f"{path}:{row.line}: {error}") from error
    return truths


def judge(cleaned: Cleaned, truth: Mapping[str, GroundTruth], least_visible: float = LEAST_VISIBLE) -> Judgement:
    """Precision and recall of the dominant profiles, and overlap of the boxes.

    least_visible: an image that shows less of its monument isn't missed when dropped
    raises InputError when an image of the collection has no truth
    """
    kept = right = hits = wanted = 0
    mistakes, ious = [], []
    for landmark in cleaned.landmarks:
        names = [cleaned.source.names[index] for index in landmark.images]
        absent = [name for name in names if name not in truth]
        if absent:
            raise InputError(f"truth: expected a line for each image, none for {absent[0]!r}")
        shown = [(truth[name].monument, truth[name].profile) for name in names]
        selection = landmark.selection
        counts = Counter(profile for profile in shown if profile[0])
        kept_of = Counter(profile for profile, component in zip(shown, selection.component, strict=True)
                          if component >= 0)
        dominant = max(sorted(counts), key=lambda profile: (counts[profile], kept_of[profile]), default=None)
        for name, profile, component, first, box in zip(names, shown, selection.component, selection.first,
                                                        selection.boxes, strict=True):
            found = truth[name]
            seen = found.visible >= least_visible
            wanted += seen and profile == dominant
            if component < 0:
                continue
            kept += 1
            if profile != dominant:
                mistakes.append(name)
                continue
            right += 1
            hits += seen
            if found.box is not None:
                ious.append(overlaps(np.stack([first, box]), np.array(found.box))[:, 0])
    first_iou, iou = np.median(ious, 0) if ious else (float("nan"), float("nan"))
    return Judgement(right / kept if kept else float("nan"), hits / wanted if wanted else float("nan"),
                     float(first_iou), float(iou), kept, right, hits, wanted, tuple(mistakes))


def _truth(row: Mapping[str, str]) -> GroundTruth:
    text = row["visible"].strip().lower()
    visible = {"true": 1.0, "false": 0.0, "": 0.0}.get(text)
    visible = float(text) if visible is None else visible
    if not 0 <= visible <= 1:
        raise ValueError(f"visible: expected 0..1 or true or false, found {text!r}")
    values = [row[column].strip() for column in ("x1", "y1", "x2", "y2")]
    box = check_box(values) if any(values) else None
    return GroundTruth(row["monument"].strip(), row["profile"].strip(), visible, box)
