"""The commands from end to end."""

import json
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from rmaclib import cli
from rmaclib.checkpoints import open_network
from rmaclib.datasets import open_collection, open_dataset
from rmaclib.evaluation.benchmark import extract_queries, score_descriptors
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.folder import load_descriptors
from rmaclib.search.index import Index
from rmaclib.search.index_folder import SearchIndexError
from rmaclib.search.retrieval import SearchSettings


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def test_evaluate_json(little):
    result = run("evaluate", little, "--protocol", "oxford", "--network", "efficientnet_lite0", "--size", 224,
                 "--levels", 3, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert 0.3 < record["scores"]["mAP"] <= 1 and record["counts"]["queries"] == 6
    assert record["network"]["levels"] == 3 and record["settings"]["sizes"] == [224] and record["bad"] == []


def test_evaluate_whitened_and_per_query(little):
    result = run("evaluate", little, "--network", "efficientnet_lite0", "--size", 224, "--dim", 32, "--whiten-on",
                 "diorama_val", "--per-query")
    assert result.exit_code == 0, result.output
    assert "mAP" in result.stdout and "berala" in result.stdout
    assert "whitening learned on" in result.stderr


def test_evaluate_among_distractors(little):
    arguments = ["evaluate", little, "--size", 96, "--json"]
    alone, among = (run(*arguments, *more) for more in ((), ("--distractors", "diorama_val")))
    assert among.exit_code == 0, among.output
    alone, among = json.loads(alone.stdout), json.loads(among.stdout)
    assert among["dataset"] == f"{alone['dataset']}_among_diorama_val"
    added = len(open_collection("diorama_val").names)
    assert among["counts"] == {**alone["counts"], "images": alone["counts"]["images"] + added}
    assert among["scores"]["mAP"] < alone["scores"]["mAP"]
    benchmark = run(*arguments, "--distractors", "diorama_holidays")  # one with queries of its own
    assert benchmark.exit_code == 0, benchmark.output
    holidays = len(open_dataset("diorama_holidays").names)
    assert json.loads(benchmark.stdout)["counts"]["images"] == alone["counts"]["images"] + holidays


def test_evaluate_protocol_of_another_layout(little):
    result = run("evaluate", little, "--protocol", "holidays", "--size", 64)
    assert isinstance(result.exception, ValueError)


def test_evaluate_with_everything(little, tmp_path):
    arguments = ["evaluate", little, "--size", 96, "--multires", "--qe", 1, "--dba", 3, "--json",
                 "--out", tmp_path / "d"]
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["settings"]["sizes"] == [66, 96, 126] and record["pq"] is None
    assert record["search"] == {"qe": 1, "dba": 3, "qe_alpha": 0.0, "dba_alpha": None}
    dataset, vectors = open_dataset(little), load_descriptors(tmp_path / "d")
    settings = ExtractionSettings((66, 96, 126))
    network = open_network()
    expected = score_descriptors(dataset, extract_queries(network, dataset, settings), vectors, "oxford",
                                 SearchSettings(1, 3))
    assert record["scores"]["mAP"] == pytest.approx(expected.scores["mAP"], abs=1e-9)
    plain = score_descriptors(dataset, extract_queries(network, dataset, settings), vectors, "oxford")
    assert record["scores"]["mAP"] != plain.scores["mAP"]
    coded = run(*arguments[:2], "--size", 96, "--pq", 64, "--qe", 1, "--whiten-on", "diorama_train", "--json")
    assert coded.exit_code == 0, coded.output
    assert json.loads(coded.stdout)["pq"] == 64 and 0.2 < json.loads(coded.stdout)["scores"]["mAP"] <= 1
    assert "codes learned on 875 images of diorama_train" in coded.stderr
    twice = run(*arguments, "--size", 128)
    assert twice.exit_code == 2 and "--multires" in twice.stderr and "96, 128" in twice.stderr


def test_extract(little, tmp_path):
    result = run("extract", little / "jpg", "--out", tmp_path / "d", "--size", 96)
    assert result.exit_code == 0, result.output
    descriptors = load_descriptors(tmp_path / "d")
    assert list(descriptors.names) == [str(path) for path in sorted((little / "jpg").iterdir())]
    assert descriptors.vectors.shape == (len(descriptors.names), 512)


def test_index_then_search(little, tmp_path):
    photos = shutil.copytree(little / "jpg", tmp_path / "photos")
    (photos / "broken.jpg").write_text("no picture")
    result = run("index", photos, "--out", tmp_path / "i", "--size", 160)
    assert result.exit_code == 0, result.output
    count = len(list((little / "jpg").iterdir()))
    assert "1 images left out" in result.stderr and f"{count} images added" in result.stderr
    assert "flat: every vector is compared" in result.stderr
    query = sorted(photos.iterdir())[1]
    result = run("search", tmp_path / "i", query, "--k", 7, "--box", "10,10,200,150", "--out", tmp_path / "n.png")
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "n.png").width > 500 and "inliers" not in result.stdout
    result = run("search", tmp_path / "i", query, "--k", 3, "--rerank", 3, "--out", tmp_path / "reranked.png")
    assert result.exit_code == 0, result.output
    assert "inliers" in result.stdout and "1.000" in result.stdout
    listed = "".join(line.split("│")[-2].strip() for line in result.stdout.splitlines() if "│" in line)
    assert listed.count(str(photos)) == 3 and listed.startswith(str(query))  # whole, on however many lines
    (photos / "broken.jpg").unlink()
    shutil.copy(query, photos / "again.jpg")
    result = run("index", photos, "--out", tmp_path / "i")
    assert result.exit_code == 0, result.output
    assert "1 images added" in result.stderr and f"{count + 1:,} vectors" in result.stderr
    assert (tmp_path / "i" / "bad.txt").read_text() == ""


def test_searching_in_an_empty_index(tmp_path, lite0, little):
    Index.build([], lite0, ExtractionSettings((64,)), out=tmp_path / "i")
    result = run("search", tmp_path / "i", min((little / "jpg").iterdir()), "--out", tmp_path / "x.png")
    assert isinstance(result.exception, SearchIndexError) and "contains no images" in str(result.exception)


def test_a_mistyped_command():
    result = run("clen")
    assert result.exit_code == 2 and "clean" in result.output
