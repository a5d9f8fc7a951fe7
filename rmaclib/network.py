"""R-MAC as a differentiable network (Section 4.1).

image → backbone → feature map → max-pooled regions → ℓ2 → shift → fully connected → ℓ2 → sum over regions → ℓ2

Everything behind the feature map is differentiable, so that training (Section 4.2) reaches the shift, the fully
connected layer and the backbone alike. Shift and fully connected layer start as a PCA-whitening of region vectors
(whitening.fit_whitening).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from rmaclib.backbones import Backbone, create_backbone
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.settings import Field, as_tuple, settings
from rmaclib.pooling import EPSILON, GEM_POWER, Pooling, l2, pool_each, pool_regions
from rmaclib.proposals import CANDIDATES, Anchors, ProposalNetwork
from rmaclib.regions import Rectangle, pixel_grid, rigid_grid
from rmaclib.whitening import Whitening

Grid = Literal["exact", "float32", "global", "pixel", "whole"]
Regions = Literal["grid", "proposals", "both"]
GRIDS, POOLINGS, REGIONS = get_args(Grid), get_args(Pooling), get_args(Regions)

OFF_THE_SHELF_LEVELS = 3  # L of a backbone that is used by its name: 20 regions of a 4:3 photograph
_FIXED = ("backbone", "dim", "anchors", "proposal_channels")  # settings that the shapes of the weights follow from
_MOST_LEVELS, _MOST_CHANNELS, _MOST_ANCHORS = 100, 65_536, 1000  # more than any useful network has
_Share = Annotated[float, Field(gt=0, le=10)]


@settings
class NetworkSettings:
    """What defines an R-MAC network. The defaults are the paper's, as in the authors' release.

    Attributes:
        backbone: A name that ``backbones.create_backbone`` takes.
        levels: L, levels of the rigid grid.
        grid: "exact", "float32" or "global", see ``regions.rigid_grid``; "pixel", see ``regions.pixel_grid``; or
            "whole": the map as one region, which with max pooling makes MAC.
        pooling: "max"; for comparison "average", or "gem", a generalised mean whose exponent is learned.
        dim: Outputs of the fully connected layer; None for a network without shift and fully connected layer.
        regions: What is pooled: the "grid", the "proposals" of the proposal network (Section 4.3), or "both".
        proposals: Largest number of proposals that are pooled.
        anchors: Shapes that the proposal network starts from, see ``proposals.fit_anchors``; none without a proposal
            network.
        proposal_channels: Channels of the hidden layer of the proposal network.
    """

    backbone: Annotated[str, Field(min_length=1, max_length=200)] = "resnet101"
    levels: Annotated[int, Field(ge=1, le=_MOST_LEVELS)] = 2
    grid: Grid = "exact"
    pooling: Pooling = "max"
    dim: Annotated[int, Field(ge=1, le=_MOST_CHANNELS)] | None = None
    regions: Regions = "grid"
    proposals: Annotated[int, Field(ge=1, le=CANDIDATES)] = 32
    anchors: Annotated[tuple[Annotated[tuple[_Share, _Share], as_tuple], ...], as_tuple,
                       Field(max_length=_MOST_ANCHORS)] = ()
    proposal_channels: Annotated[int, Field(ge=1, le=_MOST_CHANNELS)] = 64

    def __post_init__(self):
        if self.regions != "grid" and not self.anchors:
            raise ValueError(f"regions: {self.regions!r} needs a network that was trained to propose regions "
                             "(rmac train --stage proposals)")


def create_network(settings: NetworkSettings | str = "efficientnet_lite0", *, pretrained: bool = True,
                   weights: str | os.PathLike | None = None) -> "RMAC":
    """Make an R-MAC network, on the CPU, in evaluation mode.

    Args:
        settings: What defines it; or the name of a backbone, which stands for
            ``NetworkSettings(name, levels=3)``: R-MAC off the shelf, without whitening, L as in Tolias et al. (2016).
            The paper trains with L = 2.
        pretrained: Whether the backbone gets its ImageNet weights; see ``backbones.create_backbone``.
        weights: File of weights for the backbone instead.

    Returns:
        The network. Give it a whitening with ``set_whitening``, or train it.

    Raises:
        BackboneError: An unknown backbone, or weights that can't be had.
    """
    if isinstance(settings, str):
        settings = NetworkSettings(settings, levels=OFF_THE_SHELF_LEVELS)
    return RMAC(settings, create_backbone(settings.backbone, pretrained, weights)).eval()


class RMAC(nn.Module):
    """The network: images in, one descriptor each out (Section 4.1).

    Attributes:
        settings: What defines the network.
        backbone: Images to feature maps.
        shift: (C,), added to region vectors; None without a whitening.
        fc: The fully connected layer, C to dim; None without a whitening.
        power: Learned exponent of "gem" pooling; None with another pooling.
        proposer: The proposal network (Section 4.3); None where there is none.
    """

    def __init__(self, settings: NetworkSettings, backbone: Backbone):
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.shift: nn.Parameter | None = None
        self.fc: nn.Linear | None = None
        if settings.dim is not None:
            self._add_projection(settings.dim)
        self.power: nn.Parameter | None = None
        self._learned_power: Tensor | None = None  # kept while another pooling is set
        self.proposer: ProposalNetwork | None = None
        if settings.anchors:
            self.add_proposer(settings.anchors, settings.proposal_channels)
        self.change()

    @property
    def dim(self) -> int:
        """Dimensions of a descriptor."""
        return self.settings.dim or self.backbone.channels

    # --- from images to descriptors ------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Extract the descriptors of a batch of images.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in 0..1, any H and W.

        Returns:
            (B, dim), rows ℓ2-normalised.
        """
        features = self.backbone(images)  # (B, C, h, w)
        return self.aggregate(features, images.shape[-2:])

    def aggregate(self, features: Tensor, image_size: Sequence[int]) -> Tensor:
        """Turn feature maps into descriptors: whiten the region vectors and sum them.

        Args:
            features: (B, C, h, w).
            image_size: (H, W) in pixels of the images that the maps come from.

        Returns:
            (B, dim), rows ℓ2-normalised.
        """
        vectors = self.region_vectors(features, image_size)  # B of (R, C)
        counts = [len(of_image) for of_image in vectors]
        whitened = self._project(torch.cat(vectors))  # (sum of R, dim)
        sums = [of_image.sum(0) for of_image in whitened.split(counts)]
        return l2(torch.stack(sums))  # (B, dim)

    def region_vectors(self, features: Tensor, image_size: Sequence[int]) -> list[Tensor]:
        """Pool the regions of feature maps and ℓ2-normalise them: the vectors that a whitening is fitted to.

        Args:
            features: (B, C, h, w).
            image_size: (H, W) in pixels of the images that the maps come from.

        Returns:
            For each image (R, C), rows ℓ2-normalised. R is the same for all images unless regions are proposed.
        """
        pooled: list[Sequence[Tensor]] = []  # of the grid, of the proposals: each B of (R, C)
        if self.settings.regions != "proposals":
            grid = self.grid(features.shape[-2:], image_size)
            pooled.append(pool_regions(features, grid, self.settings.pooling, self.power).unbind())
        if self.settings.regions != "grid":
            proposals = self.require_proposer().propose(features.detach(), image_size, self.settings.proposals)
            regions = [of_image.regions for of_image in proposals]
            pooled.append(pool_each(features, regions, self.settings.pooling, self.power))
        # From here not below float32: sums over regions would lose digits in half precision.
        precision = torch.promote_types(features.dtype, torch.float32)
        return [l2(torch.cat(of_image).to(precision)) for of_image in zip(*pooled, strict=True)]

    def grid(self, map_size: Sequence[int], image_size: Sequence[int]) -> Sequence[Sequence[int]]:
        """Lay the rigid grid over a feature map.

        Args:
            map_size: (h, w) of the map, in cells.
            image_size: (H, W) of the image, in pixels.

        Returns:
            Regions in cells, each (x, y, side) or (x, y, width, height).
        """
        (rows, columns), (height, width) = map_size, image_size
        if self.settings.grid == "whole":
            return [Rectangle(0, 0, columns, rows)]
        if self.settings.grid == "pixel":
            # The network's own map may be a cell smaller than ceil(pixels / stride): cut there.
            return [Rectangle(x, y, min(across, columns - x), min(down, rows - y)) for x, y, across, down in
                    pixel_grid(height, width, self.settings.levels, self.backbone.stride) if x < columns and y < rows]
        return rigid_grid(rows, columns, self.settings.levels, self.settings.grid)

    def _project(self, vectors: Tensor) -> Tensor:
        """Whiten region vectors, (R, C) to (R, dim): shift, fully connected layer, ℓ2."""
        if self.shift is None or self.fc is None:
            return vectors
        return l2(self.fc(vectors + self.shift))

    # --- what a network is made of -------------------------------------------------------------------------------

    def set_whitening(self, whitening: Whitening) -> "RMAC":
        """Start the shift and the fully connected layer from a whitening; ``settings.dim`` becomes its dimension.

        Args:
            whitening: Fitted to region vectors of this network.

        Returns:
            The network itself.

        Raises:
            InputError: A whitening of vectors of another dimension.
        """
        dim, channels = whitening.weight.shape
        if channels != self.backbone.channels:
            raise InputError(f"whitening: expected vectors of {self.backbone.channels} dimensions "
                             f"({self.backbone.name}), got {channels}")
        self.settings = replace(self.settings, dim=dim)
        shift, fc = self._add_projection(dim)
        with torch.no_grad():
            shift.copy_(torch.from_numpy(whitening.shift))
            fc.weight.copy_(torch.from_numpy(whitening.weight))
            fc.bias.zero_()
        return self.to(self.backbone.mean.device)

    def _add_projection(self, dim: int) -> tuple[nn.Parameter, nn.Linear]:
        """Give the network a shift of zero and a random fully connected layer."""
        shift, fc = nn.Parameter(torch.zeros(self.backbone.channels)), nn.Linear(self.backbone.channels, dim)
        self.shift, self.fc = shift, fc
        return shift, fc

    def change(self, **options: Any) -> "RMAC":
        """Change settings that need no other weights: levels, grid, pooling, regions, proposals.

        The exponent of "gem" pooling starts at 3; a learned one is kept while another pooling is set.

        Args:
            options: Of NetworkSettings, by name.

        Returns:
            The network itself.

        Raises:
            InputError: A setting that needs other weights, or a value out of range.
        """
        settings = replace(self.settings, **options)
        for name in _FIXED:
            if getattr(settings, name) != getattr(self.settings, name):
                raise InputError(f"{name}: can't be changed, it needs other weights: expected "
                                 f"{getattr(self.settings, name)!r} as the network has it, got {options[name]!r}")
        self.settings = settings
        like = self.backbone.mean.flatten()[0]  # dtype and device of the network
        if settings.pooling == "gem" and self.power is None:
            power = torch.full_like(like, GEM_POWER) if self._learned_power is None else self._learned_power.to(like)
            self.power = nn.Parameter(power.clone())
        elif settings.pooling != "gem" and self.power is not None:
            self._learned_power, self.power = self.power.detach().clone(), None
        return self

    def add_proposer(self, anchors: Anchors, channels: int = NetworkSettings.proposal_channels,
                     seed: int = 0) -> "RMAC":
        """Give the network an untrained proposal network (Section 4.3); ``learning.train_proposals`` trains it.

        Args:
            anchors: Shapes, see ``proposals.fit_anchors``.
            channels: Of its hidden layer.
            seed: Of its random weights.

        Returns:
            The network itself.
        """
        self.settings = replace(self.settings, anchors=tuple(anchors), proposal_channels=channels)
        proposer = ProposalNetwork(self.backbone.channels, self.settings.anchors, channels, seed)
        self.proposer = proposer.to(self.backbone.mean.device).eval()
        return self

    def require_proposer(self) -> ProposalNetwork:
        """Give the proposal network.

        Raises:
            InputError: There is none.
        """
        if self.proposer is None:
            raise InputError("expected a network that was trained to propose regions (rmac train --stage proposals), "
                             "got one that was not")
        return self.proposer


class SharedFeatures(nn.Module):
    """Several R-MAC networks on one backbone, computed from the same feature maps: for comparing settings.

    Their descriptors come side by side; ``split`` takes them apart again.

    Args:
        networks: By name, all with the same Backbone object.

    Raises:
        ValueError: Networks with different backbones.
    """

    def __init__(self, networks: Mapping[str, RMAC]):
        super().__init__()
        self.networks = nn.ModuleList(networks.values())
        self.names = list(networks)
        self.backbone = self.parts[0].backbone
        if any(network.backbone is not self.backbone for network in self.parts):
            raise ValueError("networks: expected all to have the same backbone object")

    @property
    def parts(self) -> list[RMAC]:
        """The networks, in order."""
        return cast(list[RMAC], list(self.networks))  # torch's ModuleList doesn't know the type of its modules

    @property
    def dim(self) -> int:
        """Dimensions of all descriptors together."""
        return sum(network.dim for network in self.parts)

    def forward(self, images: Tensor) -> Tensor:
        """Extract the descriptors of all networks: (B, 3, H, W) to (B, dim)."""
        features = self.backbone(images)  # (B, C, h, w)
        return torch.cat([network.aggregate(features, images.shape[-2:]) for network in self.parts], dim=1)

    def split(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """Take the descriptors of the networks apart.

        Args:
            vectors: (N, dim), as ``forward`` gives them, normalised together or not.

        Returns:
            By name (N, dim of that network), rows ℓ2-normalised.
        """
        ends = np.cumsum([network.dim for network in self.parts])
        parts = np.split(vectors, ends[:-1], axis=1)
        return {name: part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), EPSILON)
                for name, part in zip(self.names, parts, strict=True)}
