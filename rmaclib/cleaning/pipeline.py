"""Cleaning a whole collection (Section 3): keypoints, matches, graphs, their largest parts, boxes.

The expensive part, the match graphs, is made in tasks, see jobs. What follows from the graphs takes seconds and is
done anew each time, so that another threshold needs no matching.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from rmaclib.boxes import Box
from rmaclib.cleaning.boxes import diffuse, initial_boxes
from rmaclib.cleaning.folder import cleaning_folder, graph_names, list_name
from rmaclib.cleaning.graph import MatchGraph, kept_components, kept_edges, load_graph
from rmaclib.cleaning.jobs import (
    AHEAD,
    CleanError,
    Shortlists,
    graph_file,
    landmark_members,
    match_landmarks,
)
from rmaclib.cleaning.keypoints import need_packages
from rmaclib.cleaning.settings import CleanSettings, clean_settings
from rmaclib.datasets.layouts.lists import can_list
from rmaclib.datasets.types import DatasetError, LabelledImages
from rmaclib.foundation.files import as_line, is_line
from rmaclib.foundation.settings import whole_number

__all__ = ["CleanError", "CleanSettings", "Cleaned", "Landmark", "Shortlists", "Selection", "clean", "clean_settings",
           "graph_file", "landmark_members", "match_landmarks", "select"]


class Selection(NamedTuple):
    """What is kept of one landmark.

    component: (N,) int, 0 for the largest, …, -1 for a dropped image
    reasons: N texts, why an image was dropped, "" for kept ones
    first, boxes: (N, 4) float64, boxes before and after diffusion, NaN for dropped images
    rounds, converged: of the diffusion, see boxes.Diffusion
    """

    component: np.ndarray
    reasons: tuple[str, ...]
    first: np.ndarray
    boxes: np.ndarray
    rounds: int
    converged: bool


@dataclass(frozen=True)
class Landmark:
    """One landmark of a cleaned collection; images: indices into its `source`."""

    label: int
    name: str
    images: tuple[int, ...]
    graph: MatchGraph
    selection: Selection


@dataclass(frozen=True)
class Cleaned:
    """A cleaned collection.

    source: what was cleaned: the collection without what its `skipped` tells
    clean: the kept images with their boxes; labels are those of the collection, or with several components
      kept, new ones from 0, named after landmark and component
    landmarks: what came of each, in order of labels
    """

    source: LabelledImages
    clean: LabelledImages
    landmarks: tuple[Landmark, ...]


def clean(images: LabelledImages, settings: CleanSettings | None = None, *, out: str | os.PathLike,
          executor: Executor | None = None, neighbours: Shortlists | None = None, progress: bool = True,
          ahead: int = AHEAD, tell: Callable[[str], None] | None = None) -> Cleaned:
    """Clean a collection of labelled images: keep what shows the same thing, with boxes (Section 3).

    out: folder of the graphs, graphs/LABEL.npz; rmaclib.cleaning.report.write_report adds lists and pages
    executor: where tasks run; default: a process for each usable core. Its workers must see the same files.
    neighbours: shortlists for classes above settings.exhaustive; None matches all pairs of every class
    ahead: tasks handed over at a time; give a large executor at least twice its workers
    tell: gets a line on how much there is to match, and one on how long it will take, before it starts
    A landmark with a single image, or without a verified pair, keeps nothing. Images that can't be read are left
    out, with the reason. Two identical images verify each other; a file that is listed twice counts once, and files
    that a list can't name are left out: see `source.skipped` of what is returned.
    raises CleanError when `out` holds graphs made with other settings, or a worker is killed; OutputError when `out`
      can't be written or isn't a cleaning run's; DatasetError when a list can name none of the images; InputError;
      MissingPackageError
    """
    settings = settings or CleanSettings()
    whole_number("ahead", ahead, 1)
    need_packages(settings.keypoints.detector)
    names, paths = images.names, images.paths
    images = images.usable(lambda index: is_line(names[index]) and can_list(list_name(paths[index], out)))
    if names and not images.names:
        raise DatasetError(f"{as_line(str(images.root))}: expected images whose paths a list can name, found none: in "
                           f"it, {as_line(list_name(paths[0], out))} would be one; rename the folder or its images")
    members = landmark_members(images)
    landmarks = []
    with cleaning_folder(out) as opened:
        opened.will_write(graph_names(members))
        folder = opened / "graphs"
        match_landmarks(images, members, settings, folder, executor, neighbours, progress, ahead, tell)
        for label, indices in tqdm(members.items(), desc="select", unit="class", leave=False,
                                   disable=None if progress else True):
            graph = load_graph(graph_file(folder, label))
            name = as_line(images.label_names[label]) if images.label_names else str(label)
            landmarks.append(Landmark(label, name, tuple(indices), graph, select(graph, settings)))
    return Cleaned(images, _clean_list(images, landmarks, settings.graph.largest), tuple(landmarks))


def select(graph: MatchGraph, settings: CleanSettings) -> Selection:
    """Kept parts of a landmark's graph and the boxes in them; needs no image."""
    count = len(graph.names)
    component = kept_components(graph, settings.graph)
    inside = kept_edges(graph, settings.graph, component)
    pairs, affines, rectangles = graph.pairs[inside], graph.affines[inside], graph.rectangles[inside]
    first = initial_boxes(count, pairs, rectangles, graph.sizes, settings.boxes.merge)
    spread = diffuse(first, pairs, affines, graph.sizes, settings.boxes)
    dropped = component < 0
    first[dropped] = np.nan
    spread.boxes[dropped] = np.nan
    matched = np.isin(np.arange(count), graph.pairs[graph.inliers >= settings.graph.threshold])
    loose = component >= 0
    if settings.graph.min_matches > 1:
        loose = kept_components(graph, replace(settings.graph, min_matches=1)) >= 0
    reasons = tuple(
        "" if kept else reason or ("too few matches" if few else "other part of the graph" if linked else
                                   "no verified match")
        for kept, reason, few, linked in zip(~dropped, graph.reasons, loose, matched, strict=True))
    return Selection(component, reasons, first, spread.boxes, spread.rounds, spread.converged)


def _clean_list(images: LabelledImages, landmarks: Sequence[Landmark], largest: int) -> LabelledImages:
    rows: list[tuple[str, Path, int, Box]] = []
    names = list(images.label_names) if images.label_names else None
    if largest > 1:
        names = []
    for landmark in landmarks:
        component = landmark.selection.component
        for number in range(component.max(initial=-1) + 1):
            label = landmark.label
            if largest > 1:
                label = len(names)
                names.append(f"{landmark.name}/{number}")
            rows += [(images.names[index], images.paths[index], label, tuple(round(float(v), 2) for v in box))
                     for index, box in zip(np.array(landmark.images)[component == number],
                                           landmark.selection.boxes[component == number], strict=True)]
    columns = zip(*rows, strict=True) if rows else ((), (), (), ())
    kept_names, paths, labels, boxes = map(tuple, columns)
    return LabelledImages(f"{images.name}_clean", images.root, kept_names, paths, labels, boxes,
                          None if names is None else tuple(names), publishable=images.publishable)
