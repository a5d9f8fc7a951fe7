from collections import Counter, defaultdict

import numpy as np
import pytest

from generator import contents, landmark_names
from generator.contents import HOLIDAYS, TEST, TRAIN, is_validation

SHOTS = contents()


def test_everything_follows_from_the_seed():
    assert contents() == SHOTS != contents(1)
    assert len({shot.path for shot in SHOTS}) == len(SHOTS)
    assert {shot.subject.seed for shot in SHOTS if shot.subject.kind != "map"}.isdisjoint(
        {shot.subject.seed for shot in contents(1) if shot.subject.kind != "map"})


def test_the_parts_are_as_large_as_promised():
    train = Counter(shot.label for shot in SHOTS if shot.part == TRAIN)
    assert len(train) == 32 and 24 <= min(train.values()) and np.mean(list(train.values())) == pytest.approx(30, abs=2)
    test = [shot for shot in SHOTS if shot.part == TEST]
    assert sum(shot.query for shot in test) == 55 and sum(shot.label < 0 for shot in test) >= 300
    grades = Counter((shot.label, shot.wanted) for shot in test if shot.label >= 0)
    assert all(grades[label, grade] >= 3 for label in range(11) for grade in ("good", "ok", "junk"))
    groups = Counter(shot.group for shot in SHOTS if shot.part == HOLIDAYS)
    assert len(groups) == 60 and set(groups.values()) <= {2, 3, 4}


def test_most_of_a_label_is_noise_but_its_front_is_the_largest_profile():
    by_label = defaultdict(list)
    for shot in SHOTS:
        if shot.part == TRAIN:
            by_label[shot.label].append(shot)
    shares = []
    for label, shots in by_label.items():
        profiles = Counter((shot.subject, shot.view) for shot in shots)
        (subject, view), count = profiles.most_common(1)[0]
        assert view == "front" and subject.seed == 1000 + label
        shares.append(count / len(shots))
    everything = sum(share * len(shots) for share, shots in zip(shares, by_label.values(), strict=True))
    assert 0.30 <= everything / sum(map(len, by_label.values())) <= 0.40
    assert min(shares) < 0.28 and max(shares) > 0.5  # easy and hard landmarks


def test_no_monument_is_in_two_parts_and_look_alikes_share_family_and_colours():
    parts = defaultdict(set)
    for shot in SHOTS:
        if shot.subject.kind != "map":
            parts[shot.part].add(shot.subject.seed)
    assert not (parts[TRAIN] & parts[TEST] or parts[TRAIN] & parts[HOLIDAYS] or parts[TEST] & parts[HOLIDAYS])
    landmarks = {shot.subject for shot in SHOTS if shot.part == TEST and shot.label >= 0}
    distractors = {shot.subject for shot in SHOTS if shot.part == TEST and shot.label < 0}
    for landmark in landmarks:
        alike = [other for other in distractors if other[:2] == landmark[:2] and other.palette == landmark.palette]
        assert len(alike) >= 2 and landmark not in alike


def test_every_landmark_is_in_both_lists_and_noise_is_in_both():
    validation = is_validation(SHOTS)
    train = [shot for shot in SHOTS if shot.part == TRAIN]
    held = [shot for shot in train if validation[shot.path]]
    assert {shot.label for shot in held} == set(range(32))
    assert 0.08 < len(held) / len(train) < 0.13
    assert {shot.view for shot in held} >= {"front", "rear", "inside"}


def test_names_are_words_and_unique():
    names = landmark_names()
    assert len(names) == len(set(names)) == 43
    assert all(name.replace("_", "").isalpha() and name.islower() for name in names)
