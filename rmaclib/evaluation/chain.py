"""The whole chain (Sections 4 and 5): what each link adds, from the network off the shelf to short codes.

A link is a way to rank a data set: a network, the longer sides of its descriptors, and what the search adds. It is
compared with the link before it, query by query. Re-ranking is the project's addition; the paper has no such link.
"""

import hashlib
import json
import os
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from rmaclib.checkpoints import fingerprint
from rmaclib.cleaning import Features
from rmaclib.datasets import RetrievalDataset
from rmaclib.datasets.types import LabelledImages
from rmaclib.evaluation.average_precision import average_precision
from rmaclib.evaluation.benchmark import rank_descriptors
from rmaclib.evaluation.protocols import Evaluation, score_rankings
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract, network_settings
from rmaclib.extraction.folder import Descriptors
from rmaclib.foundation.errors import InputError
from rmaclib.network import RMAC, SharedFeatures
from rmaclib.search.reranking import rerank
from rmaclib.search.retrieval import SearchSettings, search_order

PAPER_DBA, PAPER_QE = 20, 1  # neighbours of the authors' release


@dataclass(frozen=True)
class Link:
    """A link of the chain.

    Attributes:
        key: Name in the records.
        label: Name in figures.
        network: Which network's descriptors are ranked.
        sizes: Longer sides in pixels; the descriptors of several are summed.
        before: Key of the link that it is compared with; "" for the first.
        search: Query expansion and database-side augmentation.
        code_size: Bytes of a product-quantized code of the database; 0 for none.
        rerank: How many first images of a query are spatially re-ranked.
        beside: Whether the chain goes on without it: an alternative, or what comes behind the paper's last link.
    """

    key: str
    label: str
    network: str
    sizes: tuple[int, ...]
    before: str = ""
    search: SearchSettings = SearchSettings()
    code_size: int = 0
    rerank: int = 0
    beside: bool = False


def chain_links(networks: Sequence[str], sizes: Sequence[int], size: int, dba: int, *, rerank: int = 0,
                code_sizes: Sequence[int] = ()) -> list[Link]:
    """List the links: networks, three resolutions, DBA, QE; beside them the paper's DBA, re-ranking and codes.

    Args:
        networks: Names of the networks in order, such as "off the shelf", "whitened", "trained". The last one goes on.
        sizes: Longer sides in pixels of the link with several resolutions.
        size: The single longer side before it.
        dba: Neighbours of an image that the chain goes on with, 0 for no augmentation. The paper's 20 stand beside it.
        rerank: Images of a query to re-rank; 0 leaves that link out.
        code_sizes: Bytes of the codes in place of re-ranking.

    Returns:
        The links, each behind the one that it is compared with.

    Raises:
        InputError: No networks.
    """
    if not networks:
        raise InputError("networks: expected at least one, got none")
    several, last = tuple(sizes), networks[-1]
    keys = [name.replace(" ", "_") for name in networks]
    links = [Link(key, name, name, (size,), before)
             for key, name, before in zip(keys, networks, ["", *keys], strict=False)]
    expanded = SearchSettings(qe=PAPER_QE, dba=dba)
    paper, paper_expanded = SearchSettings(dba=PAPER_DBA), SearchSettings(qe=PAPER_QE, dba=PAPER_DBA)
    qe, of_paper = f"QE {PAPER_QE}", f"DBA {PAPER_DBA} (the paper)"
    links += [
        Link("resolutions", f"{len(several)} resolutions", last, several, keys[-1]),
        Link("dba", f"DBA {dba}" if dba else "no DBA", last, several, "resolutions", SearchSettings(dba=dba)),
        Link("qe", qe, last, several, "dba", expanded),
        Link("paper_dba", of_paper, last, several, "resolutions", paper, beside=True),
        Link("paper_qe", f"{of_paper}, {qe}", last, several, "paper_dba", paper_expanded, beside=True),
    ]
    if rerank:
        links.append(Link("rerank", f"re-ranking {rerank} (ours)", last, several, "qe", expanded, rerank=rerank,
                          beside=True))
    return links + [Link(f"pq_{code_size}", f"codes of {code_size} bytes", last, several, "qe", expanded,
                         code_size=code_size, beside=True) for code_size in code_sizes]


def score_link(link: Link, dataset: RetrievalDataset, queries: Descriptors, database: Descriptors, protocol: str, *,
               codes: faiss.Index | None = None,
               keypoints: MutableMapping[str, Features | None] | None = None) -> Evaluation:
    """Rank a data set as a link does, and score the rankings.

    Args:
        link: What the search does.
        dataset: Names, files and ground truth.
        queries: Descriptors of the link's network and sizes, named as ``dataset.queries``.
        database: The same, named as ``dataset.names``.
        protocol: One of ``PROTOCOLS``.
        codes: For a link with codes: trained by ``search.compression.train_codes``.
        keypoints: For a link with re-ranking: see ``search.reranking.rerank``.

    Returns:
        The scores.

    Raises:
        InputError: A link with codes without codes, or the other way round.
        ImageError: A query can't be read.
    """
    if bool(link.code_size) != (codes is not None):
        raise InputError(f"codes: expected {'those of' if link.code_size else 'none for'} the link {link.key!r}, "
                         f"got {'none' if codes is None else 'some'}")
    rankings = rank_descriptors(dataset, queries, database, link.search, codes)
    if link.rerank:
        for query in dataset.queries:
            first = rankings[query.name][:link.rerank]
            order, _ = rerank(query.path, [dataset.paths[index] for index in first], query.box, keypoints=keypoints)
            rankings[query.name] = np.concatenate([first[order], rankings[query.name][link.rerank:]])
    return score_rankings(dataset, rankings, protocol)


def query_precisions(evaluation: Evaluation) -> dict[str, float]:
    """Give the average precision of each query that was not skipped.

    Args:
        evaluation: Under a protocol of one level.

    Returns:
        Query name → average precision, 0..1, in the order of the data set.

    Raises:
        InputError: A protocol of several levels.
    """
    levels = {entry["level"] for entry in evaluation.per_query}
    if len(levels) > 1:
        raise InputError(f"protocol: expected one of a single level, got {evaluation.protocol!r}")
    return {entry["query"]: entry["ap"] for entry in evaluation.per_query if not entry["skipped"]}


def leave_one_out_precisions(vectors: np.ndarray, labels: Sequence[int] | np.ndarray,
                             search: SearchSettings | None = None) -> np.ndarray:
    """Measure retrieval when each image in turn is the query and the others are the database.

    The query is in no database: no image is augmented with it.

    Args:
        vectors: (n, D), ℓ2-normalised.
        labels: (n,) landmark of each image. Images of one landmark are relevant to each other.
        search: What the search adds.

    Returns:
        (n,) average precision, 0..1; NaN for the only image of its landmark.
    """
    labels, every = np.asarray(labels), np.arange(len(vectors))
    precisions = np.full(len(vectors), np.nan)
    for query in every:
        others = every[every != query]
        positives = others[labels[others] == labels[query]]
        if len(positives):
            order = search_order(vectors[query:query + 1], vectors[others], search)[0]
            precisions[query] = average_precision(others[order], positives)
    return precisions


def extract_once(network: RMAC | SharedFeatures, images: RetrievalDataset | LabelledImages, size: int,
                 folder: str | os.PathLike, progress: bool = True) -> Descriptors:
    """Extract the descriptors of a collection at one longer side, or load them.

    Args:
        network: One network, or several on one backbone.
        images: The database images of a data set, or a collection.
        size: Longer side in pixels.
        folder: Of all descriptors. Each network, collection and size has a folder of its own in it, in which a run
            that was killed goes on.
        progress: Whether there is a progress bar.

    Returns:
        The descriptors, named as the images.

    Raises:
        OutputError: The folder can't be written.
    """
    identity = json.dumps(network_settings(network), sort_keys=True) + fingerprint(network)
    of_network = hashlib.sha256(identity.encode()).hexdigest()[:12]
    return extract(network, images.paths, ExtractionSettings((size,), precision="float32"), names=images.names,
                   out=Path(folder) / of_network / f"{images.name}_{size}", progress=progress)


def joined(own: Descriptors, distractors: Descriptors, name: str) -> Descriptors:
    """Join descriptors of a database and of distractors, as ``RetrievalDataset.with_distractors`` joins the images.

    Args:
        own: Of the database.
        distractors: Of N' other images.
        name: Of their data set.

    Returns:
        The descriptors of the larger data set.
    """
    return Descriptors(np.concatenate([own.vectors, distractors.vectors]),
                       own.names + tuple(f"{name}/{image}" for image in distractors.names),
                       own.bad + tuple((f"{name}/{image}", reason) for image, reason in distractors.bad))
