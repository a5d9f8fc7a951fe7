"""rmac backbones, and what it lists."""

import re

import pytest
import torch
from typer.testing import CliRunner

from rmaclib import cli
from rmaclib.backbones import BackboneError, Layer, create_backbone
from rmaclib.backbones.survey import survey


def run(*arguments):
    return CliRunner().invoke(cli.app, ["backbones", *arguments])


def rows(text):
    """(layer, stride, channels, milliseconds) of each row of the table."""
    cells = re.findall(r"^│ (\S+) +│ +(\d+) │ +(\d+) │ +([\d.]+) │$", text, re.M)
    return [(layer, int(stride), int(channels), float(ms)) for layer, stride, channels, ms in cells]


def test_the_default_and_the_names_of_all():
    result = run()
    assert result.exit_code == 0, result.output
    assert "backbones: efficientnet_lite0, efficientnet_lite1," in result.stdout and "timm:<name>" in result.stdout
    assert re.search("ms: one image at a time on one core; median of 5; .* cores", result.stderr)
    table = rows(result.stdout)
    layers = [row[:3] for row in table]
    assert layers[-1] == ("last", 32, 1280) and len(layers) == 32  # 16 blocks, the expansions of 15, and the last
    assert ("blocks.5.0.expansion", 16, 672) in layers and ("blocks.6.0", 32, 320) in layers
    times = [row[3] for row in table]
    assert times == sorted(times) and times[0] > 0


def test_another_network():
    result = run("--network", "timm:test_efficientnet:blocks.1+last")
    assert result.exit_code == 0, result.output
    layers = [row[:3] for row in rows(result.stdout)]
    assert layers[-1] == ("last", 32, 256) and "backbones:" not in result.stdout
    assert isinstance(run("--network", "resnet").exception, BackboneError)


def test_what_is_listed_can_be_requested():
    threads = torch.get_num_threads()
    layers = [layer for layer, _ in survey("timm:test_efficientnet", 64, 96, 1)]
    assert torch.get_num_threads() == threads
    names = [layer.name for layer in layers]
    assert names[-1] == "last" and len(set(names)) == len(names) > 4
    assert create_backbone(f"timm:test_efficientnet:{'+'.join(names)}", pretrained=False).layers == tuple(layers)


def test_a_layer_that_is_changed_in_place_is_not_listed():
    names = [layer.name for layer, _ in survey("vgg16", 32, 32, 1)]
    assert "features.0" not in names and "features.1" in names and names[-1] == "last"


@pytest.mark.parametrize("name", ["resnet50", "timm:test_resnet"])
def test_the_last_layer_is_listed_once(name):
    layers = [layer for layer, _ in survey(name, 32, 32, 1)]
    assert [layer for layer in layers if layer.stride == 32][-1] == layers[-1] == Layer("last", 32, layers[-1].channels)
    assert not {"layer4", "layer4.2"} & {layer.name for layer in layers}
