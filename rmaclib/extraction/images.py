"""The images that descriptors are extracted from: which files, each once, and whether they changed."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rmaclib.boxes import Box
from rmaclib.datasets import EXTENSIONS, open_images
from rmaclib.datasets.types import NOT_A_LINE
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import as_line, files_fingerprint, is_line

Images = str | os.PathLike | Sequence[str | os.PathLike]
Item = tuple[Path, Box | None]  # a file, and the part of it that is used
Bad = tuple[str, str]  # name of an image that is left out, and the reason


def image_files(images: Images) -> tuple[list[Path], tuple[Bad, ...]]:
    """List the files of images.

    Args:
        images: A folder of images, sub-folders included; a list or registered name that ``datasets.open_images`` takes;
            one image file; or a sequence of image files.

    Returns:
        The files, and (name, reason) of what the reader of a folder or list left out.

    Raises:
        DatasetError: A folder, list or name that can't be opened.
    """
    if not isinstance(images, str | os.PathLike):
        return [Path(path) for path in images], ()
    path = Path(images)
    if path.is_file() and path.suffix.lower() in EXTENSIONS:
        return [path], ()
    collection = open_images(images)
    return list(collection.paths), collection.left_out


class ImageList(NamedTuple):
    """Images with names that a list can contain, each once.

    Attributes:
        names: One of each image.
        items: File and box of each image.
        bad: (name, reason) of the images that are left out.
        repeated: Names of the images that were given more than once, each once.
    """

    names: list[str]
    items: list[Item]
    bad: list[Bad]
    repeated: tuple[str, ...]


def image_list(images: Images, names: Sequence[str] | None = None, boxes: Sequence[Box | None] | None = None,
               left_out: Sequence[Bad] = ()) -> ImageList:
    """List images by name, each once.

    Args:
        images: See image_files.
        names: One of each file. Default: the path as given.
        boxes: One of each file, (x1, y1, x2, y2) in pixels of the original, or None for the whole image.
        left_out: (name, reason) of more images, to be listed as bad.

    Returns:
        The images, without those of the same name, file and box as an earlier one, and without those whose name is no
        line of UTF-8 text.

    Raises:
        InputError: Another number of names or boxes than of files.
        DatasetError: A folder, list or name that can't be opened.
    """
    files, not_read = image_files(images)
    names = [os.fspath(path) for path in files] if names is None else list(names)
    boxes = [None] * len(files) if boxes is None else list(boxes)
    if not len(files) == len(names) == len(boxes):
        raise InputError(f"expected as many names and boxes as images, got {len(files)} images, {len(names)} names, "
                         f"{len(boxes)} boxes")
    listed: dict[tuple, tuple[str, Item]] = {}
    repeated: dict[str, None] = {}  # in order
    bad = [*left_out, *not_read]
    for name, path, box in zip(names, files, boxes, strict=True):
        key = name, path, None if box is None else tuple(box)
        if key in listed:
            repeated[as_line(name)] = None
            continue
        listed[key] = name, (path, box)
        if not is_line(name):
            bad.append((as_line(name), NOT_A_LINE))
    good = [(name, item) for name, item in listed.values() if is_line(name)]
    return ImageList([name for name, _ in good], [item for _, item in good], bad, tuple(repeated))


def images_fingerprint(items: Sequence[Item], names: Sequence[str]) -> str:
    """SHA-256 in hexadecimal that differs when a name, a box or the content of a file does."""
    return files_fingerprint(names, [path for path, _ in items], [box for _, box in items])
