"""R-MAC as a differentiable network (Section 4.1): pooled regions, whitened by a layer, summed.

features → regions → L2 → shift → fully connected → L2 → sum over regions → L2

Everything after the features is differentiable, so that training (Section 4.2) reaches the shift, the fully
connected layer and the backbone alike. Both start from a PCA-whitening of region vectors (fit_whitening).
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rmaclib.backbones import Backbone, create_backbone
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import Field, as_tuple, settings
from rmaclib.pooling import (
    EPSILON,
    GEM_POWER,
    average_pool_regions,
    gem_pool_regions,
    l2,
    max_pool_each,
    max_pool_regions,
    pool_each,
)
from rmaclib.proposals import CANDIDATES, Anchors, ProposalNetwork
from rmaclib.regions import VARIANTS, Rectangle, pixel_grid, rigid_grid
from rmaclib.whitening import Whitening

GRIDS = (*VARIANTS, "pixel", "whole")
POOLINGS = ("max", "average", "gem")
REGIONS = ("grid", "proposals", "both")
_FIXED = ("backbone", "dim", "anchors", "proposal_channels")  # settings that other weights would be needed for
_MOST_LEVELS, _MOST_CHANNELS, _MOST_ANCHORS = 100, 65_536, 1000  # more than any network of use has



_Share = Annotated[float, Field(gt=0, le=10)]


@settings
class NetworkSettings:
    """What defines an R-MAC network. Defaults are the paper's (authors' release).

    backbone: a name of rmaclib.backbones; levels: L of the grid
    grid: "exact", "float32", "global" (regions.rigid_grid), "pixel" (regions.pixel_grid), or "whole": the
      map as one region, which with max pooling makes MAC
    pooling: "max"; for comparison "average", or "gem", a generalised mean whose exponent is learned
    dim: outputs of the fully connected layer; None: no shift and no fully connected layer
    regions: what is pooled: the "grid", "proposals" of the proposal network (Section 4.3), or "both"
    proposals: how many of them, at most
    anchors: shapes that the proposal network looks for (proposals.fit_anchors); none: there is no such network
    proposal_channels: of its hidden layer
    """

    backbone: Annotated[str, Field(min_length=1, max_length=200)] = "resnet101"
    levels: Annotated[int, Field(ge=1, le=_MOST_LEVELS)] = 2
    grid: Literal[GRIDS] = "exact"
    pooling: Literal[POOLINGS] = "max"
    dim: Annotated[int, Field(ge=1, le=_MOST_CHANNELS)] | None = None
    regions: Literal[REGIONS] = "grid"
    proposals: Annotated[int, Field(ge=1, le=CANDIDATES)] = 32
    anchors: Annotated[tuple[Annotated[tuple[_Share, _Share], as_tuple], ...], as_tuple,
                       Field(max_length=_MOST_ANCHORS)] = ()
    proposal_channels: Annotated[int, Field(ge=1, le=_MOST_CHANNELS)] = 64

    def __post_init__(self):
        if self.regions != "grid" and not self.anchors:
            raise ValueError(f"regions: {self.regions!r} needs a network that was trained to propose some "
                             "(rmac train --stage proposals)")


class RMAC(nn.Module):
    """The network: images → one descriptor each (Section 4.1)."""

    def __init__(self, settings: NetworkSettings, backbone: Backbone):
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.shift: nn.Parameter | None = None
        self.fc: nn.Linear | None = None
        if settings.dim is not None:
            self._add_projection(settings.dim)
        self.power: nn.Parameter | None = None
        self._learned_power: Tensor | None = None  # where another pooling is set for now
        self.proposer: ProposalNetwork | None = None
        if settings.anchors:
            self.add_proposer(settings.anchors, settings.proposal_channels)
        self.change()

    @property
    def dim(self) -> int:
        """Numbers in a descriptor."""
        return self.settings.dim or self.backbone.channels

    def change(self, **options) -> "RMAC":
        """Change settings that need no other weights: levels, grid, pooling, regions, proposals. The exponent of
        "gem" begins at 3; one that was learned is kept while another pooling is set.

        raises InputError: a setting that can't be changed, because it needs other weights, or a wrong value
        """
        settings = NetworkSettings(**{**vars(self.settings), **options})
        for name in _FIXED:
            if getattr(settings, name) != getattr(self.settings, name):
                raise InputError(f"{name}: can't be changed, it needs other weights: expected "
                                 f"{getattr(self.settings, name)!r} as the network has it, got {options[name]!r}")
        self.settings = settings
        like = self.backbone.mean.flatten()[0]
        if settings.pooling == "gem" and self.power is None:
            power = torch.full_like(like, GEM_POWER) if self._learned_power is None else self._learned_power.to(like)
            self.power = nn.Parameter(power.clone())
        elif settings.pooling != "gem" and self.power is not None:
            self._learned_power, self.power = self.power.detach().clone(), None
        return self

    def _add_projection(self, dim: int) -> None:
        self.shift = nn.Parameter(torch.zeros(self.backbone.channels))
        self.fc = nn.Linear(self.backbone.channels, dim)

    def add_proposer(self, anchors: Anchors, channels: int = NetworkSettings.proposal_channels,
                     seed: int = 0) -> "RMAC":
        """Give the network an untrained proposal network; see learning.train_proposals."""
        self.settings = NetworkSettings(**{**vars(self.settings), "anchors": anchors, "proposal_channels": channels})
        proposer = ProposalNetwork(self.backbone.channels, self.settings.anchors, channels, seed)
        self.proposer = proposer.to(self.backbone.mean.device).eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W) RGB, uint8 or float in 0..1, any H and W; returns (B, dim), of unit length."""
        return self.aggregate(self.backbone(images), images.shape[-2:])

    def aggregate(self, features: Tensor, image_size: tuple[int, int]) -> Tensor:
        """features: (B, C, h, w) of images of image_size (H, W) pixels; returns (B, dim)."""
        parts = self.region_vectors(features, image_size)  # B of (R, C)
        counts = [len(part) for part in parts]
        vectors = torch.cat(parts)  # (sum of R, C)
        if self.fc is not None:
            vectors = l2(self.fc(vectors + self.shift))  # (sum of R, dim)
        return l2(torch.stack([part.sum(0) for part in vectors.split(counts)]))  # (B, dim)

    def region_vectors(self, features: Tensor, image_size: tuple[int, int]) -> list[Tensor]:
        """Pooled and normalised regions of each image, B of (R, C), what the whitening is fitted on; images have
        as many as each other unless regions are proposed."""
        pool = {"max": max_pool_regions, "average": average_pool_regions,
                "gem": partial(gem_pool_regions, power=self.power)}[self.settings.pooling]
        parts = []  # of the grid, of the proposals: each B of (R, C)
        if self.settings.regions != "proposals":
            parts.append(pool(features, self.grid(features.shape[-2:], image_size)).unbind())
        if self.settings.regions != "grid":
            proposed = [found.regions for found in
                        self.proposer.propose(features.detach(), image_size, self.settings.proposals)]
            each = max_pool_each if self.settings.pooling == "max" else partial(pool_each, pool=pool)
            parts.append(each(features, proposed))
        # From here not below float32: sums over regions would lose digits in half precision.
        wide = torch.promote_types(features.dtype, torch.float32)
        return [l2(torch.cat(image).to(wide)) for image in zip(*parts, strict=True)]

    def grid(self, map_size: tuple[int, int], image_size: tuple[int, int]) -> list[Sequence[int]]:
        """The grid on a map of (h, w) cells from an image of (H, W) pixels."""
        rows, columns = map_size
        if self.settings.grid == "whole":
            return [Rectangle(0, 0, columns, rows)]
        if self.settings.grid == "pixel":
            # The network's own map may be a cell smaller than ceil(pixels / stride): cut there.
            grid = pixel_grid(*image_size, self.settings.levels, self.backbone.stride)
            return [Rectangle(x, y, min(width, columns - x), min(height, rows - y))
                    for x, y, width, height in grid if x < columns and y < rows]
        return rigid_grid(rows, columns, self.settings.levels, self.settings.grid)

    def set_whitening(self, whitening: Whitening) -> "RMAC":
        """Start shift and fully connected layer from a whitening; settings.dim becomes its dimension."""
        dim, channels = whitening.weight.shape
        if channels != self.backbone.channels:
            raise InputError(f"whitening: expected vectors of {self.backbone.channels} numbers "
                             f"({self.backbone.name}), got {channels}")
        self.settings = NetworkSettings(**{**vars(self.settings), "dim": dim})
        self._add_projection(dim)
        with torch.no_grad():
            self.shift.copy_(torch.from_numpy(whitening.shift))
            self.fc.weight.copy_(torch.from_numpy(whitening.weight))
            self.fc.bias.zero_()
        return self.to(self.backbone.mean.device)


class SharedFeatures(nn.Module):
    """Several R-MAC networks that share a backbone, computed from one feature map: for comparing settings.

    networks: name → RMAC, all with the same Backbone object
    Descriptors come side by side, (B, sum of dims); split() takes them apart again.
    """

    def __init__(self, networks: dict[str, RMAC]):
        super().__init__()
        self.networks = nn.ModuleList(networks.values())
        self.names = list(networks)
        self.backbone = self.networks[0].backbone
        if any(network.backbone is not self.backbone for network in self.networks):
            raise ValueError("networks: expected all to hold the same backbone object")

    @property
    def dim(self) -> int:
        """Numbers in all descriptors together."""
        return sum(network.dim for network in self.networks)

    def forward(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, W); returns (B, dim)."""
        features = self.backbone(images)  # (B, C, h, w)
        return torch.cat([network.aggregate(features, images.shape[-2:]) for network in self.networks], dim=1)

    def split(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """vectors: (N, dim), as computed by forward and perhaps normalised; returns name → (N, its dim), each
        row of unit length again."""
        ends = np.cumsum([network.dim for network in self.networks])
        parts = np.split(vectors, ends[:-1], axis=1)
        return {name: part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), EPSILON)
                for name, part in zip(self.names, parts, strict=True)}


def create_network(settings: NetworkSettings, pretrained: bool = True, weights=None) -> RMAC:
    """An RMAC network in evaluation mode; `pretrained` and `weights` as in create_backbone."""
    return RMAC(settings, create_backbone(settings.backbone, pretrained, weights)).eval()
