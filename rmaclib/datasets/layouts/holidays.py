"""INRIA Holidays, whose ground truth is in its file names (Section 5.1)."""

import os
import re
from pathlib import Path

from rmaclib.datasets.files import image_folder, images_by_stem
from rmaclib.datasets.layouts.oxford import with_images
from rmaclib.datasets.types import DatasetError, Query, RetrievalDataset


def is_holidays_name(stem: str) -> bool:
    """Whether a file name without extension is six digits."""
    return re.fullmatch(r"[0-9]{6}", stem) is not None


def read_holidays(root: str | os.PathLike, name: str | None = None) -> RetrievalDataset:
    """Read images `NNNNNN.jpg` from jpg/, images/, png/ or the root, sub-folders flattened.

    A number divisible by 100 is a query; the following numbers with the same number // 100 are relevant to
    it. All images are in the database, queries too. A group without its query image is kept as images, and
    the query is listed in `missing`, with a warning. A query alone in its group has no relevant image.
    raises DatasetError: other names, two files of one name, no query
    """
    root = Path(root)
    database = images_by_stem(image_folder(root))
    others = [stem for stem in database if not is_holidays_name(stem)]
    if others:
        raise DatasetError(f"{root}: expected file names of six digits, found {len(others)} others: "
                           + ", ".join(others[:5]))
    groups: dict[str, set[str]] = {}
    for image in database:
        groups.setdefault(image[:4] + "00", set()).add(image)
    queries = [Query(image, image, database.get(image), None, {"relevant": frozenset(group - {image})})
               for image, group in groups.items()]
    return RetrievalDataset(name or root.resolve().name, "holidays", root, tuple(database),
                            tuple(database.values()), with_images(queries, root),
                            tuple(image for image in groups if image not in database))
