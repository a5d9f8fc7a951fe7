"""A network measured on a benchmark (Section 5): describe database and queries, rank, score."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import faiss
import numpy as np

from rmaclib.datasets import LabelledImages, RetrievalDataset
from rmaclib.evaluation import Evaluation, evaluate
from rmaclib.images import ImageError
from rmaclib.rmac import RMAC
from rmaclib.search.compression import decode, fill, rank_codes
from rmaclib.search.descriptors import DescribeSettings, Descriptors, describe
from rmaclib.search.expansion import augment, expand_queries
from rmaclib.search.ranking import rank
from rmaclib.settings import Field, settings


@settings
class SearchSettings:
    """What is done to descriptors before they are ranked (Section 5); nothing by default, the paper's best: 1 and 20.

    qe: neighbours that a query is averaged with, 0 for no query expansion; qe_alpha: see expansion.expand_queries
    dba: neighbours that a database vector is averaged with, 0 for none; dba_alpha: see expansion.augment
    """

    qe: Annotated[int, Field(ge=0)] = 0
    dba: Annotated[int, Field(ge=0)] = 0
    qe_alpha: Annotated[float, Field(ge=0)] = 0.0
    dba_alpha: Annotated[float, Field(ge=0)] | None = None


def search_order(queries: np.ndarray, database: np.ndarray, settings: SearchSettings | None = None,
                 codes: faiss.Index | None = None) -> np.ndarray:
    """Rankings of a database with expansion, augmentation and compression.

    queries: (Q, D), database: (N, D), rows of unit length; codes: trained by compression.train_codes. Then the database
      is coded after its augmentation, each vector brought to unit length, and queries are expanded by decoded vectors
    returns (Q, N) int64, best first
    """
    settings = settings or SearchSettings()
    if settings.dba:
        database = augment(database, settings.dba, settings.dba_alpha)
    if codes is not None:
        filled = fill(codes, database)
        if settings.qe:
            queries = expand_queries(queries, decode(filled), settings.qe, settings.qe_alpha)
        return rank_codes(filled, queries)
    if settings.qe:
        queries = expand_queries(queries, database, settings.qe, settings.qe_alpha)
    return rank(queries, database, similarity="dot" if settings.dba else "cosine")


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


def score(dataset: RetrievalDataset, queries: Descriptors, database: Descriptors, protocol: str,
          search: SearchSettings | None = None, codes: faiss.Index | None = None) -> Evaluation:
    """Scores of descriptors under a protocol of rmaclib.evaluation.

    queries: named as dataset.queries; database: named as dataset.names, images without one are never found
    search, codes: see search_order
    """
    index = {name: number for number, name in enumerate(dataset.names)}
    numbers = np.array([index[name] for name in database.names])
    order = search_order(queries.vectors, database.vectors, search, codes)  # (Q, images described)
    return evaluate(dataset, dict(zip(queries.names, numbers[order], strict=True)), protocol)


def measure(network: RMAC, dataset: RetrievalDataset, protocol: str, settings: DescribeSettings | None = None, *,
            search: SearchSettings | None = None, codes: faiss.Index | None = None, out: Path | None = None,
            progress: bool = True) -> tuple[Evaluation, Descriptors]:
    """Scores of a network on a data set, and the database's descriptors (bad images are listed in them).

    search, codes: see search_order
    out: folder to keep the database's descriptors in; a killed run resumes there
    """
    settings = settings or DescribeSettings()
    # Queries first: one that can't be read ends the run before hours are spent on the database.
    queries = describe_queries(network, dataset, settings, progress)
    database = describe(network, dataset.paths, settings, names=dataset.names, out=out, progress=progress)
    return score(dataset, queries, database, protocol, search, codes), database


def training_sample(collection: LabelledImages, count: int, seed: int = 0) -> list[Path]:
    """Paths of `count` images drawn from a collection without replacement (all of them where it has fewer)."""
    paths: Sequence[Path] = collection.paths
    return list(paths) if len(paths) <= count else random.Random(seed).sample(paths, count)
