"""Own images: a folder per landmark, with or without queries, or any folder of images."""

import os
import re
from pathlib import Path

from rmaclib.datasets.files import find_images, note_skipped
from rmaclib.datasets.layouts.lists import read_csv
from rmaclib.datasets.types import NOT_A_LINE, DatasetError, LabelledImages, Query, RetrievalDataset, Skipped
from rmaclib.foundation.files import is_line

QUERY_FOLDER = "query"


def read_query_folder(root: str | os.PathLike, name: str | None = None) -> RetrievalDataset:
    """Read a folder per landmark as a retrieval data set.

    Image names are paths from the root. The images in query/ are the queries and not in the database. Each is named
    ``<landmark>.<extension>`` or ``<landmark>_<number>.<extension>``, and the images of its landmark are relevant.
    Without query/ the queries are leave-one-out: every image is a query and in the database, the others of its folder
    are relevant, and the protocol "folder" leaves the query out of its own ranking.

    Args:
        root: The folder.
        name: Name of the data set; by default that of the folder.

    Returns:
        The data set.

    Raises:
        DatasetError: An image outside the sub-folders, or a query of an unknown landmark.
    """
    root = Path(root)
    landmarks, skipped = _by_landmark(root)
    note_skipped(root, skipped)
    query_files = landmarks.pop(QUERY_FOLDER, {})
    database = {image: path for images in landmarks.values() for image, path in images.items()}
    if query_files:
        queries = [Query(path.stem, image, path, None,
                         {"relevant": frozenset(landmarks[_landmark_of(path, landmarks)])})
                   for image, path in query_files.items()]
        if len({query.name for query in queries}) < len(queries):
            raise DatasetError(f"{root / QUERY_FOLDER}: expected different file names, found one name twice")
    else:
        queries = [Query(image, image, path, None, {"relevant": frozenset(images.keys() - {image})})
                   for images in landmarks.values() for image, path in images.items()]
    return RetrievalDataset(name or root.resolve().name, "folder", root, tuple(database),
                            tuple(database.values()), tuple(queries))


def read_folder_per_landmark(root: str | os.PathLike, skip_bad: bool = False) -> LabelledImages:
    """Read a folder per landmark as a training collection; query/ is left out.

    Args:
        root: The folder.
        skip_bad: Leave out images outside the sub-folders, see ``LabelledImages.skipped``, instead of raising.

    Returns:
        The collection. Names are paths from the root; labels number the sub-folders in sorted order.

    Raises:
        DatasetError: No sub-folder with images, or an image outside the sub-folders.
    """
    root = Path(root)
    landmarks, skipped = _by_landmark(root, skip_bad)
    landmarks.pop(QUERY_FOLDER, None)
    images = [(image, path, label) for label, images in enumerate(landmarks.values())
              for image, path in images.items()]
    names, paths, labels = zip(*images, strict=True)
    return LabelledImages(root.resolve().name, root, names, paths, labels, (None,) * len(names),
                          tuple(landmarks), skipped=skipped).usable()


def read_images(root_or_csv: str | os.PathLike, skip_bad: bool = False) -> LabelledImages:
    """Read any folder of images, sub-folders included, or a CSV file.

    Args:
        root_or_csv: The folder, or the CSV file (see ``read_csv``).
        skip_bad: Leave out rows of a CSV file that can't be used, instead of raising.

    Returns:
        The collection. The images of a folder all have label 0; their names are paths from the folder.

    Raises:
        DatasetError: No image, or a malformed CSV file.
    """
    root = Path(root_or_csv)
    if root.suffix.lower() == ".csv" and not root.is_dir():
        return read_csv(root, skip_bad)
    paths, skipped = find_images(root)
    names = tuple(path.relative_to(root).as_posix() for path in paths)
    images = LabelledImages(root.resolve().name, root, names, tuple(paths), (0,) * len(paths), (None,) * len(paths),
                            skipped=skipped).usable()
    if not images.names:
        raise DatasetError(f"{root}: expected images, found none that can be used ({images.skipped[0]})")
    return images


def _by_landmark(root: Path, skip_bad: bool = False) -> tuple[dict[str, dict[str, Path]], tuple[Skipped, ...]]:
    """Sub-folder → image name → file, with at least one sub-folder that isn't query/; and what was left out."""
    landmarks: dict[str, dict[str, Path]] = {}
    paths, skipped = find_images(root)
    left_out = list(skipped)
    for path in paths:
        relative = path.relative_to(root)
        if len(relative.parts) == 1 and not skip_bad:
            raise DatasetError(f"{path}: expected every image in a sub-folder named after its landmark, "
                               "found it outside; move it into one, or leave out such images (skip_bad, --skip-bad)")
        if len(relative.parts) == 1:
            left_out.append(Skipped(relative.as_posix(), "not in a sub-folder named after its landmark"))
        elif not is_line(relative.as_posix()):
            left_out.append(Skipped(relative.as_posix(), NOT_A_LINE))
        else:
            landmarks.setdefault(relative.parts[0], {})[relative.as_posix()] = path
    if not landmarks.keys() - {QUERY_FOLDER}:
        others = f"only {QUERY_FOLDER}/" if landmarks else f"none with images that can be used ({left_out[0]})"
        raise DatasetError(f"{root}: expected a sub-folder per landmark, found {others}")
    return landmarks, tuple(left_out)


def _landmark_of(path: Path, landmarks: dict[str, dict[str, Path]]) -> str:
    """The landmark in the file name of a query."""
    for landmark in (path.stem, re.sub(r"_[0-9]+$", "", path.stem)):
        if landmark in landmarks:
            return landmark
    raise DatasetError(f"{path}: expected <landmark> or <landmark>_<number> as its name, found no landmark "
                       f"of {', '.join(landmarks)}")
