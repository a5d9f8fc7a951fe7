"""Reading image collections and benchmarks (Sections 3 and 5.1): names, paths, labels, boxes, ground truth.

``open_dataset`` opens a benchmark with queries and ``open_collection`` a labelled collection, by registered name or by
path. The readers read only names and lists; no image is opened.
"""

from rmaclib.datasets.files import EXTENSIONS, list_images
from rmaclib.datasets.layouts.folders import read_folder_per_landmark, read_images, read_query_folder
from rmaclib.datasets.layouts.holidays import read_holidays
from rmaclib.datasets.layouts.lists import (
    ListEntry,
    read_csv,
    read_landmarks_entries,
    read_landmarks_list,
    write_landmarks_list,
)
from rmaclib.datasets.layouts.oxford import read_oxford
from rmaclib.datasets.layouts.revisited import read_revisited
from rmaclib.datasets.registry import (
    Entry,
    data_roots,
    detect_layout,
    known_datasets,
    open_apart,
    open_collection,
    open_dataset,
    open_images,
    self_check,
)
from rmaclib.datasets.safe_pickle import load_restricted_pickle
from rmaclib.datasets.types import DatasetError, LabelledImages, Query, RetrievalDataset, Skipped

__all__ = [
    "EXTENSIONS", "DatasetError", "Entry", "LabelledImages", "ListEntry", "Query", "RetrievalDataset", "Skipped",
    "data_roots", "detect_layout", "known_datasets", "list_images", "load_restricted_pickle",
    "open_apart", "open_collection", "open_dataset", "open_images", "read_csv", "read_folder_per_landmark",
    "read_holidays",
    "read_images", "read_landmarks_entries", "read_landmarks_list", "read_oxford", "read_query_folder",
    "read_revisited", "self_check", "write_landmarks_list",
]
