"""The folder of a cleaning run: which files it contains, and whose they are."""

import csv
import io
import os
import re
from contextlib import AbstractContextManager
from pathlib import Path

from rmaclib.cleaning.graph import GraphError, load_graph
from rmaclib.datasets.layouts.lists import can_list
from rmaclib.datasets.types import DatasetError, LabelledImages
from rmaclib.foundation.files import as_line, is_line
from rmaclib.foundation.folders import OutputFolder, output_folder

LIST, LABELS, PAGE, SETTINGS = "annotation_clean.txt", "labels.txt", "report.html", "settings.json"
IMAGE_TABLE, LANDMARK_TABLE = "images.csv", "landmarks.csv"
# How our files begin: a user may have others of these names.
_STARTS = {IMAGE_TABLE: "path,label,landmark,component,", LANDMARK_TABLE: "label,landmark,images,kept,",
           SETTINGS: '{\n "keypoints": {',
           PAGE: '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Cleaning '}
_GRAPH = re.compile(r"[0-9]{6,}\.npz")
_THUMBNAIL = re.compile(r"thumbnails/[0-9]{6,}/[0-9]{6}\.jpg")


def cleaning_folder(out: str | os.PathLike) -> AbstractContextManager[OutputFolder]:
    """The folder of a cleaning run, locked for writing; one of an older version is taken over.

    Args:
        out: The folder; made where it isn't there.

    Raises:
        OutputError: As ``folders.output_folder`` raises it.
    """
    return output_folder(out, "clean", recognise=_written_by_older)


def graph_name(label: int) -> str:
    """Path of the graph of the landmark with a label, from the run's folder."""
    return f"graphs/{label:06d}.npz"


def thumbnail_name(label: int, number: int) -> str:
    """Path of a thumbnail from the run's folder.

    Args:
        label: The landmark's label.
        number: Number of the image in the landmark.
    """
    return f"thumbnails/{label:06d}/{number:06d}.jpg"


def list_name(path: Path, out: str | os.PathLike) -> str:
    """The name of an image in the clean list: its path from the run's folder, wherever the image is.

    Args:
        path: The image.
        out: The run's folder.
    """
    return Path(os.path.relpath(path, out)).as_posix()


def listable_images(images: LabelledImages, out: str | os.PathLike) -> LabelledImages:
    """The images that the clean list can name.

    Args:
        images: A collection.
        out: The run's folder.

    Returns:
        The images that can be named, the others in ``skipped``.

    Raises:
        DatasetError: There are images, and the list can name none of them.
    """
    names, paths = images.names, images.paths
    listable = images.usable(lambda index: is_line(names[index]) and can_list(list_name(paths[index], out)))
    if names and not listable.names:
        raise DatasetError(f"{as_line(str(images.root))}: expected images whose paths a list can name, found none: in "
                           f"it, {as_line(list_name(paths[0], out))} would be one; rename the folder or its images")
    return listable


def _written_by_older(folder: Path) -> list[str] | None:
    """The files that a run of the version without markers wrote into a folder; None when there was no such run.

    It is known by its graphs. Graphs that can't be loaded may be somebody else's and aren't listed, except empty ones,
    which a power cut leaves.
    """
    graphs = [path for path in folder.glob("graphs/*.npz") if _GRAPH.fullmatch(path.name)]
    loaded = [path for path in graphs if _loads(path)]
    if not loaded:
        return None
    names = [path.relative_to(folder).as_posix()
             for path in (*loaded, *folder.glob("thumbnails/*/*.jpg")) if path.is_file()]
    names += _tables(folder)
    names += [f"graphs/{path.name}" for path in graphs if path.stat().st_size == 0]
    return [name for name in names if not name.startswith("thumbnails/") or _THUMBNAIL.fullmatch(name)]


def _tables(folder: Path) -> list[str]:
    """The list, tables and page of an older run, known by how they begin: a labels.txt may be the user's."""
    names = [name for name, start in _STARTS.items() if _text(folder / name).startswith(start)]
    if (folder / LIST).is_file():
        names.append(LIST)
    if LANDMARK_TABLE in names:
        rows = csv.DictReader(io.StringIO(_text(folder / LANDMARK_TABLE), newline=""))
        landmarks = {row.get("landmark") for row in rows}
        labels = _text(folder / LABELS).split("\n")[:-1]
        # With several parts kept, a class is named after its landmark, "/" and a number.
        if labels and all(name in landmarks or name.rsplit("/", 1)[0] in landmarks for name in labels):
            names.append(LABELS)
    return names


def _text(path: Path) -> str:
    """The text of a file, "" where there is none or it is no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _loads(path: Path) -> bool:
    try:
        load_graph(path)
    except (GraphError, FileNotFoundError):
        return False
    return True
