"""An index of images: build it from a folder, add to it, ask it for the neighbours of a photograph.

    index = Index.build("my_photos")
    print(index.search("query.jpg", k=5))

A network describes the images, a vector_index finds the nearest, and one folder on disk holds both.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from rmaclib.boxes import Box
from rmaclib.checkpoints import CheckpointError, fingerprint, load_network, save_network
from rmaclib.datasets import EXTENSIONS, open_images
from rmaclib.datasets.types import NOT_A_LINE
from rmaclib.extraction.batches import ExtractionSettings, on_device, pick_device
from rmaclib.extraction.descriptors import extract, extract_image, images_fingerprint
from rmaclib.extraction.folder import tell_repeated
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import as_line, differences, is_line
from rmaclib.foundation.folders import LOCK, MARKER, OutputFolder, refuse_inside
from rmaclib.foundation.settings import from_mapping
from rmaclib.images import read_image
from rmaclib.network import RMAC, NetworkSettings, create_network
from rmaclib.search.index_folder import (
    CHECKPOINT,
    META,
    SearchIndexError,
    describing_folder,
    index_folder,
    remove_descriptions,
)
from rmaclib.search.vector_index import Neighbour, VectorIndex, check_count

NETWORK = NetworkSettings("efficientnet_lite0", levels=3)
DESCRIBE = ExtractionSettings((512,))

Images = str | os.PathLike | Sequence[str | os.PathLike]


class Index:
    """Images and their descriptors, to be searched by a photograph. An image's name is its absolute path.

    network, settings: extract the descriptors of images and queries; vectors: the descriptors; bad: (name, reason) of
    the images that the last addition left out; repeated: names of those that it was given more than once
    raises SearchIndexError: vectors are given that another network or other settings made
    """

    def __init__(self, network: RMAC | None = None, settings: ExtractionSettings | None = None,
                 vectors: VectorIndex | None = None):
        self.network, self.settings = network or create_network(NETWORK), settings or DESCRIBE
        # The device is the machine's, not the index's.
        about = {"network": asdict(self.network.settings), "weights": fingerprint(self.network),
                 "describe": asdict(replace(self.settings, device="auto"))}
        if vectors is not None:
            _expect_made_by(about, vectors)
        self.vectors = VectorIndex(self.network.dim, about) if vectors is None else vectors
        self.bad: tuple[tuple[str, str], ...] = ()
        self.repeated: tuple[str, ...] = ()
        self._placed: RMAC | None = None  # the network, where queries are computed

    @classmethod
    def build(cls, images: Images, network: RMAC | None = None, settings: ExtractionSettings | None = None, *,
              out: str | os.PathLike | None = None, progress: bool = True) -> "Index":
        """An index of images.

        images: a folder of images, sub-folders included, a list or name that open_collection takes, an image file, or
          a sequence of image files
        network: R-MAC with EfficientNet-Lite0, three levels, by default; settings: longer side 512 by default
        out: folder to save it in. A run that was killed, called again, goes on describing where it was. Where another
          process writes to it, that is waited for; what its index lacks is added to it then
        raises SearchIndexError: `out` has an index already; OutputError: it is not ours, or can't be written
        """
        if out is None:
            index = cls(network, settings)
            index.add(images, progress)
            return index
        if (Path(out) / META).exists():
            raise SearchIndexError(f"{out}: holds an index already; load it and add to it, or choose another folder")
        if isinstance(images, str | os.PathLike):
            refuse_inside(out, images)
        with index_folder(out) as folder:
            index = cls(network, settings)
            if (folder / META).exists():  # another process was first
                index = cls(index.network, index.settings, VectorIndex.load(out))
            else:
                index._save_network(folder)  # first: a disk that is full is told before the work
            index._add(images, out, progress)
            index.save(out)
        return index

    def __len__(self) -> int:
        return len(self.vectors)

    def __str__(self) -> str:
        return str(self.vectors)

    def add(self, images: Images, progress: bool = True) -> int:
        """Describe and add the images that are not in the index yet; the others are not looked at.

        images: see build; returns how many were added. Files that can't be read, or whose name is no line of UTF-8
        text, are left out, see `bad`. save() keeps the addition; an index that has a folder also goes on where a killed
        addition of the same images was. It waits for others that write to the folder, and takes over what they saved.
        """
        if self.vectors.home is None:
            return self._add(images, None, progress)
        with index_folder(self.vectors.home):
            self.vectors.catch_up()
            return self._add(images, self.vectors.home, progress)

    def _add(self, images: Images, folder: str | os.PathLike | None, progress: bool) -> int:
        """folder: of the index, locked, for descriptors of a run that may be killed"""
        given_paths, left_out = _paths(images)
        given = [(os.path.abspath(path), Path(path)) for path in given_paths]
        paths = dict(given)
        counts = Counter(name for name, _ in given)
        self.repeated = tuple(as_line(name) for name, count in counts.items() if count > 1)
        tell_repeated(self.repeated)
        self.bad = (*left_out, *((as_line(name), NOT_A_LINE) for name in paths if not is_line(name)))
        new = {name: path for name, path in paths.items() if is_line(name) and name not in self.vectors}
        if not new:
            return 0
        names, files = list(new), list(new.values())
        place = None
        if folder is not None:
            # Named after the images, so that what is left of another addition isn't in the way.
            place = Path(folder) / describing_folder(images_fingerprint([(file, None) for file in files], names))
            with index_folder(folder) as out:
                out.will_write([f"{place.name}/{name}" for name in (MARKER, LOCK)])
        found = extract(self.network, files, self.settings, names=names, out=place, progress=progress)
        self.vectors.add(found.vectors, found.names, progress)
        self.bad += found.bad
        return len(found.names)

    def remove(self, images: Images) -> None:
        """Take images out, by their paths; the files need not be there any more.

        images: an image's path, or a sequence of paths; raises InputError when one isn't in the index
        """
        images = [images] if isinstance(images, str | os.PathLike) else images
        self.vectors.remove([os.path.abspath(path) for path in images])

    def search(self, image: str | os.PathLike | Image.Image, box: Box | None = None, k: int = 10,
               rerank: int = 0) -> list[Neighbour]:
        """The k images nearest to a photograph, nearest first; all where there are fewer.

        image: a file, or a picture in memory; box: the part to look for, (x1, y1, x2, y2) in its pixels
        rerank: so many of the nearest are compared in detail (reranking.rerank) and put in a new order
        raises ImageError when the file can't be read; InputError: a box outside the picture, k under 1, rerank of a
          picture that is no file
        """
        check_count("k", k, 1)
        check_count("rerank", rerank, 0)
        in_memory = isinstance(image, Image.Image)
        if rerank and in_memory:
            raise InputError("rerank: expected the query as a file, got a picture in memory")
        picture = image.convert("RGB") if in_memory else read_image(image)
        self._placed = on_device(self._placed or self.network, pick_device(self.settings.device))
        vector = extract_image(self._placed, picture, self.settings, box)
        found = self.vectors.search(vector[None], max(k, rerank))[0]
        if rerank and found:
            from rmaclib.search.reranking import rerank as rerank_paths  # OpenCV takes a moment to load

            first = found[:rerank]
            order, inliers = rerank_paths(image, [neighbour.name for neighbour in first], box)
            found[:rerank] = [first[number]._replace(inliers=int(inliers[number])) for number in order]
        return found[:k]

    def save(self, folder: str | os.PathLike) -> None:
        """Write what the folder does not have yet: an index of the same images is never half there. What other
        processes saved there since this index was loaded is kept, and taken over.

        raises SearchIndexError: the folder has another index; OutputError: it is not ours, or can't be written
        """
        with index_folder(folder) as out:
            if not (out / META).exists():
                self._save_network(out)
            self.vectors.save(folder)
            remove_descriptions(out)

    def _save_network(self, out: OutputFolder) -> None:
        out.will_write([CHECKPOINT])
        save_network(out / CHECKPOINT, self.network)

    @classmethod
    def load(cls, folder: str | os.PathLike, network: RMAC | None = None) -> "Index":
        """The index saved in a folder, memory-mapped, with the network saved beside it or the one given.

        raises SearchIndexError: no index, a damaged one, or one made with another network
        """
        folder = Path(folder)
        vectors = VectorIndex.load(folder)
        try:
            settings = from_mapping(ExtractionSettings, vectors.about["describe"], str(folder / META))
            network = network or load_network(folder / CHECKPOINT)
            return cls(network, settings, vectors)
        except (KeyError, TypeError, ValueError, CheckpointError) as error:
            raise SearchIndexError(f"{folder}: expected an index of images with its network ({error})") from error


def _expect_made_by(about: dict, vectors: VectorIndex) -> None:
    """raises SearchIndexError when what made the vectors differs in anything that changes a descriptor"""
    if different := differences(vectors.about, about):
        raise SearchIndexError(f"{vectors.home}: was made otherwise than this network and these settings would: "
                               f"{', '.join(different)}; leave them out, or make another index")


def _paths(images: Images) -> tuple[list[str | os.PathLike], tuple[tuple[str, str], ...]]:
    """Files, and (name, reason) of what a reader left out."""
    if not isinstance(images, str | os.PathLike):
        return list(images), ()
    path = Path(images)
    if path.is_file() and path.suffix.lower() in EXTENSIONS:
        return [path], ()
    collection = open_images(images)
    return list(collection.paths), collection.left_out
