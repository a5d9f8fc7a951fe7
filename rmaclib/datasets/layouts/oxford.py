"""Oxford 5k, Paris 6k and everything else in their text layout (Section 5.1)."""

import math
import os
from collections.abc import Iterable
from pathlib import Path

from rmaclib.boxes import Box
from rmaclib.datasets.files import image_folder, images_by_stem, read_lines
from rmaclib.datasets.types import DatasetError, Query, RetrievalDataset
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import is_line
from rmaclib.foundation.messages import note

GROUND_TRUTH_FOLDERS = ("gt", "gt_files", ".")
GRADES = ("good", "ok", "junk")

# 20 of the 6,412 files of Paris 6k can't be decoded; every published number leaves them out.
CORRUPT = frozenset(f"paris_{name}" for name in (
    "louvre_000136", "louvre_000146", "moulinrouge_000422", "museedorsay_001059", "notredame_000188",
    "pantheon_000284", "pantheon_000960", "pantheon_000974", "pompidou_000195", "pompidou_000196",
    "pompidou_000201", "pompidou_000467", "pompidou_000640", "sacrecoeur_000299", "sacrecoeur_000330",
    "sacrecoeur_000353", "triomphe_000662", "triomphe_000833", "triomphe_000863", "triomphe_000867"))


def read_oxford(root: str | os.PathLike, name: str | None = None) -> RetrievalDataset:
    """Read the official text layout of Oxford 5k and Paris 6k.

    Ground truth: `<query>_{query,good,ok,junk}.txt` in gt/, gt_files/ or the root. Images: in jpg/, images/,
    png/ or the root, sub-folders flattened; an image's name is its file name without extension. Images that
    the lists name and that have no file, and the corrupt files of Paris 6k, are left out and listed in
    `missing`; a query whose own image is among them is left out with a warning.
    raises DatasetError: no ground truth, a list or a field missing, an empty box, an image that is both
    positive and junk, two files of one name, no query left
    """
    root = Path(root)
    folder, stems = _ground_truth(root)
    on_disk = images_by_stem(image_folder(root))
    database = {image: path for image, path in on_disk.items() if image not in CORRUPT}
    queries, named = [], on_disk.keys() & CORRUPT
    for stem in stems:
        image, box = _read_query(folder / f"{stem}_query.txt")
        lists = {grade: _read_list(folder / f"{stem}_{grade}.txt") for grade in GRADES}
        both = sorted((lists["good"] | lists["ok"]) & lists["junk"])
        if both:
            raise DatasetError(f"{folder / stem}_junk.txt: expected no positive image, found {both[0]!r}, "
                               "which the good or ok list has too")
        named = named.union([image], *lists.values())
        relevance = {grade: images & database.keys() for grade, images in lists.items()}
        queries.append(Query(stem, image, database.get(image), box, relevance))
    return RetrievalDataset(name or root.resolve().name, "oxford", root, tuple(database),
                            tuple(database.values()), with_images(queries, root),
                            tuple(sorted(named - database.keys())))


def with_images(queries: Iterable[Query], root: Path) -> tuple[Query, ...]:
    """The queries that have an image file; warns of the others.

    raises DatasetError when none is left
    """
    kept, lost = [], []
    for query in queries:
        (lost if query.path is None else kept).append(query)
    if not kept:
        raise DatasetError(f"{root}: expected the query images, found none of {len(lost)}"
                           + (f" (first: {lost[0].image!r})" if lost else ""))
    if lost:
        note(f"{root}: {len(lost)} queries left out, their images are missing: "
             + ", ".join(f"{query.name} ({query.image})" for query in lost))
    return tuple(kept)


def check_box(numbers: Iterable[float]) -> Box:
    """(x1, y1, x2, y2), finite and not empty.

    raises InputError otherwise
    """
    try:
        x1, y1, x2, y2 = box = tuple(float(number) for number in numbers)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"box: expected four numbers x1, y1, x2, y2 ({error})") from error
    if not all(map(math.isfinite, box)) or x1 >= x2 or y1 >= y2:
        raise InputError(f"box {box} (x1, y1, x2, y2)")
    return box


def query_files(folder: Path) -> list[Path]:
    """The `*_query.txt` files directly in a folder."""
    return sorted(path for path in folder.glob("*_query.txt") if not path.name.startswith("."))


def _ground_truth(root: Path) -> tuple[Path, list[str]]:
    """(folder, query names) of the ground truth."""
    for folder in (root / name for name in GROUND_TRUTH_FOLDERS):
        if files := query_files(folder):
            return folder, [file.name.removesuffix("_query.txt") for file in files]
    raise DatasetError(f"{root}: expected *_query.txt files in gt/, gt_files/ or the folder, found none")


def _read_query(path: Path) -> tuple[str, Box]:
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
