"""--preset: options win over it, and a checkpoint keeps its own settings."""

import json
from importlib import import_module

import pytest
import typer
from typer.testing import CliRunner

from rmaclib import checkpoints, cli, networks, presets
from rmaclib.commands.network import NetworkOptions, extraction_settings
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.foundation.errors import InputError
from rmaclib.network import NetworkSettings, create_network
from rmaclib.search.index import Index

COMMANDS = pytest.mark.parametrize("command", ["extract", "index", "evaluate"])


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def chosen(command, *arguments):
    """The network's options and the extraction's settings of a command that is parsed, and not run."""
    app = import_module(f"rmaclib.commands.{command}").app
    context = typer.main.get_command(app).make_context(command, ["x", "--out", "y", *map(str, arguments)])
    return NetworkOptions.of(context), extraction_settings(context)


@pytest.fixture
def checkpoint(tmp_path):
    settings = NetworkSettings("timm:test_efficientnet", levels=1, grid="float32", pooling="average", dim=4)
    checkpoints.save_network(tmp_path / "n.safetensors", create_network(settings, pretrained=False))
    return tmp_path / "n.safetensors"


@COMMANDS
def test_the_preset_of_a_command(command):
    network, extraction = chosen(command, "--preset", "paper")
    assert network.network == "resnet101" and network.dim == 2048 and network.settings["levels"] == 2
    assert extraction == ExtractionSettings((550, 800, 1050))
    network, extraction = chosen(command, "--preset", "authors_release")
    assert network.settings["grid"] == "pixel" and extraction.sizes == (550, 800, 1050)


@COMMANDS
def test_options_win_over_the_preset(command):
    network, extraction = chosen(command, "--preset", "paper", "--levels", 4, "--network", "vgg16", "--dim", 512,
                                 "--grid", "global", "--size", 64, "--size", 96, "--precision", "float32", "--enlarge")
    assert network.network == "vgg16" and network.dim == 512
    assert network.settings == {"levels": 4, "grid": "global", "pooling": "max", "regions": "grid", "proposals": 256}
    assert extraction == ExtractionSettings((64, 96), enlarge=True, precision="float32")


@COMMANDS
def test_the_laptops_preset_is_the_default(command):
    assert chosen(command) == chosen(command, "--preset", "laptop")
    network, extraction = chosen(command)
    assert network.network == networks.DEFAULT and network.settings == {} and network.dim is None  # it has its own
    assert extraction == ExtractionSettings((512,))
    network, _ = chosen(command, "--network", "efficientnet_lite0")
    assert NetworkSettings(network.network, **network.settings) == NetworkSettings("efficientnet_lite0", levels=3)
    assert network.dim is None


@COMMANDS
def test_a_checkpoint_keeps_its_own_settings(command, checkpoint):
    network, extraction = chosen(command, "--preset", "paper", "--network", checkpoint)
    assert network.settings == {} and network.dim is None and extraction.sizes == (550, 800, 1050)
    assert chosen(command, "--preset", "paper", "--network", checkpoint, "--levels", 3)[0].settings == {"levels": 3}


@pytest.mark.parametrize("options, sizes, steps", [
    (("--size", 64), [64], (1, 20)), (("--multires", "--qe", 0), [550, 800, 1050], (0, 20)),
    (("--multires", "--size", 32, "--dba", 3), [22, 32, 42], (1, 3))])
def test_the_paper_on_a_benchmark(little, checkpoint, options, sizes, steps):
    result = run("evaluate", little, "--preset", "paper", "--network", checkpoint, *options, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["settings"]["sizes"] == sizes and (record["search"]["qe"], record["search"]["dba"]) == steps
    assert (record["network"]["levels"], record["network"]["grid"], record["network"]["dim"]) == (1, "float32", 4)


@pytest.mark.parametrize("command", ["extract", "index"])
def test_dimensions_of_a_preset_that_a_backbone_lacks(little, tmp_path, command):
    result = run(command, little / "jpg", "--out", tmp_path / "x", "--preset", "paper", "--network",
                 "efficientnet_lite0")
    assert isinstance(result.exception, InputError), result.output
    assert str(result.exception).startswith("--preset paper, --dim: expected at most 1280")
    assert "extracting" not in result.stderr


def test_an_index_with_a_preset(little, tmp_path):
    made = ("index", little / "jpg", "--out", tmp_path / "x", "--size", 32, "--levels", 2)
    for _ in range(2):
        result = run(*made, "--preset", "laptop")
        assert result.exit_code == 0, result.output
    assert "0 images added" in result.stderr
    index = Index.load(tmp_path / "x")
    assert index.settings == ExtractionSettings((32,)) and index.network.settings.levels == 2
    for preset, option in (("authors_release", "--grid"), ("paper", "--proposals")):
        result = run(*made, "--preset", preset)
        assert isinstance(result.exception, InputError)
        assert str(result.exception).startswith(f"--preset {preset}, {option}: {tmp_path / 'x'} was made with")
    result = run(*made[:4], "--preset", "laptop")
    assert "--preset laptop, --size: " in str(result.exception) and "32, got 512" in str(result.exception)
    assert run(*made).exit_code == 0  # the default preset says nothing about an index that is there


def test_cleaning_with_a_preset(little, tmp_path):
    settings = tmp_path / "my.yml"
    settings.write_text("graph: {min_images: 3}\nboxes: {alpha: 0.2}\n")
    result = run("clean", little, "--out", tmp_path / "c", "--preset", "paper", "--settings", settings, "--threshold",
                 20, "--size", 128, "--keypoints", 100)
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "c" / "settings.json").read_text())
    paper = presets.paper.settings("cleaning")
    assert (written["graph"]["threshold"], written["graph"]["min_images"], written["boxes"]["alpha"]) == (20, 3, 0.2)
    assert written["graph"]["conductance"] == paper.graph.conductance == 0
    assert written["boxes"]["merge"] == paper.boxes.merge == "median" and not written["verification"]["marks"]
