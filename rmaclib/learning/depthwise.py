"""Gradients of depthwise convolutions, in parts that a processor computes fast.

oneDNN, which PyTorch calls on a processor, needs up to twenty times as long for the gradient of a 5 × 5 depthwise
filter as for that of its first three columns: a third of the time that the gradient of a small network takes. The
gradient of each tap stands for itself, so that a filter's can be put together of those of narrow parts.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, pad

_PART = 3  # columns


def split_depthwise(network: nn.Module) -> None:
    """Let the depthwise convolutions with larger filters take their gradients in parts, in place.

    Outputs are the same, gradients the same up to rounding; weights and their names stay. Without effect on a GPU,
    and under autocast.

    Args:
        network: Any module.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and _splittable(layer):
            layer.__dict__["_conv_forward"] = MethodType(_forward, layer)


def _splittable(layer: nn.Conv2d) -> bool:
    return (layer.groups == layer.in_channels == layer.out_channels and layer.kernel_size[1] > _PART
            and layer.dilation == (1, 1) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str))


def _forward(layer: nn.Conv2d, maps: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if maps.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return type(layer)._conv_forward(layer, maps, weight, bias)
    return _Depthwise.apply(maps, weight, bias, layer.stride, layer.padding)


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution with its own backward pass."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int],
                padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return conv2d(maps, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight = ctx.saved_tensors
        of_maps = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_maps, _ = _gradients(gradient, maps, weight, ctx.stride, ctx.padding, (True, False, False))
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(gradient, maps, weight, ctx.stride, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_maps, of_weight, of_bias, None, None


def _of_weight(gradient: Tensor, maps: Tensor, weight: Tensor, stride: tuple[int, int],
               padding: tuple[int, int]) -> Tensor:
    """(C, 1, h, w), as the weight."""
    parts = []
    for number, columns in enumerate(part.contiguous() for part in weight.split(_PART, 3)):
        before = padding[1] - _PART * number  # zeros, or columns cut, left of the map
        covered = stride[1] * (gradient.shape[3] - 1) + columns.shape[3]  # columns of the map that they go over
        # Padded here above and below too: where a filter is higher than the map, oneDNN takes megabytes and is slow.
        part = pad(maps, (before, covered - before - maps.shape[3], padding[0], padding[0]))
        parts.append(_gradients(gradient, part, columns, stride, (0, 0), (False, True, False))[1])
    return torch.cat(parts, 3)


def _gradients(gradient: Tensor, maps: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int],
               needed: tuple[bool, bool, bool]) -> tuple[Tensor, Tensor]:
    """Those of maps and weight; one that isn't needed is no tensor but None. That of the bias would compute the
    weight's along."""
    return torch.ops.aten.convolution_backward(gradient, maps, weight, None, stride, padding, (1, 1), False, (0, 0),
                                               len(weight), needed)[:2]
