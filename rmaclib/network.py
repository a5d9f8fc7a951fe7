"""R-MAC as a differentiable network (Section 4.1).

image → backbone → feature map → max-pooled regions → ℓ2 → shift → fully connected → ℓ2 → sum over regions → ℓ2

Everything behind the feature map is differentiable, so that training (Section 4.2) reaches the shift, the fully
connected layer and the backbone alike. Shift and fully connected layer start as a PCA-whitening of region vectors
(whitening.fit_whitening).

The paper has one feature map. Where a backbone gives several, each has a grid, a shift and a fully connected layer of
its own. The descriptors of the maps, each times a learned weight, are concatenated and ℓ2-normalised.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from rmaclib.backbones import Backbone, create_backbone
from rmaclib.foundation.errors import InputError
from rmaclib.network_settings import FIXED, NetworkSettings, shares
from rmaclib.pooling import EPSILON, GEM_POWER, l2, pool_each, pool_regions
from rmaclib.proposals import Anchors, ProposalNetwork
from rmaclib.regions import Rectangle, pixel_grid, rigid_grid
from rmaclib.whitening import Whitening

OFF_THE_SHELF_LEVELS = 3  # L of a backbone that is used by its name: 20 regions of a 4:3 photograph


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
        shift: (C,), added to region vectors; with several maps (sum of C,), one behind the other. None without a
            whitening.
        fc: The fully connected layer, C to dim; with several maps a list of them. None without a whitening.
        map_weights: (maps,) in the concatenation of several maps; None with one map.
        power: Learned exponent of "gem" pooling; None with another pooling.
        proposer: The proposal network (Section 4.3); None where there is none.
    """

    def __init__(self, settings: NetworkSettings, backbone: Backbone):
        super().__init__()
        self.settings, self.backbone = settings, backbone
        self.shift: nn.Parameter | None = None
        self.fc: nn.Linear | nn.ModuleList | None = None
        maps = len(backbone.layers)
        if settings.dim is not None:
            if maps > 1 and settings.dim not in backbone.dims:
                raise InputError(f"dim: expected {backbone.dims[0]}..{backbone.dims[-1]}, for {backbone.name} shares "
                                 f"it among {maps} maps, got {settings.dim}")
            self._add_projection(settings.dim)
        self.map_weights = nn.Parameter(torch.ones(maps)) if maps > 1 else None
        self.power: nn.Parameter | None = None
        self._learned_power: Tensor | None = None  # kept while another pooling is set
        self.proposer: ProposalNetwork | None = None
        if settings.anchors:
            self.add_proposer(settings.anchors, settings.proposal_channels)
        self.change()

    @property
    def dim(self) -> int:
        """Dimensions of a descriptor."""
        return self.settings.dim or sum(layer.channels for layer in self.backbone.layers)

    # --- from images to descriptors ------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Tensor:
        """Extract the descriptors of a batch of images.

        Args:
            images: (B, 3, H, W) RGB, uint8 or float in 0..1, any H and W.

        Returns:
            (B, dim), rows ℓ2-normalised.
        """
        return self.aggregate(self.backbone.maps(images), images.shape[-2:])

    def aggregate(self, maps: Sequence[Tensor], image_size: Sequence[int]) -> Tensor:
        """Turn feature maps into descriptors: whiten the region vectors and sum them.

        Args:
            maps: For each layer (B, C, h, w), as ``backbone.maps`` gives them.
            image_size: (H, W) in pixels of the images that the maps come from.

        Returns:
            (B, dim), rows ℓ2-normalised.
        """
        descriptors = []  # of each map, (B, its share of dim)
        for place, vectors in enumerate(self.region_vectors(maps, image_size)):  # B of (R, C)
            counts = [len(of_image) for of_image in vectors]
            whitened = self._project(torch.cat(vectors), place)  # (sum of R, its share of dim)
            descriptors.append(l2(torch.stack([of_image.sum(0) for of_image in whitened.split(counts)])))
        if self.map_weights is None:
            return descriptors[0]
        weighted = [weight * of_map for weight, of_map in zip(self.map_weights, descriptors, strict=True)]
        return l2(torch.cat(weighted, 1))  # (B, dim)

    def region_vectors(self, maps: Sequence[Tensor], image_size: Sequence[int]) -> list[list[Tensor]]:
        """Pool the regions of feature maps and ℓ2-normalise them: the vectors that a whitening is fitted to.

        Args:
            maps: For each layer (B, C, h, w), as ``backbone.maps`` gives them.
            image_size: (H, W) in pixels of the images that the maps come from.

        Returns:
            For each layer, for each image (R, C), rows ℓ2-normalised. R is the same for all images unless regions are
            proposed.
        """
        return [self._of_map(features, image_size, layer.stride)
                for features, layer in zip(maps, self.backbone.layers, strict=True)]

    def _of_map(self, features: Tensor, image_size: Sequence[int], stride: int) -> list[Tensor]:
        """The region vectors of one map, (B, C, h, w)."""
        pooled: list[Sequence[Tensor]] = []  # of the grid, of the proposals: each B of (R, C)
        if self.settings.regions != "proposals":
            grid = self.grid(features.shape[-2:], image_size, stride)
            pooled.append(pool_regions(features, grid, self.settings.pooling, self.power).unbind())
        if self.settings.regions != "grid":
            proposals = self.require_proposer().propose(features.detach(), image_size, self.settings.proposals)
            regions = [of_image.regions for of_image in proposals]
            pooled.append(pool_each(features, regions, self.settings.pooling, self.power))
        # From here not below float32: sums over regions would lose digits in half precision.
        precision = torch.promote_types(features.dtype, torch.float32)
        return [l2(torch.cat(of_image).to(precision)) for of_image in zip(*pooled, strict=True)]

    def grid(self, map_size: Sequence[int], image_size: Sequence[int], stride: int) -> Sequence[Sequence[int]]:
        """Lay the rigid grid over a feature map.

        Args:
            map_size: (h, w) of the map, in cells.
            image_size: (H, W) of the image, in pixels.
            stride: Of the map, in pixels.

        Returns:
            Regions in cells, each (x, y, side) or (x, y, width, height).
        """
        (rows, columns), (height, width) = map_size, image_size
        if self.settings.grid == "whole":
            return [Rectangle(0, 0, columns, rows)]
        if self.settings.grid == "pixel":
            # The network's own map may be a cell smaller than ceil(pixels / stride): cut there.
            return [Rectangle(x, y, min(across, columns - x), min(down, rows - y)) for x, y, across, down in
                    pixel_grid(height, width, self.settings.levels, stride) if x < columns and y < rows]
        return rigid_grid(rows, columns, self.settings.levels, self.settings.grid)

    def _project(self, vectors: Tensor, place: int) -> Tensor:
        """Whiten region vectors of a map, (R, C) to (R, its share of dim): shift, fully connected layer, ℓ2."""
        if self.shift is None or self.fc is None:
            return vectors
        shift, fc = self._projections(self.shift, self.fc)[place]
        return l2(fc(vectors + shift))

    def _projections(self, shift: Tensor, fc: nn.Linear | nn.ModuleList) -> list[tuple[Tensor, nn.Linear]]:
        """The shift (C,) and the fully connected layer of each map."""
        layers = [fc] if isinstance(fc, nn.Linear) else cast(list[nn.Linear], list(fc))
        return list(zip(shift.split([layer.in_features for layer in layers]), layers, strict=True))

    # --- what a network is made of -------------------------------------------------------------------------------

    def set_whitening(self, whitening: Whitening | Sequence[Whitening]) -> "RMAC":
        """Start shift and fully connected layer from a whitening; ``settings.dim`` becomes its dimension.

        Args:
            whitening: Fitted to region vectors of this network, one for each map; see
                ``extraction.whitening.learn_whitening``.

        Returns:
            The network itself.

        Raises:
            InputError: Whitenings of other vectors, or whose dimensions aren't shared evenly.
        """
        whitenings = [whitening] if isinstance(whitening, Whitening) else list(whitening)
        channels = [layer.channels for layer in self.backbone.layers]
        given = [of_map.weight.shape[1] for of_map in whitenings]
        if given != channels:
            raise InputError(f"whitening: expected vectors of {' and '.join(map(str, channels))} dimensions "
                             f"({self.backbone.name}), got {' and '.join(map(str, given))}")
        dims = tuple(len(of_map.weight) for of_map in whitenings)
        if dims != shares(sum(dims), len(dims)):
            raise InputError(f"whitening: expected dimensions {shares(sum(dims), len(dims))}, got {dims}")
        self.settings = replace(self.settings, dim=sum(dims))
        with torch.no_grad():
            for (shift, fc), of_map in zip(self._add_projection(sum(dims)), whitenings, strict=True):
                shift.copy_(torch.from_numpy(of_map.shift))
                fc.weight.copy_(torch.from_numpy(of_map.weight))
                fc.bias.zero_()
        return self.to(self.backbone.mean.device)

    def _add_projection(self, dim: int) -> list[tuple[Tensor, nn.Linear]]:
        """Give the network a shift of zero and random fully connected layers."""
        channels = [layer.channels for layer in self.backbone.layers]
        layers = [nn.Linear(*sizes) for sizes in zip(channels, shares(dim, len(channels)), strict=True)]
        shift = nn.Parameter(torch.zeros(sum(channels)))
        fc = layers[0] if len(layers) == 1 else nn.ModuleList(layers)
        self.shift, self.fc = shift, fc.train(self.training)
        return self._projections(shift, fc)

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
        for name in FIXED:
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

        Raises:
            InputError: A network of several feature maps.
        """
        if len(self.backbone.layers) > 1:
            raise InputError("proposals: expected a network of one feature map, for regions are proposed and pooled on "
                             f"the same cells, such as efficientnet_lite0; got {self.backbone.name}")
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
        maps = self.backbone.maps(images)
        return torch.cat([network.aggregate(maps, images.shape[-2:]) for network in self.parts], dim=1)

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
