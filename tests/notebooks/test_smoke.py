"""The notebooks as CI builds them: every figure is an image, every result is recorded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from rmaclib.checkpoints import load_network, save_network
from rmaclib.datasets import open_collection, open_dataset
from rmaclib.evaluation.benchmark import evaluate
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.whitening import learn_whitening
from rmaclib.learning import leave_one_out
from rmaclib.network import NetworkSettings, create_network
from rmaclib.results import load_results
from rmaclib.search.retrieval import SearchSettings

ROOT = Path(__file__).parents[2]


def run_smoke(name, output, profile="notebooks/profiles/smoke.yml"):
    """Run a notebook; returns the number of its figures and the values that it records."""
    command = [sys.executable, "book/run_notebook.py", f"notebooks/{name}.ipynb", "--profile", profile,
               "--output", output]
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    cells = json.loads((output / f"notebooks/{name}.ipynb").read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", []) if output["output_type"] != "stream"]
    assert all("image/png" in output["data"] for output in outputs)
    return len(outputs), {key: result.value for key, result in load_results(output / "results").items()}


def test_00_diorama(tmp_path):
    figures, values = run_smoke("00_diorama", tmp_path)
    assert figures == 6
    shares = {key.removeprefix("00_diorama/diorama_train/"): value for key, value in values.items()}
    assert 0.3 < shares["dominant"] < 0.4
    assert shares["linked_same"] > 0.5 and shares["linked_strangers"] < 0.05
    assert shares["linked_sides"] < shares["linked_same"] / 2


def test_01_rmac(tmp_path):
    figures, values = run_smoke("01_rmac", tmp_path)
    results = {key.removeprefix("01_rmac/diorama/"): value for key, value in values.items()}
    assert figures >= 12 and len(results) >= 14
    assert results["images"] == 521 and 0.2 < results["baseline"] < 0.9
    assert results["query_removed"] < 0  # the query's own image is mostly its first neighbour
    assert -1 <= results["rank_correlation"] <= 1


def test_02_cleaning(tmp_path):
    figures, values = run_smoke("02_cleaning", tmp_path)
    results = {key.removeprefix("02_cleaning/diorama_train/"): value for key, value in values.items()}
    assert figures == 6
    assert results["precision"] > 0.8 and results["recall"] > 0.6
    assert results["iou"] > results["iou_first"] - 0.02


def test_03_learning(tmp_path):
    # The second test set is a folder per landmark, with a query for one of them.
    folder, train = tmp_path / "Own" / "towers", open_collection("diorama_train")
    for label in (0, 1):
        (folder / f"t{label}").mkdir(parents=True)
        for number in np.flatnonzero(np.array(train.labels) == label)[:4]:
            (folder / f"t{label}" / train.paths[number].name).symlink_to(train.paths[number])
    (folder / "query").mkdir()
    (folder / "query" / "t0.jpg").symlink_to(train.paths[np.flatnonzero(np.array(train.labels) == 0)[4]])
    smoke = yaml.safe_load((ROOT / "notebooks/profiles/smoke.yml").read_text())["03_learning"]
    profile = tmp_path / "smoke.yml"
    profile.write_text(yaml.safe_dump({"03_learning": {**smoke, "tests": {"diorama": "oxford", str(folder): "folder"},
                                                          "distractors": {str(folder): "diorama"}}}))
    figures, values = run_smoke("03_learning", tmp_path, profile)
    assert 0 < values["03_learning/towers/off_the_shelf"] <= 1
    # Leave-one-out queries: every image of the folder, not the one query.
    start = load_network(tmp_path / "learning/diorama_train/start.safetensors")
    paths = [*sorted(folder.glob("t*/*")), *open_dataset("diorama").paths]
    vectors = extract(start, paths, ExtractionSettings((smoke["size"],))).vectors
    landmarks = np.array([0] * 4 + [1] * 4 + [2] * (len(paths) - 8))
    same = landmarks[:, None] == landmarks
    relevant = same & ~np.eye(len(paths), dtype=bool) & (landmarks < 2)[:, None]  # the first eight are queries
    for name, count in (("towers", 8), ("towers_among_diorama", len(paths))):
        expected = leave_one_out(vectors[:count], relevant[:count, :count], ~same[:count, :count])
        assert values[f"03_learning/{name}_each/off_the_shelf"] == pytest.approx(expected, abs=1e-6)
    assert expected < values["03_learning/towers_each/off_the_shelf"]
    assert 0 < values["03_learning/towers_among_diorama/off_the_shelf"] <= values["03_learning/towers/off_the_shelf"]
    assert "03_learning/towers_among_diorama_each/t1_off_the_shelf" in values
    assert "03_learning/towers_among_diorama_each/diorama_off_the_shelf" not in values
    results = {key.removeprefix("03_learning/diorama/"): value for key, value in values.items()}
    assert figures == 5
    assert 0.2 < results["off_the_shelf"] < 0.9
    # So few and small updates change little.
    for configuration in ("c-full", "c-full_r-clean"):
        assert abs(results[f"{configuration}_gain"]) < 0.1
        expected = results[configuration] - results["off_the_shelf"]
        assert results[f"{configuration}_gain"] == pytest.approx(expected)


def test_04_proposals(tmp_path):
    figures, values = run_smoke("04_proposals", tmp_path)
    results = {key.removeprefix("04_proposals/"): value for key, value in values.items()}
    assert figures == 6
    for name in ("diorama_val_clean", "train_part_validation_list", "test_part"):
        for iou in (50, 70):
            recalls = [results[f"boxes/{name}/recall_{iou}_{count}"] for count in (8, 32)]
            assert 0 <= recalls[0] <= recalls[1] <= 1
        assert results[f"boxes/{name}/grid_70_8"] <= results[f"boxes/{name}/grid_50_8"]
    assert 0.2 < results["diorama/grid"] < 0.9 and results["diorama/unwhitened_grid"] > 0.2
    for regions in ("proposals_8", "proposals_32", "both_32"):
        expected = results[f"diorama/{regions}"] - results["diorama/grid"]
        assert results[f"diorama/{regions}_gain"] == pytest.approx(expected)
    assert results["diorama/extra_time_32"] > 0


def test_05_resolutions_and_expansion(tmp_path):
    figures, values = run_smoke("05_resolutions_and_expansion", tmp_path)
    results = {key.removeprefix("05_resolutions_and_expansion/diorama/"): value for key, value in values.items()}
    assert figures == 5
    assert results["images"] == 521 and 0.2 < results["size_96"] < results["headline"] < 0.9
    assert results["multires_dba_0_qe_0"] == results["multires"]
    assert results["multires_dba_20_qe_1"] == results["headline"]
    assert results["own_image_first"] > 0.3 and abs(results["rerank_gain"]) < 0.1


def test_06_compression(tmp_path):
    figures, values = run_smoke("06_compression", tmp_path)
    results = {key.removeprefix("06_compression/diorama/"): value for key, value in values.items()}
    assert figures == 5 and results["same_as_faiss"] == 1
    assert results["pca_64"] == pytest.approx(results["uncompressed"], abs=0.05)  # all dimensions, less the mean
    assert abs(results["scalar_64"] - results["uncompressed"]) < 0.01
    assert results["recall_pq_16"] > results["recall_pq_8"] > 0.05


def test_07_whole_chain(tmp_path):
    # Whitened networks stand for those of two seeds of training, an untrained proposal network for a trained one.
    images = open_collection("diorama_train").paths
    for seed in (0, 1):
        network = create_network(NetworkSettings("efficientnet_lite0", levels=2))
        sample = images[20 * seed:20 * seed + 30]
        network.set_whitening(learn_whitening(network, sample, ExtractionSettings((96,)), dim=32))
        save_network(tmp_path / f"trained_{seed}.safetensors", network)
    save_network(tmp_path / "proposals.safetensors", network.add_proposer([(0.5, 0.5), (0.9, 0.7)]))
    smoke = yaml.safe_load((ROOT / "notebooks/profiles/smoke.yml").read_text())["07_whole_chain"]
    chain = {**smoke["chains"]["paper"], "trained": "{output}/trained_{seed}.safetensors",
             "proposals": "{output}/proposals.safetensors"}
    test = smoke["tests"]["diorama"]
    tests = {"diorama": test, "removed": {**test, "protocol": "oxford-removed"},
             "among": {**test, "distractors": "diorama_holidays"}}
    profile = tmp_path / "smoke.yml"
    parameters = {**smoke, "chains": {"paper": chain}, "seeds": [0, 1], "tests": tests}
    profile.write_text(yaml.safe_dump({"07_whole_chain": parameters}))
    figures, values = run_smoke("07_whole_chain", tmp_path, profile)
    results = {key.removeprefix("07_whole_chain/"): value for key, value in values.items()}
    assert figures == 3
    before = {"whitened": "off_the_shelf", "trained": "whitened", "proposals": "trained", "resolutions": "proposals",
              "dba": "resolutions", "qe": "dba", "paper_dba": "resolutions", "paper_qe": "paper_dba", "rerank": "qe",
              "pq_16": "qe", "pq_8": "qe"}
    for label in tests:
        assert 0.2 < results[f"{label}/paper/off_the_shelf"] < 0.9
        for link, other in before.items():
            gain = results[f"{label}/paper/{link}"] - results[f"{label}/paper/{other}"]
            assert results[f"{label}/paper/{link}_gain"] == pytest.approx(gain)
            low, high = map(float, results[f"{label}/paper/{link}_gain_interval"].strip("[]").split(","))
            assert low - 0.05 <= 100 * gain <= high + 0.05
        assert results[f"{label}/paper/trained_spread"] > 0  # two seeds
        assert f"{label}/paper/proposals_spread" not in results  # one network for all seeds
        assert results[f"{label}/paper/pq_8"] <= results[f"{label}/paper/qe"]
    assert results["removed/paper/qe"] < results["diorama/paper/qe"]
    assert results["among/paper/qe"] <= results["diorama/paper/qe"]
    # The end of the chain, with the library's own commands.
    chosen = results["held_out/paper/chosen"]
    expected = evaluate(network.change(regions="proposals"), "diorama", "oxford",
                        ExtractionSettings(tuple(test["sizes"]), precision="float32"),
                        search=SearchSettings(qe=1, dba=chosen), progress=False).scores["mAP"]
    assert results["diorama/paper/qe"] == pytest.approx(expected, abs=0.002)
    assert results["held_out/paper/dba_0"] > 0 and results["held_out/paper/positives"] >= 1
