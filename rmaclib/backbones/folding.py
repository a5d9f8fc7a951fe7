"""Batch normalisations folded into the convolutions before them: the same network in fewer layers.

A normalisation with fixed statistics is a linear map of each channel, and so can be part of the convolution before it.
The folded network is faster and, as the map between the two is never made, needs less memory where gradients are taken.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_SIDES = (96, 128)  # of the noise on which a copy is compared with its network

Network = TypeVar("Network", bound=nn.Module)


class Folded(Generic[Network]):
    """A copy of a network with its normalisations folded, and the way back for gradients.

    A convolution and the normalisation registered right behind it are taken for a pair. Whether folding the pairs
    leaves the network the same is tried on noise; where it doesn't, nothing is folded.

    Args:
        network: In evaluation mode; the copy has its weights as they are now.

    Attributes:
        network: The network itself.
        pairs: Names of each convolution that was folded, and of its normalisation.
        copy: The folded copy.
        learned: Parameters of the copy that require a gradient: those made of parameters of the network that do.
    """

    def __init__(self, network: Network):
        self.network, self.pairs = network, list(_pairs(network))
        self.copy = _fold(copy.deepcopy(network), self.pairs)
        if self.pairs and not _same(network, self.copy):
            self.pairs, self.copy = [], copy.deepcopy(network)
        for convolution, normalisation in self.pairs:
            parameters = [each for layer in _layers(network, convolution, normalisation) for each in layer.parameters()]
            self.copy.get_submodule(convolution).requires_grad_(any(each.requires_grad for each in parameters))
        self.learned = [parameter for parameter in self.copy.parameters() if parameter.requires_grad]

    def add_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the gradients of the copy to those of the network (.grad); parameters that don't require one get none.

        Args:
            gradients: Of ``learned``, in its order; None for a parameter that has none.
        """
        names = [name for name, parameter in self.copy.named_parameters() if parameter.requires_grad]
        of_copy = {name: gradient for name, gradient in zip(names, gradients, strict=True) if gradient is not None}
        for convolution, normalisation in self.pairs:
            weight, bias = of_copy.pop(f"{convolution}.weight", None), of_copy.pop(f"{convolution}.bias", None)
            if weight is not None and bias is not None:
                self._add_through(convolution, normalisation, weight, bias)
        for name, gradient in of_copy.items():
            parameter = self.network.get_parameter(name)
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def _add_through(self, convolution: str, normalisation: str, weight: Tensor, bias: Tensor) -> None:
        """The folded weight is w·s and the bias β + (b − mean)·s, s = γ / standard deviation: the chain rule."""
        layer, norm = _layers(self.network, convolution, normalisation)
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        scale = (variance + norm.eps).rsqrt()
        scale = scale * norm.weight if norm.affine else scale
        shift = (-mean if layer.bias is None else layer.bias - mean) * scale
        shift = shift + norm.bias if norm.affine else shift
        folded = [(layer.weight * scale.view(-1, 1, 1, 1), weight), (shift, bias)]
        folded = [(value, gradient) for value, gradient in folded if value.requires_grad]
        if folded:
            torch.autograd.backward([value for value, _ in folded], [gradient for _, gradient in folded])


def _layers(network: nn.Module, convolution: str, normalisation: str) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """The two layers of a pair."""
    layer, norm = network.get_submodule(convolution), network.get_submodule(normalisation)
    assert isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)  # as _pairs chose them
    return layer, norm


def _pairs(module: nn.Module, prefix: str = "", entered: set[nn.Module] | None = None) -> Iterator[tuple[str, str]]:
    """Names of each convolution that a normalisation is registered right behind, and of that normalisation.

    A module that is registered several times is entered once.
    """
    entered = set() if entered is None else entered
    if module in entered:
        return
    entered.add(module)
    before, layer_before = "", None
    for name, layer in module.named_children():
        if (isinstance(layer_before, nn.Conv2d) and isinstance(layer, nn.BatchNorm2d)
                and layer_before.out_channels == layer.num_features):
            yield prefix + before, prefix + name
        else:
            yield from _pairs(layer, f"{prefix}{name}.", entered)
        before, layer_before = name, layer


def _fold(network: Network, pairs: Sequence[tuple[str, str]]) -> Network:
    for convolution, normalisation in pairs:
        layer, norm = _layers(network, convolution, normalisation)
        network.set_submodule(convolution, fuse_conv_bn_eval(layer, norm))
        # timm's normalisations contain the activation that follows; others are empty.
        network.set_submodule(normalisation, nn.Sequential(*norm.children()))
    return network


@torch.no_grad()
def _same(network: nn.Module, folded: nn.Module) -> bool:
    """Whether two networks give noise the same descriptors."""
    if next(network.parameters()).device.type == "cuda":
        # float32 is computed as TF32 there, in which equal networks differ too much.
        network, folded = copy.deepcopy(network).double(), copy.deepcopy(folded).double()
    like = next(network.parameters())
    images = torch.rand(1, 3, *_SIDES, generator=torch.Generator().manual_seed(0)).to(like)
    return bool(torch.cosine_similarity(network(images), folded(images)).min() > 1 - 1e-5)
