"""What defines an R-MAC network (Section 4.1)."""

from typing import Annotated, Literal, get_args

from rmaclib.foundation.settings import Field, as_tuple, settings
from rmaclib.pooling import Pooling
from rmaclib.proposals import CANDIDATES

Grid = Literal["exact", "float32", "global", "pixel", "whole"]
Regions = Literal["grid", "proposals", "both"]
GRIDS, POOLINGS, REGIONS = get_args(Grid), get_args(Pooling), get_args(Regions)

FIXED = ("backbone", "dim", "anchors", "proposal_channels")  # settings that the shapes of the weights follow from
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
        dim: Dimensions of a descriptor, the outputs of the fully connected layer; several feature maps share them
            evenly, see ``shares``. None for a network without shift and fully connected layer.
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


def shares(dim: int, maps: int) -> tuple[int, ...]:
    """Share the dimensions of a descriptor among feature maps: evenly, the first maps get the remainder.

    Args:
        dim: Of the descriptor.
        maps: How many maps.

    Returns:
        The dimensions of each map.
    """
    return tuple(len(range(place, dim, maps)) for place in range(maps))
