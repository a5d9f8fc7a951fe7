"""The folder of a cleaning run: what is in it, and whose it is."""

import csv
import io
import os
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from rmaclib.cleaning.graph import GraphError, load_graph
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
    """The folder of a cleaning run, locked, see folders.output_folder; one of an older version is taken over."""
    return output_folder(out, "clean", recognise=_written_by_older)


def graph_names(labels: Iterable[int]) -> list[str]:
    """Paths of the landmarks' graphs from the run's folder."""
    return [f"graphs/{label:06d}.npz" for label in labels]


def thumbnail_name(label: int, number: int) -> str:
    """Path of the thumbnail of a landmark's image from the run's folder."""
    return f"thumbnails/{label:06d}/{number:06d}.jpg"


def list_name(path: Path, out: str | os.PathLike) -> str:
    """An image's path from the run's folder: so the clean list names it, and opens wherever the images are."""
    return Path(os.path.relpath(path, out)).as_posix()


def _written_by_older(folder: Path) -> list[str] | None:
    """What a run of the version without markers wrote into a folder, known by its graphs; None when it is none.

    Graphs that don't load may be somebody else's and aren't listed, but for empty ones, which a power cut leaves.
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
    """The list, tables and page of an older run, known by how they begin: a labels.txt, say, may be the user's."""
    names = [name for name, start in _STARTS.items() if _text(folder / name).startswith(start)]
    if (folder / LIST).is_file():
        names.append(LIST)
    if LANDMARK_TABLE in names:
        rows = csv.DictReader(io.StringIO(_text(folder / LANDMARK_TABLE), newline=""))
        landmarks = {row.get("landmark") for row in rows}
        labels = _text(folder / LABELS).split("\n")[:-1]
        # Of several parts of a landmark the name has "/" and a number behind it.
        if labels and all(name in landmarks or name.rsplit("/", 1)[0] in landmarks for name in labels):
            names.append(LABELS)
    return names


def _text(path: Path) -> str:
    """Of a file, "" where there is none or it is no text."""
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
