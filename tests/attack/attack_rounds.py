"""Additions to one index by several processes, and readers beside them; runs in children of attack_server."""

import time
from pathlib import Path

import numpy as np

DIM, SECONDS = 16, 20


def create(folder: str) -> None:
    from rmaclib.search.vector_index import VectorIndex

    index = VectorIndex(DIM, {"made": "here"})
    index.add(vectors("first"), ["first"], progress=False)
    index.save(folder)


def vectors(name: str) -> np.ndarray:
    return np.random.default_rng(list(name.encode())).standard_normal((1, DIM)).astype(np.float32)


def add(folder: str, barrier: str, process: int, others: int, round_: int) -> dict:
    """Load an index, add a vector, wait until the other processes have done so, and save.

    Returns {"name", "refused"}: the message by which the addition was refused, "" when it was saved.
    """
    from rmaclib.foundation.errors import RmacError
    from rmaclib.search.vector_index import VectorIndex

    index, name = VectorIndex.load(folder), f"round {round_} process {process}"
    index.add(vectors(name), [name], progress=False)
    meet(Path(barrier, str(round_)), process, others)
    try:
        index.save(folder)
    except RmacError as error:
        return {"name": name, "refused": str(error)}
    return {"name": name, "refused": ""}


def meet(place: Path, process: int, others: int) -> None:
    """Return as soon as all processes have called it."""
    place.mkdir(parents=True, exist_ok=True)
    (place / str(process)).touch()
    end = time.monotonic() + SECONDS
    while len(list(place.iterdir())) < others:
        if time.monotonic() > end:
            raise TimeoutError("the other process didn't come")


def missing(folder: str, names: list[str]) -> list[str]:
    """The names that the index doesn't return for their vector."""
    from rmaclib.search.vector_index import VectorIndex

    index = VectorIndex.load(folder)
    return [name for name in names if index.search(vectors(name), 1)[0][0].name != name]


def read(folder: str, seconds: float) -> int:
    """Load an index and search it, again and again; returns how often."""
    from rmaclib.search.vector_index import VectorIndex

    end, times = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        index = VectorIndex.load(folder)
        if index.search(vectors("first"), 1)[0][0].name != "first":
            raise AssertionError(f"load {times}: the first vector isn't the nearest of itself among {len(index)}")
        times += 1
    return times


def write(folder: str, seconds: float) -> int:
    """Add, save and now and then remove for some seconds; returns how often it saved."""
    from rmaclib.search.vector_index import VectorIndex

    index, end, times = VectorIndex.load(folder), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        name = f"written {times}"
        index.add(vectors(name), [name], progress=False)
        if times % 5 == 4:
            index.remove([f"written {times - 2}"])
        index.save(folder)
        times += 1
    return times
