"""Settings of all stages of cleaning."""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated

from rmaclib.cleaning.boxes import BoxSettings
from rmaclib.cleaning.graph import GraphSettings
from rmaclib.cleaning.keypoints import KeypointSettings
from rmaclib.cleaning.matching import MatchSettings
from rmaclib.cleaning.verification import VerificationSettings
from rmaclib.foundation.settings import Field, from_mapping, settings


@settings
class CleanSettings:
    """Settings of all stages of cleaning (Section 3).

    Attributes:
        keypoints: Keypoints of an image.
        matching: Matches of a pair of images.
        verification: When an affine model verifies a pair.
        graph: Which part of a landmark's graph is kept.
        boxes: Boxes and their diffusion.
        exhaustive: All pairs are compared in classes of up to so many images; larger ones are matched on shortlists.
        neighbours: Length of a shortlist; a pair is compared when either image is on the other's.
    """

    keypoints: KeypointSettings = field(default_factory=KeypointSettings)
    matching: MatchSettings = field(default_factory=MatchSettings)
    verification: VerificationSettings = field(default_factory=VerificationSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    boxes: BoxSettings = field(default_factory=BoxSettings)
    exhaustive: Annotated[int, Field(ge=1)] = 500
    neighbours: Annotated[int, Field(ge=1)] = 100

    def __post_init__(self) -> None:
        if self.graph.threshold < self.verification.min_inliers:
            raise ValueError(f"graph.threshold: expected at least verification.min_inliers "
                             f"({self.verification.min_inliers}), got {self.graph.threshold}")


def clean_settings(mapping: Mapping, source: str = "settings") -> CleanSettings:
    """``CleanSettings`` from nested dictionaries, as YAML gives them.

    Args:
        mapping: Part → its settings, such as ``{"graph": {"threshold": 15}}``.
        source: Where they come from, for the error.

    Returns:
        The settings, with defaults for what the mapping lacks.

    Raises:
        InputError: An unknown key or a bad value; the text names part and field.
    """
    return from_mapping(CleanSettings, mapping, source)
