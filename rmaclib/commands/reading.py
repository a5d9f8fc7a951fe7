"""The images of a command, told and checked against where it writes."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from rmaclib.commands.common import note, telling
from rmaclib.datasets import LabelledImages, RetrievalDataset, open_images
from rmaclib.foundation.errors import OutputError
from rmaclib.foundation.folders import refuse_inside


def read_photographs(images: str, out: Path | None, skip_bad: bool,
                     opened: Callable[[str, bool], LabelledImages] = open_images) -> LabelledImages:
    """Any tree of pictures, list or registered collection; out: a folder that is going to be written.

    raises DatasetError; OutputError: `out` lies among the images
    """
    with telling(f"looking for images in {images}"):
        collection = opened(images, skip_bad)
    for sentence in collection.notes:
        note(sentence)
    if out is not None and not os.path.isfile(images):  # a list may lie beside its results
        refuse_outputs(out, collection)
    return collection


def refuse_outputs(out: Path, images: LabelledImages | RetrievalDataset) -> None:
    """raises OutputError when `out` lies in the folder of images."""
    refuse_inside(out, images.root)


def refuse_replacing(out: Path, inputs: Iterable[str | os.PathLike]) -> None:
    """raises OutputError when `out`, a file that is going to be written, is one of those that are read: the same file,
    by whatever path."""
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
