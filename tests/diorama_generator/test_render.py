"""Rendering: resumes, repeats; and what is committed is what the code makes."""

import csv
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from generator import contents, landmark_names, render
from generator.contents import EDITION, LANDMARKS, QUERIES, VALIDATION_LANDMARKS, is_validation
from generator.render import MARKER, _oxford_files
from generator.studio import LONGER, TRUTH, VISIBLE
from rmaclib.datasets import open_collection, open_dataset, self_check

FOLDER = Path(__file__).parents[2] / "data" / "diorama"
SHOTS = contents()
MAPS = [shot.path for shot in SHOTS if shot.subject.kind == "map"][:3]  # need no renderer
of_the_generator = pytest.mark.skipif(
    json.loads((FOLDER / MARKER).read_text())["edition"] != EDITION,
    reason="the pictures in the repository were made by an earlier edition of the generator")


@pytest.fixture(scope="module")
def truth():
    """Path in the whole data set → what is known of the picture."""
    rows = {}
    for part in ("train", "test", "holidays"):
        with (FOLDER / part / "truth.csv").open(newline="") as file:
            rows |= {f"{part}/{row['path']}": row for row in csv.DictReader(file)}
    return rows


# ---- what is committed


@of_the_generator
def test_the_lists_are_those_of_the_plan():
    for name, held in (("diorama_train", False), ("diorama_val", True)):
        collection = open_collection(name)
        expected = [(shot.path.removeprefix("train/"), shot.label) for shot in SHOTS
                    if shot.part == "train" and is_validation(shot) == held]
        assert list(zip(collection.names, collection.labels, strict=True)) == expected
        assert collection.label_names == tuple(landmark_names()[:LANDMARKS + VALIDATION_LANDMARKS])
        assert not collection.missing


def test_the_committed_set_passes_its_own_check():
    for name in ("diorama", "diorama_holidays", "diorama_train", "diorama_val"):
        data = open_dataset(name) if name in ("diorama", "diorama_holidays") else open_collection(name)
        assert self_check(data) == [] and data.publishable


@of_the_generator
def test_the_benchmark_is_that_of_the_plan(truth):
    data = open_dataset("diorama")
    assert set(data.names) == {Path(shot.path).stem for shot in SHOTS if shot.part == "test"}
    for query in data.queries:
        row = truth[f"test/jpg/{query.image}.jpg"]
        assert query.box == tuple(float(row[corner]) for corner in ("x1", "y1", "x2", "y2"))
        assert row["grade"] == "good"
        mine = [r for path, r in truth.items() if path.startswith("test/") and r["label"] == row["label"]]
        for grade in VISIBLE:
            assert query.relevance[grade] == {Path(r["path"]).stem for r in mine if r["grade"] == grade}


@of_the_generator
def test_grades_are_what_the_renderer_saw(truth):
    graded = [row for row in truth.values() if row["grade"] and row["visible"]]
    assert len(graded) > 500
    for row in graded:
        low, high = VISIBLE[row["grade"]]
        assert low <= float(row["visible"]) <= high, row["path"]


@of_the_generator
def test_boxes_lie_in_their_pictures_and_pictures_have_their_size(truth):
    assert list(next(iter(truth.values()))) == list(TRUTH)
    for path, row in truth.items():
        with Image.open(FOLDER / path) as image:
            assert max(image.size) == LONGER and image.format == "JPEG"
            if row["x1"]:
                x1, y1, x2, y2 = (int(row[corner]) for corner in ("x1", "y1", "x2", "y2"))
                assert 0 <= x1 < x2 <= image.width and 0 <= y1 < y2 <= image.height
    cameras = [float(row["distance"]) for row in truth.values() if row["profile"] == "front"]
    assert np.quantile(cameras, 0.98) / np.quantile(cameras, 0.02) > 5


@of_the_generator
def test_the_set_is_whole_licensed_and_small_enough(truth):
    about = json.loads((FOLDER / "diorama.json").read_text())
    on_disk = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.jpg"))
    assert on_disk == sorted(truth) == sorted(shot.path for shot in SHOTS)
    total = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())
    assert total <= 60e6 and about["bytes"] == sum((FOLDER / path).stat().st_size for path in on_disk)
    assert about["licence"] == "CC0-1.0" and "CC0" in (FOLDER / "LICENSE").read_text()
    assert sum(about["images"].values()) == len(SHOTS)


@of_the_generator
@pytest.mark.slow
@pytest.mark.parametrize("kind, view", [("monument", "front"), ("interior", "inside"), ("still_life", "scene")])
def test_a_committed_picture_can_be_rendered_again(tmp_path, kind, view):
    """Tolerance: a mean difference under 2 of 256 grey levels, and 99 % of the picture's variance.

    On the machine that made them the bytes are the same; processors round differently."""
    pytest.importorskip("mitsuba")
    shot = next(shot for shot in SHOTS if shot.subject.kind == kind and shot.view == view)
    with ThreadPoolExecutor(1) as executor:
        assert render(tmp_path, only=[shot.path], executor=executor, progress=False) == {}
    pictures = [np.asarray(Image.open(folder / shot.path), float) for folder in (tmp_path, FOLDER)]
    assert np.abs(pictures[0] - pictures[1]).mean() < 2
    assert np.corrcoef(*(picture.ravel() for picture in pictures))[0, 1] > 0.99


# ---- runs


def draw(out, only=MAPS, **options):
    with ThreadPoolExecutor(2) as executor:
        return render(out, only=only, executor=executor, progress=False, **options)


def test_a_run_goes_on_where_it_was(tmp_path):
    draw(tmp_path, MAPS[:2])
    first = {path: (tmp_path / path).stat().st_mtime_ns for path in MAPS[:2]}
    (tmp_path / MAPS[1]).unlink()  # killed between a picture and its note, or before both
    draw(tmp_path)
    assert (tmp_path / MAPS[0]).stat().st_mtime_ns == first[MAPS[0]]
    assert all((tmp_path / path).is_file() for path in MAPS)
    whole = tmp_path / "whole"
    draw(whole)
    assert all((tmp_path / path).read_bytes() == (whole / path).read_bytes() for path in MAPS)


@of_the_generator
def test_a_whole_folder_costs_nothing_and_a_lost_picture_comes_back(tmp_path):
    copy = tmp_path / "diorama"
    shutil.copytree(FOLDER, copy)
    about = json.loads((copy / "diorama.json").read_text())
    lost = (copy / MAPS[0]).read_bytes()
    (copy / MAPS[0]).unlink()
    started = {path: path.stat().st_mtime_ns for path in copy.rglob("*.jpg")}
    with ThreadPoolExecutor(1) as executor:
        assert render(copy, executor=executor, progress=False) == about
    assert (copy / MAPS[0]).read_bytes() == lost
    assert all(path.stat().st_mtime_ns == time for path, time in started.items())
    assert not (copy / ".truth").exists()


def test_pictures_of_another_seed_are_not_mixed_in(tmp_path):
    draw(tmp_path)
    with pytest.raises(ValueError, match=f"edition {EDITION}, seed 1, found some of edition {EDITION}, seed 0"):
        draw(tmp_path, [], seed=1)
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / MARKER).write_text(json.dumps({"edition": EDITION - 1, "seed": 0}))
    with pytest.raises(ValueError, match=f"edition {EDITION}, seed 0, found some of edition {EDITION - 1}, seed 0"):
        draw(whole, [])


def test_unknown_paths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="train/images/nowhere.jpg"):
        draw(tmp_path, ["train/images/nowhere.jpg"])


def test_oxford_files_by_hand(tmp_path):
    mine = [shot for shot in SHOTS if shot.part == "test" and shot.label == 0]
    boxes = {shot.path: {"x1": 1, "y1": 2, "x2": 30, "y2": 40} for shot in mine}
    _oxford_files(tmp_path, mine, boxes, ["berg"])
    assert len(list(tmp_path.iterdir())) == QUERIES * 4
    query = next(shot for shot in mine if shot.query)
    assert (tmp_path / "berg_1_query.txt").read_text() == f"{Path(query.path).stem} 1 2 30 40\n"
    assert len((tmp_path / "berg_1_good.txt").read_text().split()) == sum(shot.wanted == "good" for shot in mine)
