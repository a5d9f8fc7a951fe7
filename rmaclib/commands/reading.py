"""The images of a command, checked against where the command writes."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from rmaclib.commands.common import note, telling
from rmaclib.datasets import LabelledImages, RetrievalDataset, open_images
from rmaclib.foundation.errors import OutputError
from rmaclib.foundation.folders import refuse_inside


def read_photographs(images: str, out: Path | None, skip_bad: bool,
                     reader: Callable[[str, bool], LabelledImages] = open_images) -> LabelledImages:
    """Open any tree of pictures, list or registered collection.

    Args:
        images: Path or name.
        out: A folder that is going to be written, if any.
        skip_bad: Leave out rows of a list that can't be used.
        reader: What opens them; ``datasets.open_collection`` where labels are needed.

    Returns:
        The images.

    Raises:
        DatasetError: There are no such images.
        OutputError: ``out`` lies among the images.
    """
    with telling(f"looking for images in {images}"):
        collection = reader(images, skip_bad)
    for sentence in collection.notes:
        note(sentence)
    if out is not None and not os.path.isfile(images):  # a list may lie beside its results
        refuse_outputs(out, collection)
    return collection


def refuse_outputs(out: Path, images: LabelledImages | RetrievalDataset) -> None:
    """Check that a folder of results is not in the folder of images.

    Args:
        out: The folder that is going to be written.
        images: The images that are read.

    Raises:
        OutputError: It lies there.
    """
    refuse_inside(out, images.root)


def refuse_replacing(out: Path, inputs: Iterable[str | os.PathLike]) -> None:
    """Check that a file of results replaces none of the files that are read, by whatever path.

    Args:
        out: The file that is going to be written.
        inputs: The files that are read.

    Raises:
        OutputError: It is one of them.
    """
    try:
        status = os.stat(os.path.realpath(out))  # a folder before ".." may not be there yet
    except OSError:
        return  # nothing is replaced
    for path in inputs:
        try:
            same = os.path.samestat(status, os.stat(path))
        except (OSError, ValueError):
            continue
        if same:
            raise OutputError(f"{out}: expected another file than those that are read, got {os.fspath(path)}; nothing "
                              "was changed, choose another file")
