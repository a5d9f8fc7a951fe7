"""What other parts are about to provide, in a plain form until then."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rmaclib.datasets import LabelledImages, RetrievalDataset, known_datasets, open_collection, read_images
from rmaclib.datasets.types import DatasetError
from rmaclib.folders import OutputFolder, output_folder


def open_images(name_or_path: str, skip_bad: bool = False) -> LabelledImages:  # rmaclib.datasets
    if name_or_path not in known_datasets() and Path(name_or_path).is_dir():
        return read_images(name_or_path)
    return open_collection(name_or_path)


def notes(collection: LabelledImages) -> list[str]:  # LabelledImages.notes
    count = len(collection.missing)
    return [f"{count} listed images are not there, left out: {', '.join(collection.missing[:3])}"] if count else []


def default_protocol(dataset: RetrievalDataset) -> str:  # rmaclib.evaluation
    return dataset.layout


def check_protocol(dataset: RetrievalDataset, protocol: str) -> None:  # rmaclib.evaluation
    layout = protocol.removesuffix("-removed")
    if layout not in (dataset.layout, {"holidays": "folder", "folder": "holidays"}.get(dataset.layout)):
        raise DatasetError(f"protocol {protocol!r} needs the layout {layout}; {dataset.name} has {dataset.layout}")


@contextmanager
def descriptors_folder(folder: Path) -> Iterator[OutputFolder]:  # rmaclib.search.descriptor_folder
    with output_folder(folder, "descriptors", recognise=_older) as out:
        yield out


@contextmanager
def index_folder(folder: Path) -> Iterator[OutputFolder]:  # rmaclib.search
    with output_folder(folder, "index", recognise=_older) as out:
        yield out


def _older(folder: Path) -> list[str] | None:
    try:
        meta = json.loads((folder / "meta.json").read_text())
    except (OSError, ValueError):
        return None
    if "weights" in meta:
        return ["descriptors.npy", "names.txt", "bad.txt", "meta.json", "network.safetensors"]
    if meta.get("format") != "rmaclib-index":
        return None
    numbers = [segment["number"] for segment in meta["segments"]]
    return ["meta.json", "network.safetensors", *(f"{number:06d}.{kind}" for number in numbers
                                                  for kind in ("faiss", "txt"))]
