"""Pooling regions of a feature map to a vector each, and ℓ2-normalising it (Section 4.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rmaclib.regions import Rectangle, as_rectangle

GEM_POWER = 3.0  # where the exponent starts
EPSILON = 1e-8  # added to a norm before dividing by it, as in the authors' release: a zero vector stays zero
GEM_LEAST = 1e-6  # the least value that is raised to the power


def l2(vectors: Tensor) -> Tensor:
    """vectors / (their norm + EPSILON), along the last axis."""
    return vectors / (torch.linalg.vector_norm(vectors, dim=-1, keepdim=True) + EPSILON)


def max_pool_regions(features: Tensor, regions: Sequence[Sequence[int]]) -> Tensor:
    """Max-pool regions of a feature map (Section 4.1).

    features: (B, C, H, W); regions: cells, each (x, y, side) or (x, y, width, height), inside the map
    returns: (B, R, C), R = len(regions)
    raises ValueError when a region is empty or leaves the map
    """
    return _pool(features, regions, Tensor.amax)


def average_pool_regions(features: Tensor, regions: Sequence[Sequence[int]]) -> Tensor:
    """As max_pool_regions, with the mean over the cells: for comparison, not part of R-MAC."""
    return _pool(features, regions, Tensor.mean)


def gem_pool_regions(features: Tensor, regions: Sequence[Sequence[int]], power: Tensor | float) -> Tensor:
    """As max_pool_regions, with the generalised mean (mean of x^p)^(1/p), values below 1e-6 taken for that.

    power: p > 0; 1 is the mean, and the larger it is, the nearer to the maximum (Radenović et al. 2019)
    For comparison, not part of R-MAC. A learned p follows the gradient like any weight.
    """
    # Never below float32: powers would lose digits in half precision.
    features = features.to(torch.promote_types(features.dtype, torch.float32)).clamp(min=GEM_LEAST)
    return _pool(features.pow(power), regions, Tensor.mean).pow(1 / power)


def _pool(features: Tensor, regions, reduce) -> Tensor:
    if features.dim() != 4:
        raise ValueError(f"features: expected (B, C, H, W), got {tuple(features.shape)}")
    batch, channels, rows, columns = features.shape
    if not regions:
        return features.new_zeros(batch, 0, channels)
    pooled = []
    for region in regions:
        x, y, width, height = as_rectangle(region)
        if not (0 <= x < x + width <= columns and 0 <= y < y + height <= rows):
            raise ValueError(f"{region}: leaves the map of {rows}×{columns} cells (height × width) or is empty")
        pooled.append(reduce(features[:, :, y:y + height, x:x + width], (2, 3)))
    return torch.stack(pooled, dim=1)  # (B, R, C)


def max_pool_each(features: Tensor, regions: Sequence[Sequence[Rectangle]]) -> list[Tensor]:
    """As max_pool_regions, with regions of its own for each image, in one call: B of (R, C)."""
    from torchvision.ops import roi_pool  # torchvision takes seconds to load, and a grid doesn't need it

    corners = [(number, x, y, x + width - 1, y + height - 1)  # the last cell belongs to the region
               for number, some in enumerate(regions) for x, y, width, height in some]
    features = features.to(torch.promote_types(features.dtype, torch.float32))  # it knows no half precision everywhere
    pooled = roi_pool(features, torch.tensor(corners).to(features), 1)  # (sum of R, C, 1, 1)
    return list(pooled[:, :, 0, 0].split([len(some) for some in regions]))


def pool_each(features: Tensor, regions: Sequence[Sequence[Rectangle]], pool) -> list[Tensor]:
    return [pool(features[number:number + 1], some)[0] for number, some in enumerate(regions)]
