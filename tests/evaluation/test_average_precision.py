import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmaclib.evaluation import average_precision, positive_ranks


def loop_average_precision(ranking, positives, junk):
    """The benchmark's definition, item by item (paper, Section 5.1: Oxford 5k)."""
    old_recall, old_precision, area, hits, rank, counted = 0.0, 1.0, 0.0, 0, 0, set()
    for item in ranking:
        if item in counted or item in junk:
            continue
        counted.add(item)
        hits += item in positives
        recall, precision = hits / len(positives), hits / (rank + 1)
        area += (recall - old_recall) * (old_precision + precision) / 2
        old_recall, old_precision = recall, precision
        rank += 1
    return area


@pytest.mark.parametrize("ranking, positives, junk, expected", [
    ("abcd", "ab", "", 1.0),
    ("xa", "a", "", 0.25),             # precision 0 then 1/2, recall 0 then 1: (0 + 1/2) / 2
    ("axb", "ab", "", 0.5 + 0.5 * (1 / 2 + 2 / 3) / 2),
    ("jaxjb", "ab", "j", 0.5 + 0.5 * (1 / 2 + 2 / 3) / 2),  # junk doesn't advance the rank
    ("a", "ab", "", 0.5),              # b is never retrieved
    ("xy", "ab", "", 0.0),
    ("", "ab", "", 0.0),
    ("aaaxab", "ab", "", 0.5 + 0.5 * (1 / 2 + 2 / 3) / 2),  # only the first a counts
    ("j", "a", "j", 0.0),
])
def test_hand_worked_values(ranking, positives, junk, expected):
    assert average_precision(ranking, positives, junk) == pytest.approx(expected, abs=1e-15)


def test_ten_thousand_random_rankings_agree_with_the_loop():
    draw = random.Random(0)
    for _ in range(10_000):
        items = list(range(draw.randint(1, 25)))
        draw.shuffle(items)
        positives = set(items[:draw.randint(1, len(items))])
        junk = set(draw.sample(sorted(set(items) - positives), draw.randint(0, len(items) - len(positives))))
        repeats = draw.random() < 0.2
        ranking = draw.choices(items, k=len(items)) if repeats else draw.sample(items, len(items))
        ranking = ranking[:draw.randint(0, len(ranking))] if draw.random() < 0.5 else ranking
        expected = loop_average_precision(ranking, positives, junk)
        assert average_precision(ranking, positives, junk) == pytest.approx(expected, abs=1e-12)


cases = st.permutations(range(12)).flatmap(lambda ranking: st.tuples(
    st.just(ranking), st.sets(st.sampled_from(range(6)), min_size=1), st.sets(st.sampled_from(range(6, 12)))))


@given(cases)
def test_properties(case):
    ranking, positives, junk = case
    value = average_precision(ranking, positives, junk)
    assert 0 <= value <= 1
    assert average_precision([item for item in ranking if item not in junk], positives) == value
    assert average_precision(sorted(ranking, key=lambda item: item not in positives), positives, junk) == 1
    for cut in range(len(ranking)):  # a longer ranking finds at least as much
        assert average_precision(ranking[:cut], positives, junk) <= value + 1e-12


@given(cases)
def test_arrays_lists_and_names_give_the_same(case):
    ranking, positives, junk = case
    value = average_precision(ranking, positives, junk)
    arrays = [np.array(list(ids), dtype=np.int32) for ids in (ranking, positives, junk)]
    assert average_precision(*arrays) == value
    assert average_precision(arrays[0], positives, junk) == value
    names = [[f"image {item}" for item in ids] for ids in (ranking, positives, junk)]
    assert average_precision(*names) == value


def test_no_positives_is_nan():
    assert math.isnan(average_precision([1, 2], []))


def test_positives_may_be_an_iterator_and_repeat():
    assert average_precision([1, 2], iter([1, 1])) == 1.0


def test_ranks_count_from_one_without_junk():
    assert positive_ranks("jaxb", "ab", "j").tolist() == [1, 3]
    assert positive_ranks([], [1]).dtype == np.int64


def test_positive_and_junk_exclude_each_other():
    with pytest.raises(ValueError, match="positive or junk, got both: 3"):
        average_precision([1, 2, 3], [1, 3], [3])


def test_a_matrix_is_an_error():
    with pytest.raises(ValueError, match=r"one-dimensional array, got shape \(1, 2\)"):
        average_precision(np.array([[1, 2]]), [1])
