"""The protocols of the benchmarks (Section 5.1): which images are positive, which are junk, what is averaged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rmaclib.datasets import Query, RetrievalDataset
from rmaclib.evaluation.average_precision import positive_ranks, trapezoid
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import one_of

PRECISION_AT = (1, 5, 10)


class Level(NamedTuple):
    """Which grades of a query's ground truth are positive, and which are junk.

    Attributes:
        name: Prefix of the scores, empty where a protocol has one level.
        positives: Grades of relevant images.
        junk: Grades of images that are skipped.
    """

    name: str
    positives: tuple[str, ...]
    junk: tuple[str, ...]


class Protocol(NamedTuple):
    """How the rankings of a data set are scored.

    Attributes:
        levels: Each has scores of its own.
        query_is_junk: Whether the query's own image is skipped.
        precision_at: Ranks k of mP@k.
    """

    levels: tuple[Level, ...]
    query_is_junk: bool = False
    precision_at: tuple[int, ...] = ()


_OXFORD = (Level("", ("good", "ok"), ("junk",)),)
_REVISITED = (Level("easy", ("easy",), ("junk", "hard")),
              Level("medium", ("easy", "hard"), ("junk",)),
              Level("hard", ("hard",), ("junk", "easy")))
_RELEVANT = (Level("", ("relevant",), ()),)

PROTOCOLS = {
    "oxford": Protocol(_OXFORD),
    "oxford-removed": Protocol(_OXFORD, query_is_junk=True),
    "revisited": Protocol(_REVISITED, precision_at=PRECISION_AT),
    "holidays": Protocol(_RELEVANT, query_is_junk=True),
    "folder": Protocol(_RELEVANT, query_is_junk=True),
}


_OF_LAYOUT = {"oxford": "oxford", "revisited": "revisited", "holidays": "holidays", "folder": "folder"}


@dataclass(frozen=True)
class Evaluation:
    """Scores of the rankings of a data set under a protocol.

    Attributes:
        dataset: Name of the data set.
        protocol: Name of the protocol.
        scores: "mAP", or "easy/mAP", "easy/mP@1", … for each level; 0..1, NaN where every query was skipped.
        per_query: A dictionary for each query and level: query, level, ap, positives, first_positive_rank (from 1,
            junk not counted; None when no positive was retrieved), skipped (the reason, else None), and P@k where the
            protocol has it. ap and P@k are None for a skipped query.
        skipped: Queries left out of the mean, "name" or "level/name".
        bad: (name, reason) of database images that couldn't be read, and so were never retrieved.
    """

    dataset: str
    protocol: str
    scores: dict[str, float]
    per_query: list[dict]
    skipped: list[str]
    bad: tuple[tuple[str, str], ...] = ()

    def table(self) -> str:
        """The scores in per cent as aligned text: a line per level, a column per measure."""
        rows: dict[str, dict[str, float]] = {}
        for key, value in self.scores.items():
            level, _, measure = key.rpartition("/")
            rows.setdefault(level, {})[measure] = value
        measures = list(next(iter(rows.values())))
        queries = len({entry["query"] for entry in self.per_query})
        lines = [f"{self.dataset}, protocol {self.protocol}: {queries} queries, "
                 f"{len(self.skipped)} skipped; in %",
                 " " * 8 + "".join(f"{measure:>8}" for measure in measures)]
        lines += [f"{level:<8}" + "".join(f"{100 * row[measure]:8.2f}" for measure in measures)
                  for level, row in rows.items()]
        return "\n".join(lines)


def default_protocol(dataset: RetrievalDataset) -> str:
    """The protocol that results on a data set of this layout are published with.

    Args:
        dataset: Its layout decides.

    Returns:
        A key of PROTOCOLS.

    Raises:
        InputError: No protocol fits the layout.
    """
    one_of(f"layout of {dataset.name}", dataset.layout, tuple(_OF_LAYOUT))
    return _OF_LAYOUT[dataset.layout]


def check_protocol(dataset: RetrievalDataset, protocol: str) -> None:
    """Check that a protocol fits a data set, before anything is computed.

    Args:
        dataset: The data set.
        protocol: A key of PROTOCOLS.

    Raises:
        InputError: The protocol isn't known, or needs other ground truth than the data set has.
    """
    one_of("protocol", protocol, tuple(PROTOCOLS))
    needed = {grade for level in PROTOCOLS[protocol].levels for grade in level.positives + level.junk}
    for query in dataset.queries:
        if set(query.relevance) != needed:
            fitting = f"; {_OF_LAYOUT[dataset.layout]!r} fits it" if dataset.layout in _OF_LAYOUT else ""
            raise InputError(f"protocol {protocol!r} needs the grades {', '.join(sorted(needed))}; "
                             f"{dataset.name} (layout {dataset.layout}), query {query.name!r}, has "
                             f"{', '.join(sorted(query.relevance)) or 'none'}{fitting}")


def score_rankings(dataset: RetrievalDataset, rankings: Mapping[str, Sequence[int] | np.ndarray],
                   protocol: str | None = None) -> Evaluation:
    """Score a ranking for each query (Section 5.1). A query without positives is skipped and listed.

    Protocols:

    - "oxford": good and ok are positive, junk is skipped; the query's image stays a positive
    - "oxford-removed": the same, the query's own image skipped
    - "revisited" (Radenović et al. 2018): Easy: easy is positive, hard skipped; Medium: easy and hard are positive;
      Hard: hard is positive, easy skipped; junk always skipped. mAP, and mP@k with k at most the rank of the last
      positive
    - "holidays", "folder": relevant is positive; the query's own image skipped

    Args:
        dataset: Names and ground truth.
        rankings: Query name → indices of database images, best first, complete or truncated: what a ranking lacks
            counts as never retrieved.
        protocol: Default: ``default_protocol(dataset)``.

    Returns:
        Scores, their mean and those of each query.

    Raises:
        InputError: An unknown protocol, ground truth of another one, a query without a ranking or a ranking without a
            query, an index outside the database.
    """
    protocol = default_protocol(dataset) if protocol is None else protocol
    check_protocol(dataset, protocol)
    rules = PROTOCOLS[protocol]
    _check_names(dataset, rankings)
    index = {name: number for number, name in enumerate(dataset.names)}
    per_query: list[dict] = []
    for query in dataset.queries:
        ranking = _checked(query.name, rankings[query.name], len(dataset.names))
        for level in rules.levels:
            positives, junk = ({index[name] for grade in grades for name in query.relevance[grade]}
                               for grades in (level.positives, level.junk))
            # Junk is skipped in positive_ranks(); the query's own image is junk in some protocols.
            if rules.query_is_junk and query.image in index:
                positives.discard(index[query.image])
                junk.add(index[query.image])
            per_query.append(_score(query, level.name, ranking, positives, junk, rules.precision_at))
    scores = {}
    for level in rules.levels:
        counted = [entry for entry in per_query if entry["level"] == level.name and not entry["skipped"]]
        for score, key in [("mAP", "ap"), *((f"mP@{k}", f"P@{k}") for k in rules.precision_at)]:
            mean = sum(entry[key] for entry in counted) / len(counted) if counted else float("nan")
            scores[_prefixed(level.name, score)] = mean
    skipped = [_prefixed(entry["level"], entry["query"]) for entry in per_query if entry["skipped"]]
    return Evaluation(dataset.name, protocol, scores, per_query, skipped)


def _score(query: Query, level: str, ranking: list[int], positives: set[int], junk: set[int],
           precision_at: tuple[int, ...]) -> dict[str, Any]:
    """The entry of Evaluation.per_query for a query and a level."""
    entry: dict[str, Any] = {
        "query": query.name, "level": level, "ap": None, "positives": len(positives), "first_positive_rank": None,
        "skipped": None, **{f"P@{k}": None for k in precision_at}}
    if not positives:
        return entry | {"skipped": "no positives"}
    ranks = positive_ranks(ranking, positives, junk)
    entry |= {"ap": trapezoid(ranks, len(positives)),
              "first_positive_rank": int(ranks[0]) if len(ranks) else None}
    for k in precision_at:
        # The last positive of a truncated ranking is known only if all are retrieved; else it is further down.
        depth = min(k, int(ranks[-1])) if len(ranks) == len(positives) else k
        entry[f"P@{k}"] = int((ranks <= depth).sum()) / depth
    return entry


def _prefixed(level: str, name: str) -> str:
    return f"{level}/{name}" if level else name


def _check_names(dataset: RetrievalDataset, rankings: Mapping[str, Sequence[int] | np.ndarray]) -> None:
    names = {query.name for query in dataset.queries}
    for problem, wrong in (("queries without a ranking", names - rankings.keys()),
                           ("rankings of unknown queries", rankings.keys() - names)):
        if wrong:
            raise InputError(f"{dataset.name}: expected a ranking for each query, got {len(wrong)} {problem}: "
                             + ", ".join(sorted(wrong)[:5]))


def _checked(name: str, ranking: Sequence[int] | np.ndarray, size: int) -> list[int]:
    array = np.asarray(ranking)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"ranking of {name!r}: expected a sequence of whole numbers, got {array.dtype} "
                         f"of shape {array.shape}")
    if array.size and (array.min() < 0 or array.max() >= size):
        raise InputError(f"ranking of {name!r}: expected indices 0..{size - 1}, "
                         f"got {array.min()}..{array.max()}")
    return array.tolist()
