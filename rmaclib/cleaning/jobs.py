"""Handing the tasks of many landmarks out to workers, and resuming a run that was killed.

Each landmark's graph is a file; a run goes on with the landmarks that have none.
"""

import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from rmaclib.cleaning.graph import GraphError, MatchGraph, load_graph, save_graph
from rmaclib.cleaning.settings import CleanSettings
from rmaclib.cleaning.tasks import Block, Task, time_tasks
from rmaclib.cleaning.types import CleanError
from rmaclib.foundation.environment import environment
from rmaclib.foundation.files import differences, files_fingerprint
from rmaclib.foundation.messages import duration, note
from rmaclib.foundation.workers import end_workers, worker_pool

AHEAD = 64  # tasks handed to the executor at a time
IN_FLIGHT = 4096  # images whose keypoints may be in memory at a time, some 100 kB each
_TICK = 1.0  # seconds after which the bar's clock moves though no task is finished
_TIMED = 4  # images that the time is estimated on

# The work on a landmark, step by step: yields the tasks of a step, is sent their results in the same order, and returns
# the landmark's graph.
Stages = Generator[list[Task], Any, MatchGraph]


class Job:
    """Matching one landmark: gives tasks, takes their results, writes the graph.

    Attributes:
        file: Where the graph is written.
        paths: The landmark's images.
        pairs: How many pairs are going to be compared, at most.
        compared: How many were, once finished.
        is_finished: Whether the graph is written.
    """

    def __init__(self, file: Path, paths: Sequence[Path], pairs: int, stages: Stages):
        self.file, self.paths, self.pairs, self.stages = file, list(paths), pairs, stages
        self.compared, self.is_finished = 0, False
        self._results: list[Any] = []
        self._missing = 0  # results of the tasks handed out

    def begin(self) -> list[tuple[int, Task]]:
        """Begin the work.

        Returns:
            The tasks of the first step, each with its place among them.
        """
        return self._go_on(None)

    def take(self, place: int, result: Any) -> list[tuple[int, Task]]:
        """Take the result of a task.

        Args:
            place: The task's place in its step.
            result: What it returned.

        Returns:
            The tasks of the next step, each with its place; none while others of this step run, or at the end.
        """
        self._results[place] = result
        self._missing -= 1
        return [] if self._missing else self._go_on(self._results)

    def _go_on(self, results: list[Any] | None) -> list[tuple[int, Task]]:
        try:
            tasks = self.stages.send(results)
            while not tasks:  # nothing to do in this step
                tasks = self.stages.send([])
        except StopIteration as end:
            save_graph(self.file, end.value)
            self._results, self.compared, self.is_finished = [], end.value.compared, True
            return []
        self._results, self._missing = [None] * len(tasks), len(tasks)
        return list(enumerate(tasks))


def run_jobs(jobs: Sequence[Job], pool: Executor, ahead: int = AHEAD, in_flight: int = IN_FLIGHT,
             progress: bool = True) -> None:
    """Work through jobs: several landmarks at once, so that the end of one leaves no worker idle.

    Args:
        jobs: Landmarks in order.
        pool: Runs the tasks.
        ahead: Tasks handed to the pool at a time.
        in_flight: Images of the landmarks begun and not finished, at most; a larger landmark is worked on alone.
        progress: Whether to show a bar.
    """
    todo, tasks = deque(jobs), deque[tuple[Job, int, Task]]()
    running: dict[Future, tuple[Job, int]] = {}
    images_begun = images_read = 0
    # disable=None: quiet when the output is not a terminal
    with tqdm(total=sum(job.pairs for job in jobs), desc="match", unit="pair", unit_scale=True,
              disable=None if progress else True) as bar:
        try:
            while todo or tasks or running:
                while todo and len(tasks) < ahead and (
                        images_begun == 0 or images_begun + len(todo[0].paths) <= in_flight):
                    job = todo.popleft()
                    images_begun += len(job.paths)
                    tasks += [(job, *task) for task in job.begin()]
                while tasks and len(running) < ahead:
                    job, place, task = tasks.popleft()
                    running[pool.submit(task.function, *task.arguments)] = job, place
                finished = wait(running, _TICK, FIRST_COMPLETED).done
                bar.refresh()
                for future in finished:
                    job, place = running.pop(future)
                    result = future.result()
                    if isinstance(result, Block):
                        bar.update(result.compared)
                    else:
                        images_read += len(result)
                        bar.set_postfix_str(f"{images_read} images read")
                    # A landmark begun goes before new ones: its keypoints take memory until it is finished.
                    tasks.extendleft((job, *task) for task in job.take(place, result))
                    if job.is_finished:
                        images_begun -= len(job.paths)
                        bar.update(job.pairs - job.compared)
        finally:
            for future in running:
                future.cancel()


def is_matched(file: Path, made_with: Mapping, names: Sequence[str], paths: Sequence[Path]) -> bool:
    """Whether a landmark's graph is there, made with these settings from these files.

    A landmark whose files changed, or whose graph is damaged, is matched again.

    Args:
        file: The graph.
        made_with: What it has to be made with, see ``MatchGraph.settings``.
        names: Names of the landmark's images.
        paths: Their files.

    Returns:
        False where it has to be matched.

    Raises:
        CleanError: It was made with other settings.
    """
    if not file.exists():
        return False
    try:
        before = load_graph(file).settings
    except GraphError as error:
        note(f"{error}; this landmark is matched again")
        return False
    if isinstance(before.get("pairs"), str) and before["pairs"] != "all":
        raise CleanError(f"{file.parent}: {file.name} was made by an older version on shortlists of a network that it "
                         "doesn't name; choose another folder, or remove this one to match again")
    if different := differences(before, made_with):
        raise CleanError(f"{file.parent}: {file.name} was made with other settings: {', '.join(different)}; "
                         "choose another folder, or remove this one to match again")
    return before.get("files") == files_fingerprint(names, paths)


def estimated_time(jobs: Sequence[Job], settings: CleanSettings, pool: Executor) -> str:
    """How long the jobs will take, measured on a few images of the largest landmark.

    Args:
        jobs: At least one.
        settings: Settings of cleaning.
        pool: Runs the measurement, in a task.

    Returns:
        For people, such as "about 10 min on 8 cores".
    """
    largest = max(jobs, key=lambda job: len(job.paths)).paths
    chosen = [largest[index] for index in np.unique(np.linspace(0, len(largest) - 1, _TIMED).astype(int))]
    image_seconds, pair_seconds = pool.submit(time_tasks, chosen, settings).result()
    seconds = image_seconds * sum(len(job.paths) for job in jobs) + pair_seconds * sum(job.pairs for job in jobs)
    # Nobody knows how many workers a cluster's executor has, or will have.
    workers = getattr(pool, "_max_workers", None)
    return f"{duration(seconds / (workers or 1))} {f'on {workers} cores' if workers else 'of one core'}"


@contextmanager
def workers(executor: Executor | None) -> Iterator[Executor]:
    """An executor for the tasks.

    Args:
        executor: Given by the caller, who ends it.

    Yields:
        The executor given, or a pool of a process for each usable core, each of which uses one core.
    """
    if executor is not None:
        yield executor
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
