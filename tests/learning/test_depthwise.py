from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rmaclib.backbones import create_backbone
from rmaclib.learning.depthwise import split_depthwise


def gradients(layer, maps):
    """Of a sum of the output with different weights: of the map, the filter and the bias."""
    maps = maps.clone().requires_grad_()
    output = layer(maps)
    value = (output * torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view_as(output)).sum()
    return output, torch.autograd.grad(value, [maps, *layer.parameters()])


def was_split(layer):
    maps = torch.rand(1, layer.in_channels, 9, 9, dtype=layer.weight.dtype)
    return "Depthwise" in type(layer(maps).grad_fn).__name__


@given(kernel=st.tuples(st.integers(1, 8), st.integers(4, 8)), stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       padding=st.tuples(st.integers(0, 4), st.integers(0, 4)), bias=st.booleans(), count=st.integers(1, 2),
       sides=st.tuples(st.integers(0, 9), st.integers(0, 9)))
def test_outputs_and_gradients_of_the_plain_layer(kernel, stride, padding, bias, count, sides):
    plain = nn.Conv2d(3, 3, kernel, stride, padding, groups=3, bias=bias).double()
    split = deepcopy(plain)
    split_depthwise(split)
    maps = torch.rand(count, 3, *(taps + more for taps, more in zip(kernel, sides, strict=True)), dtype=torch.float64)
    (expected, plain_gradients), (output, split_gradients) = gradients(plain, maps), gradients(split, maps)
    assert torch.equal(output, expected)
    assert len(split_gradients) == len(plain_gradients) == 2 + bias
    for gradient, expected in zip(split_gradients, plain_gradients, strict=True):
        assert torch.allclose(gradient, expected, rtol=1e-10, atol=1e-12)


def test_gradcheck():
    layer = nn.Conv2d(2, 2, 5, 2, 2, groups=2).double()
    split_depthwise(layer)
    maps = torch.rand(1, 2, 6, 7, dtype=torch.float64, requires_grad=True)
    assert was_split(layer)
    assert torch.autograd.gradcheck(lambda maps, *_: layer(maps), (maps, layer.weight, layer.bias))


@pytest.mark.parametrize("layer, expected", [
    (nn.Conv2d(4, 4, 5, groups=4), True),
    (nn.Conv2d(4, 4, 3, groups=4), False),  # fast as it is
    (nn.Conv2d(4, 4, 5, groups=2), False),
    (nn.Conv2d(4, 8, 5, groups=4), False),
    (nn.Conv2d(4, 4, 5, groups=4, dilation=2), False),
    (nn.Conv2d(4, 4, 5, groups=4, padding=2, padding_mode="reflect"), False),
    (nn.Conv2d(4, 4, 5, groups=4, padding="same"), False),
])
def test_which_layers(layer, expected):
    split_depthwise(layer)
    assert was_split(layer) is expected


def test_gradients_that_nothing_requires_are_not_computed():
    layer = nn.Conv2d(4, 4, 5, groups=4)
    split_depthwise(layer)
    layer.weight.requires_grad_(False)
    layer(torch.rand(1, 4, 9, 9)).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None
    with torch.no_grad():
        assert layer(torch.rand(1, 4, 9, 9)).grad_fn is None


def test_half_precision_is_left_alone():
    layer = nn.Conv2d(4, 4, 5, groups=4)
    split_depthwise(layer)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(torch.rand(1, 4, 9, 9))
    assert output.dtype == torch.bfloat16 and "Depthwise" not in type(output.grad_fn).__name__
    output.sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_a_copy_has_weights_of_its_own():
    layer = nn.Conv2d(4, 4, 5, groups=4)
    split_depthwise(layer)
    copy = deepcopy(layer)
    with torch.no_grad():
        copy.weight.zero_()
        copy.bias.zero_()
    maps = torch.rand(1, 4, 9, 9)
    assert was_split(copy) and not copy(maps).any() and layer(maps).any()


def test_whole_network():
    plain = create_backbone("efficientnet_lite0", pretrained=False).eval().double()  # pads its strided layers itself
    split = deepcopy(plain)
    split_depthwise(split)
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    for network in (plain, split):
        network(images).square().sum().backward()
    assert list(split.state_dict()) == list(plain.state_dict())
    for parameter, other in zip(split.parameters(), plain.parameters(), strict=True):
        smallest = 1e-12 * float(other.grad.abs().max()) + 1e-30
        assert torch.allclose(parameter.grad, other.grad, rtol=1e-8, atol=smallest)
