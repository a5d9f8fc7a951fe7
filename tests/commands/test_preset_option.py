"""--preset: options win over it, and a checkpoint keeps its own settings."""

import json

import pytest
from typer.testing import CliRunner

from rmaclib import checkpoints, cli, presets
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.foundation.errors import InputError
from rmaclib.network import NetworkSettings, create_network
from rmaclib.search.index import Index

QUICK = ("--network", "efficientnet_lite0", "--dim", 8, "--whiten-on", "diorama_val", "--whiten-images", 40)


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def record(*arguments):
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_paper_on_a_benchmark(little):
    paper = record("evaluate", little, "--preset", "paper", "--size", 32, *QUICK)
    assert paper["search"]["qe"] == 1 and paper["search"]["dba"] == 20
    assert (paper["network"]["levels"], paper["network"]["grid"]) == (2, "exact")
    assert paper["settings"]["sizes"] == [32]  # one size for the preset's three
    release = record("evaluate", little, "--preset", "authors_release", "--size", 32, "--multires", "--qe", 0,
                     "--levels", 1, *QUICK)
    assert release["search"]["qe"] == 0 and release["search"]["dba"] == 20
    assert (release["network"]["levels"], release["network"]["grid"]) == (1, "pixel")
    assert release["settings"]["sizes"] == [22, 32, 42]


@pytest.mark.parametrize("more", [(), ("--multires",)])
def test_a_checkpoint_keeps_its_own_settings(little, tmp_path, more):
    settings = NetworkSettings("timm:test_efficientnet", levels=1, grid="float32", pooling="average", dim=4)
    checkpoints.save_network(tmp_path / "n.safetensors", create_network(settings, pretrained=False))
    paper = record("evaluate", little, "--preset", "paper", "--network", tmp_path / "n.safetensors", *more)
    network = paper["network"]
    assert (network["levels"], network["grid"], network["pooling"], network["dim"]) == (1, "float32", "average", 4)
    assert paper["settings"]["sizes"] == [550, 800, 1050] and paper["search"]["dba"] == 20


def test_the_laptops_is_the_default(little):
    chosen, default = (record("evaluate", little, *more) for more in (("--preset", "laptop"), ()))
    for name in ("network", "settings", "search", "scores"):
        assert chosen[name] == default[name]
    assert default["settings"]["sizes"] == [512] and default["search"]["qe"] == default["search"]["dba"] == 0
    assert default["network"] == json.loads(json.dumps(vars(NetworkSettings("efficientnet_lite0", levels=3))))


def test_extracting_with_a_preset(little, tmp_path):
    result = run("extract", little / "jpg", "--out", tmp_path / "d", "--preset", "paper", *QUICK, "--size", 32,
                 "--size", 48)
    assert result.exit_code == 0, result.output
    assert "images at 32 + 48 px" in result.stderr and "8 dimensions each" in result.stderr
    assert checkpoints.load_network(tmp_path / "d" / "network.safetensors").settings.levels == 2


@pytest.mark.parametrize("command", ["extract", "index"])
def test_dimensions_of_a_preset_that_a_backbone_lacks(little, tmp_path, command):
    result = run(command, little / "jpg", "--out", tmp_path / "x", "--preset", "paper", "--network",
                 "efficientnet_lite0")
    assert isinstance(result.exception, InputError), result.output
    assert str(result.exception).startswith("--preset paper, --dim: expected at most 1280")
    assert "extracting" not in result.stderr


def test_an_index_with_a_preset(little, tmp_path):
    made = ("index", little / "jpg", "--out", tmp_path / "x", "--size", 32, *QUICK)
    for _ in range(2):
        result = run(*made, "--preset", "paper")
        assert result.exit_code == 0, result.output
    assert "0 images added" in result.stderr
    index = Index.load(tmp_path / "x")
    assert index.settings == ExtractionSettings((32,)) and index.network.settings.levels == 2
    for preset, option in (("authors_release", "--grid"), ("laptop", "--levels")):
        result = run(*made, "--preset", preset)
        assert isinstance(result.exception, InputError)
        assert str(result.exception).startswith(f"--preset {preset}, {option}: {tmp_path / 'x'} was made with")
    assert run(*made).exit_code == 0  # the default preset says nothing about an index that is there


def test_cleaning_with_a_preset(little, tmp_path):
    settings = tmp_path / "my.yml"
    settings.write_text("graph: {min_images: 3}\nboxes: {alpha: 0.2}\n")
    result = run("clean", little, "--out", tmp_path / "c", "--preset", "paper", "--settings", settings, "--threshold",
                 20)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "c" / "settings.json").read_text())
    paper = presets.paper.settings("cleaning")
    assert (written["graph"]["threshold"], written["graph"]["min_images"], written["boxes"]["alpha"]) == (20, 3, 0.2)
    assert written["graph"]["conductance"] == paper.graph.conductance == 0
    assert written["boxes"]["merge"] == paper.boxes.merge == "median" and not written["verification"]["marks"]
