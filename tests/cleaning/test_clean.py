"""The whole of it on a small collection: what is kept, what happens to bad input, resuming."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cleaning_pictures import VIEWS, save, texture, warped

from rmaclib.cleaning import (
    CleanError,
    CleanSettings,
    GraphSettings,
    KeypointSettings,
    MatchSettings,
    clean,
    clean_settings,
    jobs,
    load_graph,
    select,
)
from rmaclib.cleaning.boxes import map_boxes
from rmaclib.datasets import LabelledImages, open_collection

SETTINGS = CleanSettings(keypoints=KeypointSettings(count=200))


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def cleaned(collection, threads, tmp_path_factory):
    out = tmp_path_factory.mktemp("cleaned")
    return clean(open_collection(collection / "list.txt"), SETTINGS, out=out, executor=threads, progress=False)


def run(images, out, threads, settings=SETTINGS, **more):
    return clean(images, settings, out=out, executor=threads, progress=False, **more)


def files(folder):
    return {path.name: path.read_bytes() for path in sorted((Path(folder) / "graphs").iterdir())}


def listed(folder, *names, labels=None):
    return LabelledImages("c", folder, names, tuple(folder / name for name in names),
                          tuple(labels or [0] * len(names)), (None,) * len(names))


def test_views_are_kept_and_strangers_dropped(cleaned):
    assert [landmark.label for landmark in cleaned.landmarks] == [0, 2, 3, 5]  # gaps in the labels stay
    assert [landmark.name for landmark in cleaned.landmarks] == ["tower", "bridge", "single", "twins"]
    tower, bridge, single, twins = (landmark.selection for landmark in cleaned.landmarks)
    assert tower.component.tolist() == [0, 0, 0, 0, -1, -1]
    assert tower.reasons == ("", "", "", "", "no verified match", "no verified match")
    assert bridge.component.tolist() == [0, 0, 0]
    assert single.component.tolist() == [-1] and single.reasons == ("no verified match",)
    assert twins.component.tolist() == [0, 0]  # identical images verify each other
    assert cleaned.clean.labels == (0, 0, 0, 0, 2, 2, 2, 5, 5)
    assert cleaned.clean.label_names == ("tower", "empty", "bridge", "single", "unused", "twins")
    assert cleaned.clean.name == "list_clean"


def test_affines_are_the_true_ones(cleaned):
    graph = cleaned.landmarks[0].graph
    assert graph.compared == 15 and len(graph.pairs) == 6
    views = [np.vstack([view, [0, 0, 1]]) for view in VIEWS]
    for (i, j), affine in zip(graph.pairs, graph.affines, strict=True):
        true = (views[j] @ np.linalg.inv(views[i]))[:2]
        corners = np.array([[40.0, 40], [200, 40], [120, 140]])
        assert corners @ affine[:, :2].T + affine[:, 2] == pytest.approx(corners @ true[:, :2].T + true[:, 2], abs=2)


def test_boxes_cover_what_the_views_share(cleaned):
    selection = cleaned.landmarks[0].selection
    assert selection.converged and np.isnan(selection.boxes[4:]).all()
    true = map_boxes(np.tile([0.0, 0, 240, 180], (4, 1)), np.array(VIEWS))
    for box, (x1, y1, x2, y2) in zip(selection.boxes[:4], true, strict=True):
        assert np.abs(box - np.clip([x1, y1, x2, y2], 0, [240, 180, 240, 180])).max() < 40


def test_larger_sub_classes_get_labels_of_their_own(cleaned, collection, tmp_path, threads):
    """A second profile of the tower: two views of another texture."""
    folder = tmp_path / "two"
    shutil.copytree(collection, folder)
    for number in (6, 7):
        save(folder / f"images/0/{number}.png", warped(texture(7), VIEWS[number - 6]))
    with (folder / "list.txt").open("a") as stream:
        stream.write("images/0/6.png 0\nimages/0/7.png 0\n")
    images = open_collection(folder / "list.txt")
    one = run(images, tmp_path / "out", threads)
    assert one.landmarks[0].selection.reasons[6:] == ("other part of the graph",) * 2
    two = run(images, tmp_path / "out", threads, replace(SETTINGS, graph=GraphSettings(largest=2)))
    assert two.clean.label_names == ("tower/0", "tower/1", "bridge/0", "twins/0")
    assert two.clean.labels == (0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3)


def test_bad_images_are_left_out_with_their_reason(tmp_path, threads):
    save(tmp_path / "a.png", texture(1))
    save(tmp_path / "b.png", warped(texture(1), VIEWS[1]))
    save(tmp_path / "flat.png", np.full((90, 120), 200, np.uint8))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    images = listed(tmp_path, "text.png", "a.png", "flat.png", "gone.png", "b.png", "empty.png")
    found = run(images, tmp_path / "out", threads)
    selection = found.landmarks[0].selection
    assert selection.component.tolist() == [-1, 0, -1, -1, 0, -1]
    assert [reason.split(" ")[0] for reason in selection.reasons] == ["expected", "", "no", "no", "", "expected"]
    assert selection.reasons[2] == "no keypoints" and selection.reasons[3] == "no such file"
    assert found.landmarks[0].graph.compared == 1
    assert np.isfinite(found.clean.boxes).all()


def test_classes_of_nothing_but_bad_images(tmp_path, threads):
    (tmp_path / "text.png").write_text("no picture")
    save(tmp_path / "flat.png", np.full((90, 120), 200, np.uint8))
    found = run(listed(tmp_path, "text.png", "flat.png"), tmp_path / "out", threads)
    assert found.clean.names == () and found.landmarks[0].selection.component.tolist() == [-1, -1]
    nothing = LabelledImages("c", tmp_path, (), (), (), ())
    assert run(nothing, tmp_path / "out", threads).landmarks == ()


def test_finished_landmarks_are_not_matched_again(collection, cleaned, tmp_path, threads, monkeypatch):
    images = open_collection(collection / "list.txt")
    run(images, tmp_path, threads)
    before = files(tmp_path)
    (tmp_path / "graphs" / "000002.npz").unlink()
    looked = []
    real = jobs.extract_keypoints
    monkeypatch.setattr(jobs, "extract_keypoints", 
                        lambda path, settings: (looked.append(path), real(path, settings))[1])
    run(images, tmp_path, threads)
    assert {path.parent.name for path in looked} == {"2"} and files(tmp_path) == before


def test_changed_files_are_matched_again_and_changed_settings_refused(collection, tmp_path, threads):
    shutil.copytree(collection, tmp_path / "copy")
    images = open_collection(tmp_path / "copy" / "list.txt")
    run(images, tmp_path / "out", threads)
    save(tmp_path / "copy/images/2/1.png", texture(70))
    assert run(images, tmp_path / "out", threads).landmarks[1].selection.component.tolist() == [0, -1, 0]
    with pytest.raises(CleanError, match=r"000000.npz was made with other settings: keypoints.count .200, now 90., "
                                         r"matching.ratio .0.8, now 0.7.; choose another folder"):
        run(images, tmp_path / "out", threads,
            replace(SETTINGS, keypoints=KeypointSettings(count=90), matching=MatchSettings(ratio=0.7)))
    # Thresholds come after matching.
    strict = run(images, tmp_path / "out", threads, replace(SETTINGS, graph=GraphSettings(threshold=10_000)))
    assert strict.clean.names == ()


KILLED = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from rmaclib.cleaning import CleanSettings, KeypointSettings, clean, jobs
from rmaclib.datasets import open_collection
save, done = jobs.save_graph, []
def save_two(path, graph):
    save(path, graph)
    done.append(path)
    if len(done) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
jobs.save_graph = save_two
with ThreadPoolExecutor(1) as pool:
    clean(open_collection(sys.argv[1]), CleanSettings(keypoints=KeypointSettings(count=200)), out=sys.argv[2],
          executor=pool, progress=False)
"""


def test_a_killed_run_goes_on_with_the_same_bytes(collection, tmp_path, threads):
    killed = subprocess.run([sys.executable, "-c", KILLED, collection / "list.txt", tmp_path / "killed"])
    assert killed.returncode == -signal.SIGKILL and len(files(tmp_path / "killed")) == 2
    images = open_collection(collection / "list.txt")
    run(images, tmp_path / "killed", threads)
    run(images, tmp_path / "whole", threads)
    assert files(tmp_path / "killed") == files(tmp_path / "whole") and len(files(tmp_path / "whole")) == 4


def test_cutting_into_blocks_changes_nothing(collection, cleaned, tmp_path, threads, monkeypatch):
    monkeypatch.setattr(jobs, "BLOCK", 2)
    monkeypatch.setattr(jobs, "CHUNK", 1)
    monkeypatch.setattr(jobs, "IN_FLIGHT", 1)
    found = run(open_collection(collection / "list.txt"), tmp_path, threads, ahead=1)
    for one, other in zip(found.landmarks, cleaned.landmarks, strict=True):
        assert np.array_equal(one.graph.pairs, other.graph.pairs)
        assert np.array_equal(one.graph.affines, other.graph.affines)


@pytest.mark.slow
def test_the_default_pool_of_processes(collection, tmp_path, threads):
    images = open_collection(collection / "list.txt")
    environment = dict(os.environ)
    clean(images, SETTINGS, out=tmp_path / "processes", progress=False)
    run(images, tmp_path / "threads", threads)
    assert files(tmp_path / "processes") == files(tmp_path / "threads")
    assert dict(os.environ) == environment


def test_an_error_in_a_task_reaches_the_caller(collection, tmp_path, threads, monkeypatch):
    monkeypatch.setattr(jobs, "extract_keypoints", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(open_collection(collection / "list.txt"), tmp_path, threads)
    assert not list(tmp_path.rglob("*.npz"))


class Told:
    """Shortlists that a test writes down; -1 for none."""

    identity = {"network": "told", "size": 320}

    def __init__(self, rows):
        self.rows, self.asked = np.array(rows), []

    def __call__(self, paths, count):
        self.asked.append((len(paths), count))
        return self.rows


def test_large_classes_are_matched_on_shortlists(collection, tmp_path, threads):
    images = open_collection(collection / "list.txt")
    told = Told([[1], [0], [0], [-1], [-1], [-1]])
    settings = replace(SETTINGS, exhaustive=5, neighbours=1)
    found = run(images, tmp_path, threads, settings, neighbours=told)
    assert told.asked == [(6, 1)]  # only the class of six images
    graph = found.landmarks[0].graph
    assert graph.compared == 2 and graph.pairs.tolist() == [[0, 1], [0, 2]]  # either way counts
    assert found.landmarks[0].selection.component.tolist() == [0, 0, 0, -1, -1, -1]
    assert found.landmarks[1].graph.compared == 3
    with pytest.raises(CleanError, match="other settings: pairs"):
        run(images, tmp_path, threads)


def test_select_needs_no_image(cleaned, tmp_path):
    landmark = cleaned.landmarks[0]
    again = select(landmark.graph, SETTINGS)
    assert np.array_equal(again.boxes, landmark.selection.boxes, equal_nan=True)


def test_graphs_tell_what_made_them(cleaned, collection, tmp_path, threads):
    run(open_collection(collection / "list.txt"), tmp_path, threads)
    settings = load_graph(tmp_path / "graphs" / "000000.npz").settings
    assert settings["keypoints"] == {"detector": "sift", "size": 512, "count": 200}
    assert settings["pairs"] == "all" and json.dumps(settings)


def test_settings_from_plain_dictionaries():
    found = clean_settings({"keypoints": {"count": 300}, "graph": {"threshold": 20}, "exhaustive": 50})
    assert (found.keypoints.count, found.graph.threshold, found.exhaustive) == (300, 20, 50)
    with pytest.raises(ValueError, match="f.yml: matching: unknown key 'rato'; did you mean 'ratio'"):
        clean_settings({"matching": {"rato": 0.7}}, "f.yml")
    with pytest.raises(ValueError, match="unknown key 'match'; did you mean 'matching'"):
        clean_settings({"match": {}})
    with pytest.raises(ValueError, match="at least verification.min_inliers"):
        clean_settings({"graph": {"threshold": 5}})


def test_a_pool_whose_worker_dies_says_so_and_can_go_on(collection, tmp_path, threads):
    """A process pool gives up when a worker is killed; what was finished stays."""
    images = open_collection(collection / "list.txt")
    with ProcessPoolExecutor(1) as pool:
        pool.submit(os.getpid).result()
        victim = next(iter(pool._processes))
        threading.Timer(0.05, os.kill, (victim, signal.SIGKILL)).start()
        try:
            run(images, tmp_path / "a", pool)
        except Exception as error:
            assert "process" in str(error).lower()
    run(images, tmp_path / "a", threads)
    run(images, tmp_path / "b", threads)
    assert files(tmp_path / "a") == files(tmp_path / "b")
