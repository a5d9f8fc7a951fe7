"""Cleaning a whole collection (Section 3), from top to bottom.

``clean`` goes through the stages of the paper:

1. keypoints of each image, matches of each pair of images of a landmark, and an affine model that verifies them:
   ``landmark_graph``, in worker processes. The result, a graph for each landmark, is kept on the disk.
2. the largest connected component of each graph, boxes, and their diffusion over the graph: ``select``, anew each time
   within seconds, so that another threshold needs no matching.
3. the clean list, tables and a page: ``report.write_report``.
"""

import os
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rmaclib.boxes import Box
from rmaclib.cleaning.boxes import diffuse, initial_boxes
from rmaclib.cleaning.folder import cleaning_folder, graph_name, listable_images
from rmaclib.cleaning.graph import MatchGraph, kept_components, kept_edges, load_graph
from rmaclib.cleaning.jobs import AHEAD, Job, Stages, estimated_time, is_matched, run_jobs, workers
from rmaclib.cleaning.keypoints import Features, need_packages
from rmaclib.cleaning.report import write_report
from rmaclib.cleaning.settings import CleanSettings
from rmaclib.cleaning.tasks import BLOCK, CHUNK, are_usable, join_graph, keypoint_tasks, matching_tasks
from rmaclib.cleaning.types import Cleaned, CleanError, Landmark, Selection, Shortlists
from rmaclib.datasets import LabelledImages, open_apart
from rmaclib.foundation.files import as_line, files_fingerprint
from rmaclib.foundation.messages import tell
from rmaclib.foundation.settings import whole_number


def clean(images: LabelledImages | str | os.PathLike, settings: CleanSettings | None = None, *,
          out: str | os.PathLike, report: bool = True, executor: Executor | None = None,
          shortlists: Shortlists | None = None, progress: bool = True, ahead: int = AHEAD) -> Cleaned:
    """Clean a collection of labelled images: keep what shows the same thing, with boxes (Section 3).

    A landmark with a single image, or without a verified pair, keeps nothing. Images that can't be read are left out,
    with the reason. Two identical images verify each other. A file that is listed twice counts once, and files that a
    list can't name are left out: see ``source.skipped`` of the result. A killed run goes on when it is called again.

    Args:
        images: A collection; or what ``open_collection`` takes: a registered name, a list, a folder per landmark.
        settings: Default: those of ``CleanSettings``.
        out: Folder of the run: the match graphs in ``graphs/``, and the report.
        report: Whether to write the clean list ``annotation_clean.txt``, the tables ``images.csv`` and
            ``landmarks.csv``, and ``report.html``; see ``report.write_report``.
        executor: Where tasks run. Default: a process for each usable core. Its workers must see the same files.
        shortlists: For classes of more than ``settings.exhaustive`` images; None compares all pairs of every class.
        progress: Whether to show bars.
        ahead: Tasks handed over at a time; give a large executor at least twice its workers.

    Returns:
        The kept images with their boxes, and what came of each landmark.

    Raises:
        CleanError: ``out`` contains graphs made with other settings, or a worker was killed.
        OutputError: ``out`` can't be written, isn't a cleaning run's, or lies among the images.
        DatasetError: No such collection, or a list can name none of its images.
        InputError: ``ahead`` is less than 1.
        MissingPackageError: A package that the detector needs isn't installed.
    """
    settings = settings or CleanSettings()
    whole_number("ahead", ahead, 1)
    need_packages(settings.keypoints.detector)
    images = listable_images(open_apart(images, out), out)
    landmarks = []
    with cleaning_folder(out) as folder:
        members = landmark_members(images)
        folder.will_write(map(graph_name, members))
        match_landmarks(images, settings, out, executor=executor, shortlists=shortlists, progress=progress, ahead=ahead)
        for label, indices in tqdm(members.items(), desc="select", unit="class", leave=False,
                                   disable=None if progress else True):
            graph = load_graph(folder / graph_name(label))
            name = as_line(images.label_names[label]) if images.label_names else str(label)
            landmarks.append(Landmark(label, name, tuple(indices), graph, select(graph, settings)))
        cleaned = Cleaned(images, _clean_list(images, landmarks, settings.graph.largest), tuple(landmarks))
        if report:
            write_report(cleaned, settings, out, progress=progress)
    return cleaned


# --- stage 1: keypoints, matches, verified affine models, graph ------------------------------------------------------


def landmark_graph(landmark: str, names: Sequence[str], paths: Sequence[Path], settings: CleanSettings,
                   shortlists: Shortlists | None, *, chunk: int = CHUNK, block: int = BLOCK) -> Stages:
    """The graph of one landmark: keypoints, matches, verified affine models.

    A generator: each ``yield`` hands out tasks and goes on with their results, see ``jobs.run_jobs``.

    Args:
        landmark: Its name, for messages.
        names: Names of the N images.
        paths: Their files.
        settings: Those of keypoints, matching and verification are used.
        shortlists: None compares all pairs.
        chunk: Images in a task that extracts keypoints.
        block: Images on either side of a task that matches.

    Returns:
        The generator, whose result is the graph.
    """
    # Taken when the work on this landmark begins: a file may change while others are matched.
    files = files_fingerprint(names, paths)
    chunks: list[list[Features | str]] = yield keypoint_tasks(paths, settings.keypoints, chunk)
    features = [image for images in chunks for image in images]
    candidates = _candidate_pairs(landmark, are_usable(features), paths, settings, shortlists)
    blocks = yield matching_tasks(features, candidates, settings, block)
    return join_graph(names, features, blocks, {**_made_with(settings, shortlists), "files": files})


def match_landmarks(images: LabelledImages, settings: CleanSettings, out: str | os.PathLike, *,
                    executor: Executor | None = None, shortlists: Shortlists | None = None, progress: bool = True,
                    ahead: int = AHEAD) -> None:
    """Make the graph of each landmark that has none yet in ``out``; arguments and errors are those of ``clean``."""
    jobs, members = [], landmark_members(images)
    for label, indices in tqdm(members.items(), desc="look", unit="class", leave=False,
                               disable=None if progress else True):
        names, paths = [images.names[index] for index in indices], [images.paths[index] for index in indices]
        file, lists = Path(out) / graph_name(label), shortlists if len(paths) > settings.exhaustive else None
        if not is_matched(file, _made_with(settings, lists), names, paths):
            jobs.append(Job(file, paths, _most_pairs(len(paths), settings, lists),
                            landmark_graph(file.stem, names, paths, settings, lists)))
    tell(f"{sum(len(job.paths) for job in jobs):,} images of {len(jobs):,} landmarks to match, "
         f"{sum(job.pairs for job in jobs):,} pairs; {len(members) - len(jobs):,} landmarks are matched already")
    if not jobs:
        return
    try:
        with workers(executor) as pool:
            tell(estimated_time(jobs, settings, pool))
            run_jobs(jobs, pool, ahead, progress=progress)
    except BrokenExecutor as error:
        raise CleanError(f"{out}: a worker process was killed, often because the memory was full; what is matched "
                         "is kept: run it again to go on") from error


def landmark_members(images: LabelledImages) -> dict[int, list[int]]:
    """Label → indices of its images, labels rising; labels without an image are left out."""
    members: dict[int, list[int]] = {}
    for index, label in enumerate(images.labels):
        members.setdefault(int(label), []).append(index)
    return dict(sorted(members.items()))


def _candidate_pairs(landmark: str, usable: np.ndarray, paths: Sequence[Path], settings: CleanSettings,
                     shortlists: Shortlists | None) -> np.ndarray:
    """(N, N) bool: pairs i < j of usable images (N,), all of them or those of which either is on the other's list."""
    candidates = np.triu(np.outer(usable, usable), 1)
    if shortlists is None or not candidates.any():
        return candidates
    tell(f"landmark {landmark}: descriptors of {len(paths):,} images are extracted for their shortlists, which is not "
         "in the time above")
    nearest = shortlists(paths, settings.neighbours)  # (N, neighbours)
    near = np.zeros_like(candidates)
    rows, columns = np.nonzero(nearest >= 0)
    near[rows, nearest[rows, columns]] = True
    return candidates & (near | near.T)


def _most_pairs(count: int, settings: CleanSettings, shortlists: Shortlists | None) -> int:
    every = count * (count - 1) // 2
    return every if shortlists is None else min(every, count * settings.neighbours)


def _made_with(settings: CleanSettings, shortlists: Shortlists | None) -> dict:
    """What a graph depends on beside the files; stored in it."""
    return {"keypoints": asdict(settings.keypoints), "matching": asdict(settings.matching),
            "verification": asdict(settings.verification),
            "pairs": "all" if shortlists is None else {"neighbours": settings.neighbours,
                                                       "shortlists": dict(shortlists.identity)},
            "rectangles": "described squares"}


# --- stage 2: largest connected component, boxes, diffusion ----------------------------------------------------------


def select(graph: MatchGraph, settings: CleanSettings) -> Selection:
    """The kept part of a landmark's graph and the boxes in it; needs no image.

    Args:
        graph: A landmark's verified pairs.
        settings: Those of graph and boxes are used.

    Returns:
        Kept images and their boxes.

    Raises:
        InputError: The threshold is lower than that of the edges in the graph.
    """
    component = kept_components(graph, settings.graph)  # the largest connected component; (N,)
    inside = kept_edges(graph, settings.graph, component)  # (E,)
    pairs, affines, rectangles = graph.pairs[inside], graph.affines[inside], graph.rectangles[inside]
    first = initial_boxes(len(graph.names), pairs, rectangles, graph.sizes, settings.boxes.merge)  # (N, 4)
    boxes, rounds, converged = diffuse(first, pairs, affines, graph.sizes, settings.boxes)
    first[component < 0] = np.nan
    boxes[component < 0] = np.nan
    return Selection(component, _reasons(graph, settings, component), first, boxes, rounds, converged)


def _reasons(graph: MatchGraph, settings: CleanSettings, component: np.ndarray) -> tuple[str, ...]:
    """Why each image was dropped, "" for kept ones."""
    verified = np.isin(np.arange(len(graph.names)), graph.pairs[graph.inliers >= settings.graph.threshold])
    # In a kept part, were it not for the number of its matches.
    in_part = component >= 0
    if settings.graph.min_matches > 1:
        in_part = kept_components(graph, replace(settings.graph, min_matches=1)) >= 0
    return tuple(
        "" if kept else reason or ("too few matches" if few else "other part of the graph" if linked else
                                   "no verified match")
        for kept, reason, few, linked in zip(component >= 0, graph.reasons, in_part, verified, strict=True))


# --- the collection before and after ---------------------------------------------------------------------------------


def _clean_list(images: LabelledImages, landmarks: Sequence[Landmark], largest: int) -> LabelledImages:
    """The kept images with their boxes; with several components kept, each is a class of its own."""
    kept: list[int] = []
    labels: list[int] = []
    boxes: list[Box] = []
    names: list[str] = []
    for landmark in landmarks:
        component = landmark.selection.component
        for number in range(component.max(initial=-1) + 1):
            inside = np.flatnonzero(component == number)
            kept += [landmark.images[index] for index in inside]
            labels += [len(names) if largest > 1 else landmark.label] * len(inside)
            corners = landmark.selection.boxes[inside].tolist()
            boxes += [(round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)) for x1, y1, x2, y2 in corners]
            names.append(f"{landmark.name}/{number}")
    label_names = tuple(names) if largest > 1 else images.label_names
    return replace(images.part(kept, f"{images.name}_clean"), labels=tuple(labels), boxes=tuple(boxes),
                   label_names=label_names)
