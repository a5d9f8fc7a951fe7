import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rmaclib.datasets import Query, RetrievalDataset, open_dataset
from rmaclib.evaluation import PROTOCOLS, average_precision, check_protocol, default_protocol, score_rankings
from rmaclib.foundation.errors import InputError

NAMES = tuple("abcdefghij")


def dataset(*queries, layout="oxford"):
    """queries: (name, image, grades), every grade a string of one-letter image names."""
    return RetrievalDataset("toy", layout, Path("."), NAMES, tuple(map(Path, NAMES)), tuple(
        Query(name, image, Path(image), None, {grade: frozenset(names) for grade, names in grades.items()})
        for name, image, grades in queries))


def indices(names):
    return [NAMES.index(name) for name in names]


OXFORD = dataset(("q", "a", {"good": "ab", "ok": "c", "junk": "d"}))
REVISITED = dataset(("q", "z", {"easy": "ab", "hard": "c", "junk": "d"}),
                    ("r", "y", {"easy": "", "hard": "e", "junk": ""}), layout="revisited")


def test_oxford_counts_the_query_and_skips_junk():
    result = score_rankings(OXFORD, {"q": indices("adbec")})
    assert result.scores == {"mAP": average_precision("abec", "abc")}
    assert result.per_query == [{"query": "q", "level": "", "ap": result.scores["mAP"], "positives": 3,
                                 "first_positive_rank": 1, "skipped": None}]


def test_oxford_removed_skips_the_query():
    result = score_rankings(OXFORD, {"q": indices("adebc")}, "oxford-removed")
    assert result.scores == {"mAP": average_precision("ebc", "bc")}
    assert result.per_query[0]["positives"] == 2 and result.per_query[0]["first_positive_rank"] == 2


@pytest.mark.parametrize("protocol", ["holidays", "folder"])
def test_holidays_and_folder_skip_the_query(protocol):
    data = dataset(("q", "a", {"relevant": "bc"}), ("r", "z", {"relevant": "a"}))  # z isn't in the database
    result = score_rankings(data, {"q": indices("adbec"), "r": indices("ba")}, protocol)
    assert [entry["ap"] for entry in result.per_query] == [average_precision("dbec", "bc"),
                                                           average_precision("ba", "a")]
    assert result.scores["mAP"] == pytest.approx((average_precision("dbec", "bc") + 0.25) / 2)


def test_the_revisited_levels():
    # q: easy a b, hard c, junk d. r: hard e only.
    result = score_rankings(REVISITED, {"q": indices("dcfagb"), "r": indices("fe")}, "revisited")
    assert result.scores["easy/mAP"] == average_precision("fagb", "ab")
    assert result.scores["medium/mAP"] == pytest.approx((average_precision("cfagb", "abc") + 0.25) / 2)
    assert result.scores["hard/mAP"] == pytest.approx((average_precision("cfg", "c") + 0.25) / 2)
    assert result.skipped == ["easy/r"]
    assert next(entry for entry in result.per_query if entry["skipped"]) == {
        "query": "r", "level": "easy", "ap": None, "positives": 0, "first_positive_rank": None,
        "skipped": "no positives", "P@1": None, "P@5": None, "P@10": None}


def test_precision_at_k_stops_at_the_last_positive():
    # Easy ranking without junk and hard: f a g b, positives at 2 and 4, so that k = 5 and 10 become 4.
    result = score_rankings(REVISITED, {"q": indices("dcfagbhij"), "r": indices("e")}, "revisited")
    assert [result.scores[f"easy/mP@{k}"] for k in (1, 5, 10)] == [0, 2 / 4, 2 / 4]
    # Hard: q has c first, r has e first: every k becomes 1.
    assert [result.scores[f"hard/mP@{k}"] for k in (1, 5, 10)] == [1, 1, 1]


def test_a_truncated_ranking_gains_nothing_by_its_end():
    # b isn't retrieved, so that its rank is unknown and past the end: k stays 5 and 10.
    result = score_rankings(REVISITED, {"q": indices("a"), "r": []}, "revisited")
    assert [result.scores[f"easy/mP@{k}"] for k in (1, 5, 10)] == [1, 1 / 5, 1 / 10]
    assert result.scores["hard/mAP"] == 0


def test_precision_agrees_with_a_loop_on_random_rankings():
    rng = np.random.default_rng(0)
    for _ in range(200):
        ranking = rng.permutation(10)
        result = score_rankings(REVISITED, {"q": ranking, "r": ranking}, "revisited")
        kept = [NAMES[item] for item in ranking if NAMES[item] != "d"]
        last = max(kept.index(name) + 1 for name in "abc")
        for k in (1, 5, 10):
            depth = min(k, last)
            expected = sum(name in "abc" for name in kept[:depth]) / depth
            precision = next(entry for entry in result.per_query
                         if entry["query"] == "q" and entry["level"] == "medium")[f"P@{k}"]
            assert precision == pytest.approx(expected)


def test_a_query_without_positives_is_skipped_and_counted():
    data = dataset(("q", "a", {"relevant": "b"}), ("alone", "c", {"relevant": ""}))
    result = score_rankings(data, {"q": indices("ab"), "alone": indices("cd")}, "folder")
    assert result.scores == {"mAP": 1.0} and result.skipped == ["alone"]
    only = score_rankings(dataset(("alone", "c", {"relevant": ""})), {"alone": []}, "folder")
    assert math.isnan(only.scores["mAP"]) and "nan" in only.table()


def test_tables():
    assert score_rankings(OXFORD, {"q": indices("abc")}).table().split() == (
        "toy, protocol oxford: 1 queries, 0 skipped; in % mAP 100.00".split())
    lines = score_rankings(REVISITED, {"q": indices("abc"), "r": indices("e")}, "revisited").table().splitlines()
    assert lines[0] == "toy, protocol revisited: 2 queries, 1 skipped; in %"
    assert lines[1].split() == ["mAP", "mP@1", "mP@5", "mP@10"]
    assert [line.split()[0] for line in lines[2:]] == ["easy", "medium", "hard"]
    assert len({len(line) for line in lines[1:]}) == 1


@pytest.mark.parametrize("data, protocol, message", [
    (OXFORD, "revisited", r"'revisited' needs .* easy, hard, junk; toy \(layout oxford\), query 'q', has "),
    (REVISITED, "oxford", r"'oxford' needs the grades good, junk, ok; toy \(layout revisited\)"),
    (OXFORD, "holidays", r"'holidays' needs the grades relevant"),
    (OXFORD, "classic", r"protocol: expected one of oxford, oxford-removed, .* got 'classic'"),
])
def test_wrong_protocols_are_errors(data, protocol, message):
    with pytest.raises(ValueError, match=message):
        score_rankings(data, {query.name: [0] for query in data.queries}, protocol)


@pytest.mark.parametrize("rankings, message", [
    ({}, "got 1 queries without a ranking: q"),
    ({"q": [0], "x": [0]}, "got 1 rankings of unknown queries: x"),
    ({"q": [0, 10]}, r"ranking of 'q': expected indices 0..9, got 0..10"),
    ({"q": [-1]}, r"ranking of 'q': expected indices 0..9, got -1..-1"),
    ({"q": [0.5]}, r"ranking of 'q': expected a sequence of whole numbers, got float64 of shape \(1,\)"),
    ({"q": [[0]]}, r"ranking of 'q': expected a sequence of whole numbers, got int64 of shape \(1, 1\)"),
    ({"q": ["a"]}, r"ranking of 'q': expected a sequence of whole numbers"),
])
def test_wrong_rankings_are_errors(rankings, message):
    with pytest.raises(ValueError, match=message):
        score_rankings(OXFORD, rankings)


def test_every_protocol_is_described():
    assert all(f'"{name}"' in score_rankings.__doc__ for name in PROTOCOLS)


@pytest.mark.photos
def test_perfect_and_worst_rankings_of_the_photographs(photos):
    data = open_dataset(photos / "oxford5k_subset")
    numbers = range(len(data.names))
    positive = {query.name: query.relevance["good"] | query.relevance["ok"] for query in data.queries}
    best = {name: sorted(numbers, key=lambda i, p=p: data.names[i] not in p) for name, p in positive.items()}
    assert score_rankings(data, best).scores == {"mAP": 1.0}
    assert score_rankings(data, {name: ranking[::-1] for name, ranking in best.items()}).scores["mAP"] < 0.05


def test_a_protocol_is_checked_before_there_are_rankings():
    check_protocol(OXFORD, "oxford-removed")
    check_protocol(REVISITED, "revisited")
    for protocol in ("oxford", "classic"):
        with pytest.raises(InputError, match="protocol"):
            check_protocol(REVISITED, protocol)
    with pytest.raises(InputError, match="'revisited' fits it"):
        check_protocol(REVISITED, "oxford")


@pytest.mark.parametrize("layout, protocol", [("oxford", "oxford"), ("revisited", "revisited"),
                                              ("holidays", "holidays"), ("folder", "folder")])
def test_the_default_protocol_follows_the_layout(layout, protocol):
    assert default_protocol(replace(OXFORD, layout=layout)) == protocol
    assert protocol in PROTOCOLS
    assert score_rankings(REVISITED, {"q": [0], "r": [0]}).protocol == "revisited"
    with pytest.raises(InputError, match="layout of toy: expected one of"):
        default_protocol(replace(OXFORD, layout="images"))
