"""ROxford and RParis: the revisited ground truth of Oxford 5k and Paris 6k (Radenović et al. 2018)."""

import os
import reprlib
from pathlib import Path

import numpy as np

from rmaclib.boxes import Box, check_box
from rmaclib.datasets.files import image_folder, images_by_stem, with_image_files
from rmaclib.datasets.safe_pickle import load_restricted_pickle
from rmaclib.datasets.types import DatasetError, Query, RetrievalDataset
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import is_line

GRADES = ("easy", "hard", "junk")


def read_revisited(root: str | os.PathLike, name: str | None = None) -> RetrievalDataset:
    """Read ``gnd_r*.pkl`` = {imlist, qimlist, gnd: [{bbx, easy, hard, junk}]} and the images beside it.

    The database is ``imlist``, in its order; easy, hard and junk are indices into it, from 0.

    Args:
        root: Folder of the data set.
        name: Its name; by default that of the folder.

    Returns:
        The data set. Images without a file are left out and listed in ``missing``. A query without its image is left
        out with a note.

    Raises:
        DatasetError: None or several such files, a pickle with anything but plain data, another structure, an index
            out of range, or an image with two grades.
    """
    root = Path(root)
    path = _ground_truth(root)
    images, query_images, entries = _checked(path, load_restricted_pickle(path))
    on_disk = images_by_stem(image_folder(root))
    database = {image: on_disk[image] for image in images if image in on_disk}
    queries, lost = [], []
    for number, (image, entry) in enumerate(zip(query_images, entries, strict=True)):
        box, relevance = _ground_truth_of_query(f"{path}: gnd[{number}] ({image!r})", entry, images)
        if image in on_disk:
            relevance = {grade: names & database.keys() for grade, names in relevance.items()}
            queries.append(Query(image, image, on_disk[image], box, relevance))
        else:
            lost.append((image, image))
    return RetrievalDataset(name or root.resolve().name, "revisited", root, tuple(database),
                            tuple(database.values()), with_image_files(root, queries, lost),
                            tuple(sorted({*images, *query_images} - on_disk.keys())))


def ground_truth_files(root: Path) -> list[Path]:
    """List the ``gnd_r*.pkl`` files in a folder, without its sub-folders."""
    return sorted(root.glob("gnd_r*.pkl"))


def _ground_truth(root: Path) -> Path:
    files = ground_truth_files(root)
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise DatasetError(f"{root}: expected one gnd_r*.pkl file, found {names}")
    return files[0]


def _checked(path: Path, content: object) -> tuple[list[str], list[str], list[dict]]:
    """(database images, query images, ground truth of each query), with types and lengths checked."""
    if not isinstance(content, dict) or not {"imlist", "qimlist", "gnd"} <= content.keys():
        keys = sorted(map(reprlib.repr, content)) if isinstance(content, dict) else type(content).__name__
        raise DatasetError(f"{path}: expected a dictionary of imlist, qimlist and gnd, found {keys}")
    images, query_images, entries = (_items(f"{path}: {key}", content[key]) for key in ("imlist", "qimlist", "gnd"))
    for key, names in (("imlist", images), ("qimlist", query_images)):
        if not all(isinstance(image, str) and is_line(image) for image in names) or len(set(names)) != len(names):
            raise DatasetError(f"{path}: expected {key} to be a list of different image names")
    if len(entries) != len(query_images):
        raise DatasetError(f"{path}: expected one gnd entry for each of {len(query_images)} queries, "
                           f"found {len(entries)}")
    return images, query_images, entries


def _items(where: str, values: object) -> list:
    """The items of a list, a tuple or an array of one dimension. Raises DatasetError for anything else."""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return values.tolist()
    if not isinstance(values, list | tuple):
        raise DatasetError(f"{where}: expected a list, found {type(values).__name__}")
    return list(values)


def _ground_truth_of_query(where: str, entry: object, images: list[str]) -> tuple[Box, dict[str, frozenset[str]]]:
    """(box, grade → image names) of a query. Raises DatasetError for anything that isn't as published."""
    if not isinstance(entry, dict) or not {"bbx", *GRADES} <= entry.keys():
        raise DatasetError(f"{where}: expected a dictionary of bbx, easy, hard and junk")
    try:
        box = check_box(_items(f"{where}: bbx", entry["bbx"]))
    except InputError as error:
        raise DatasetError(f"{where}: expected bbx x1, y1, x2, y2 with x1 < x2 and y1 < y2, "
                           f"found {reprlib.repr(entry['bbx'])}") from error
    relevance = {grade: _names(where, grade, entry[grade], images) for grade in GRADES}
    if len(set[str]().union(*relevance.values())) < sum(map(len, relevance.values())):
        raise DatasetError(f"{where}: expected one grade per image, found an image with two")
    return box, relevance


def _names(where: str, grade: str, indices: object, images: list[str]) -> frozenset[str]:
    """Names of the images with a grade, from their indices."""
    numbers = _items(f"{where}: {grade}", indices)
    if not all(isinstance(number, int | np.integer) and not isinstance(number, bool) for number in numbers):
        raise DatasetError(f"{where}: expected {grade} to be a list of whole numbers, found {reprlib.repr(indices)}")
    for number in numbers:
        if not 0 <= number < len(images):
            raise DatasetError(f"{where}: expected {grade} indices in 0..{len(images) - 1}, "
                               f"found {number if abs(number) < 10**20 else 'a number of many digits'}")
    return frozenset(images[number] for number in numbers)
