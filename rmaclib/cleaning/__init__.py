"""Cleaning a noisy landmark collection (Section 3): which images show the same thing, and a box around it.

``clean`` does it all: keypoints, matches, verified affine models, a graph per landmark, its largest connected
component, boxes and their diffusion. ``select`` does the last three from a stored graph, without any image.
"""

from rmaclib.cleaning.boxes import BoxSettings, diffuse, geometric_median, geometric_medians, initial_boxes, map_boxes
from rmaclib.cleaning.graph import (
    GraphError,
    GraphSettings,
    MatchGraph,
    components,
    kept_components,
    kept_edges,
    load_graph,
    parts,
    save_graph,
)
from rmaclib.cleaning.keypoints import Features, KeypointSettings, extract_keypoints, root_sift
from rmaclib.cleaning.matching import Matcher, MatchSettings, main_directions
from rmaclib.cleaning.pipeline import clean, select
from rmaclib.cleaning.report import write_report
from rmaclib.cleaning.settings import CleanSettings, clean_settings
from rmaclib.cleaning.types import Cleaned, CleanError, Landmark, Selection, Shortlists
from rmaclib.cleaning.verification import VerificationSettings, Verified, verify, verify_pair

__all__ = [
    "BoxSettings", "CleanError", "CleanSettings", "Cleaned", "Features", "GraphError", "GraphSettings",
    "KeypointSettings", "Landmark", "MatchGraph", "MatchSettings", "Matcher", "Selection", "Shortlists",
    "VerificationSettings", "Verified", "clean", "clean_settings", "components", "diffuse", "extract_keypoints",
    "geometric_median", "geometric_medians", "initial_boxes", "kept_components", "kept_edges", "load_graph",
    "main_directions", "map_boxes", "parts", "root_sift", "save_graph", "select", "verify", "verify_pair",
    "write_report",
]
