"""Cleaning a whole collection (Section 3): keypoints, matches, graphs, their largest parts, boxes.

The expensive part, the match graphs, is cut into tasks that any concurrent.futures.Executor can run: chunks of
images to find keypoints in, then pairs of blocks of images to match. Each landmark's graph is a file; a run
that was killed goes on with the landmarks that have none. What follows from the graphs takes seconds and is
done anew each time, so that another threshold needs no matching.
"""

import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from tqdm import tqdm

from rmaclib.cleaning.boxes import BoxSettings, diffuse, initial_boxes
from rmaclib.cleaning.graph import (
    GraphSettings,
    MatchGraph,
    kept_components,
    kept_edges,
    load_graph,
    save_graph,
)
from rmaclib.cleaning.keypoints import Features, KeypointSettings, extract, root_sift
from rmaclib.cleaning.matching import Matcher, MatchSettings, main_directions
from rmaclib.cleaning.verification import VerificationSettings, verify_pair
from rmaclib.datasets.types import Box, LabelledImages
from rmaclib.environment import environment
from rmaclib.errors import RmacError
from rmaclib.files import files_fingerprint
from rmaclib.images import ImageError
from rmaclib.settings import from_mapping

CHUNK = 16  # images whose keypoints are found by one task
BLOCK = 64  # images on either side of a matching task: some 4,000 pairs, for 12 MB sent
AHEAD = 64  # tasks handed to the executor at a time
IN_FLIGHT = 4096  # images whose keypoints may be held at a time, some 100 kB each
NO_KEYPOINTS = "no keypoints"
_DIRECTION_IMAGES = 48  # images that the main directions are taken from


class CleanError(RmacError, RuntimeError):
    """A folder of graphs that can't be continued; the text names it and says what to do."""


class Neighbours(Protocol):
    """Gives the images of one class that are worth matching; rmaclib.search.neighbours has one."""

    name: str  # what it does, for the record

    def __call__(self, paths: Sequence[Path], count: int) -> np.ndarray:
        """(N, at most count) indices of the nearest images of each, itself not among them; -1 for none."""


@dataclass(frozen=True)
class CleanSettings:
    """Settings of all steps.

    exhaustive: classes of more images are matched on shortlists instead of all pairs
    neighbours: length of a shortlist; a pair is matched when one is on the other's
    """

    keypoints: KeypointSettings = field(default_factory=KeypointSettings)
    matching: MatchSettings = field(default_factory=MatchSettings)
    verification: VerificationSettings = field(default_factory=VerificationSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    boxes: BoxSettings = field(default_factory=BoxSettings)
    exhaustive: int = 500
    neighbours: int = 100

    def __post_init__(self):
        if self.exhaustive < 1 or self.neighbours < 1:
            raise ValueError(f"exhaustive and neighbours: expected at least 1, got {self.exhaustive} and "
                             f"{self.neighbours}")
        if self.graph.threshold < self.verification.min_inliers:
            raise ValueError(f"graph.threshold: expected at least verification.min_inliers "
                             f"({self.verification.min_inliers}), got {self.graph.threshold}")


_PARTS = {"keypoints": KeypointSettings, "matching": MatchSettings, "verification": VerificationSettings,
          "graph": GraphSettings, "boxes": BoxSettings}


def clean_settings(mapping: Mapping, source: str = "settings") -> CleanSettings:
    """CleanSettings from nested dictionaries (YAML). raises ValueError for an unknown key, naming its part."""
    return from_mapping(CleanSettings, {
        key: from_mapping(_PARTS[key], value, f"{source}: {key}") if key in _PARTS else value
        for key, value in mapping.items()}, source)


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
    """One landmark of a cleaned collection; images: indices into the collection."""

    label: int
    name: str
    images: tuple[int, ...]
    graph: MatchGraph
    selection: Selection


@dataclass(frozen=True)
class Cleaned:
    """A cleaned collection.

    clean: the kept images with their boxes; labels are those of the collection, or with several components
      kept, new ones from 0, named after landmark and component
    landmarks: what came of each, in order of labels
    """

    source: LabelledImages
    clean: LabelledImages
    landmarks: tuple[Landmark, ...]


def clean(images: LabelledImages, settings: CleanSettings | None = None, *, out: str | os.PathLike,
          executor: Executor | None = None, neighbours: Neighbours | None = None, progress: bool = True,
          ahead: int = AHEAD) -> Cleaned:
    """Clean a collection of labelled images: keep what shows the same thing, with boxes (Section 3).

    out: folder of the graphs, graphs/LABEL.npz; rmaclib.cleaning.report.write_report adds lists and pages
    executor: where tasks run; default: a process for each usable core. Its workers must see the same files.
    neighbours: shortlists for classes above settings.exhaustive; None matches all pairs of every class
    ahead: tasks handed over at a time; give a large executor at least twice its workers
    A landmark with a single image, or without a verified pair, keeps nothing. Images that can't be read are left
    out, with the reason. Two identical images verify each other.
    raises CleanError when `out` holds graphs made with other settings
    """
    settings = settings or CleanSettings()
    folder = Path(out) / "graphs"
    members = landmark_members(images)
    match_landmarks(images, members, settings, folder, executor, neighbours, progress, ahead)
    landmarks = []
    for label, indices in members.items():
        graph = load_graph(graph_file(folder, label))
        name = images.label_names[label] if images.label_names else str(label)
        landmarks.append(Landmark(label, name, tuple(indices), graph, select(graph, settings)))
    return Cleaned(images, _clean_list(images, landmarks, settings.graph.largest), tuple(landmarks))


def landmark_members(images: LabelledImages) -> dict[int, list[int]]:
    """Label -> indices of its images, labels rising; labels without an image are not in it."""
    members: dict[int, list[int]] = {}
    for index, label in enumerate(images.labels):
        members.setdefault(int(label), []).append(index)
    return dict(sorted(members.items()))


def graph_file(folder: Path, label: int) -> Path:
    return folder / f"{label:06d}.npz"


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
                          None if names is None else tuple(names))


# --- matching, in tasks -----------------------------------------------------------------------------------------


def match_landmarks(images: LabelledImages, members: Mapping[int, Sequence[int]], settings: CleanSettings,
                    folder: Path, executor: Executor | None, neighbours: Neighbours | None, progress: bool,
                    ahead: int = AHEAD) -> None:
    """Make folder/LABEL.npz for each landmark that has none; see clean()."""
    todo = deque()
    for label, indices in members.items():
        job = _Job(graph_file(folder, label), [images.names[index] for index in indices],
                   [images.paths[index] for index in indices], settings, neighbours)
        if not job.is_done(folder):
            todo.append(job)
    if not todo:
        return
    # disable=None: quiet when the output is not a terminal
    with (_executor(executor) as pool,
          tqdm(total=sum(job.expected_pairs for job in todo), desc="match", unit="pair", unit_scale=True,
               disable=None if progress else True) as bar):
        _run(todo, pool, ahead, bar)


def _run(todo: deque["_Job"], pool: Executor, ahead: int, bar: tqdm) -> None:
    """Works through the jobs: several landmarks at once, so that the end of one leaves no worker idle."""
    tasks: deque[tuple[_Job, tuple]] = deque()
    running: dict[Future, tuple[_Job, object]] = {}
    held = 0  # images of the landmarks begun and not finished
    try:
        while todo or tasks or running:
            while todo and len(tasks) < ahead and (held == 0 or held + len(todo[0].paths) <= IN_FLIGHT):
                job = todo.popleft()
                held += len(job.paths)
                tasks += [(job, task) for task in job.extraction_tasks()]
            while tasks and len(running) < ahead:
                job, (key, function, *arguments) = tasks.popleft()
                running[pool.submit(function, *arguments)] = job, key
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, key = running.pop(future)
                # A landmark begun goes before new ones: its keypoints take memory until it is finished.
                tasks.extendleft((job, task) for task in job.take(key, future.result()))
                if job.finished:
                    held -= len(job.paths)
                    bar.update(job.expected_pairs)
    finally:
        for future in running:
            future.cancel()


class _Job:
    """Matching one landmark: gives tasks, takes their results, writes the graph."""

    def __init__(self, path: Path, names: Sequence[str], paths: Sequence[Path], settings: CleanSettings,
                 neighbours: Neighbours | None):
        self.path, self.names, self.paths = path, tuple(names), list(paths)
        self.settings = settings
        self.neighbours = neighbours if neighbours is not None and len(paths) > settings.exhaustive else None
        count = len(paths)
        self.expected_pairs = min(count * (count - 1) // 2,
                                  count * settings.neighbours if self.neighbours else count * count)
        self.identity = {
            "keypoints": asdict(settings.keypoints), "matching": asdict(settings.matching),
            "verification": asdict(settings.verification),
            "pairs": f"{settings.neighbours} neighbours ({neighbours.name})" if self.neighbours else "all",
            "rectangles": "described squares"}
        self.chunks: dict[int, list[Features | str]] = {}
        self.blocks: dict[tuple[int, int], _Block] = {}
        self.waits_for = 0
        self.finished = False

    def is_done(self, folder: Path) -> bool:
        """Whether the graph is there, made with these settings from these files.

        raises CleanError for other settings; a landmark whose files changed is matched anew
        """
        if not self.path.exists():
            return False
        found = load_graph(self.path).settings
        different = [key for key in self.identity if found.get(key) != self.identity[key]]
        if different:
            raise CleanError(f"{folder}: {self.path.name} was made with other {' and '.join(different)} settings; "
                             "choose another folder, or remove this one to match again")
        return found.get("files") == files_fingerprint(self.names, self.paths)

    def extraction_tasks(self) -> Iterator[tuple]:
        """Tasks (key, function, arguments …) that find the keypoints."""
        # Taken now and not at the start: a file may change while other landmarks are matched.
        self.files = files_fingerprint(self.names, self.paths)
        starts = range(0, len(self.paths), CHUNK)
        self.waits_for = len(starts)
        return ((start, extract_all, self.paths[start:start + CHUNK], self.settings.keypoints) for start in starts)

    def take(self, key, result) -> list[tuple]:
        """Takes a task's result; returns the tasks that it makes possible."""
        self.waits_for -= 1
        if isinstance(key, int):
            self.chunks[key] = result
            if self.waits_for:
                return []
            tasks = self._matching_tasks()
            self.waits_for = len(tasks)
        else:
            self.blocks[key] = result
            tasks = []
        if not self.waits_for:
            save_graph(self.path, self._graph())
            self.chunks, self.blocks, self.features, self.finished = {}, {}, [], True
        return tasks

    def _matching_tasks(self) -> list[tuple]:
        self.features = [found for start in sorted(self.chunks) for found in self.chunks[start]]
        self.chunks = {}
        usable = np.array([not isinstance(found, str) and len(found.points) > 0 for found in self.features])
        if usable.sum() < 2:
            return []
        sample = np.flatnonzero(usable)
        sample = sample[np.linspace(0, len(sample) - 1, min(len(sample), _DIRECTION_IMAGES)).astype(int)]
        directions = main_directions(root_sift(np.concatenate([self.features[i].descriptors for i in sample])))
        wanted = np.outer(usable, usable)
        if self.neighbours is not None:
            wanted &= _near(self.neighbours(self.paths, self.settings.neighbours), len(usable))
        wanted = np.triu(wanted, 1)
        tasks = []
        for a in range(0, len(usable), BLOCK):
            for b in range(a, len(usable), BLOCK):
                pairs = np.argwhere(wanted[a:a + BLOCK, b:b + BLOCK]).astype(np.int32) + np.int32([a, b])
                if len(pairs):
                    # The two blocks' images, each once, numbered anew.
                    numbers, local = np.unique(pairs, return_inverse=True)
                    tasks.append(((a, b), match_pairs, [self.features[i] for i in numbers],
                                  numbers, local.reshape(-1, 2), directions, self.settings.matching,
                                  self.settings.verification))
        return tasks

    def _graph(self) -> MatchGraph:
        blocks = [self.blocks[key] for key in sorted(self.blocks)] or [_empty_block()]
        pairs, inliers, affines, rectangles = (np.concatenate([block[part] for block in blocks]) for part in range(4))
        order = np.lexsort((pairs[:, 1], pairs[:, 0]))
        reasons = tuple(found if isinstance(found, str) else "" if len(found.points) else NO_KEYPOINTS
                        for found in self.features)
        sizes = np.array([(0, 0) if isinstance(found, str) else found.size for found in self.features], np.int32)
        rejected = sum((block.rejected for block in blocks), Counter())
        return MatchGraph(self.names, reasons, sizes.reshape(-1, 2), pairs[order], inliers[order], affines[order],
                          rectangles[order], sum(block.compared for block in blocks), dict(rejected),
                          {**self.identity, "files": self.files})


class _Block(NamedTuple):
    pairs: np.ndarray
    inliers: np.ndarray
    affines: np.ndarray
    rectangles: np.ndarray
    compared: int
    rejected: Counter


def extract_all(paths: Sequence[Path], settings: KeypointSettings) -> list[Features | str]:
    """Task: keypoints of some images, or the reason why one can't be read."""
    cv2.setNumThreads(1)  # tasks run beside each other, each on one core
    found: list[Features | str] = []
    for path in paths:
        try:
            found.append(extract(path, settings))
        except ImageError as error:
            found.append(error.reason)
    return found


def match_pairs(features: Sequence[Features], numbers: np.ndarray, pairs: np.ndarray, directions: np.ndarray,
                matching: MatchSettings, verification: VerificationSettings) -> _Block:
    """Task: match and verify pairs of some images.

    features: of K images; numbers: (K,) their numbers in the landmark; pairs: (P, 2) indices into them
    """
    cv2.setNumThreads(1)
    matcher = Matcher(features, directions, matching, verification.min_inliers)
    edges, rejected = [], Counter()
    for i, j in pairs.tolist():
        matches = matcher(i, j)
        if not len(matches):
            continue
        affine, inliers, reason = verify_pair(features[i], features[j], matches, verification)
        if reason:
            rejected[reason] += 1
            continue
        left, right = matches[inliers].T
        edges.append((numbers[[i, j]], inliers.sum(), affine,
                      [_around(features[i], left), _around(features[j], right)]))
    if not edges:
        return _empty_block()._replace(compared=len(pairs), rejected=rejected)
    found, inliers, affines, rectangles = zip(*edges, strict=True)
    return _Block(np.array(found, np.int32), np.array(inliers, np.int32), np.array(affines, np.float64),
                  np.array(rectangles, np.float32), len(pairs), rejected)


def _around(features: Features, chosen: np.ndarray) -> np.ndarray:
    """Smallest box around the squares that chosen keypoints' descriptors describe: what matched is all of these."""
    points, half = features.points[chosen], features.sides[chosen, None] / 2
    return np.concatenate([(points + 0.5 - half).min(0), (points + 0.5 + half).max(0)])


def _empty_block() -> _Block:
    return _Block(np.zeros((0, 2), np.int32), np.zeros(0, np.int32), np.zeros((0, 2, 3)),
                  np.zeros((0, 2, 4), np.float32), 0, Counter())


def _near(neighbours: np.ndarray, count: int) -> np.ndarray:
    """(N, N) bool, symmetric: pairs of which one is on the other's shortlist."""
    near = np.zeros((count, count), bool)
    rows, columns = np.nonzero(neighbours >= 0)
    near[rows, neighbours[rows, columns]] = True
    return near | near.T


@contextmanager
def _executor(given: Executor | None) -> Iterator[Executor]:
    """The executor given, or a pool of a process for each usable core, each of which uses one core."""
    if given is not None:
        yield given
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # The matrix library reads this when a worker loads it. Workers are spawned, not forked: a forked one may hang
    # on a lock that a thread of this process held.
    with (environment({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}),
          ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool):
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
