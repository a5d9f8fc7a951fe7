import csv
import json
import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from learning_pictures import SIZE, pictures, tiny
from PIL import Image
from typer.testing import CliRunner

from rmaclib import cli
from rmaclib.checkpoints import load_network, save_network
from rmaclib.cleaning import clean, load_graph, save_graph
from rmaclib.extraction.folder import load_descriptors
from rmaclib.foundation.errors import InputError, OutputError, RmacError
from rmaclib.learning import LearningError, read_log
from rmaclib.learning.state import read_state


def run(*arguments):
    return CliRunner().invoke(cli.app, ["train", *map(str, arguments)])


def files(folder):
    """What is in a folder, and when each was written."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def start(images, tmp_path_factory):
    """A checkpoint without a fully connected layer, and a file of settings."""
    folder = tmp_path_factory.mktemp("start")
    save_network(folder / "start.safetensors", tiny())
    (folder / "settings.yml").write_text("triplets: 4\npool: 20\nrefresh: 2\nlr: 1.0e-4\n")
    return folder


def test_a_folder_per_landmark_is_enough(images, start, tmp_path):
    arguments = (images.root, "--out", tmp_path / "out", "--network", start / "start.safetensors", "--dim", 8,
                 "--size", SIZE, "--updates", 3, "--settings", start / "settings.yml", "--device", "cpu", "--seed", 5)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert "10 of 25 images held out" in result.stderr and "whitening learned on 15 images" in result.stderr
    assert "validation mAP" in result.stderr and "of 3 updates" in result.stderr
    assert load_network(tmp_path / "out/best.safetensors").settings.dim == 8
    assert Image.open(tmp_path / "out/curves.png").width > 1000
    history = read_log(tmp_path / "out/log.csv")
    assert len(history) == 4 and history[1]["lr"] == 1e-4
    assert run(*arguments).exit_code == 0  # finished: only loaded
    result = run(*arguments, "--lr", 1e-3, "--optimizer", "sgd")
    assert isinstance(result.exception, LearningError)
    assert "settings.optimizer ('adamw', now 'sgd')" in str(result.exception) and "lr" in str(result.exception)


def test_a_validation_list_and_a_loss(images, start, tmp_path):
    pictures(tmp_path / "validation", landmarks=3, each=3, seed=9)
    result = run(images.root, "--out", tmp_path / "out", "--network", start / "start.safetensors", "--dim", 8,
                 "--size", SIZE, "--updates", 1, "--settings", start / "settings.yml", "--device", "cpu",
                 "--validation", tmp_path / "validation", "--loss", "average_precision")
    assert result.exit_code == 0, result.output
    assert "held out" not in result.stderr and "learned on 25 images" in result.stderr


def test_classification_then_ranking(images, start, tmp_path):
    (tmp_path / "settings.yml").write_text("batch: 5\nshorter: [40, 60]\nside: 32\n")
    common = ("--size", SIZE, "--updates", 1, "--device", "cpu", "--validation", images.root)
    result = run(images.root, "--stage", "classification", "--out", tmp_path / "classified", "--settings",
                 tmp_path / "settings.yml", "--network", start / "start.safetensors", *common)
    assert result.exit_code == 0, result.output
    classified = load_network(tmp_path / "classified/best.safetensors")
    assert classified.settings.dim is None
    result = run(images.root, "--out", tmp_path / "ranked", "--settings", start / "settings.yml", "--network",
                 tmp_path / "classified/best.safetensors", "--dim", 8, *common)
    assert result.exit_code == 0, result.output
    assert load_network(tmp_path / "ranked/best.safetensors").settings.dim == 8
    for wrong in (("--dim", 8), ("--graphs", tmp_path), ("--loss", "triplet")):
        result = run(images.root, "--stage", "classification", "--out", tmp_path / "x", "--network",
                     start / "start.safetensors", *common, *wrong)
        assert isinstance(result.exception, ValueError) and wrong[0].strip("-") in str(result.exception)


def test_the_time_is_told_before_the_first_update_and_a_run_that_goes_on_keeps_what_was_chosen(
        images, start, tmp_path, monkeypatch):
    (tmp_path / "settings.yml").write_text(f"triplets: 3\npool: 15\nsize: {SIZE}\n")
    arguments = (images.root, "--out", tmp_path / "out", "--network", start / "start.safetensors", "--dim", 8,
                 "--settings", tmp_path / "settings.yml", "--device", "cpu")
    step, steps = torch.optim.AdamW.step, []

    def stops(self, *closure):
        steps.append(None)
        if len(steps) == 6:  # the first was measured
            raise KeyboardInterrupt
        step(self, *closure)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", stops)
        result = run(*arguments)
    told = result.stderr
    assert "preset laptop, on cpu, for 15 images of 5 landmarks: optimizer adamw, lr 0.0001" in told
    updates = int(re.search(r"(\d+) updates of about", told)[1])
    assert told.index("measuring one update") < told.index("updates of about") < told.index("and validation: ")
    done = read_state(tmp_path / "out").update
    assert 2 <= done <= 4 and updates >= 8
    whitening = files(tmp_path / "out")[tmp_path / "out/whitening.safetensors"]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert f"goes on with the settings of its start, {updates - done} of {updates} updates left" in result.stderr
    assert "measuring" not in result.stderr
    assert len(read_log(tmp_path / "out/log.csv")) == updates + 1
    # On another day it could differ in its last digits.
    assert files(tmp_path / "out")[tmp_path / "out/whitening.safetensors"] == whitening


@pytest.mark.parametrize("options, message", [
    (("--dim", 0), "--dim: expected a whole number of at least 1, got 0"),
    (("--whiten-images", -5), "--whiten-images: expected a whole number of at least 2, got -5"),
    (("--out", ""), "--out: expected a path, got ''"),
    (("--updates", 0), "--updates: expected a whole number of at least 1, got 0"),
    (("--lr", "nan"), "--lr: expected a number of at least 0, got nan"),
    (("--size", -1), "--size: expected a whole number in 1"),
    (("--smallest", 0), "--smallest: expected a whole number in 1"),
    (("--patience", 0), "--patience: expected a whole number of at least 1"),
    (("--frozen", "block.1", "--dim", 8), "frozen: expected a layer of timm:test_efficientnet, such as .*'block.1'"),
    (("--smallest", 300, "--size", 200), r"options: smallest: expected at most size \(200\), got 300"),
    (("--levels", 0), "--levels: expected a whole number in 1"),
    (("--seed", -1), "--seed: expected a whole number in 0"), (("--device", "meta"), "--device: expected one of auto"),
    (("--settings", "FOLDER"), "--settings: expected a file, got 'FOLDER', a folder"),
    (("--out", "FILE"), "--out: expected a folder, got 'FILE', a file"),
    (("--proposals", 0), "--proposals: expected a whole number of at least 1"),
    (("--dim", 10**6), r"dim: expected 1\.\.256"),
    (("--stage", "proposals"), "expected images with boxes"), (("--validation", "ONE"), "two landmarks or more")])
def test_options_are_checked_before_any_work(images, start, tmp_path, monkeypatch, options, message):
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FILE").write_text("")
    pictures(tmp_path / "ONE", landmarks=1, each=3)
    monkeypatch.chdir(tmp_path)
    result = run(images.root, "--network", start / "start.safetensors", "--out", tmp_path / "out", *options)
    if result.exit_code == 2:  # typer's own: the option and what is wrong, in a panel
        told = " ".join(result.stderr.replace("│", "").split()).replace("'--", "--").replace("': ", ": ")
        told = told.replace(f" / -{options[0][2]}", "")
    else:
        assert isinstance(result.exception, RmacError)
        told = str(result.exception)
    assert re.search(message, told), told
    assert "whitening learned" not in result.stderr and "measuring" not in result.stderr
    left = [path.name for path in (tmp_path / "out").iterdir()] if (tmp_path / "out").exists() else []
    assert set(left) <= {".rmac.json", ".rmac.lock"} and sorted(os.listdir(tmp_path))[:3] == ["FILE", "FOLDER", "ONE"]


def test_the_folder_of_the_images_is_no_output_folder(images, start):
    before = files(images.root)
    result = run(images.root, "--network", start / "start.safetensors", "--out", images.root / "trained")
    assert isinstance(result.exception, OutputError) and "outside of the images" in str(result.exception)
    assert files(images.root) == before


def test_the_folder_of_a_registered_collection_is_no_output_folder(images, start, tmp_path, monkeypatch):
    root = tmp_path / "landmarks48"
    shutil.copytree(images.root, root)
    (root / "annotation_full_train.txt").write_text("".join(
        f"{name} {label}\n" for name, label in zip(images.names, images.labels, strict=True)))
    monkeypatch.setenv("RMACLIB_DATA", str(tmp_path))
    before = files(root)
    result = run("landmarks48", "--network", start / "start.safetensors", "--out", root / "trained")
    assert isinstance(result.exception, OutputError) and "outside of the images" in str(result.exception)
    assert files(root) == before


def test_a_run_lies_beside_its_list(images, start, tmp_path):
    shutil.copytree(images.root, tmp_path / "pictures")
    (tmp_path / "list.txt").write_text("".join(
        f"pictures/{name} {label}\n" for name, label in zip(images.names, images.labels, strict=True)))
    result = run(tmp_path / "list.txt", "--network", start / "start.safetensors", "--dim", 8, "--size", SIZE,
                 "--updates", 1, "--out", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out/best.safetensors").exists()


def test_what_takes_a_while_is_told(images, start, tmp_path, monkeypatch):
    """Reading the collection and opening the network, as soon as their time is up; the whitening."""
    class Impatient(threading.Timer):
        def start(self):
            self.function(*self.args)

    monkeypatch.setattr(threading, "Timer", Impatient)
    told = run(images.root, "--network", start / "start.safetensors", "--dim", 10**6, "--size", SIZE, "--updates", 1,
               "--out", tmp_path / "out", "--device", "cpu").stderr
    assert f"looking for images in {images.root} …" in told and "opening " in told


@pytest.mark.parametrize("text, message", [
    ("triplets 4", "found str"), ("triplets: [", "expected settings in YAML"),
    ("tripelts: 4", "did you mean 'triplets'"),
])
def test_settings_that_are_none(images, tmp_path, text, message):
    (tmp_path / "bad.yml").write_text(text)
    result = run(images.root, "--out", tmp_path / "out", "--settings", tmp_path / "bad.yml")
    assert isinstance(result.exception, ValueError) and message in str(result.exception)
    assert "bad.yml" in str(result.exception)


def test_settings_that_do_not_fit_to_those_of_the_preset(images, start, tmp_path):
    (tmp_path / "large.yml").write_text("side: 250\n")
    result = run(images.root, "--out", tmp_path / "out", "--settings", tmp_path / "large.yml", "--stage",
                 "classification", "--network", start / "start.safetensors", "--device", "cpu")
    assert isinstance(result.exception, InputError)
    assert re.search(r"large\.yml: shorter: expected .* at least side \(250\), got \(160, 256\)", str(result.exception))


def test_a_cleaned_collection_gives_its_pairs(start, tmp_path):
    images = pictures(tmp_path / "pictures", landmarks=3, each=3)
    clean(images, out=tmp_path / "clean", report=False, executor=ThreadPoolExecutor(1), progress=False)
    for label in range(3):  # random pictures have no keypoints in common: say that they had
        file = tmp_path / f"clean/graphs/{label:06d}.npz"
        save_graph(file, replace(load_graph(file), pairs=np.array([[0, 1], [1, 2]], np.int32),
                                 inliers=np.array([30, 30], np.int32), affines=np.tile(np.eye(2, 3), (2, 1, 1)),
                                 rectangles=np.tile(np.float32([0, 0, 40, 40]), (2, 2, 1))))
    clean(images, out=tmp_path / "clean", progress=False)
    result = run(tmp_path / "clean/annotation_clean.txt", "--graphs", tmp_path / "clean", "--out", tmp_path / "out",
                 "--validation", images.root, "--network", start / "start.safetensors", "--dim", 8, "--size", SIZE,
                 "--updates", 1, "--settings", start / "settings.yml", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "out/run.json").read_text())["images"]["positives"]


def test_graphs_of_another_collection(images, tmp_path):
    result = run(images.root, "--out", tmp_path / "out", "--graphs", tmp_path)
    assert isinstance(result.exception, LearningError) and "match graphs" in str(result.exception)


def test_proposals_from_boxes_then_everywhere(images, start, tmp_path):
    """A clean list supervises where the network looks; extract, index and evaluate take its regions."""
    lines = [f"{name} {label} 10.00 40.00 5.00 35.00" for name, label in zip(images.names, images.labels, strict=True)]
    shutil.copytree(images.root, tmp_path / "boxed")
    (tmp_path / "boxed/annotation_clean.txt").write_text("".join(f"{line}\n" for line in lines))
    (tmp_path / "settings.yml").write_text("images: 4\nanchors: 2\nhidden: 8\noptimizer: adamw\n")
    result = run(tmp_path / "boxed/annotation_clean.txt", "--stage", "proposals", "--out", tmp_path / "out",
                 "--network", start / "start.safetensors", "--size", SIZE, "--updates", 2, "--settings",
                 tmp_path / "settings.yml", "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "validation average recall of boxes" in result.stderr
    network = tmp_path / "out/best.safetensors"
    assert load_network(network).settings.regions == "grid"

    table, picture = tmp_path / "proposals.csv", tmp_path / "drawn.png"
    result = CliRunner().invoke(cli.app, ["propose", str(images.root), "--network", str(network), "--out", str(table),
                                          "--k", "3", "--size", str(SIZE), "--picture", str(picture)])
    assert result.exit_code == 0, result.output
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {Path(row["image"]) for row in rows} == set(images.paths) and len(rows) <= 75
    assert all(0 <= float(row["x1"]) < float(row["x2"]) <= 64 and 0 <= float(row["score"]) <= 1 for row in rows)
    assert picture.stat().st_size > 1000

    vectors = {}
    for regions in ("grid", "proposals", "both"):
        result = CliRunner().invoke(cli.app, ["extract", str(images.root), "--network", str(network), "--out",
                                              str(tmp_path / regions), "--size", str(SIZE), "--regions", regions,
                                              "--proposals", "4", "--precision", "float32"])
        assert result.exit_code == 0, result.output
        vectors[regions] = load_descriptors(tmp_path / regions).vectors
    assert len({descriptors.tobytes() for descriptors in vectors.values()}) == 3
    assert load_network(tmp_path / "both/network.safetensors").settings.regions == "both"
    with pytest.raises(ValueError, match="trained to propose"):
        CliRunner().invoke(cli.app, ["extract", str(images.root), "--network", str(start / "start.safetensors"),
                                     "--out", str(tmp_path / "none"), "--regions", "both"], catch_exceptions=False)
