"""R-MAC as a differentiable network (Section 4.1): pooled regions, whitened by a layer, summed.

features → regions → L2 → shift → fully connected → L2 → sum over regions → L2

Everything after the features is differentiable, so that training (Section 4.2) reaches the shift, the fully
connected layer and the backbone alike. Both start from a PCA-whitening of region vectors (fit_whitening).
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rmaclib.backbones import Backbone, create_backbone
from rmaclib.errors import InputError, NotFiniteError
from rmaclib.proposals import CANDIDATES, Anchors, ProposalNetwork
from rmaclib.regions import VARIANTS, Rectangle, as_rectangle, pixel_grid, rigid_grid
from rmaclib.settings import Field, as_tuple, settings

EPSILON = 1e-8  # added to a norm before dividing by it, as in the authors' release: a zero vector stays zero
GRIDS = (*VARIANTS, "pixel", "whole")
POOLINGS = ("max", "average", "gem")
REGIONS = ("grid", "proposals", "both")
_FIXED = ("backbone", "dim", "anchors", "proposal_channels")  # settings that other weights would be needed for
_MOST_LEVELS, _MOST_CHANNELS, _MOST_ANCHORS = 100, 65_536, 1000  # more than any network of use has
_GEM_POWER, _GEM_LEAST = 3.0, 1e-6  # where the exponent starts, and the least value that is raised to it


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
    features = features.to(torch.promote_types(features.dtype, torch.float32)).clamp(min=_GEM_LEAST)
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


def _pool_each(features: Tensor, regions: Sequence[Sequence[Rectangle]], pool) -> list[Tensor]:
    return [pool(features[number:number + 1], some)[0] for number, some in enumerate(regions)]


class Whitening(NamedTuple):
    """A linear map y = weight (x + shift) under which the training vectors have covariance 1.

    shift: (D,) float64, minus the mean; weight: (dim, D) float64, rows by falling variance
    variances: (dim,) float64, variance of the training vectors along each row's direction
    count: number of training vectors
    """

    shift: np.ndarray
    weight: np.ndarray
    variances: np.ndarray
    count: int


def fit_whitening(vectors: np.ndarray | Iterable[np.ndarray], dim: int | None = None,
                  shrinkage: float = 0.0) -> Whitening:
    """PCA-whitening of region vectors (Section 4.1).

    vectors: (N, D), or an iterable of (n, D) blocks; one pass, memory D² whatever N
    dim: directions to keep, those of largest variance; None keeps D
    shrinkage: 0..1, moves the covariance towards a multiple of the identity (0: none), which amplifies
      directions of little variance less
    A direction without variance can't be whitened: its row of the weight is zero.
    raises InputError: fewer than two vectors, not finite, dim or shrinkage out of range
    """
    if not 0 <= shrinkage <= 1:
        raise InputError(f"shrinkage: expected 0..1, got {shrinkage}")
    count, mean, scatter = 0, 0.0, 0.0
    blocks = _row_blocks(vectors) if hasattr(vectors, "ndim") else vectors
    for block in blocks:
        block = np.asarray(block, dtype=np.float64)  # (n, D)
        if block.ndim != 2:
            raise ValueError(f"vectors: expected blocks (n, D), got shape {block.shape}")
        if not np.isfinite(block).all():
            raise NotFiniteError("vectors: expected finite values, found NaN or infinity")
        if not len(block):
            continue
        # Chan's update of mean and scatter: sums of squares alone would lose digits far from the origin.
        total, block_mean = count + len(block), block.mean(0)
        centred, gap = block - block_mean, block_mean - mean
        scatter = scatter + centred.T @ centred + np.outer(gap, gap) * (count * len(block) / total)
        mean, count = mean + gap * (len(block) / total), total
    if count < 2:
        raise InputError(f"vectors: expected at least 2 to whiten, got {count}")
    size = len(mean)
    dim = size if dim is None else dim
    if not 1 <= dim <= size:
        raise InputError(f"dim: expected 1..{size} (the vectors' dimension), got {dim}")
    variances, directions = np.linalg.eigh(scatter / (count - 1))
    variances, directions = np.maximum(variances[::-1], 0)[:dim], directions[:, ::-1][:, :dim]
    # An eigenvector's sign is arbitrary; fixed so that equal data give equal weights everywhere.
    signs = np.sign(directions[np.abs(directions).argmax(0), np.arange(dim)])
    shrunk = (1 - shrinkage) * variances + shrinkage * np.trace(scatter) / (count - 1) / size
    empty = shrunk <= shrunk.max() * 1e-12
    scale = np.where(empty, 0, 1 / np.sqrt(np.where(empty, 1, shrunk)))
    return Whitening(-mean, (directions * signs * scale).T, variances, count)


def _row_blocks(vectors: np.ndarray, rows: int = 8192):
    if vectors.ndim != 2:
        raise ValueError(f"vectors: expected (N, D), got shape {vectors.shape}")
    return (vectors[start:start + rows] for start in range(0, len(vectors), rows))


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
            power = torch.full_like(like, _GEM_POWER) if self._learned_power is None else self._learned_power.to(like)
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
            each = max_pool_each if self.settings.pooling == "max" else partial(_pool_each, pool=pool)
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
