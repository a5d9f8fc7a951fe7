"""What Diorama contains: every picture of its three parts, planned from one seed before any is rendered."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from generator.monuments import FAMILIES, PALETTES
from generator.textures import Rng

TRAIN, TEST, HOLIDAYS = "train", "test", "holidays"
GOOD, OK, JUNK = "good", "ok", "junk"
LANDMARKS, TEST_LANDMARKS, QUERIES, DISTRACTORS, GROUPS = 32, 11, 5, 310, 60
VALIDATION = 0.1  # of the pictures of each training landmark
LOOK_ALIKES = 2  # of every landmark of the test part


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


def contents(seed: int = 0) -> list[Shot]:
    """All pictures of the data set of a seed, in the order of their paths within each part."""
    return [
        *_train(np.random.default_rng([seed, 1]), seed),
        *_test(np.random.default_rng([seed, 2]), seed),
        *_holidays(np.random.default_rng([seed, 3]), seed),
    ]


def landmark_names(seed: int = 0) -> list[str]:
    """Names of the training landmarks, in the order of their labels, then of the test landmarks."""
    rng = np.random.default_rng([seed, 4])
    subjects = _landmarks(seed, LANDMARKS, TRAIN) + _landmarks(seed, TEST_LANDMARKS, TEST)
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


def _view_of(subject: Subject) -> str:
    return {"monument": "front", "interior": "inside"}.get(subject.kind, "scene")


def _train(rng: Rng, seed: int) -> list[Shot]:
    landmarks, names = _landmarks(seed, LANDMARKS, TRAIN), landmark_names(seed)
    first = seed * 10_000 + _BASES[TRAIN]
    others = [
        Subject("monument", str(rng.choice(list(FAMILIES))), first + 500 + i, int(rng.integers(len(PALETTES))))
        for i in range(20)
    ]
    scenes = _scenes(rng, first + 600, 28)
    shots = []
    for label, landmark in enumerate(landmarks):
        inner = Subject("interior", landmark.family, landmark.seed, landmark.palette)
        total = int(rng.integers(24, 37))
        share = np.clip(rng.beta(5, 8), 0.2, 0.6)  # of the dominant profile
        wanted: list[tuple[Subject, str, str]] = []
        for _ in range(max(6, round(total * share))):
            wanted.append((landmark, "front", OK if rng.random() < 0.1 else GOOD))
        rest = max(0, total - len(wanted))
        kinds = ["rear", "inside", "detail", "other", "like", "drawing", "plan", "scene"]
        chance = np.array([0.20, 0.17, 0.14, 0.13, 0.10, 0.06, 0.05, 0.15])
        # A landmark has not every kind of noise: a tower has no famous inside, a square no rear.
        chance = chance * (rng.random(len(kinds)) > 0.15)
        counts = rng.multinomial(rest, chance / chance.sum())
        counts[:3] = np.minimum(counts[:3], max(3, len(wanted) - 2))  # the front stays the largest profile
        like, pick = _like(landmark, 0), rng.permutation(len(others))
        for kind, count in zip(kinds, counts, strict=True):
            for i in range(count):
                wanted.append(
                    {
                        "rear": (landmark, "rear", GOOD),
                        "inside": (inner, "inside", ""),
                        "detail": (landmark, "detail", ""),
                        "other": (others[pick[i % len(pick)]], "front", GOOD),
                        "like": (like, "front", GOOD),
                        "drawing": (landmark, "drawing", ""),
                        "plan": (landmark, "plan", "") if i % 2 == 0 else (Subject("map", "", 0, 0), "plan", ""),
                        "scene": (scene := scenes[rng.integers(len(scenes))], _view_of(scene), ""),
                    }[kind]
                )
        for number, place in enumerate(rng.permutation(len(wanted))):
            subject, view, least = wanted[place]
            shots.append(
                Shot(
                    f"train/images/{names[label]}/{number:03d}.jpg",
                    TRAIN,
                    label,
                    subject,
                    view,
                    int(rng.integers(2**31)),
                    least,
                )
            )
    return shots


def is_validation(shots: Iterable[Shot]) -> dict[str, bool]:
    """Path → whether a training picture is in the validation list: the last tenth of each landmark."""
    by_label: dict[int, list[str]] = {}
    for shot in shots:
        if shot.part == TRAIN:
            by_label.setdefault(shot.label, []).append(shot.path)
    return {
        path: number >= len(paths) * (1 - VALIDATION)
        for paths in by_label.values()
        for number, path in enumerate(sorted(paths))
    }


def _test(rng: Rng, seed: int) -> list[Shot]:
    landmarks, names = _landmarks(seed, TEST_LANDMARKS, TEST), landmark_names(seed)[LANDMARKS:]
    first = seed * 10_000 + _BASES[TEST]
    shots = []
    for label, landmark in enumerate(landmarks):
        grades = (
            [GOOD] * QUERIES
            + [GOOD] * int(rng.integers(2, 8))
            + [OK] * int(rng.integers(3, 8))
            + [JUNK] * int(rng.integers(3, 7))
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
    alike = [_like(landmark, i) for landmark in landmarks for i in range(LOOK_ALIKES)]
    others = [
        Subject("monument", str(rng.choice(list(FAMILIES))), first + 500 + i, int(rng.integers(len(PALETTES))))
        for i in range(12)
    ]
    scenes = _scenes(rng, first + 600, 32)
    subjects = [
        subject for group, each in ((alike, 6), (others, 6), (scenes, 4)) for subject in group for _ in range(each)
    ]
    drawn = [subjects[i] for i in rng.permutation(len(subjects))][:DISTRACTORS]
    for number, subject in enumerate(drawn):
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
