"""The recipe of the network of the package: its settings exist, and its landmarks are apart."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from rmaclib.checkpoints import fingerprint, load_network
from rmaclib.cleaning import clean_settings
from rmaclib.datasets import known_datasets
from rmaclib.foundation.settings import from_mapping
from rmaclib.learning import ClassificationSettings, RankingSettings
from rmaclib.network import NetworkSettings
from rmaclib.networks import DEFAULT, network_file
from rmaclib.results import load_results

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("release_train", ROOT / "release/train.py")
release_train = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release_train)


@pytest.fixture
def recipe():
    return yaml.safe_load(release_train.RECIPE.read_text())


def test_every_setting_exists(recipe):
    for settings, values in ((ClassificationSettings, recipe["classification"]), (RankingSettings, recipe["ranking"])):
        from_mapping(settings, values)
    for changed in recipe["tries"]["of"].values():
        from_mapping(RankingSettings, {**recipe["ranking"], "updates": recipe["tries"]["updates"], **changed})
    clean_settings(recipe["cleaning"])
    assert recipe["whitening"].keys() == {"images", "size"}
    assert {name: NetworkSettings(**network).dim for name, network in recipe["networks"].items()} == {
        "paper": 512, "ours": 512}
    assert {recipe["collection"], *recipe["tests"]} <= known_datasets().keys()


def test_no_landmark_is_both_held_out_and_kept_apart(recipe):
    assert len(recipe["held_out"]) == 10
    apart = recipe["held_out"] + recipe["kept_apart"]
    assert len(set(apart)) == len(apart)


def test_the_profile_of_photographs_holds_out_the_same(recipe):
    profile = yaml.safe_load((ROOT / "notebooks/profiles/photos.yml").read_text())
    for notebook in ("01_rmac", "04_proposals", "07_whole_chain"):
        assert profile[notebook]["held_out"] == recipe["held_out"]


def test_the_records_are_those_of_the_shipped_network():
    records = load_results(ROOT / "data/results/release")
    weights = fingerprint(load_network(network_file(DEFAULT)))
    ours = [result for key, result in records.items() if "/ours/" in key and "/tries/" not in key]
    assert ours and all(result.settings["weights"][0] == weights for result in ours)


@pytest.mark.photos
def test_the_collection_has_the_landmarks(recipe, photos, monkeypatch):
    monkeypatch.setenv("RMACLIB_DATA", str(photos))
    images = release_train.open_collection(recipe["collection"])
    parts = [images.of_landmarks(recipe[part]) for part in ("held_out", "kept_apart")]
    rest = images.of_landmarks(recipe["held_out"] + recipe["kept_apart"], others=True)
    assert [len(set(part.labels)) for part in (*parts, rest)] == [10, 8, 30]
    assert sum(len(part.names) for part in (*parts, rest)) == len(images.names)
