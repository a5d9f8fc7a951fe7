from dataclasses import replace
from pathlib import Path

import pytest

from rmaclib.datasets import DatasetError, LabelledImages, Query, RetrievalDataset
from rmaclib.evaluation import score_rankings

QUERY = Query("q", "b", Path("small/b.jpg"), None, {"good": frozenset("a"), "ok": frozenset(), "junk": frozenset("b")})
SMALL = RetrievalDataset("small", "oxford", Path("small"), ("a", "b", "c"),
                         (Path("small/a.jpg"), Path("small/b.jpg"), Path("small/c.jpg")), (QUERY,), publishable=True)
STREET = LabelledImages("street", Path("x"), ("a", "d"), (Path("x/a.jpg"), Path("x/d.jpg")), (0, 1), (None, None))


def test_distractors_only_make_the_database_larger():
    crowded = SMALL.with_distractors(STREET)
    assert crowded.name == "small_among_street"
    assert crowded.names == ("a", "b", "c", "street/a", "street/d")
    assert crowded.paths == SMALL.paths + STREET.paths
    assert crowded.queries == SMALL.queries
    assert crowded.counts == {**SMALL.counts, "images": 5}


def test_a_distractor_is_wrong_even_where_its_own_name_is_that_of_an_answer():
    crowded = SMALL.with_distractors(STREET)
    order = {"q": [1, 3, 0, 2, 4]}  # junk, street/a, the answer a
    assert score_rankings(crowded, order, "oxford").scores["mAP"] == pytest.approx((0 + 1 / 2) / 2)
    assert score_rankings(SMALL, {"q": [1, 0, 2]}, "oxford").scores["mAP"] == 1


def test_pictures_are_shown_only_where_both_may_be():
    assert not SMALL.with_distractors(STREET).publishable
    shown = replace(STREET, publishable=True)
    assert SMALL.with_distractors(shown).publishable
    assert not replace(SMALL, publishable=False).with_distractors(shown).publishable


def test_a_name_that_is_taken_is_refused():
    taken = replace(SMALL, names=("a", "b", "street/d"))
    with pytest.raises(DatasetError, match="small: expected distractors of other names, got street/d of street"):
        taken.with_distractors(STREET)


def test_an_answer_is_no_distractor():
    own = replace(STREET, paths=(Path("x/a.jpg"), SMALL.paths[0]))
    with pytest.raises(DatasetError, match="small: expected distractors that are not in it, got small/a.jpg of street"):
        SMALL.with_distractors(own)


def test_what_is_missing_of_either_is_told():
    crowded = replace(SMALL, missing=("e",)).with_distractors(replace(STREET, missing=("f",)))
    assert crowded.missing == ("e", "f")
