"""Matching the images of landmarks, cut into tasks that any concurrent.futures.Executor can run.

Chunks of images to find keypoints in, then pairs of blocks of images to match. Each landmark's graph is a file; a run
that was killed goes on with the landmarks that have none.
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from tqdm import tqdm

from rmaclib.cleaning.graph import GraphError, MatchGraph, load_graph, save_graph
from rmaclib.cleaning.keypoints import Features, KeypointSettings, extract_keypoints, root_sift
from rmaclib.cleaning.matching import Matcher, MatchSettings, main_directions
from rmaclib.cleaning.settings import CleanSettings
from rmaclib.cleaning.verification import VerificationSettings, verify_pair
from rmaclib.datasets.types import LabelledImages
from rmaclib.foundation.environment import environment
from rmaclib.foundation.errors import RmacError
from rmaclib.foundation.files import differences, files_fingerprint
from rmaclib.foundation.messages import duration, note
from rmaclib.foundation.workers import end_workers, worker_pool
from rmaclib.images import ImageError

CHUNK = 16  # images whose keypoints are found by one task
BLOCK = 64  # images on either side of a matching task: some 4,000 pairs, for 12 MB sent
AHEAD = 64  # tasks handed to the executor at a time
IN_FLIGHT = 4096  # images whose keypoints may be held at a time, some 100 kB each
NO_KEYPOINTS = "no keypoints"
_DIRECTION_IMAGES = 48  # images that the main directions are taken from
_TICK = 1.0  # seconds after which the bar's clock moves though no task is finished
_PROBED = 4  # images that the time is estimated on


class CleanError(RmacError, RuntimeError):
    """A folder of graphs that can't be continued; the text names it and says what to do."""


class Shortlists(Protocol):
    """Gives the images of one class that are worth matching; rmaclib.cleaning.shortlists has one."""

    identity: Mapping  # what changes the shortlists, as JSON has it: a graph is made again when it differs

    def __call__(self, paths: Sequence[Path], count: int) -> np.ndarray:
        """(N, at most count) indices of the nearest images of each, itself not among them; -1 for none."""


def landmark_members(images: LabelledImages) -> dict[int, list[int]]:
    """Label -> indices of its images, labels rising; labels without an image are not in it."""
    members: dict[int, list[int]] = {}
    for index, label in enumerate(images.labels):
        members.setdefault(int(label), []).append(index)
    return dict(sorted(members.items()))


def graph_file(folder: Path, label: int) -> Path:
    return folder / f"{label:06d}.npz"


def match_landmarks(images: LabelledImages, members: Mapping[int, Sequence[int]], settings: CleanSettings,
                    folder: Path, executor: Executor | None, neighbours: Shortlists | None, progress: bool,
                    ahead: int = AHEAD, tell: Callable[[str], None] | None = None) -> None:
    """Make folder/LABEL.npz for each landmark that has none; see clean()."""
    todo = deque()
    # disable=None: quiet when the output is not a terminal
    for label, indices in tqdm(members.items(), desc="look", unit="class", leave=False,
                               disable=None if progress else True):
        job = _Job(graph_file(folder, label), [images.names[index] for index in indices],
                   [images.paths[index] for index in indices], settings, neighbours, tell)
        if not job.is_done(folder):
            todo.append(job)
    pairs = sum(job.expected_pairs for job in todo)
    if tell is not None:
        tell(f"{sum(len(job.paths) for job in todo):,} images of {len(todo):,} landmarks to match, {pairs:,} pairs; "
             f"{len(members) - len(todo):,} landmarks are matched already")
    if not todo:
        return
    try:
        with _executor(executor) as pool:
            if tell is not None:
                tell(_estimate(todo, settings, pool))
            with tqdm(total=pairs, desc="match", unit="pair", unit_scale=True,
                      disable=None if progress else True) as bar:
                _run(todo, pool, ahead, bar)
    except BrokenExecutor as error:
        raise CleanError(f"{folder}: a worker process was killed, often because the memory was full; what is matched "
                         "is kept: run it again to go on") from error


def _estimate(jobs: Sequence["_Job"], settings: CleanSettings, pool: Executor) -> str:
    """How long the jobs will take, from a few images of the largest."""
    largest = max(jobs, key=lambda job: len(job.paths)).paths
    chosen = [largest[index] for index in np.unique(np.linspace(0, len(largest) - 1, _PROBED).astype(int))]
    image_seconds, pair_seconds = pool.submit(probe, chosen, settings).result()
    seconds = (image_seconds * sum(len(job.paths) for job in jobs)
               + pair_seconds * sum(job.expected_pairs for job in jobs))
    # Of a cluster's executor nobody knows how many workers it has, or will have.
    workers = getattr(pool, "_max_workers", None)
    return f"{duration(seconds / (workers or 1))} {f'on {workers} cores' if workers else 'of one core'}"


def _run(todo: deque["_Job"], pool: Executor, ahead: int, bar: tqdm) -> None:
    """Works through the jobs: several landmarks at once, so that the end of one leaves no worker idle."""
    tasks: deque[tuple[_Job, tuple]] = deque()
    running: dict[Future, tuple[_Job, object]] = {}
    held = 0  # images of the landmarks begun and not finished
    read = 0  # images whose keypoints were found
    try:
        while todo or tasks or running:
            while todo and len(tasks) < ahead and (held == 0 or held + len(todo[0].paths) <= IN_FLIGHT):
                job = todo.popleft()
                held += len(job.paths)
                tasks += [(job, task) for task in job.extraction_tasks()]
            while tasks and len(running) < ahead:
                job, (key, function, *arguments) = tasks.popleft()
                running[pool.submit(function, *arguments)] = job, key
            finished = wait(running, _TICK, FIRST_COMPLETED).done
            bar.refresh()
            for future in finished:
                job, key = running.pop(future)
                result = future.result()
                if isinstance(key, int):
                    read += len(result)
                    bar.set_postfix_str(f"{read} images read")
                else:
                    bar.update(result.compared)
                # A landmark begun goes before new ones: its keypoints take memory until it is finished.
                tasks.extendleft((job, task) for task in job.take(key, result))
                if job.finished:
                    held -= len(job.paths)
                    bar.update(job.expected_pairs - job.compared)
    finally:
        for future in running:
            future.cancel()


class _Job:
    """Matching one landmark: gives tasks, takes their results, writes the graph."""

    def __init__(self, path: Path, names: Sequence[str], paths: Sequence[Path], settings: CleanSettings,
                 neighbours: Shortlists | None, tell: Callable[[str], None] | None):
        self.tell = tell
        self.path, self.names, self.paths = path, tuple(names), list(paths)
        self.settings = settings
        self.neighbours = neighbours if neighbours is not None and len(paths) > settings.exhaustive else None
        count = len(paths)
        self.expected_pairs = min(count * (count - 1) // 2,
                                  count * settings.neighbours if self.neighbours else count * count)
        self.identity = {
            "keypoints": asdict(settings.keypoints), "matching": asdict(settings.matching),
            "verification": asdict(settings.verification),
            "pairs": {"neighbours": settings.neighbours, "shortlists": dict(neighbours.identity)}
            if self.neighbours else "all",
            "rectangles": "described squares"}
        self.chunks: dict[int, list[Features | str]] = {}
        self.blocks: dict[tuple[int, int], _Block] = {}
        self.waits_for = 0
        self.compared = 0  # pairs, once finished
        self.finished = False

    def is_done(self, folder: Path) -> bool:
        """Whether the graph is there, made with these settings from these files.

        raises CleanError for other settings; a landmark whose files changed, or whose graph is damaged, is matched anew
        """
        if not self.path.exists():
            return False
        try:
            made_with = load_graph(self.path).settings
        except GraphError as error:
            note(f"{error}; this landmark is matched again")
            return False
        if isinstance(made_with.get("pairs"), str) and made_with["pairs"] != "all":
            raise CleanError(f"{folder}: {self.path.name} was made by an older version on shortlists whose network it "
                             "doesn't tell; choose another folder, or remove this one to match again")
        if different := differences(made_with, self.identity):
            raise CleanError(f"{folder}: {self.path.name} was made with other settings: {', '.join(different)}; "
                             "choose another folder, or remove this one to match again")
        return made_with.get("files") == files_fingerprint(self.names, self.paths)

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
            graph = self._graph()
            save_graph(self.path, graph)
            self.compared = graph.compared
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
            if self.tell is not None:
                self.tell(f"landmark {self.path.stem}: {len(usable):,} images are described for their shortlists, "
                          "which is not in the time above")
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
            found.append(extract_keypoints(path, settings))
        except ImageError as error:
            found.append(error.reason)
    return found


def probe(paths: Sequence[Path], settings: CleanSettings) -> tuple[float, float]:
    """Task: seconds that an image, and a pair of images, take."""
    started = time.monotonic()
    features = [entry for entry in extract_all(paths, settings.keypoints) if not isinstance(entry, str)]
    image_seconds = (time.monotonic() - started) / len(paths)
    pairs = np.argwhere(np.triu(np.ones((len(features),) * 2), 1))
    if not len(pairs) or not sum(len(image.points) for image in features):
        return image_seconds, 0
    started = time.monotonic()
    directions = main_directions(root_sift(np.concatenate([image.descriptors for image in features])))
    match_pairs(features, np.arange(len(features)), pairs, directions, settings.matching, settings.verification)
    return image_seconds, (time.monotonic() - started) / len(pairs)


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
    # The matrix library reads this when a worker loads it.
    with (environment({name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}),
          worker_pool(cores) as pool):
        try:
            yield pool
        except BaseException:
            end_workers(pool)
            raise
