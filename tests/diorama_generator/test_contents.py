from collections import Counter, defaultdict

import numpy as np
import pytest

from generator import contents, landmark_names
from generator.contents import (
    HOLIDAYS,
    LANDMARKS,
    QUERIES,
    TEST,
    TEST_LANDMARKS,
    TRAIN,
    VALIDATION_LANDMARKS,
    is_validation,
)
from generator.monuments import FAMILIES

SHOTS = contents()
LABELLED = [shot for shot in SHOTS if shot.part == TRAIN]


def own(shot):
    """Whether a training picture shows the front of its landmark."""
    return shot.view == "front" and shot.subject.seed == 1000 + shot.label


def test_everything_follows_from_the_seed():
    assert contents() == SHOTS != contents(1)
    assert len({shot.path for shot in SHOTS}) == len(SHOTS)
    assert {shot.subject.seed for shot in SHOTS if shot.subject.kind != "map"}.isdisjoint(
        {shot.subject.seed for shot in contents(1) if shot.subject.kind != "map"})


def test_the_parts_are_as_large_as_promised():
    train = Counter(shot.label for shot in LABELLED)
    assert len(train) == LANDMARKS + VALIDATION_LANDMARKS and len(train) + TEST_LANDMARKS >= 150
    assert min(train.values()) >= 8 and 1100 < len(LABELLED) < 1500
    test = [shot for shot in SHOTS if shot.part == TEST]
    assert len(test) >= 1000 and sum(shot.label < 0 for shot in test) >= 250
    assert sum(shot.query for shot in test) == QUERIES * TEST_LANDMARKS
    assert all(shot.wanted == "good" for shot in test if shot.query)
    grades = Counter((shot.label, shot.wanted) for shot in test if shot.label >= 0)
    assert all(grades[label, grade] >= 2 for label in range(TEST_LANDMARKS) for grade in ("good", "ok", "junk"))
    groups = Counter(shot.group for shot in SHOTS if shot.part == HOLIDAYS)
    assert len(groups) == 60 and set(groups.values()) <= {2, 3, 4}


def test_most_of_a_label_is_noise_but_its_front_is_the_largest_profile():
    shares = []
    for label in range(LANDMARKS + VALIDATION_LANDMARKS):
        shots = [shot for shot in LABELLED if shot.label == label]
        taken = [shot for shot in shots if not shot.copy]
        (subject, view), count = Counter((shot.subject, shot.view) for shot in taken).most_common(1)[0]
        assert view == "front" and subject.seed == 1000 + label
        shares.append(count / len(shots))
    noise = 1 - sum(own(shot) and not shot.copy for shot in LABELLED) / len(LABELLED)
    assert 0.5 <= noise <= 0.7  # as much as in the authors' lists
    assert min(shares) < 0.3 and max(shares) > 0.5  # easy and hard landmarks


def test_there_is_every_kind_of_noise_that_a_search_returns():
    kinds = Counter(shot.copy or ("another" if shot.view == "front" and not own(shot) else shot.view)
                    for shot in LABELLED)
    assert kinds.keys() == {"front", "rear", "inside", "detail", "another", "drawing", "plan", "scene", "postcard",
                            "near_duplicate"}
    assert min(kinds.values()) >= 20


def test_copies_are_made_of_a_picture_of_the_same_landmark():
    by_path = {shot.path: shot for shot in SHOTS}
    copies = [shot for shot in SHOTS if shot.copy]
    assert copies
    for shot in copies:
        source = by_path[shot.source]
        assert (source.label, source.subject, source.view, source.copy) == (shot.label, shot.subject, "front", "")


def test_no_monument_is_in_two_parts_and_look_alikes_share_family_and_colours():
    parts = defaultdict(set)
    for shot in SHOTS:
        if shot.subject.kind != "map":
            parts["val" if is_validation(shot) else shot.part].add(shot.subject.seed)
    for part, seeds in parts.items():
        assert seeds.isdisjoint(set().union(*(other for name, other in parts.items() if name != part)))
    landmarks = sorted({(shot.label, shot.subject) for shot in SHOTS if shot.part == TEST and shot.label >= 0})
    distractors = {shot.subject for shot in SHOTS if shot.part == TEST and shot.label < 0}
    for label, landmark in landmarks[:24]:
        alike = [other for other in distractors if other[:2] == landmark[:2] and other.palette == landmark.palette]
        assert alike and landmark not in alike, label
    assert {landmark.family for _, landmark in landmarks} == set(FAMILIES)


def test_validation_landmarks_come_last_and_have_their_noise():
    validation = [shot for shot in LABELLED if is_validation(shot)]
    assert {shot.label for shot in validation} == set(range(LANDMARKS, LANDMARKS + VALIDATION_LANDMARKS))
    assert {shot.view for shot in validation} >= {"front", "rear", "inside"}
    shown = {shot.subject.seed for shot in validation if shot.subject.kind == "monument"}
    assert min(shown) >= 1000 + LANDMARKS  # no training landmark is among the noise of the validation


def test_names_are_words_and_unique():
    names = landmark_names()
    assert len(names) == len(set(names)) == LANDMARKS + VALIDATION_LANDMARKS + TEST_LANDMARKS
    assert all(name.replace("_", "").isalpha() and name.islower() for name in names)
    assert np.mean([len(name) for name in names]) == pytest.approx(13, abs=4)
