import copy
import json
import resource
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from rmaclib.checkpoints import CheckpointError, load_network, save_network
from rmaclib.datasets import open_dataset
from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.extraction.descriptors import extract
from rmaclib.extraction.whitening import learn_whitening
from rmaclib.foundation.errors import InputError, OutputError
from rmaclib.network import NetworkSettings, create_network


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_network(NetworkSettings("efficientnet_lite0", levels=2, grid="pixel", dim=16), pretrained=False)


def test_round_trip(network, tmp_path):
    save_network(tmp_path / "net.safetensors", network)
    again = load_network(tmp_path / "net.safetensors")
    assert again.settings == network.settings and not again.training
    images = torch.rand(1, 3, 96, 128)
    with torch.inference_mode():
        assert torch.equal(again(images), network(images))
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_round_trip_of_a_learned_exponent(tmp_path):
    network = create_network(NetworkSettings("efficientnet_lite0", pooling="gem", grid="whole"), pretrained=False)
    with torch.no_grad():
        network.power.fill_(4.25)
    save_network(tmp_path / "net.safetensors", network)
    again = load_network(tmp_path / "net.safetensors")
    assert again.settings == network.settings and again.power.item() == 4.25
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(again(images), network(images))


def test_half_precision(lite0, tmp_path):
    paths, settings = open_dataset("diorama").paths[:12], ExtractionSettings((256,), device="cpu")
    network = copy.deepcopy(lite0).set_whitening(learn_whitening(lite0, paths, settings, dim=16, progress=False))
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_network(tmp_path / "whole.safetensors", network)
    save_network(tmp_path / "half.safetensors", network, half=True)
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")]
    assert sizes[1] < 0.51 * sizes[0]
    again = load_network(tmp_path / "half.safetensors")
    assert again.settings == network.settings
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, weights[name])  # it stays as it was
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(again.state_dict()[name], expected) and again.state_dict()[name].dtype == tensor.dtype
    whole, half = (extract(each, paths, settings, progress=False).vectors for each in (network, again))
    assert np.sum(whole * half, axis=1).min() >= 0.9999


@pytest.mark.parametrize("change, message", [
    (lambda network: network.fc.bias[3].fill_(-7e4),
     "expected finite weights of at most 65504, .*found 70000 in fc.bias"),
    (lambda network: network.fc.weight.mul_(1e-10), "half: expected descriptors at a cosine of 0.9999 .*, found")])
def test_what_half_precision_cannot_represent(network, tmp_path, change, message):
    network = copy.deepcopy(network)
    with torch.no_grad():
        network.fc.bias.zero_()
        save_network(tmp_path / "good.safetensors", network, half=True)
        change(network)
    with pytest.raises(InputError, match=message):
        save_network(tmp_path / "net.safetensors", network, half=True)
    assert [path.name for path in tmp_path.iterdir()] == ["good.safetensors"]


def test_interrupted_save_keeps_the_old_file(network, tmp_path, monkeypatch):
    save_network(tmp_path / "net.safetensors", network)
    before = (tmp_path / "net.safetensors").read_bytes()

    def breaks(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "serialize_file", breaks)
    with pytest.raises(KeyboardInterrupt):
        save_network(tmp_path / "net.safetensors", network)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_what_is_no_checkpoint(network, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        load_network(path)
    path.write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="net.safetensors.*can't be read"):
        load_network(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="metadata format"):
        load_network(path)
    save_network(path, network)
    state, settings = load_file(path), json.dumps({"backbone": "efficientnet_lite0", "levles": 3})
    good = {"format": "rmaclib-checkpoint", "version": "1", "network": settings}
    save_file(state, path, good)
    with pytest.raises(CheckpointError, match="levles.*did you mean 'levels'"):
        load_network(path)
    save_file(state, path, {**good, "version": "99"})
    with pytest.raises(CheckpointError, match="version 99"):
        load_network(path)
    save_file({"a": torch.zeros(1)}, path, {**good, "network": json.dumps({"backbone": "efficientnet_lite0"})})
    with pytest.raises(CheckpointError, match="don't fit"):
        load_network(path)


def first_version(path, network, **changes):
    """Write a checkpoint as the first version did; changes: of the settings in it."""
    save_file(network.state_dict(), path, {"format": "rmaclib-checkpoint", "version": "1",
                                           "network": json.dumps({**asdict(network.settings), **changes})})


def test_a_checkpoint_of_the_first_version_loads(network, tmp_path):
    first_version(tmp_path / "net.safetensors", network)
    again = load_network(tmp_path / "net.safetensors")
    assert again.settings == network.settings
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in network.state_dict().items())


def test_the_same_network_gives_the_same_bytes(network, tmp_path):
    for name in "abcd":
        save_network(tmp_path / name, network)
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


@pytest.mark.parametrize("settings", [
    {"levels": 10**9}, {"dim": 10**12}, {"dim": 65_000}, {"anchors": [[0.5, 0.5]] * 900, "proposal_channels": 60_000},
    {"anchors": 3}, {"backbone": ["resnet50"]}, {"backbone": "resnet"}, {"backbone": "timm:\x00"}, {"grid": None},
    {"levels": "2"}, {"more": 1}])
def test_settings_that_cannot_be_those_of_the_file(network, tmp_path, settings):
    path = tmp_path / "net.safetensors"
    first_version(path, network, **settings)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="net.safetensors"):
        load_network(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000  # kB: rejected before memory is taken


@pytest.mark.parametrize("changes", [
    {"version": "one"}, {"version": "0"}, {"version": "1.5"}, {"network": "{"}, {"network": "[]"}, {"network": "3"},
    {"network": "null"}, {"network": "[" * 100_000}])
def test_metadata_that_are_damaged(network, tmp_path, changes):
    path = tmp_path / "net.safetensors"
    save_file(network.state_dict(), path, {"format": "rmaclib-checkpoint", "version": "1", "network": "{}", **changes})
    with pytest.raises(CheckpointError, match="net.safetensors"):
        load_network(path)


def test_a_changed_byte_is_an_error(network, tmp_path):
    path, random = tmp_path / "net.safetensors", np.random.default_rng(0)
    save_network(path, network)
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    # Half of them in the header, where the metadata and the tensors' names, kinds and places are.
    places = [*random.integers(0, header, 100), *random.integers(header, len(good), 20)]
    for place in places:
        changed = bytearray(good)
        changed[place] ^= 1 << int(random.integers(8))
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match="net.safetensors"):
            load_network(path)
    for end in (0, 7, 100, header, len(good) - 1):
        path.write_bytes(good[:end])
        with pytest.raises(CheckpointError, match="net.safetensors"):
            load_network(path)


def test_a_full_disk_names_the_file(network, tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        raise SafetensorError('Error while serializing: I/O error: No space left on device (os error 28)')

    monkeypatch.setattr(safetensors.torch, "serialize_file", full)
    with pytest.raises(OutputError, match="net.safetensors: can't be written .No space left"):
        save_network(tmp_path / "net.safetensors", network)
