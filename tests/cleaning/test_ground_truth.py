from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cleaning_pictures import VIEWS

from rmaclib.boxes import overlaps
from rmaclib.cleaning import CleanSettings, KeypointSettings, clean
from rmaclib.cleaning.boxes import clip_boxes, map_boxes
from rmaclib.datasets import DatasetError
from rmaclib.evaluation.cleaning import GroundTruth, read_ground_truth, score_cleaning

HEADER = "path,monument,profile,visible,x1,y1,x2,y2,light\n"


@pytest.mark.parametrize("box, other, expected", [
    ((0, 0, 10, 10), (0, 0, 10, 10), 1), ((0, 0, 10, 10), (5, 0, 15, 10), 1 / 3), ((0, 0, 10, 10), (10, 0, 20, 10), 0),
    ((0, 0, 10, 10), (2, 2, 4, 4), 0.04), ((0, 0, 1, 1), (5, 5, 9, 9), 0),
])
def test_overlap_by_hand(box, other, expected):
    assert overlaps([box], [other])[0, 0] == overlaps([other], [box])[0, 0] == pytest.approx(expected)


def test_ground_truth_is_read(tmp_path):
    (tmp_path / "truth.csv").write_text(HEADER + "a.jpg,temple,front,0.75,1,2,30,40,noon\n"
                                        "b.jpg,,,,,,,,dusk\nc.jpg,temple,side,true,1,2,30,40,\n")
    ground_truth = read_ground_truth(tmp_path / "truth.csv")
    assert ground_truth == {"a.jpg": GroundTruth("temple", "front", 0.75, (1, 2, 30, 40)),
                            "b.jpg": GroundTruth("", "", 0, None),
                            "c.jpg": GroundTruth("temple", "side", 1, (1, 2, 30, 40))}


@pytest.mark.parametrize("text, message", [
    ("path,monument\n", "truth.csv:1: expected a column `profile`"),
    (HEADER + "a,m,p,2,,,,,\n", "truth.csv:2: visible: expected 0..1"),
    (HEADER + "a,m,p,1,9,2,3,4,\n", "truth.csv:2: box"), (HEADER + "a,m,p,x,,,,,\n", "truth.csv:2"),
])
def test_bad_ground_truth_is_named(tmp_path, text, message):
    (tmp_path / "truth.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_ground_truth(tmp_path / "truth.csv")


def test_missing_ground_truth_is_named(tmp_path):
    with pytest.raises(DatasetError, match="truth.csv: no such file"):
        read_ground_truth(tmp_path / "truth.csv")


@pytest.fixture(scope="module")
def cleaned(collection, tmp_path_factory):
    settings = CleanSettings(keypoints=KeypointSettings(count=200))
    with ThreadPoolExecutor(2) as threads:
        return clean(collection / "list.txt", settings, out=tmp_path_factory.mktemp("t"), report=False,
                     executor=threads, progress=False)


def ground_truth_of(cleaned):
    """What the fixture shows: tower 0..3 its front, 4 another side, 5 nothing; the rest one viewpoint each."""
    whole = clip_boxes(map_boxes(np.tile([0.0, 0, 240, 180], (4, 1)), np.array(VIEWS)), np.array([[240, 180]] * 4))
    ground_truth = {}
    for name, label in zip(cleaned.source.names, cleaned.source.labels, strict=True):
        number = int(name.split("/")[-1][0])
        box = tuple(whole[number]) if label in (0, 2) and number < 4 else (0, 0, 240, 180)
        viewpoint = "front" if label or number < 4 else "side"
        ground_truth[name] = GroundTruth("" if (label, number) == (0, 5) else str(label), viewpoint, 1.0, box)
    return ground_truth


def test_a_perfect_cleaning(cleaned):
    scores = score_cleaning(cleaned, ground_truth_of(cleaned))
    assert (scores.precision, scores.kept, scores.true_positives, scores.false_positives) == (1, 9, 9, ())
    # The single image of label 3 can't be verified: it is relevant and missed.
    assert (scores.relevant_kept, scores.relevant, scores.recall) == (9, 10, 0.9)
    assert scores.iou > 0.7 and scores.iou >= scores.first_iou - 0.05


def test_false_positives_by_hand(cleaned):
    ground_truth = ground_truth_of(cleaned)
    ground_truth["images/0/1.png"] = GroundTruth("0", "side", 1.0, (0, 0, 9, 9))  # kept, but another viewpoint
    ground_truth["images/2/0.png"] = GroundTruth("2", "front", 0.2, (0, 0, 9, 9))  # kept, hardly visible: positive
    ground_truth["images/3/0.png"] = GroundTruth("3", "front", 0.2, None)  # dropped, hardly visible: not missed
    scores = score_cleaning(cleaned, ground_truth)
    assert scores.false_positives == ("images/0/1.png",)
    assert (scores.kept, scores.true_positives, scores.relevant_kept, scores.relevant) == (9, 8, 7, 7)
    assert scores.precision == pytest.approx(8 / 9) and scores.recall == 1


def test_an_image_without_ground_truth_is_named(cleaned):
    ground_truth = ground_truth_of(cleaned)
    del ground_truth["images/5/1.png"]
    with pytest.raises(ValueError, match="images/5/1.png"):
        score_cleaning(cleaned, ground_truth)


def test_nothing_of_interest_gives_no_number(cleaned):
    scores = score_cleaning(cleaned, {name: GroundTruth("", "", 0, None) for name in cleaned.source.names})
    assert scores.precision == 0 and np.isnan(scores.recall) and np.isnan(scores.iou)


def test_of_equally_frequent_viewpoints_the_kept_one_is_dominant(cleaned):
    """Landmark 0 has three pictures from each of two viewpoints: the one that cleaning keeps more of is dominant."""
    ground_truth = ground_truth_of(cleaned)
    kept = [name for name in ground_truth if name.startswith("images/2/") and name in cleaned.clean.names]
    dropped = [name for name in ground_truth if name.startswith("images/0/") and name not in cleaned.clean.names]
    assert len(kept) >= 2 and len(dropped) == 2
    for name in ground_truth:
        if name.startswith("images/0/"):
            side = name in dropped or name in ("images/0/0.png",)  # three of six, of which one was kept
            ground_truth[name] = GroundTruth("0", "a side" if side else "the front", 1.0, None)
    scores = score_cleaning(cleaned, ground_truth)
    assert scores.false_positives == ("images/0/0.png",)  # though "a side" comes first in any order of names
