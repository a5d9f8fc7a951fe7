"""Random vectors, names for them, and small indexes: for the tests of the index."""

import json

import numpy as np

from rmaclib.ranking import rank
from rmaclib.search.structures import LIMITS, StructureLimits
from rmaclib.search.vector_index import VectorIndex

DIM = 16
SMALL_LIMITS = StructureLimits(100, 2000)  # with them, hundreds of vectors get the structures of many thousands


def sample(count, seed=0, dim=DIM):
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def numbered(count, first=0):
    return [f"image {number}" for number in range(first, first + count)]


def built(count, dim=DIM, limits=LIMITS):
    index = VectorIndex(dim, limits=limits)
    index.add(sample(count, dim=dim), numbered(count))
    return index


def recall(index, vectors, queries, k=10):
    """Mean share of each query's k nearest that the index finds; vectors: of "image 0", "image 1", …"""
    exact = rank(queries, vectors, k)
    results = [{neighbour.name for neighbour in row} for row in index.search(queries, k)]
    return np.mean([len(names & {f"image {n}" for n in expected}) / k
                    for names, expected in zip(results, exact, strict=True)])


def as_version_1(folder):
    """Change the folder of an index to what version 1 wrote: no checksums, no marker."""
    meta = json.loads((folder / "meta.json").read_text())
    del meta["checksum"]
    for entry in meta["segments"]:
        del entry["checksums"]
    (folder / "meta.json").write_text(json.dumps({**meta, "version": 1}))
    for name in (".rmac.json", ".rmac.lock"):
        (folder / name).unlink()
