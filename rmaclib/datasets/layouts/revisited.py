"""ROxford and RParis: the revisited ground truth of Oxford 5k and Paris 6k (Radenović et al. 2018)."""

import os
import reprlib
from pathlib import Path

import numpy as np

from rmaclib.datasets.files import image_folder, images_by_stem
from rmaclib.datasets.layouts.oxford import check_box, with_images
from rmaclib.datasets.safe_pickle import load_restricted_pickle
from rmaclib.datasets.types import DatasetError, Query, RetrievalDataset
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import is_line

GRADES = ("easy", "hard", "junk")


def read_revisited(root: str | os.PathLike, name: str | None = None) -> RetrievalDataset:
    """Read `gnd_r*.pkl` = {imlist, qimlist, gnd: [{bbx, easy, hard, junk}]} and the images beside it.

    The database is `imlist`, in its order; easy, hard and junk are indices into it, from 0. Images without a
    file are left out and listed in `missing`; a query without its image is left out with a warning.
    raises DatasetError: not one such file, a pickle with anything but plain data, another structure, an index
    out of range, an image with two grades
    """
    root = Path(root)
    path = _ground_truth(root)
    images, query_images, truths = _checked(path, load_restricted_pickle(path))
    on_disk = images_by_stem(image_folder(root))
    database = {image: on_disk[image] for image in images if image in on_disk}
    queries = [_query(f"{path}: gnd[{number}] ({image!r})", image, on_disk.get(image), truth, images,
                      database)
               for number, (image, truth) in enumerate(zip(query_images, truths, strict=True))]
    return RetrievalDataset(name or root.resolve().name, "revisited", root, tuple(database),
                            tuple(database.values()), with_images(queries, root),
                            tuple(sorted({*images, *query_images} - on_disk.keys())))


def ground_truth_files(root: Path) -> list[Path]:
    """The `gnd_r*.pkl` files directly in a folder."""
    return sorted(root.glob("gnd_r*.pkl"))


def _ground_truth(root: Path) -> Path:
    files = ground_truth_files(root)
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise DatasetError(f"{root}: expected one gnd_r*.pkl file, found {found}")
    return files[0]


def _checked(path: Path, content: object) -> tuple[list[str], list[str], list[dict]]:
    """(database images, query images, ground truth of each query), their types and lengths checked."""
    if not isinstance(content, dict) or not {"imlist", "qimlist", "gnd"} <= content.keys():
        found = sorted(map(reprlib.repr, content)) if isinstance(content, dict) else type(content).__name__
        raise DatasetError(f"{path}: expected a dictionary of imlist, qimlist and gnd, found {found}")
    images, query_images, truths = (_items(f"{path}: {key}", content[key]) for key in ("imlist", "qimlist", "gnd"))
    for key, names in (("imlist", images), ("qimlist", query_images)):
        if not all(isinstance(image, str) and is_line(image) for image in names) or len(set(names)) != len(names):
            raise DatasetError(f"{path}: expected {key} to be a list of different image names")
    if len(truths) != len(query_images):
        raise DatasetError(f"{path}: expected one gnd entry for each of {len(query_images)} queries, "
                           f"found {len(truths)}")
    return images, query_images, truths


def _items(where: str, values: object) -> list:
    """The items of a list, a tuple or an array of one dimension. raises DatasetError for anything else"""
    if isinstance(values, np.ndarray) and values.ndim == 1:
        return values.tolist()
    if not isinstance(values, list | tuple):
        raise DatasetError(f"{where}: expected a list, found {type(values).__name__}")
    return list(values)


def _query(where: str, image: str, path: Path | None, truth: object, images: list[str],
           database: dict[str, Path]) -> Query:
    if not isinstance(truth, dict) or not {"bbx", *GRADES} <= truth.keys():
        raise DatasetError(f"{where}: expected a dictionary of bbx, easy, hard and junk")
    try:
        box = check_box(_items(f"{where}: bbx", truth["bbx"]))
    except InputError as error:
        raise DatasetError(f"{where}: expected bbx x1, y1, x2, y2 with x1 < x2 and y1 < y2, "
                           f"found {reprlib.repr(truth['bbx'])}") from error
    graded = {grade: _names(where, grade, truth[grade], images) for grade in GRADES}
    if len(frozenset().union(*graded.values())) < sum(map(len, graded.values())):
        raise DatasetError(f"{where}: expected one grade per image, found an image with two")
    return Query(image, image, path, box, {grade: names & database.keys() for grade, names in graded.items()})


def _names(where: str, grade: str, indices: object, images: list[str]) -> frozenset[str]:
    numbers = _items(f"{where}: {grade}", indices)
    if not all(isinstance(number, int | np.integer) and not isinstance(number, bool) for number in numbers):
        raise DatasetError(f"{where}: expected {grade} to be a list of whole numbers, found {reprlib.repr(indices)}")
    for number in numbers:
        if not 0 <= number < len(images):
            raise DatasetError(f"{where}: expected {grade} indices in 0..{len(images) - 1}, "
                               f"found {number if abs(number) < 10**20 else 'a number of many digits'}")
    return frozenset(images[number] for number in numbers)
