"""A network on a benchmark (Section 5): extract descriptors of database and queries, rank, score."""

import os
from dataclasses import replace

import faiss
import numpy as np

from rmaclib.datasets import RetrievalDataset, open_dataset
from rmaclib.evaluation.protocols import Evaluation, check_protocol, default_protocol, score_rankings
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.folder import Descriptors
from rmaclib.images import ImageError
from rmaclib.network import RMAC
from rmaclib.search.retrieval import SearchSettings, search_order


def evaluate(network: RMAC, dataset: RetrievalDataset | str | os.PathLike, protocol: str | None = None,
             settings: ExtractionSettings | None = None, *, search: SearchSettings | None = None,
             codes: faiss.Index | None = None, out: str | os.PathLike | None = None,
             progress: bool = True) -> Evaluation:
    """Scores of a network on a data set (Section 5).

    Args:
        network: Extracts the descriptors.
        dataset: A data set; or what ``open_dataset`` takes: a registered name, or a folder.
        protocol: One of ``PROTOCOLS``. Default: the one that fits the data set, see ``default_protocol``.
        settings: Sizes, device and precision of the extraction.
        search: Query expansion and database-side augmentation, see ``search_order``.
        codes: A trained compression of the database, see ``search_order``.
        out: Folder to keep the database's descriptors in; a killed run resumes there.
        progress: Whether to show bars.

    Returns:
        Scores; ``bad`` lists the database images that can't be read.

    Raises:
        DatasetError: No such data set.
        InputError: The protocol isn't known or doesn't fit the data set.
        ImageError: A query can't be read.
        DescriptorsError: ``out`` contains other descriptors.
        OutputError: ``out`` can't be written.
    """
    if not isinstance(dataset, RetrievalDataset):
        dataset = open_dataset(dataset)
    protocol = protocol or default_protocol(dataset)
    check_protocol(dataset, protocol)
    settings = settings or ExtractionSettings()
    # Queries first: one that can't be read ends the run before hours are spent on the database.
    queries = extract_queries(network, dataset, settings, progress)
    database = extract(network, dataset.paths, settings, names=dataset.names, out=out, progress=progress)
    return replace(score_descriptors(dataset, queries, database, protocol, search, codes), bad=database.bad)


def extract_queries(network: RMAC, dataset: RetrievalDataset, settings: ExtractionSettings,
                    progress: bool = True) -> Descriptors:
    """Descriptors of a data set's queries in their order, cropped to their boxes.

    Args:
        network: Extracts the descriptors.
        dataset: The data set.
        settings: Sizes, device and precision of the extraction.
        progress: Whether to show a bar.

    Returns:
        A descriptor for each query.

    Raises:
        ImageError: A query can't be read: scores without it could not be compared.
    """
    queries = dataset.queries
    descriptors = extract(network, [query.path for query in queries], settings,
                          names=[query.name for query in queries], boxes=[query.box for query in queries],
                          progress=progress)
    if descriptors.bad:
        name, reason = descriptors.bad[0]
        raise ImageError(next(query.path for query in queries if query.name == name),
                         f"no descriptor can be extracted for query {name!r}: {reason}")
    return descriptors


def score_descriptors(dataset: RetrievalDataset, queries: Descriptors, database: Descriptors, protocol: str,
                      search: SearchSettings | None = None, codes: faiss.Index | None = None) -> Evaluation:
    """Scores of descriptors under a protocol.

    Args:
        dataset: Names and ground truth.
        queries: Named as ``dataset.queries``.
        database: Named as ``dataset.names``; an image without a descriptor is never retrieved.
        protocol: One of ``PROTOCOLS``.
        search: See ``search_order``.
        codes: See ``search_order``.

    Returns:
        Scores of the rankings.
    """
    return score_rankings(dataset, rank_descriptors(dataset, queries, database, search, codes), protocol)


def rank_descriptors(dataset: RetrievalDataset, queries: Descriptors, database: Descriptors,
                     search: SearchSettings | None = None, codes: faiss.Index | None = None) -> dict[str, np.ndarray]:
    """Rank the database of a data set for each query.

    Args:
        dataset: Names the images.
        queries: As in :func:`score_descriptors`.
        database: As in :func:`score_descriptors`.
        search: See ``search_order``.
        codes: See ``search_order``.

    Returns:
        Query name → indices of database images, best first, for ``score_rankings``.
    """
    index = {name: number for number, name in enumerate(dataset.names)}
    numbers = np.array([index[name] for name in database.names])
    order = search_order(queries.vectors, database.vectors, search, codes)  # (Q, database images)
    return dict(zip(queries.names, numbers[order], strict=True))
