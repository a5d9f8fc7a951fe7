"""INRIA Holidays, whose ground truth is in its file names (Section 5.1)."""

import os
import re
from pathlib import Path

from rmaclib.datasets.files import image_folder, images_by_stem, with_image_files
from rmaclib.datasets.types import DatasetError, Query, RetrievalDataset


def is_holidays_name(stem: str) -> bool:
    """Tell whether a file name without extension consists of six digits."""
    return re.fullmatch(r"[0-9]{6}", stem) is not None


def read_holidays(root: str | os.PathLike, name: str | None = None) -> RetrievalDataset:
    """Read images ``NNNNNN.jpg`` from jpg/, images/, png/ or the root, sub-folders included.

    A number divisible by 100 is a query. The other numbers of its hundred are relevant to it. All images are in the
    database, queries too. A query that is alone in its group has no relevant image.

    Args:
        root: Folder of the data set.
        name: Its name; by default that of the folder.

    Returns:
        The data set. The images of a group without its query image are kept; the query is listed in ``missing``, with
        a note.

    Raises:
        DatasetError: Other names, two files of one name, or no query.
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
    queries = [Query(image, image, database[image], None, {"relevant": frozenset(group - {image})})
               for image, group in groups.items() if image in database]
    missing = tuple(image for image in groups if image not in database)
    return RetrievalDataset(name or root.resolve().name, "holidays", root, tuple(database), tuple(database.values()),
                            with_image_files(root, queries, [(image, image) for image in missing]), missing)
