"""Oxford 5k, Paris 6k and other data sets in their text layout (Section 5.1)."""

import os
from pathlib import Path

from rmaclib.boxes import Box, check_box
from rmaclib.datasets.files import image_folder, images_by_stem, read_lines, with_image_files
from rmaclib.datasets.types import DatasetError, Query, RetrievalDataset
from rmaclib.foundation.files import is_line

GROUND_TRUTH_FOLDERS = ("gt", "gt_files", ".")
GRADES = ("good", "ok", "junk")

# 20 of the 6,412 files of Paris 6k can't be decoded; all published results leave them out.
CORRUPT = frozenset(f"paris_{name}" for name in (
    "louvre_000136", "louvre_000146", "moulinrouge_000422", "museedorsay_001059", "notredame_000188",
    "pantheon_000284", "pantheon_000960", "pantheon_000974", "pompidou_000195", "pompidou_000196",
    "pompidou_000201", "pompidou_000467", "pompidou_000640", "sacrecoeur_000299", "sacrecoeur_000330",
    "sacrecoeur_000353", "triomphe_000662", "triomphe_000833", "triomphe_000863", "triomphe_000867"))


def read_oxford(root: str | os.PathLike, name: str | None = None) -> RetrievalDataset:
    """Read the official text layout of Oxford 5k and Paris 6k.

    Ground truth: ``<query>_{query,good,ok,junk}.txt`` in gt/, gt_files/ or the root. Images: in jpg/, images/, png/ or
    the root, sub-folders included; the name of an image is its file name without extension.

    Args:
        root: Folder of the data set.
        name: Its name; by default that of the folder.

    Returns:
        The data set. Images of the ground truth without a file, and the corrupt files of Paris 6k, are left out and
        listed in ``missing``. A query whose image is among them is left out with a note.

    Raises:
        DatasetError: No ground truth, a list or a field is missing, an empty box, an image that is both positive and
            junk, two files of one name, or no query left.
    """
    root = Path(root)
    folder, stems = _ground_truth(root)
    on_disk = images_by_stem(image_folder(root))
    database = {image: path for image, path in on_disk.items() if image not in CORRUPT}
    queries, lost, mentioned = [], [], on_disk.keys() & CORRUPT
    for stem in stems:
        image, box = _read_query(folder / f"{stem}_query.txt")
        lists = {grade: _read_list(folder / f"{stem}_{grade}.txt") for grade in GRADES}
        both = sorted((lists["good"] | lists["ok"]) & lists["junk"])
        if both:
            raise DatasetError(f"{folder / stem}_junk.txt: expected no positive image, found {both[0]!r}, "
                               "which the good or ok list has too")
        mentioned = mentioned.union([image], *lists.values())
        relevance = {grade: images & database.keys() for grade, images in lists.items()}
        if image in database:
            queries.append(Query(stem, image, database[image], box, relevance))
        else:
            lost.append((stem, image))
    return RetrievalDataset(name or root.resolve().name, "oxford", root, tuple(database),
                            tuple(database.values()), with_image_files(root, queries, lost),
                            tuple(sorted(mentioned - database.keys())))


def query_files(folder: Path) -> list[Path]:
    """List the ``*_query.txt`` files in a folder, without its sub-folders."""
    return sorted(path for path in folder.glob("*_query.txt") if not path.name.startswith("."))


def _ground_truth(root: Path) -> tuple[Path, list[str]]:
    """(folder, query names) of the ground truth."""
    for folder in (root / name for name in GROUND_TRUTH_FOLDERS):
        if files := query_files(folder):
            return folder, [file.name.removesuffix("_query.txt") for file in files]
    raise DatasetError(f"{root}: expected *_query.txt files in gt/, gt_files/ or the folder, found none")


def _read_query(path: Path) -> tuple[str, Box]:
    """(image, box) of a query file."""
    lines = list(read_lines(path))
    if len(lines) != 1:
        raise DatasetError(f"{path}: expected one line `image x1 y1 x2 y2`, found {len(lines)} lines")
    number, line = lines[0]
    fields = line.split()
    if len(fields) != 5:
        raise DatasetError(f"{path}:{number}: expected 5 fields `image x1 y1 x2 y2`, "
                           f"found {len(fields)}: {line!r}")
    try:
        box = check_box(fields[1:])
    except ValueError as error:
        raise DatasetError(f"{path}:{number}: expected numbers with x1 < x2 and y1 < y2, "
                           f"found {line!r}") from error
    return fields[0].removeprefix("oxc1_"), box


def _read_list(path: Path) -> frozenset[str]:
    images = set()
    for number, line in read_lines(path):
        if len(line.split()) != 1 or not is_line(line):
            raise DatasetError(f"{path}:{number}: expected one image name, found {line!r}")
        images.add(line)
    return frozenset(images)
