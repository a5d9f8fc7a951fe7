from dataclasses import replace
from pathlib import Path

import pytest

from rmaclib.datasets import DatasetError, LabelledImages, Query, RetrievalDataset
from rmaclib.evaluation import score_rankings
from rmaclib.foundation.errors import InputError

QUERY = Query("q", "b", Path("small/b.jpg"), None, {"good": frozenset("a"), "ok": frozenset(), "junk": frozenset("b")})
SMALL = RetrievalDataset("small", "oxford", Path("small"), ("a", "b", "c"),
                         (Path("small/a.jpg"), Path("small/b.jpg"), Path("small/c.jpg")), (QUERY,), publishable=True)
STREET = LabelledImages("street", Path("x"), ("a", "d"), (Path("x/a.jpg"), Path("x/d.jpg")), (0, 1), (None, None))


def test_distractors_only_make_the_database_larger():
    larger = SMALL.with_distractors(STREET)
    assert larger.name == "small_among_street"
    assert larger.names == ("a", "b", "c", "street/a", "street/d")
    assert larger.paths == SMALL.paths + STREET.paths
    assert larger.queries == SMALL.queries
    assert larger.counts == {**SMALL.counts, "images": 5}


def test_a_distractor_is_irrelevant_even_with_the_name_of_a_relevant_image():
    larger = SMALL.with_distractors(STREET)
    order = {"q": [1, 3, 0, 2, 4]}  # junk, street/a, the relevant a
    assert score_rankings(larger, order, "oxford").scores["mAP"] == pytest.approx((0 + 1 / 2) / 2)
    assert score_rankings(SMALL, {"q": [1, 0, 2]}, "oxford").scores["mAP"] == 1


def test_a_mixture_is_publishable_only_if_both_are():
    assert not SMALL.with_distractors(STREET).publishable
    street = replace(STREET, publishable=True)
    assert SMALL.with_distractors(street).publishable
    assert not replace(SMALL, publishable=False).with_distractors(street).publishable


def test_a_distractor_needs_a_new_name():
    taken = replace(SMALL, names=("a", "b", "street/d"))
    with pytest.raises(DatasetError, match="small: expected distractors of other names, got street/d of street"):
        taken.with_distractors(STREET)


def test_an_image_of_the_database_is_no_distractor():
    own = replace(STREET, paths=(Path("x/a.jpg"), SMALL.paths[0]))
    with pytest.raises(DatasetError, match="small: expected distractors that are not in it, got small/a.jpg of street"):
        SMALL.with_distractors(own)


def test_missing_images_of_both_are_listed():
    larger = replace(SMALL, missing=("e",)).with_distractors(replace(STREET, missing=("f",)))
    assert larger.missing == ("e", "f")


def test_images_are_selected_by_their_landmark():
    names = tuple(f"{number}.jpg" for number in range(5))
    towns = LabelledImages("towns", Path("x"), names, tuple(Path("x") / name for name in names), (0, 1, 2, 1, 0),
                           (None,) * 5, ("bath", "york", "ely", "wells"))
    assert towns.of_landmarks(["york", "ely"]).names == ("1.jpg", "2.jpg", "3.jpg")
    assert towns.of_landmarks({"york", "ely"}, others=True).names == ("0.jpg", "4.jpg")
    assert towns.of_landmarks(["bath"], "a spa").name == "a spa" and towns.of_landmarks([]).names == ()
    for missing in ("oxford", "wells"):  # unknown, without images
        with pytest.raises(InputError, match=f"towns: expected images of the landmarks {missing}, found none"):
            towns.of_landmarks(["bath", missing])
    with pytest.raises(InputError, match="street: expected images of the landmarks bath"):
        STREET.of_landmarks(["bath"])  # without names of landmarks
