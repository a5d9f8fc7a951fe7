import pytest
import torch
from torch import nn

from rmaclib.backbones.folding import Folded
from rmaclib.network import NetworkSettings, create_network


def fixed(network: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics as of a trained network and in float64."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 2)
                nn.init.normal_(layer.bias)
    return network.eval().double()


class Odd(nn.Module):
    """A normalisation registered behind a convolution that it doesn't follow."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images):
        return self.conv(self.norm(images).relu()).mean((2, 3))


class Pooled(nn.Module):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, images):
        return self.layers(images).mean((2, 3))


def gradients(network, images, direction):
    network.zero_grad()
    (network(images) @ direction).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters()
            if parameter.grad is not None}


# Made in the test, where the seed is set: not while tests are collected.
@pytest.mark.parametrize("make, pairs", [
    (lambda: Pooled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False),
                    nn.BatchNorm2d(4)), 2),
    (lambda: Pooled(nn.Conv2d(3, 6, 3, groups=3), nn.BatchNorm2d(6, affine=False), nn.ReLU6(), nn.Conv2d(6, 4, 1)), 1),
    (lambda: Pooled(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 0),
    (Odd, 0),
])
def test_same_output_and_same_gradients(make, pairs):
    network = fixed(make())
    images = torch.rand(2, 3, 12, 16, dtype=torch.float64)
    direction = torch.randn(network(images).shape[1], dtype=torch.float64)
    folded = Folded(network)
    assert len(folded.pairs) == pairs
    assert torch.allclose(folded.copy(images), network(images))
    expected = gradients(network, images, direction)
    network.zero_grad()
    for _ in range(2):  # they add up
        of_copy = torch.autograd.grad((folded.copy(images) @ direction).sum(), folded.learned)
        folded.add_gradients(of_copy)
    for name, parameter in network.named_parameters():
        assert torch.allclose(parameter.grad, 2 * expected[name]), name


@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet50", "timm:test_efficientnet"])
def test_whole_networks(backbone):
    network = fixed(create_network(NetworkSettings(backbone, levels=1, dim=4), pretrained=False)).float()
    folded = Folded(network)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(folded.pairs) == len(norms) > 0
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.copy.modules())


def test_what_needs_no_gradient_gets_none():
    network = fixed(Pooled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4),
                           nn.Conv2d(4, 2, 1)))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(("layers.0", "layers.1", "layers.2", "layers.4")))
    images = torch.rand(1, 3, 12, 16, dtype=torch.float64)
    expected = gradients(network, images, torch.ones(2, dtype=torch.float64))
    network.zero_grad()
    folded = Folded(network)
    assert [name for name, parameter in folded.copy.named_parameters() if parameter.requires_grad] == [
        "layers.2.weight", "layers.2.bias"]  # with its normalisation, layers.3, which learns
    folded.add_gradients(torch.autograd.grad(folded.copy(images).sum(), folded.learned))
    with_gradient = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert with_gradient == expected.keys() == {"layers.3.weight", "layers.3.bias"}
    assert torch.allclose(network.layers[3].bias.grad, expected["layers.3.bias"])


def test_gradients_of_nothing():
    network = fixed(Pooled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    Folded(network).add_gradients([None, None])
    assert all(parameter.grad is None for parameter in network.parameters())
