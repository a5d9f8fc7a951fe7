import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from rmaclib.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from rmaclib.rmac import NetworkSettings, create_network


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return create_network(NetworkSettings("efficientnet_lite0", levels=2, grid="pixel", dim=16), pretrained=False)


def test_round_trip(network, tmp_path):
    save_checkpoint(tmp_path / "net.safetensors", network)
    again = load_checkpoint(tmp_path / "net.safetensors")
    assert again.settings == network.settings and not again.training
    images = torch.rand(1, 3, 96, 128)
    with torch.inference_mode():
        assert torch.equal(again(images), network(images))
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_round_trip_of_a_learned_exponent(tmp_path):
    network = create_network(NetworkSettings("efficientnet_lite0", pooling="gem", grid="whole"), pretrained=False)
    with torch.no_grad():
        network.power.fill_(4.25)
    save_checkpoint(tmp_path / "net.safetensors", network)
    again = load_checkpoint(tmp_path / "net.safetensors")
    assert again.settings == network.settings and again.power.item() == 4.25
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(again(images), network(images))


def test_interrupted_save_keeps_the_old_file(network, tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "net.safetensors", network)
    before = (tmp_path / "net.safetensors").read_bytes()

    def breaks(tensors, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("rmaclib.checkpoints.save_file", breaks)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "net.safetensors", network)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_what_is_no_checkpoint(network, tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(path)
    path.write_bytes(b"not tensors")
    with pytest.raises(CheckpointError, match="net.safetensors.*can't be read"):
        load_checkpoint(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="metadata format"):
        load_checkpoint(path)
    save_checkpoint(path, network)
    state, settings = load_file(path), json.dumps({"backbone": "efficientnet_lite0", "levles": 3})
    good = {"format": "rmaclib-checkpoint", "version": "1", "network": settings}
    save_file(state, path, good)
    with pytest.raises(CheckpointError, match="levles.*did you mean 'levels'"):
        load_checkpoint(path)
    save_file(state, path, {**good, "version": "99"})
    with pytest.raises(CheckpointError, match="version 99"):
        load_checkpoint(path)
    save_file({"a": torch.zeros(1)}, path, {**good, "network": json.dumps({"backbone": "efficientnet_lite0"})})
    with pytest.raises(CheckpointError, match="don't fit"):
        load_checkpoint(path)
