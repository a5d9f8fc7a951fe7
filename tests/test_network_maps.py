"""Networks with several feature maps."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from rmaclib.backbones import Backbone, Layer
from rmaclib.checkpoints import CheckpointError, load_network, open_network, save_network
from rmaclib.extraction.batches import Workers
from rmaclib.foundation.errors import InputError
from rmaclib.network import RMAC, SharedFeatures, create_network
from rmaclib.network_settings import NetworkSettings, shares
from rmaclib.pooling import l2
from rmaclib.regions import pixel_grid, rigid_grid
from rmaclib.whitening import fit_whitening

PAIR = "efficientnet_lite0:blocks.5.0.expansion+last"


class Pair(nn.Module):
    """A map of stride 4 with 5 channels, and one of stride 8 with 7."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 5, 4, 4), nn.Conv2d(5, 7, 2, 2)

    def forward(self, images):
        fine = self.first(images).relu()
        return fine, self.second(fine).relu()


def pair(dim=None, **options):
    torch.manual_seed(1)
    backbone = Backbone("tiny", Pair(), [Layer("first", 4, 5), Layer("last", 8, 7)], (0.5,) * 3, (0.5,) * 3)
    network = RMAC(NetworkSettings("tiny:first+last", dim=dim, **options), backbone)
    with torch.no_grad():
        network.map_weights.copy_(torch.tensor([0.8, 1.7]))
        if dim is not None:
            network.shift.normal_()
    return network.eval()


def test_dimensions_are_shared_evenly():
    assert shares(512, 2) == (256, 256) and shares(11, 3) == (4, 4, 3) and shares(5, 1) == (5,)


@pytest.mark.parametrize("dim", [None, 5])
@pytest.mark.parametrize("grid", ["exact", "pixel"])
def test_by_hand(dim, grid):
    network, images = pair(dim, grid=grid), torch.rand(2, 3, 40, 64)
    with torch.no_grad():
        descriptors, maps = network(images).numpy(), [each.numpy() for each in network.backbone.maps(images)]
    assert descriptors.shape == (2, network.dim) and network.dim == (dim or 12)
    for number, descriptor in enumerate(descriptors):
        parts = []
        for place, (stride, weight) in enumerate([(4, 0.8), (8, 1.7)]):
            rows, columns = maps[place].shape[2:]
            grids = {"exact": [(x, y, side, side) for x, y, side in rigid_grid(rows, columns, 2)],
                     "pixel": pixel_grid(40, 64, 2, stride)}
            total = 0
            for x, y, width, height in grids[grid]:
                vector = maps[place][number, :, y:y + height, x:x + width].max((1, 2))
                vector = vector / np.linalg.norm(vector)
                if dim is not None:
                    shift = network.shift.detach().numpy()[:5] if place == 0 else network.shift.detach().numpy()[5:]
                    layer = network.fc[place]
                    vector = layer.weight.detach().numpy() @ (vector + shift) + layer.bias.detach().numpy()
                    assert len(vector) == (3, 2)[place]
                    vector = vector / np.linalg.norm(vector)
                total = total + vector
            parts.append(weight * total / np.linalg.norm(total))
        expected = np.concatenate(parts)
        assert np.allclose(descriptor, expected / np.linalg.norm(expected), atol=1e-5)


def test_gradients_reach_everything():
    network = pair(5, pooling="gem").double()
    images = torch.rand(1, 3, 24, 32, dtype=torch.float64)
    direction = torch.randn(5, dtype=torch.float64)
    (network(images) @ direction).sum().backward()
    names = {"shift", "fc.0.weight", "fc.1.weight", "fc.0.bias", "map_weights", "power", "backbone.body.first.weight",
             "backbone.body.second.weight"}
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradients[name].abs().max() > 1e-6 for name in names), gradients
    for name in names:  # the direction of the gradient by differences
        parameter, step = network.get_parameter(name), 1e-6
        with torch.no_grad():
            change = step * gradients[name] / gradients[name].norm()
            values = []
            for sign in (1, -2):
                parameter.add_(sign * change)
                values.append((network(images) @ direction).item())
            parameter.add_(change)
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(gradients[name].norm().item(), rel=1e-3), name


def test_one_map_is_as_it_was():
    network = create_network(NetworkSettings("efficientnet_lite0", dim=4), pretrained=False)
    assert network.map_weights is None
    assert {name for name in network.state_dict() if not name.startswith("backbone.body.model.")} == {
        "shift", "fc.weight", "fc.bias"}


@pytest.mark.parametrize("dim", [1, 11, 99])
def test_dimensions_that_the_maps_do_not_have(dim):
    assert pair().backbone.dims == range(2, 11)
    with pytest.raises(InputError, match="dim: expected 2..10, for tiny shares it among 2 maps"):
        RMAC(NetworkSettings("tiny:first+last", dim=dim), pair().backbone)


def test_whitenings():
    network, images = pair(), torch.rand(16, 3, 40, 52)
    with torch.inference_mode():
        of_maps = network.region_vectors(network.backbone.maps(images), (40, 52))
    vectors = [torch.cat(of_map).numpy() for of_map in of_maps]
    assert [len(of_map) for of_map in of_maps] == [16, 16] and [each.shape[1] for each in vectors] == [5, 7]
    whitenings = [fit_whitening(each, dim) for each, dim in zip(vectors, (4, 3), strict=True)]
    network.set_whitening(whitenings)
    assert network.dim == network.settings.dim == 7
    for place, each in enumerate(vectors):
        with torch.inference_mode():
            white = network.fc[place](torch.from_numpy(each) + network.shift.split([5, 7])[place])
        assert np.allclose(np.cov(white.numpy().T), np.eye(white.shape[1]), atol=1e-2)
    for wrong, message in [(whitenings[0], "vectors of 5 and 7 dimensions.*got 5"), (whitenings[::-1], "got 7 and 5"),
                           ([fit_whitening(each, dim) for each, dim in zip(vectors, (3, 4), strict=True)],
                            r"expected dimensions \(4, 3\), got \(3, 4\)")]:
        with pytest.raises(InputError, match=message):
            pair().set_whitening(wrong)


def test_regions_are_proposed_on_one_map_only():
    with pytest.raises(InputError, match="proposals: expected a network of one feature map.*got tiny"):
        pair().add_proposer([(0.5, 0.5)])


def test_networks_that_share_maps():
    first, images = pair(5), torch.rand(2, 3, 40, 52)
    shared = SharedFeatures({"a": first, "b": RMAC(NetworkSettings("tiny:first+last", levels=1), first.backbone)})
    with torch.inference_mode():
        parts = shared.eval().split(shared(images).numpy())
        assert all(np.allclose(parts[name], network(images).numpy(), atol=1e-6)
                   for name, network in zip("ab", shared.parts, strict=True))


def test_threads_give_what_one_gives():
    network, images, results = pair(5), [torch.rand(1, 3, 32 + 4 * number, 40) for number in range(40)], []
    for threads in (1, 8):
        with Workers(threads, on_cpu=True) as pool:
            results.append(list(pool.map(torch.no_grad()(network), images)))
    assert all(torch.allclose(*both, atol=1e-6) for both in zip(*results, strict=True))


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    network = create_network(NetworkSettings(PAIR, dim=9), pretrained=False)
    path = tmp_path_factory.mktemp("saved") / "pair.safetensors"
    with torch.no_grad():
        network.map_weights.copy_(torch.tensor([0.5, 2.0]))
        network.shift.normal_()
    save_network(path, network)
    return network, path


def test_round_trip(saved):
    network, path = saved
    again, images = load_network(path), torch.rand(1, 3, 96, 128)
    assert again.settings == network.settings and again.backbone.layers == network.backbone.layers
    assert again.state_dict()["fc.0.weight"].shape == (5, 672) and again.state_dict()["fc.1.weight"].shape == (4, 1280)
    with torch.inference_mode():
        assert torch.equal(again(images), network(images))
    assert open_network(str(path), levels=1).settings.levels == 1


@pytest.mark.parametrize("changes, message", [
    ({"backbone": "efficientnet_lite0"}, "fc.weight"), ({"dim": 8}, "fc.0.weight"), ({"dim": 10}, "fc.1.weight"),
    ({"dim": None}, "fc.0.weight"), ({"dim": 1}, "fc.0.weight"),
    ({"backbone": PAIR.replace("+", "+blocks.6.0.expansion+")}, "fc.0.weight"),
    ({"backbone": PAIR + "+"}, "different layers"),
    ({"backbone": "efficientnet_lite0:last+blocks.5.0.expansion"}, "in the order in which they are run"),
    ({"backbone": "efficientnet_lite0:blocks.6.0.expansion+last"}, "weights don't fit"),
    ({"backbone": "efficientnet_lite0:no+last"}, "got 'no'"),
    ({"anchors": [[0.5, 0.5]]}, "proposer.hidden.weight")])
def test_settings_that_are_not_those_of_the_file(saved, tmp_path, changes, message):
    network, path = saved
    save_file(load_file(path), tmp_path / "net.safetensors", {
        "format": "rmaclib-checkpoint", "version": "1", "network": json.dumps({**asdict(network.settings), **changes})})
    with pytest.raises(CheckpointError, match=f"net.safetensors.*{message}"):
        load_network(tmp_path / "net.safetensors")


def test_a_part_of_the_weights_is_that_of_the_plain_network(saved):
    plain = create_network("efficientnet_lite0", pretrained=False).backbone
    plain.load_state_dict(saved[0].backbone.state_dict())
    images = torch.rand(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.equal(plain(images), saved[0].backbone(images))


def test_pair_of_the_embedded_network_is_the_concatenation(lite0):
    """Against the two maps taken from the plain network by a hook."""
    network, inputs = create_network(PAIR), []
    handle = lite0.backbone.body.model.blocks[5][0].conv_dw.register_forward_pre_hook(
        lambda layer, given: inputs.append(given[0]))
    images = torch.randint(0, 256, (1, 3, 192, 256), dtype=torch.uint8)
    with torch.inference_mode():
        last = lite0.backbone(images)
        handle.remove()
        expected = []
        for maps in (inputs[0], last):
            regions = [l2(maps[0, :, y:y + side, x:x + side].amax((1, 2)))
                       for x, y, side in rigid_grid(*maps.shape[2:], 3)]
            expected.append(l2(sum(regions)))
        assert torch.allclose(network(images)[0], l2(torch.cat(expected)), atol=1e-5)
