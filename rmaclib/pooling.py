"""Pooling regions of a feature map to a vector each, and ℓ2-normalising it (Section 4.1)."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from rmaclib.regions import Rectangle, as_rectangle

Pooling = Literal["max", "average", "gem"]

GEM_POWER = 3.0  # where the learned exponent of the generalised mean starts (Radenović et al. 2019)
EPSILON = 1e-8  # added to a norm before dividing by it, as in the authors' release: a zero vector stays zero
GEM_LEAST = 1e-6  # smaller values are raised to it before the power is taken


def l2(vectors: Tensor) -> Tensor:
    """ℓ2-normalise vectors along the last axis: v / (‖v‖ + EPSILON)."""
    return vectors / (torch.linalg.vector_norm(vectors, dim=-1, keepdim=True) + EPSILON)


def pool_regions(features: Tensor, regions: Sequence[Sequence[int]], pooling: Pooling = "max",
                 power: Tensor | float | None = None) -> Tensor:
    """Pool the same regions of each feature map.

    Args:
        features: (B, C, H, W).
        regions: R regions in cells, each (x, y, side) or (x, y, width, height), inside the map.
        pooling: "max" for R-MAC (Section 4.1); "average" and "gem" for comparison.
        power: The exponent of "gem", GEM_POWER by default.

    Returns:
        (B, R, C).

    Raises:
        ValueError: A region is empty or leaves the map.
    """
    if pooling == "gem":
        return gem_pool_regions(features, regions, GEM_POWER if power is None else power)
    return average_pool_regions(features, regions) if pooling == "average" else max_pool_regions(features, regions)


def pool_each(features: Tensor, regions: Sequence[Sequence[Rectangle]], pooling: Pooling = "max",
              power: Tensor | float | None = None) -> list[Tensor]:
    """Pool other regions of each feature map: as pool_regions, with the rectangles of each of the B images.

    Returns:
        For each image (R, C), R its number of regions.
    """
    if pooling == "max":
        return _max_pool_each(features, regions)
    return [pool_regions(features[image:image + 1], rectangles, pooling, power)[0]
            for image, rectangles in enumerate(regions)]


def max_pool_regions(features: Tensor, regions: Sequence[Sequence[int]]) -> Tensor:
    """Max-pool regions of a feature map (Section 4.1).

    Args:
        features: (B, C, H, W).
        regions: R regions in cells, each (x, y, side) or (x, y, width, height), inside the map.

    Returns:
        (B, R, C).

    Raises:
        ValueError: A region is empty or leaves the map.
    """
    return _pool(features, regions, Tensor.amax)


def average_pool_regions(features: Tensor, regions: Sequence[Sequence[int]]) -> Tensor:
    """Average regions of a feature map; as max_pool_regions otherwise. For comparison, not part of R-MAC."""
    return _pool(features, regions, Tensor.mean)


def gem_pool_regions(features: Tensor, regions: Sequence[Sequence[int]], power: Tensor | float) -> Tensor:
    """Pool regions by the generalised mean (mean of x^p)^(1/p). For comparison, not part of R-MAC.

    Args:
        features: (B, C, H, W); values below GEM_LEAST are raised to it.
        regions: As for max_pool_regions.
        power: p > 0. 1 is the mean; the larger p is, the nearer the result is to the maximum (Radenović et al. 2019).
            A learned p gets a gradient like any weight.

    Returns:
        (B, R, C), float32 or float64.

    Raises:
        ValueError: A region is empty or leaves the map.
    """
    # Never below float32: powers would lose digits in half precision.
    features = features.to(torch.promote_types(features.dtype, torch.float32)).clamp(min=GEM_LEAST)
    return _pool(features.pow(power), regions, Tensor.mean).pow(1 / power)


def _pool(features: Tensor, regions: Sequence[Sequence[int]], reduce: Callable[..., Tensor]) -> Tensor:
    """Each region reduced over its cells: first down its columns, which regions side by side share, then across."""
    if features.dim() != 4:
        raise ValueError(f"features: expected (B, C, H, W), got {tuple(features.shape)}")
    batch, channels, rows, columns = features.shape
    if not regions:
        return features.new_zeros(batch, 0, channels)
    cells = features.permute(0, 2, 3, 1)  # (B, H, W, C): a processor reduces whole vectors of C, many times as fast
    bands: dict[tuple[int, int], Tensor] = {}  # (first row, height) -> (B, W, C)
    pooled = []
    for region in regions:
        x, y, width, height = as_rectangle(region)
        if not (0 <= x < x + width <= columns and 0 <= y < y + height <= rows):
            raise ValueError(f"{region}: leaves the map of {rows}×{columns} cells (height × width) or is empty")
        if (y, height) not in bands:
            bands[y, height] = reduce(cells[:, y:y + height], 1)
        pooled.append(reduce(bands[y, height][:, x:x + width], 1))  # (B, C)
    return torch.stack(pooled, dim=1)  # (B, R, C)


def _max_pool_each(features: Tensor, regions: Sequence[Sequence[Rectangle]]) -> list[Tensor]:
    """Other regions of each image max-pooled in one call, float32 or float64."""
    from torchvision.ops import roi_pool  # torchvision takes seconds to load, and a grid doesn't need it

    corners = [(image, x, y, x + width - 1, y + height - 1)  # the last cell belongs to the region
               for image, rectangles in enumerate(regions) for x, y, width, height in rectangles]
    # roi_pool has no half precision on every device.
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    pooled = roi_pool(features, torch.tensor(corners).to(features), 1)  # (sum of R, C, 1, 1)
    return list(pooled[:, :, 0, 0].split([len(rectangles) for rectangles in regions]))
