"""Opening a data set by its name or by its folder.

Names are in a file registry.yml of a data root: where the data set comes from, its layout, its folder under a data
root, and the published counts that tell whether it is complete.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from rmaclib.datasets.files import list_images
from rmaclib.datasets.layouts.folders import read_folder_per_landmark, read_images, read_query_folder
from rmaclib.datasets.layouts.holidays import is_holidays_name, read_holidays
from rmaclib.datasets.layouts.lists import read_landmarks_list
from rmaclib.datasets.layouts.oxford import GROUND_TRUTH_FOLDERS, query_files, read_oxford
from rmaclib.datasets.layouts.revisited import ground_truth_files, read_revisited
from rmaclib.datasets.types import DatasetError, LabelledImages, RetrievalDataset
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.folders import refuse_inside
from rmaclib.foundation.messages import note
from rmaclib.foundation.settings import one_of, read_yaml

REGISTRY = "registry.yml"
_REPOSITORY_DATA = Path(__file__).parents[2] / "data"
_RETRIEVAL_READERS = {"oxford": read_oxford, "revisited": read_revisited, "holidays": read_holidays,
                      "folder": read_query_folder}
_COLLECTION_READERS = {"folder": read_folder_per_landmark, "images": read_images}
# Of each kind its layouts, and what is counted.
_LAYOUTS = {"retrieval": tuple(_RETRIEVAL_READERS), "collection": ("landmarks", *_COLLECTION_READERS)}
_COUNTS = {"retrieval": {"images", "queries", "positives", "junk"}, "collection": {"images", "landmarks"}}


@dataclass(frozen=True)
class Entry:
    """A registered data set: one entry of a registry.

    Attributes:
        kind: "retrieval" (``open_dataset``) or "collection" (``open_collection``).
        layout: "oxford", "revisited", "holidays" or "folder"; of a collection "landmarks", "folder" or "images".
        folder: Its folder under a data root.
        source: Its home page.
        publishable: Whether its images may be shown in public.
        list: The list in its folder, for the layout "landmarks".
        expected: Published counts of the complete data set, see ``RetrievalDataset.counts`` and
            ``LabelledImages.counts``.
    """

    kind: str
    layout: str
    folder: str
    source: str
    publishable: bool
    list: str = ""
    expected: Mapping[str, int] = field(default_factory=dict)


def known_datasets() -> dict[str, Entry]:
    """Read the registries of all data roots.

    Returns:
        Name → registered data set. Of two entries with one name the first root's counts. Empty where no root has a
        registry, as in a copy of the library without its repository.

    Raises:
        DatasetError: An entry has an unknown or missing field, or a value that can't be used; the text names it.
    """
    entries: dict[str, Entry] = {}
    for root in data_roots():
        if (root / REGISTRY).is_file():
            entries = _read_registry(root / REGISTRY) | entries
    return entries


def _read_registry(path: Path) -> dict[str, Entry]:
    try:
        content = read_yaml(path)
    except InputError as error:
        raise DatasetError(str(error)) from error
    entries = {}
    for name, fields in content.items():
        try:
            entries[name] = Entry(**fields)
            _check_entry(entries[name])
        except (TypeError, InputError) as error:
            raise DatasetError(f"{path}: {name}: {error}") from error
    return entries


def _check_entry(entry: Entry) -> None:
    """Raises InputError for a value that can't be used: people write registries of their own."""
    one_of("kind", entry.kind, tuple(_LAYOUTS))
    one_of("layout", entry.layout, _LAYOUTS[entry.kind])
    for field_name in ("folder", "list"):
        if not isinstance(value := getattr(entry, field_name), str):
            raise InputError(f"{field_name}: expected text, got {value!r}")
    counts = _COUNTS[entry.kind]
    if not isinstance(entry.expected, Mapping) or not entry.expected.keys() <= counts:
        raise InputError(f"expected: expected counts of {', '.join(sorted(counts))}, got {entry.expected!r}")


def data_roots() -> list[Path]:
    """List the folders in which data sets are looked for.

    Returns:
        The folders in the environment variable RMACLIB_DATA, which are separated as in PATH; then data/ of the
        repository, where there is one.
    """
    roots = [Path(root) for root in os.environ.get("RMACLIB_DATA", "").split(os.pathsep) if root]
    return roots + [_REPOSITORY_DATA] if _REPOSITORY_DATA.is_dir() else roots


def detect_layout(folder: str | os.PathLike) -> str:
    """Find out the layout of a folder.

    Args:
        folder: The folder.

    Returns:
        "oxford", "revisited", "landmarks", "holidays", "folder" (per landmark) or "images".

    Raises:
        DatasetError: No such folder, no image, or ground truth of several layouts.
    """
    folder = Path(folder)
    ground_truth = {"oxford": any(query_files(folder / name) for name in GROUND_TRUTH_FOLDERS),
                    "revisited": bool(ground_truth_files(folder)), "landmarks": bool(_landmarks_lists(folder))}
    layouts = [layout for layout, present in ground_truth.items() if present]
    if len(layouts) > 1:
        raise DatasetError(f"{folder}: expected ground truth of one layout, found {' and '.join(layouts)}; "
                           "name the layout")
    if layouts:
        return layouts[0]
    images = list_images(folder)
    stems = [path.stem for path in images]
    if all(map(is_holidays_name, stems)) and any(stem.endswith("00") for stem in stems):
        return "holidays"
    return "folder" if any(path.parent != folder for path in images) else "images"


def open_dataset(name_or_folder: str | os.PathLike, layout: str | None = None) -> RetrievalDataset:
    """Open a data set with queries (Section 5.1).

    Args:
        name_or_folder: A registered name, or a folder in a known layout.
        layout: "oxford", "revisited", "holidays" or "folder". By default it is the registered one, or found out.

    Returns:
        The data set. No image is opened.

    Raises:
        DatasetError: An unknown name (known names and roots are listed), the name of a collection, a folder without
            queries, or what the reader of the layout raises.
        InputError: An unknown layout.
    """
    if layout is not None:
        one_of("layout", layout, tuple(_RETRIEVAL_READERS))
    name, entry = os.fspath(name_or_folder), known_datasets().get(os.fspath(name_or_folder))
    if entry is not None:
        _check_kind(name, entry, "retrieval")
        dataset = _RETRIEVAL_READERS[layout or entry.layout](_registered_folder(name, entry), name)
        return replace(dataset, publishable=entry.publishable)
    folder = _existing(name)
    layout = layout or detect_layout(folder)
    if layout not in _RETRIEVAL_READERS:
        raise DatasetError(f"{folder}: expected queries and their ground truth, found only images "
                           f"(layout {layout}); open it as a collection")
    return _RETRIEVAL_READERS[layout](folder)


def open_collection(name_or_path: str | os.PathLike, skip_bad: bool = False) -> LabelledImages:
    """Open a collection of labelled images (Section 3).

    Args:
        name_or_path: A registered name, a Landmarks list, a CSV file, a folder per landmark, or any other folder of
            images, all with label 0.
        skip_bad: Leave out rows that can't be used, and images outside the sub-folders, see
            ``LabelledImages.skipped``, instead of raising.

    Returns:
        The collection. No image is opened.

    Raises:
        DatasetError: An unknown name, the name of a retrieval data set, a folder that contains Landmarks lists (one
            of them has to be named), or what the reader raises.
    """
    name, entry = os.fspath(name_or_path), known_datasets().get(os.fspath(name_or_path))
    if entry is not None:
        _check_kind(name, entry, "collection")
        folder = _registered_folder(name, entry)
        images = (read_landmarks_list(folder / entry.list, folder, skip_bad) if entry.layout == "landmarks"
                  else _COLLECTION_READERS[entry.layout](folder, skip_bad))
        return replace(images, name=name, publishable=entry.publishable)
    path = _existing(name)
    if not path.is_dir():
        if path.suffix.lower() == ".csv":
            return read_images(path, skip_bad)
        return read_landmarks_list(path, None, skip_bad)
    if lists := _landmarks_lists(path):
        raise DatasetError(f"{path}: expected the path of one list, found a folder with "
                           + ", ".join(file.name for file in lists))
    return _COLLECTION_READERS["folder" if detect_layout(path) == "folder" else "images"](path, skip_bad)


def open_apart(images: str | os.PathLike | LabelledImages, out: str | os.PathLike,
               note: Callable[[str], None] = note) -> LabelledImages:
    """Open a collection whose results go to a folder apart from it, and note what is left out of it.

    Args:
        images: What ``open_collection`` takes; images that are open already are returned as they are.
        out: The folder of results.
        note: What notes a line.

    Returns:
        The collection.

    Raises:
        DatasetError: See ``open_collection``.
        OutputError: ``out`` lies in the folder that the images are read from. A list may lie beside its results.
    """
    if isinstance(images, LabelledImages):
        return images
    collection = open_collection(images)
    if not os.path.isfile(images):
        refuse_inside(out, collection.root)
    for sentence in collection.notes:
        note(sentence)
    return collection


def open_images(name_or_path: str | os.PathLike, skip_bad: bool = False) -> LabelledImages:
    """Open images for a purpose that needs no labels, such as an index.

    Args:
        name_or_path: A folder with images in it or in its sub-folders, all with label 0 and named by their paths from
            it; or anything else that ``open_collection`` opens.
        skip_bad: As in ``open_collection``.

    Returns:
        The collection, with each file once.

    Raises:
        DatasetError: As ``open_collection``.
    """
    name = os.fspath(name_or_path)
    if name and name not in known_datasets() and os.path.isdir(name):
        return read_images(name)
    return open_collection(name_or_path, skip_bad).usable(by_label=False)


def self_check(dataset: RetrievalDataset | LabelledImages) -> list[str]:
    """Compare a data set with its published counts.

    Args:
        dataset: The data set, opened by its registered name.

    Returns:
        Differences, such as "positives: expected 2840, found 730". Empty when all counts agree, and when nothing is
        published under its name.
    """
    entry = known_datasets().get(dataset.name)
    if entry is None:
        return []
    counts = dataset.counts
    return [f"{key}: expected {expected}, found {counts[key]}"
            for key, expected in entry.expected.items() if counts[key] != expected]


def _landmarks_lists(folder: Path) -> list[Path]:
    return sorted(folder.glob("annotation_*.txt"))


def _check_kind(name: str, entry: Entry, kind: str) -> None:
    if entry.kind != kind:
        opener = {"retrieval": "open_dataset", "collection": "open_collection"}[entry.kind]
        raise DatasetError(f"{name}: expected a {kind} data set, found a {entry.kind} one; use {opener}")


def _registered_folder(name: str, entry: Entry) -> Path:
    for root in data_roots():
        if (root / entry.folder).is_dir():
            return root / entry.folder
    raise DatasetError(f"{name}: expected a folder {entry.folder}/ under one of {_roots_text()}, found none; "
                       f"set RMACLIB_DATA to its parent. The data set's home: {entry.source}")


def _existing(name: str) -> Path:
    path = Path(name)
    if not name or not os.path.exists(name):  # an empty text does not mean the current folder
        known = ', '.join(known_datasets()) or 'none'
        raise DatasetError(f"{name or '(empty text)'}: expected a path or a name ({known}), "
                           f"found neither; roots of the known names: {_roots_text()}")
    return path


def _roots_text() -> str:
    return ", ".join(map(str, data_roots())) or "no root (RMACLIB_DATA is not set)"
