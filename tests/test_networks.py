"""The trained networks of the package: they are small, they load, and their model cards say what is recorded."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
import yaml

from rmaclib.backbones import BackboneError
from rmaclib.checkpoints import checkpoint_file, fingerprint, load_network, open_network
from rmaclib.learning.training import start_network
from rmaclib.networks import DEFAULT, NAMES, network_file
from rmaclib.search.index import Index

ROOT = Path(__file__).parents[1]
EVERY = pytest.mark.parametrize("name", NAMES)


def release_card():
    spec = importlib.util.spec_from_file_location("release_card", ROOT / "release/card.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.card()


@EVERY
def test_a_network_is_small_and_trained(name):
    file = network_file(name)
    assert file.stat().st_size <= 12_000_000
    network = load_network(file)
    assert not network.training and network.fc is not None
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    weights = open_network(network.settings.backbone).backbone.state_dict()
    # In half precision the weights of ImageNet differ from themselves.
    assert [key for key, tensor in network.backbone.state_dict().items()
            if not torch.equal(tensor, weights[key].half().to(tensor.dtype))]


def test_its_name_goes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT).write_text("no network")
    assert checkpoint_file(DEFAULT) == network_file(DEFAULT)
    assert checkpoint_file(f"./{DEFAULT}") == Path(DEFAULT)
    assert network_file("efficientnet_lite0") is checkpoint_file("efficientnet_lite0") is None


def test_it_is_the_default():
    weights = fingerprint(load_network(network_file(DEFAULT)))
    assert fingerprint(open_network()) == fingerprint(load_network()) == fingerprint(load_network(DEFAULT)) == weights
    assert fingerprint(Index().network) == weights
    assert start_network("ranking", {"propose": 0}) == start_network("classification", {}) == DEFAULT
    for stage, settings in (("proposals", {}), ("ranking", {"propose": 8})):
        assert len(open_network(start_network(stage, settings)).backbone.layers) == 1  # which proposals need


def test_a_mistyped_name_names_them():
    with pytest.raises(BackboneError, match=f"trained networks.*{DEFAULT}"):
        open_network("landmark_lite0")


def test_its_settings_can_be_changed_as_those_of_a_file():
    assert open_network(DEFAULT, levels=2).settings.levels == 2


def test_the_installed_card_is_the_page_of_the_book():
    assert network_file(DEFAULT).with_suffix(".md").read_text(encoding="utf-8") == release_card()
    assert not re.search(r"\{[a-z]+\}`|\]\([a-z_]+\.md", release_card())


def test_the_card_has_the_landmarks_of_the_recipe():
    recipe, card = yaml.safe_load((ROOT / "release/recipe.yml").read_text()), release_card()
    for part, words in (("held_out", "held out"), ("kept_apart", "kept apart")):
        block = re.search(rf"\*\*{words}\*\*(.*?)(?=\n- \*\*|\n\n)", card, re.S)
        assert sorted(re.findall(r"`([a-z_]+)`", block[1])) == sorted(recipe[part])
