"""train(): from a collection to a trained network, from Python. More of it is tested through `rmac train`."""

import logging

import pytest
import torch
from learning_pictures import SIZE, pictures, tiny
from PIL import Image

import rmaclib.learning
from rmaclib.checkpoints import save_network
from rmaclib.foundation.errors import InputError, OutputError
from rmaclib.learning import LearningError, train
from rmaclib.network import NetworkSettings

FEW = {"updates": 1, "triplets": 3, "pool": 15, "size": SIZE, "device": "cpu"}


def test_a_folder_is_enough(images, tmp_path, caplog, capfd):
    caplog.set_level(logging.INFO, "rmaclib")
    save_network(tmp_path / "start.safetensors", tiny())
    trained = train(images.root, out=tmp_path / "out", network=tmp_path / "start.safetensors",
                    settings=FEW | {"dim": 8, "whiten_images": 12})
    assert trained.network.dim == 8 and len(trained.history) == 2 and trained.score is not None
    assert Image.open(tmp_path / "out/curves.png").width > 1000
    told = "\n".join(caplog.messages)
    assert "10 of 25 images held out" in told and "whitening learned on 12 images" in told
    assert capfd.readouterr().out == ""


def test_open_images_and_a_network_are_taken_as_they_are(images, tmp_path):
    network = tiny(images)
    before = network.fc.weight.detach().clone()
    trained = train(images, out=tmp_path, network=network, validation=images, settings=FEW)
    assert not (tmp_path / "whitening.safetensors").exists()  # it had one
    assert not torch.equal(network.fc.weight, before) and trained.network.settings == network.settings


def test_settings_of_a_network_with_their_dimensions(images, tmp_path):
    network = NetworkSettings("efficientnet_lite0", levels=1, dim=6)
    trained = train(images, out=tmp_path, network=network, validation=images, settings=FEW)
    assert trained.network.settings == network and (tmp_path / "whitening.safetensors").exists()


@pytest.mark.parametrize("options, error, message", [
    ({"stage": "naming"}, InputError, "stage: expected one of ranking, classification, proposals"),
    ({"preset": "fast"}, InputError, "preset: expected one of laptop, paper"),
    ({"settings": {"tripelts": 3}}, InputError, "did you mean 'triplets'"),
    ({"settings": {"dim": 0}}, InputError, "dim: expected at least 1"),
    ({"settings": {"dim": 9}}, InputError, "dim: expected 8, the dimensions of the network, got 9"),
    ({"network": NetworkSettings("efficientnet_lite0", dim=6), "settings": {"dim": 9}}, InputError,
     "dim: expected 6, that of the network's settings, got 9"),
    ({"stage": "classification", "graphs": "cleaned"}, InputError, "graphs: expected with the stage ranking only"),
    ({"stage": "proposals"}, LearningError, "expected images with boxes"),
])
def test_arguments_are_checked_before_any_work(images, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        train(images, out=tmp_path / "out", **{"network": tiny(images), **options})
    assert not (tmp_path / "out").exists()


def test_a_single_landmark(tmp_path):
    images = pictures(tmp_path / "pictures", landmarks=1)
    with pytest.raises(LearningError, match="two landmarks or more"):
        train(images, out=tmp_path / "out", network=tiny())


def test_the_folder_of_the_images_is_no_output_folder(images):
    with pytest.raises(OutputError, match="outside of the images"):
        train(images.root, out=images.root / "trained", network=tiny())


def test_public_names():
    assert all(hasattr(rmaclib.learning, name) for name in rmaclib.learning.__all__)
