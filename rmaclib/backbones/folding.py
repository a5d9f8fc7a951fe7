"""Batch normalisations folded into the convolutions before them: the same network in fewer layers.

A normalisation with fixed statistics is a linear map of each channel, and so is part of the convolution before it. The
copy is faster and, as the map between the two is never made, needs less memory where gradients are taken.
"""

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_SIDES = (96, 128)  # of the noise on which a copy is compared with its network


class Folded:
    """A copy of a network with its normalisations folded, and the way back for gradients.

    network: in evaluation mode; the copy has its weights as they are now. A convolution and the normalisation
    registered right behind it are taken for a pair; whether that gives the same network is tried on noise, and
    where it doesn't, the copy stays as the network is.
    """

    def __init__(self, network: nn.Module):
        self.network, self.pairs = network, list(_pairs(network))
        self.copy = _fold(copy.deepcopy(network), self.pairs)
        if self.pairs and not _same(network, self.copy):
            self.pairs, self.copy = [], copy.deepcopy(network)
        self.copy.requires_grad_()

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Adds to the network's gradients (.grad) what follows from those of the copy's parameters, in the order
        of self.copy.parameters(); None for a parameter that has none. Parameters that don't require a gradient get
        none."""
        found = {name: gradient for (name, _), gradient in zip(self.copy.named_parameters(), gradients, strict=True)
                 if gradient is not None}
        for convolution, normalisation in self.pairs:
            weight, bias = found.pop(f"{convolution}.weight", None), found.pop(f"{convolution}.bias", None)
            if weight is not None:
                self._add_through(convolution, normalisation, weight, bias)
        for name, gradient in found.items():
            parameter = self.network.get_parameter(name)
            if parameter.requires_grad:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def _add_through(self, convolution: str, normalisation: str, weight: Tensor, bias: Tensor) -> None:
        """The folded weight is w·s and the bias β + (b − mean)·s, s = γ / standard deviation: the chain rule."""
        layer, norm = self.network.get_submodule(convolution), self.network.get_submodule(normalisation)
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        shift = (-norm.running_mean if layer.bias is None else layer.bias - norm.running_mean) * scale
        shift = shift if norm.bias is None else shift + norm.bias
        made = [(layer.weight * scale.view(-1, 1, 1, 1), weight), (shift, bias)]
        made = [(value, gradient) for value, gradient in made if value.requires_grad]
        if made:
            torch.autograd.backward(*zip(*made, strict=True))


def _pairs(module: nn.Module, prefix: str = "", seen: set[nn.Module] | None = None) -> Iterator[tuple[str, str]]:
    """Names of each convolution that a normalisation is registered right behind, and of that. A module that several
    share is gone through once."""
    seen = set() if seen is None else seen
    if module in seen:
        return
    seen.add(module)
    before, layer_before = "", None
    for name, layer in module.named_children():
        if (isinstance(layer_before, nn.Conv2d) and isinstance(layer, nn.BatchNorm2d)
                and layer_before.out_channels == layer.num_features):
            yield prefix + before, prefix + name
        else:
            yield from _pairs(layer, f"{prefix}{name}.", seen)
        before, layer_before = name, layer


def _fold(network: nn.Module, pairs: Sequence[tuple[str, str]]) -> nn.Module:
    for convolution, normalisation in pairs:
        layer, norm = network.get_submodule(convolution), network.get_submodule(normalisation)
        network.set_submodule(convolution, fuse_conv_bn_eval(layer, norm))
        # timm's normalisations carry the activation that follows; others have nothing in them.
        network.set_submodule(normalisation, nn.Sequential(*norm.children()))
    return network


@torch.no_grad()
def _same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks give noise the same descriptors. On CUDA in float64, as what passes for float32 there
    (TF32) would tell two networks apart that are the same."""
    if next(one.parameters()).device.type == "cuda":
        one, other = (copy.deepcopy(network).double() for network in (one, other))
    like = next(one.parameters())
    images = torch.rand(1, 3, *_SIDES, generator=torch.Generator().manual_seed(0)).to(like)
    return bool(torch.cosine_similarity(one(images), other(images)).min() > 1 - 1e-5)
