"""What Diorama contains: every picture of its three parts, planned from one seed before any is rendered."""

from typing import NamedTuple

import numpy as np

from generator.monuments import FAMILIES, PALETTES
from generator.textures import Rng

EDITION = 2  # of what is made from a seed
TRAIN, TEST, HOLIDAYS = "train", "test", "holidays"
GOOD, OK, JUNK = "good", "ok", "junk"
LANDMARKS, VALIDATION_LANDMARKS, TEST_LANDMARKS = 72, 30, 48  # no monument is in two of them
QUERIES, GROUPS = 3, 60  # queries of a test landmark; groups of the holiday part
# Distractors of the test part: buildings and scenes, and pictures of each.
ALIKE, OTHERS, SCENES = (24, 4), (24, 3), (34, 3)
# Noise under a landmark's name and its share; the first three are kept rarer than the front.
NOISE = {
    "rear": 0.18,
    "inside": 0.15,
    "detail": 0.12,
    "other": 0.13,
    "like": 0.09,
    "drawing": 0.06,
    "plan": 0.05,
    "scene": 0.13,
    "postcard": 0.05,
    "near_duplicate": 0.04,
}


class Subject(NamedTuple):
    """What is built and photographed. kind: monument, interior, street, park, still_life, or map (of nothing)."""

    kind: str
    family: str
    seed: int
    palette: int

    @property
    def name(self) -> str:
        return f"{self.family or self.kind}_{self.seed}"


class Shot(NamedTuple):
    """One picture to be made.

    path: relative to the data set's folder; part: train, test, holidays
    label: the noisy label (train), the landmark or -1 for a distractor (test), the group (holidays)
    view: how the subject is shown: front, rear, detail, drawing, plan, inside, scene
    wanted: how much must be seen: good, ok, junk, or "" for as it comes; query: whether it is a query (test)
    group: shots of one group show the same view, a little moved, in the same light (holidays), -1 for none
    copy: postcard or near_duplicate for what is made of the picture `source` instead of being taken
    """

    path: str
    part: str
    label: int
    subject: Subject
    view: str
    seed: int
    wanted: str = ""
    query: bool = False
    group: int = -1
    copy: str = ""
    source: str = ""


def contents(seed: int = 0) -> list[Shot]:
    """All pictures of the data set of a seed, in the order of their paths within each part."""
    return [
        *_train(np.random.default_rng([seed, 1]), seed),
        *_test(np.random.default_rng([seed, 2]), seed),
        *_holidays(np.random.default_rng([seed, 3]), seed),
    ]


def landmark_names(seed: int = 0) -> list[str]:
    """Names of the landmarks to train and to validate on, in the order of their labels, then of the test landmarks."""
    rng = np.random.default_rng([seed, 4])
    subjects = _landmarks(seed, LANDMARKS + VALIDATION_LANDMARKS, TRAIN) + _landmarks(seed, TEST_LANDMARKS, TEST)
    places: list[str] = []
    while len(places) < len(subjects):
        place = "".join(
            rng.choice(
                [
                    "al",
                    "ber",
                    "cor",
                    "dan",
                    "el",
                    "fos",
                    "gra",
                    "il",
                    "mon",
                    "nor",
                    "ost",
                    "ra",
                    "sel",
                    "tor",
                    "ul",
                    "ver",
                ],
                2,
            )
        ) + str(rng.choice(["a", "o", "en", "is", "eau"]))
        if place not in places:
            places.append(place)
    return [f"{place}_{subject.family}" for place, subject in zip(places, subjects, strict=True)]


_BASES = {TRAIN: 1000, TEST: 2000, HOLIDAYS: 3000}


def _landmarks(seed: int, count: int, part: str) -> list[Subject]:
    """Monuments that go through the families in turn; those of one family differ in their palettes while these last."""
    families = list(FAMILIES)
    first = seed * 10_000 + _BASES[part]
    return [
        Subject("monument", families[i % len(families)], first + i, (i // len(families) * 3 + i) % len(PALETTES))
        for i in range(count)
    ]


def _like(subject: Subject, number: int) -> Subject:
    """A monument of the same family and colours as another."""
    return subject._replace(seed=subject.seed + 100 * (number + 1))


def _scenes(rng: Rng, first: int, count: int) -> list[Subject]:
    kinds = ("street", "park", "still_life", "interior")
    return [Subject(kinds[i % 4], "", first + i, int(rng.integers(len(PALETTES)))) for i in range(count)]


def _other_monuments(rng: Rng, first: int, count: int) -> list[Subject]:
    """Monuments of any family and colours."""
    families = list(FAMILIES)
    return [
        Subject("monument", str(rng.choice(families)), first + i, int(rng.integers(len(PALETTES))))
        for i in range(count)
    ]


def _view_of(subject: Subject) -> str:
    return {"monument": "front", "interior": "inside"}.get(subject.kind, "scene")


def _train(rng: Rng, seed: int) -> list[Shot]:
    """Pictures as a search by a landmark's name returns them; those of the validation landmarks come last."""
    every, names = _landmarks(seed, LANDMARKS + VALIDATION_LANDMARKS, TRAIN), landmark_names(seed)
    first = seed * 10_000 + _BASES[TRAIN]
    scenes = {False: _scenes(rng, first + 600, 20), True: _scenes(rng, first + 700, 8)}
    shots = []
    for label, landmark in enumerate(every):
        validation = label >= LANDMARKS
        others = [other for other in (every[LANDMARKS:] if validation else every[:LANDMARKS]) if other != landmark]
        total = int(rng.integers(8, 13) if validation else rng.integers(10, 19))
        fronts = max(4, round(total * float(np.clip(rng.beta(5, 8), 0.25, 0.5))))
        wanted = [(landmark, "front", OK if rng.random() < 0.1 else GOOD, "") for _ in range(fronts)]
        for kind in _noise(rng, total - fronts, fronts):
            wanted.append(_noise_shot(rng, kind, landmark, others, scenes[validation]))
        order = rng.permutation(len(wanted))
        paths = [f"train/images/{names[label]}/{number:03d}.jpg" for number in range(len(wanted))]
        originals = [path for path, place in zip(paths, order, strict=True) if place < fronts]
        for path, place in zip(paths, order, strict=True):
            subject, view, least, copy = wanted[place]
            source = str(rng.choice(originals)) if copy else ""
            shots.append(
                Shot(path, TRAIN, label, subject, view, int(rng.integers(2**31)), least, copy=copy, source=source)
            )
    return shots


def _noise(rng: Rng, count: int, fronts: int) -> list[str]:
    """Kinds of `count` pictures of noise; the front stays the largest profile."""
    # A landmark has not every kind of noise: a tower has no famous inside, a square no rear.
    chance = np.array(list(NOISE.values())) * (rng.random(len(NOISE)) > 0.15)
    counts = rng.multinomial(count, chance / chance.sum())
    counts[:3] = np.minimum(counts[:3], max(2, fronts - 2))
    return [kind for kind, number in zip(NOISE, counts, strict=True) for _ in range(number)]


def _noise_shot(
    rng: Rng, kind: str, landmark: Subject, others: list[Subject], scenes: list[Subject]
) -> tuple[Subject, str, str, str]:
    """Subject, view, wanted and copy of a picture that a search for a landmark returns by mistake."""
    if kind in ("rear", "detail", "drawing"):
        return landmark, kind, GOOD if kind == "rear" else "", ""
    if kind in ("postcard", "near_duplicate"):
        return landmark, "front", "", kind
    if kind == "inside":
        return Subject("interior", landmark.family, landmark.seed, landmark.palette), "inside", "", ""
    if kind == "plan":
        return (landmark if rng.random() < 0.5 else Subject("map", "", 0, 0)), "plan", "", ""
    if kind == "scene":
        scene = scenes[rng.integers(len(scenes))]
        return scene, _view_of(scene), "", ""
    alike = [other for other in others if other.family == landmark.family]
    candidates = alike if kind == "like" else [other for other in others if other not in alike]
    return candidates[rng.integers(len(candidates))], "front", GOOD, ""


def is_validation(shot: Shot) -> bool:
    """Whether a training picture belongs to the validation: to landmarks that nothing is trained on."""
    return shot.part == TRAIN and shot.label >= LANDMARKS


def _test(rng: Rng, seed: int) -> list[Shot]:
    landmarks = _landmarks(seed, TEST_LANDMARKS, TEST)
    names = landmark_names(seed)[-TEST_LANDMARKS:]
    first = seed * 10_000 + _BASES[TEST]
    shots = []
    for label, landmark in enumerate(landmarks):
        grades = (
            [GOOD] * QUERIES
            + [GOOD] * int(rng.integers(3, 7))
            + [OK] * int(rng.integers(5, 9))
            + [JUNK] * int(rng.integers(2, 5))
        )
        numbers = rng.permutation(len(grades))
        for i, grade in enumerate(grades):
            shots.append(
                Shot(
                    f"test/jpg/{names[label]}_{numbers[i]:06d}.jpg",
                    TEST,
                    label,
                    landmark,
                    "front",
                    int(rng.integers(2**31)),
                    grade,
                    i < QUERIES,
                )
            )
    groups = (
        ([_like(landmark, 0) for landmark in landmarks[: ALIKE[0]]], ALIKE[1]),
        (_other_monuments(rng, first + 500, OTHERS[0]), OTHERS[1]),
        (_scenes(rng, first + 600, SCENES[0]), SCENES[1]),
    )
    subjects = [subject for group, each in groups for subject in group for _ in range(each)]
    for number, place in enumerate(rng.permutation(len(subjects))):
        subject = subjects[place]
        view = _view_of(subject)
        if view == "front" and rng.random() < 0.3:
            view = "rear"
        shots.append(
            Shot(
                f"test/jpg/diorama_{number:06d}.jpg",
                TEST,
                -1,
                subject,
                view,
                int(rng.integers(2**31)),
                str(rng.choice([GOOD, OK])) if view == "front" else "",
            )
        )
    return sorted(shots, key=lambda shot: shot.path)


def _holidays(rng: Rng, seed: int) -> list[Shot]:
    first = seed * 10_000 + _BASES[HOLIDAYS]
    kinds = ["monument"] * 20 + ["interior"] * 12 + ["street"] * 10 + ["park"] * 9 + ["still_life"] * 9
    shots = []
    for group in range(GROUPS):
        kind = kinds[group]
        family = str(rng.choice(list(FAMILIES))) if kind == "monument" else ""
        subject = Subject(kind, family, first + group, int(rng.integers(len(PALETTES))))
        view = str(rng.choice(["front", "rear"])) if kind == "monument" else _view_of(subject)
        for number in range(int(rng.integers(2, 5))):
            shots.append(
                Shot(
                    f"holidays/jpg/{1000 + group}{number:02d}.jpg",
                    HOLIDAYS,
                    group,
                    subject,
                    view,
                    int(rng.integers(2**31)),
                    group=group,
                )
            )
    return shots
