"""A network measured on a benchmark (Section 5): describe database and queries, rank, score."""

from pathlib import Path

import faiss
import numpy as np

from rmaclib.datasets import RetrievalDataset
from rmaclib.evaluation import Evaluation, score_rankings
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.folder import Descriptors
from rmaclib.images import ImageError
from rmaclib.network import RMAC
from rmaclib.search.retrieval import SearchSettings, search_order


def extract_queries(network: RMAC, dataset: RetrievalDataset, settings: ExtractionSettings,
                     progress: bool = True) -> Descriptors:
    """Descriptors of a data set's queries, boxes cut out, in their order.

    raises ImageError when a query can't be read: a measurement without it would be another one
    """
    queries = dataset.queries
    found = extract(network, [query.path for query in queries], settings, names=[query.name for query in queries],
                     boxes=[query.box for query in queries], progress=progress)
    if found.bad:
        name, reason = found.bad[0]
        raise ImageError(next(query.path for query in queries if query.name == name),
                         f"query {name!r} can't be described: {reason}")
    return found


def score_descriptors(dataset: RetrievalDataset, queries: Descriptors, database: Descriptors, protocol: str,
          search: SearchSettings | None = None, codes: faiss.Index | None = None) -> Evaluation:
    """Scores of descriptors under a protocol of rmaclib.evaluation.

    queries: named as dataset.queries; database: named as dataset.names, images without one are never found
    search, codes: see search_order
    """
    index = {name: number for number, name in enumerate(dataset.names)}
    numbers = np.array([index[name] for name in database.names])
    order = search_order(queries.vectors, database.vectors, search, codes)  # (Q, images described)
    return score_rankings(dataset, dict(zip(queries.names, numbers[order], strict=True)), protocol)


def evaluate(network: RMAC, dataset: RetrievalDataset, protocol: str, settings: ExtractionSettings | None = None, *,
            search: SearchSettings | None = None, codes: faiss.Index | None = None, out: Path | None = None,
            progress: bool = True) -> tuple[Evaluation, Descriptors]:
    """Scores of a network on a data set, and the database's descriptors (bad images are listed in them).

    search, codes: see search_order
    out: folder to keep the database's descriptors in; a killed run resumes there
    """
    settings = settings or ExtractionSettings()
    # Queries first: one that can't be read ends the run before hours are spent on the database.
    queries = extract_queries(network, dataset, settings, progress)
    database = extract(network, dataset.paths, settings, names=dataset.names, out=out, progress=progress)
    return score_descriptors(dataset, queries, database, protocol, search, codes), database
