import numpy as np
import pytest
from cleaning_pictures import VIEWS, save, texture, warped

from rmaclib.cleaning import (
    Features,
    KeypointSettings,
    Matcher,
    MatchSettings,
    extract_keypoints,
    main_directions,
    root_sift,
)

FULL = MatchSettings(rough_dim=128)  # everything in full at once


def features(descriptors):
    count = len(descriptors)
    return Features(np.zeros((count, 2), np.float32), descriptors, (10, 10), np.ones(count, np.float32))


def histogram(*pairs):
    row = np.zeros(128, np.uint8)
    for place, value in pairs:
        row[place] = value
    return row


def by_loops(left, right, ratio):
    """Ratio test, then the nearest of those that share a target, without any matrix."""
    left, right = root_sift(left).astype(float), root_sift(right).astype(float)
    best = {}
    for i, a in enumerate(left):
        distances = [np.sqrt(((a - b)**2).sum()) for b in right]
        j = int(np.argmin(distances))
        if distances[j] < ratio * sorted(distances)[1] and distances[j] < best.get(j, (np.inf,))[0]:
            best[j] = (distances[j], i)
    return sorted((i, j) for j, (_, i) in best.items())


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    pictures = [warped(texture(1), view, texture(100 + number)) for number, view in enumerate(VIEWS)] + [texture(9)]
    return [extract_keypoints(save(folder / f"{number}.png", picture),
                    KeypointSettings(size=max(picture.shape), count=120 - number))
            for number, picture in enumerate(pictures)]


def matcher(images, settings, least=1):
    stacked = root_sift(np.concatenate([image.descriptors for image in images]))
    return Matcher(images, main_directions(stacked), settings, least)


def test_ratio_by_hand():
    """Of three keypoints one has a clear neighbour, one two equal ones, one nothing near."""
    left = np.stack([histogram((0, 100)), histogram((1, 100)), histogram((9, 100))])
    right = np.stack([histogram((0, 100)), histogram((1, 90), (2, 10)), histogram((1, 90), (3, 10))])
    matches = matcher([features(left), features(right)], FULL)(0, 1)
    assert matches.tolist() == [[0, 0]]


def test_of_several_that_match_one_the_nearest_is_kept():
    left = np.stack([histogram((0, 90), (1, 10)), histogram((0, 100)), histogram((0, 95), (2, 5))])
    right = np.stack([histogram((0, 100)), histogram((50, 100))])
    assert matcher([features(left), features(right)], FULL)(0, 1).tolist() == [[1, 0]]


@pytest.mark.parametrize("ratio", [0.7, 0.8, 0.9])
def test_equals_the_loops(views, ratio):
    match = matcher(views, MatchSettings(ratio, 128, max(0.9, ratio)))
    for i in range(len(views)):
        for j in range(len(views)):
            if i != j:
                matches = sorted(map(tuple, match(i, j).tolist()))
                assert matches == by_loops(views[i].descriptors, views[j].descriptors, ratio)


def test_the_rough_comparison_loses_next_to_nothing(views):
    rough, full = matcher(views, MatchSettings()), matcher(views, FULL)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    exact = {(i, j, *match) for i, j in pairs for match in full(i, j).tolist()}
    matches = {(i, j, *match) for i, j in pairs for match in rough(i, j).tolist()}
    assert len(exact) > 300 and len(exact - matches) <= 0.02 * len(exact) and not matches - exact


def test_few_matches_are_none(views):
    count = len(matcher(views, FULL)(0, 1))
    assert len(matcher(views, FULL, least=count)(0, 1)) == count
    assert matcher(views, FULL, least=count + 1)(0, 1).shape == (0, 2)


def test_images_without_or_with_one_keypoint():
    single, none = features(histogram((0, 9))[None]), features(np.zeros((0, 128), np.uint8))
    match = matcher([single, none, single], MatchSettings())
    for i, j in ((0, 1), (1, 0), (0, 2)):  # a second neighbour is needed to tell
        assert match(i, j).shape == (0, 2)


def test_main_directions_contain_the_energy(views):
    vectors = root_sift(np.concatenate([image.descriptors for image in views]))
    directions = main_directions(vectors)
    assert directions.T @ directions == pytest.approx(np.eye(128), abs=1e-5)
    assert vectors @ directions @ directions.T == pytest.approx(vectors, abs=1e-5)
    energy = ((vectors @ directions)**2).sum(0)
    assert (np.diff(energy) < 1e-2).all() and energy[:48].sum() > 0.9 * energy.sum()


@pytest.mark.parametrize("values", [{"ratio": 0}, {"ratio": 0.95}, {"rough_ratio": 1.1}, {"rough_dim": 0},
                                    {"rough_dim": 129}])
def test_bad_settings(values):
    with pytest.raises(ValueError, match="expected"):
        MatchSettings(**values)
