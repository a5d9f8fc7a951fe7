"""The images of a command, told and checked against where it writes."""

from pathlib import Path

from rmaclib.commands.common import note, telling
from rmaclib.datasets import LabelledImages, RetrievalDataset, open_images
from rmaclib.folders import refuse_inside


def read_photographs(images: str, out: Path | None, skip_bad: bool) -> LabelledImages:
    """Any tree of pictures, list or registered collection; out: a folder or file that is going to be written.

    raises DatasetError; OutputError: `out` lies among the images
    """
    with telling(f"looking for images in {images}"):
        collection = open_images(images, skip_bad=skip_bad)
    for sentence in collection.notes:
        note(sentence)
    if out is not None and not Path(images).is_file():  # a list may lie beside its results
        refuse_outputs(out, collection)
    return collection


def refuse_outputs(out: Path, images: LabelledImages | RetrievalDataset) -> None:
    """raises OutputError when `out` lies in the folder of images."""
    refuse_inside(out, images.root)
