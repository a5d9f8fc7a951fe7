"""Cleaning a small collection: which images are kept, what happens to bad input, resuming."""

import json
import os
import shutil
import signal
import subprocess
import sys
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
    load_graph,
    select,
)
from rmaclib.cleaning.boxes import map_boxes
from rmaclib.cleaning.jobs import Job, run_jobs
from rmaclib.cleaning.pipeline import landmark_graph
from rmaclib.datasets import LabelledImages, open_collection
from rmaclib.foundation.errors import OutputError

SETTINGS = CleanSettings(keypoints=KeypointSettings(count=200))


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module")
def cleaned(collection, threads, tmp_path_factory):
    out = tmp_path_factory.mktemp("cleaned")
    return clean(open_collection(collection / "list.txt"), SETTINGS, out=out, report=False, executor=threads,
                 progress=False)


def run(images, out, threads, settings=SETTINGS, **more):
    return clean(images, settings, out=out, report=False, executor=threads, progress=False, **more)


def files(folder):
    return {path.name: path.read_bytes() for path in sorted((Path(folder) / "graphs").iterdir())}


def listed(folder, *names, labels=None):
    return LabelledImages("c", folder, names, tuple(folder / name for name in names),
                          tuple(labels or [0] * len(names)), (None,) * len(names))


def test_views_are_kept_and_other_textures_dropped(cleaned):
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
    """A second viewpoint of the tower: two views of another texture."""
    folder = tmp_path / "two"
    shutil.copytree(collection, folder)
    for number in (6, 7):
        save(folder / f"images/0/{number}.png", warped(texture(7), VIEWS[number - 6]))
    with (folder / "list.txt").open("a") as stream:
        stream.write("images/0/6.png 0\nimages/0/7.png 0\n")
    images = open_collection(folder / "list.txt")
    largest = run(images, tmp_path / "out", threads)
    assert largest.landmarks[0].selection.reasons[6:] == ("other part of the graph",) * 2
    both = run(images, tmp_path / "out", threads, replace(SETTINGS, graph=GraphSettings(largest=2)))
    assert both.clean.label_names == ("tower/0", "tower/1", "bridge/0", "twins/0")
    assert both.clean.labels == (0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3)
    assert len(both.clean.boxes) == len(both.clean.names) == 11


def test_bad_images_are_left_out_with_their_reason(tmp_path, threads):
    save(tmp_path / "a.png", texture(1))
    save(tmp_path / "b.png", warped(texture(1), VIEWS[1]))
    save(tmp_path / "flat.png", np.full((90, 120), 200, np.uint8))
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    images = listed(tmp_path, "text.png", "a.png", "flat.png", "gone.png", "b.png", "empty.png")
    cleaned = run(images, tmp_path / "out", threads)
    selection = cleaned.landmarks[0].selection
    assert selection.component.tolist() == [-1, 0, -1, -1, 0, -1]
    assert [reason.split(" ")[0] for reason in selection.reasons] == ["expected", "", "no", "no", "", "expected"]
    assert selection.reasons[2] == "no keypoints" and selection.reasons[3] == "no such file"
    assert cleaned.landmarks[0].graph.compared == 1
    assert np.isfinite(cleaned.clean.boxes).all()


def test_classes_of_nothing_but_bad_images(tmp_path, threads):
    (tmp_path / "text.png").write_text("no picture")
    save(tmp_path / "flat.png", np.full((90, 120), 200, np.uint8))
    cleaned = run(listed(tmp_path, "text.png", "flat.png"), tmp_path / "out", threads)
    assert cleaned.clean.names == () and cleaned.landmarks[0].selection.component.tolist() == [-1, -1]
    nothing = LabelledImages("c", tmp_path, (), (), (), ())
    assert run(nothing, tmp_path / "out", threads).landmarks == ()


def test_finished_landmarks_are_not_matched_again(collection, tmp_path, threads):
    images = open_collection(collection / "list.txt")
    run(images, tmp_path, threads)
    before = files(tmp_path)
    (tmp_path / "graphs" / "000002.npz").unlink()
    tasks = Tasks()
    run(images, tmp_path, tasks)
    assert {path.parent.name for path in tasks.paths} == {"2"} and files(tmp_path) == before


class Tasks(ThreadPoolExecutor):
    """An executor that writes down which images its tasks read."""

    def __init__(self):
        super().__init__(1)
        self.paths = []

    def submit(self, function, *arguments):
        if isinstance(arguments[0][0], Path):
            self.paths += arguments[0]
        return super().submit(function, *arguments)


def test_changed_files_are_matched_again_and_changed_settings_are_an_error(collection, tmp_path, threads):
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
from pathlib import Path
from rmaclib.cleaning import CleanSettings, KeypointSettings, clean

class Killed(ThreadPoolExecutor):
    def submit(self, *task):
        if len(list(Path(sys.argv[2]).glob("graphs/*.npz"))) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().submit(*task)

clean(sys.argv[1], CleanSettings(keypoints=KeypointSettings(count=200)), out=sys.argv[2], executor=Killed(1), ahead=1,
      progress=False)
"""


def test_a_killed_run_goes_on_with_the_same_bytes(collection, tmp_path, threads):
    killed = subprocess.run([sys.executable, "-c", KILLED, collection / "list.txt", tmp_path / "killed"])
    assert killed.returncode == -signal.SIGKILL and len(files(tmp_path / "killed")) == 2
    images = open_collection(collection / "list.txt")
    run(images, tmp_path / "killed", threads)
    run(images, tmp_path / "whole", threads)
    assert files(tmp_path / "killed") == files(tmp_path / "whole") and len(files(tmp_path / "whole")) == 4


@pytest.mark.parametrize("ahead, in_flight", [(1, 1), (64, 4096)])
def test_cutting_into_tasks_changes_nothing(cleaned, tmp_path, threads, ahead, in_flight):
    """Chunks of one image, blocks of two; one task and one landmark at a time, or all at once."""
    jobs = []
    for landmark in cleaned.landmarks:
        paths = [cleaned.source.paths[index] for index in landmark.images]
        stages = landmark_graph(landmark.name, landmark.graph.names, paths, SETTINGS, None, chunk=1, block=2)
        jobs.append(Job(tmp_path / f"{landmark.label}.npz", paths, landmark.graph.compared, stages))
    run_jobs(jobs, threads, ahead, in_flight, progress=False)
    for landmark in cleaned.landmarks:
        graph = load_graph(tmp_path / f"{landmark.label}.npz")
        assert np.array_equal(graph.pairs, landmark.graph.pairs)
        assert np.array_equal(graph.affines, landmark.graph.affines)
        assert graph.compared == landmark.graph.compared and graph.settings == landmark.graph.settings


@pytest.mark.slow
def test_the_default_pool_of_processes(collection, tmp_path, threads):
    images = open_collection(collection / "list.txt")
    environment = dict(os.environ)
    clean(images, SETTINGS, out=tmp_path / "processes", report=False, progress=False)
    run(images, tmp_path / "threads", threads)
    assert files(tmp_path / "processes") == files(tmp_path / "threads")
    assert dict(os.environ) == environment


def test_an_error_in_a_task_reaches_the_caller(collection, tmp_path):
    class Failing(ThreadPoolExecutor):
        def submit(self, *_):
            return super().submit(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        run(open_collection(collection / "list.txt"), tmp_path, Failing(1))
    assert not list(tmp_path.rglob("*.npz"))


class GivenShortlists:
    """Shortlists that a test gives; -1 for none."""

    identity = {"network": "given", "size": 320}

    def __init__(self, rows):
        self.rows, self.requests = np.array(rows), []

    def __call__(self, paths, count):
        self.requests.append((len(paths), count))
        return self.rows


def test_large_classes_are_matched_on_shortlists(collection, tmp_path, threads):
    images = open_collection(collection / "list.txt")
    shortlists = GivenShortlists([[1], [0], [0], [-1], [-1], [-1]])
    settings = replace(SETTINGS, exhaustive=5, neighbours=1)
    cleaned = run(images, tmp_path, threads, settings, shortlists=shortlists)
    assert shortlists.requests == [(6, 1)]  # only the class of six images
    graph = cleaned.landmarks[0].graph
    assert graph.compared == 2 and graph.pairs.tolist() == [[0, 1], [0, 2]]  # either way counts
    assert cleaned.landmarks[0].selection.component.tolist() == [0, 0, 0, -1, -1, -1]
    assert cleaned.landmarks[1].graph.compared == 3
    with pytest.raises(CleanError, match="other settings: pairs"):
        run(images, tmp_path, threads)


def test_select_needs_no_image(cleaned):
    landmark = cleaned.landmarks[0]
    again = select(landmark.graph, SETTINGS)
    assert np.array_equal(again.boxes, landmark.selection.boxes, equal_nan=True)


def test_graphs_contain_what_made_them(collection, tmp_path, threads):
    run(open_collection(collection / "list.txt"), tmp_path, threads)
    settings = load_graph(tmp_path / "graphs" / "000000.npz").settings
    assert settings["keypoints"] == {"detector": "sift", "size": 512, "count": 200}
    assert settings["pairs"] == "all" and json.dumps(settings)


def test_settings_from_plain_dictionaries():
    settings = clean_settings({"keypoints": {"count": 300}, "graph": {"threshold": 20}, "exhaustive": 50})
    assert (settings.keypoints.count, settings.graph.threshold, settings.exhaustive) == (300, 20, 50)
    with pytest.raises(ValueError, match="f.yml: matching: unknown key 'rato'; did you mean 'ratio'"):
        clean_settings({"matching": {"rato": 0.7}}, "f.yml")
    with pytest.raises(ValueError, match="unknown key 'match'; did you mean 'matching'"):
        clean_settings({"match": {}})
    with pytest.raises(ValueError, match="at least verification.min_inliers"):
        clean_settings({"graph": {"threshold": 5}})


def test_a_killed_worker_is_an_error_and_what_is_finished_stays(collection, tmp_path, threads):
    """A process pool gives up when a worker is killed."""
    images = open_collection(collection / "list.txt")
    run(images, tmp_path / "a", threads)
    (tmp_path / "a/graphs/000002.npz").unlink()
    with ProcessPoolExecutor(1) as pool:
        pool.submit(os._exit, 1).exception()
        with pytest.raises(CleanError, match="a worker process was killed.* run it again to go on"):
            run(images, tmp_path / "a", pool)
    assert len(files(tmp_path / "a")) == 3
    run(images, tmp_path / "a", threads)
    run(images, tmp_path / "b", threads)
    assert files(tmp_path / "a") == files(tmp_path / "b")


# --- the face: a path in, a folder out -------------------------------------------------------------------------------


def test_a_path_is_opened_and_the_report_is_written(collection, tmp_path, threads):
    cleaned = clean(collection / "list.txt", SETTINGS, out=tmp_path, executor=threads, progress=False)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"annotation_clean.txt", "labels.txt", "images.csv", "landmarks.csv", "settings.json", "report.html"} < names
    assert open_collection(tmp_path / "annotation_clean.txt").labels == cleaned.clean.labels
    assert len(list((tmp_path / "thumbnails").rglob("*.jpg"))) == 12


def test_what_is_left_out_of_a_path_is_noted(collection, tmp_path, threads, noted):
    shutil.copytree(collection / "images/2", tmp_path / "photos/bridge")
    (tmp_path / "photos/bridge/dead.png").symlink_to("gone.png")
    with noted("1 files or rows are left out: bridge/dead.png: a link to a file that isn't there"):
        cleaned = run(str(tmp_path / "photos"), tmp_path / "out", threads)
    assert cleaned.clean.label_names == ("bridge",) and len(cleaned.clean.names) == 3


def test_only_a_list_may_lie_beside_the_output(collection, tmp_path, threads):
    shutil.copytree(collection / "images/2", tmp_path / "photos/bridge")
    with pytest.raises(OutputError, match="outside of the images"):
        run(tmp_path / "photos", tmp_path / "photos/out", threads)
    (tmp_path / "list.txt").write_text("photos/bridge/0.png 0\n")
    assert run(tmp_path / "list.txt", tmp_path / "out", threads).source.counts == {"images": 1, "landmarks": 1}
