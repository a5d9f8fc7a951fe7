"""Settings of all steps of cleaning."""

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
    """Settings of all steps.

    exhaustive: classes of more images are matched on shortlists instead of all pairs
    neighbours: length of a shortlist; a pair is matched when one is on the other's
    """

    keypoints: KeypointSettings = field(default_factory=KeypointSettings)
    matching: MatchSettings = field(default_factory=MatchSettings)
    verification: VerificationSettings = field(default_factory=VerificationSettings)
    graph: GraphSettings = field(default_factory=GraphSettings)
    boxes: BoxSettings = field(default_factory=BoxSettings)
    exhaustive: Annotated[int, Field(ge=1)] = 500
    neighbours: Annotated[int, Field(ge=1)] = 100

    def __post_init__(self):
        if self.graph.threshold < self.verification.min_inliers:
            raise ValueError(f"graph.threshold: expected at least verification.min_inliers "
                             f"({self.verification.min_inliers}), got {self.graph.threshold}")


def clean_settings(mapping: Mapping, source: str = "settings") -> CleanSettings:
    """CleanSettings from nested dictionaries (YAML). raises InputError naming part and field"""
    return from_mapping(CleanSettings, mapping, source)
