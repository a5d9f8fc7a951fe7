"""A network measured on a benchmark (Section 5): describe database and queries, rank, score."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rmaclib.datasets import LabelledImages, RetrievalDataset
from rmaclib.evaluation import Evaluation, evaluate
from rmaclib.images import ImageError
from rmaclib.rmac import RMAC
from rmaclib.search.descriptors import DescribeSettings, Descriptors, describe
from rmaclib.search.ranking import rank


def describe_queries(network: RMAC, dataset: RetrievalDataset, settings: DescribeSettings,
                     progress: bool = True) -> Descriptors:
    """Descriptors of a data set's queries, boxes cut out, in their order.

    raises ImageError when a query can't be read: a measurement without it would be another one
    """
    queries = dataset.queries
    found = describe(network, [query.path for query in queries], settings, names=[query.name for query in queries],
                     boxes=[query.box for query in queries], progress=progress)
    if found.bad:
        name, reason = found.bad[0]
        raise ImageError(next(query.path for query in queries if query.name == name),
                         f"query {name!r} can't be described: {reason}")
    return found


def score(dataset: RetrievalDataset, queries: Descriptors, database: Descriptors, protocol: str) -> Evaluation:
    """Scores of descriptors under a protocol of rmaclib.evaluation.

    queries: named as dataset.queries; database: named as dataset.names, images without one are never found
    """
    index = {name: number for number, name in enumerate(dataset.names)}
    numbers = np.array([index[name] for name in database.names])
    order = rank(queries.vectors, database.vectors)  # (Q, images described)
    return evaluate(dataset, dict(zip(queries.names, numbers[order], strict=True)), protocol)


def measure(network: RMAC, dataset: RetrievalDataset, protocol: str, settings: DescribeSettings | None = None, *,
            out: Path | None = None, progress: bool = True) -> tuple[Evaluation, Descriptors]:
    """Scores of a network on a data set, and the database's descriptors (bad images are listed in them).

    out: folder to keep the database's descriptors in; a killed run resumes there
    """
    settings = settings or DescribeSettings()
    # Queries first: one that can't be read ends the run before hours are spent on the database.
    queries = describe_queries(network, dataset, settings, progress)
    database = describe(network, dataset.paths, settings, names=dataset.names, out=out, progress=progress)
    return score(dataset, queries, database, protocol), database


def training_sample(collection: LabelledImages, count: int, seed: int = 0) -> list[Path]:
    """Paths of `count` images drawn from a collection without replacement (all of them where it has fewer)."""
    paths: Sequence[Path] = collection.paths
    return list(paths) if len(paths) <= count else random.Random(seed).sample(paths, count)
