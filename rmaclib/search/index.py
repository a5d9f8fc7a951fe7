"""An index of images: build it from a folder, add to it, search it with a photograph.

    index = Index.build("my_photos")
    print(index.search("query.jpg", k=5))

A network extracts a descriptor of each image, a :class:`rmaclib.search.vector_index.VectorIndex` finds the nearest, and
a folder on disk contains both.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from rmaclib.boxes import Box
from rmaclib.checkpoints import CheckpointError, fingerprint, load_network, open_network, save_network
from rmaclib.extraction.batches import ExtractionSettings, on_device, pick_device
from rmaclib.extraction.descriptors import extract, extract_image
from rmaclib.extraction.folder import tell_repeated
from rmaclib.extraction.images import Images, image_files, image_list, images_fingerprint
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import differences
from rmaclib.foundation.folders import LOCK, MARKER, OutputFolder, refuse_inside
from rmaclib.foundation.settings import from_mapping, whole_number
from rmaclib.images import read_image
from rmaclib.network import RMAC
from rmaclib.search.index_folder import (
    CHECKPOINT,
    META,
    SearchIndexError,
    index_folder,
    pending_folder,
    remove_pending,
)
from rmaclib.search.segments import Neighbour
from rmaclib.search.vector_index import VectorIndex

EXTRACTION = ExtractionSettings((512,))


class Index:
    """An index of images, to be searched with a photograph. An image's name is its absolute path.

    ``build`` makes an index of a folder of images, ``search`` returns the images nearest to a photograph, ``add`` and
    ``remove`` change the index, ``save`` and ``load`` keep it in a folder on disk::

        index = Index.build("my_photos", out="photos.index")
        for neighbour in index.search("query.jpg", k=5):
            print(neighbour.similarity, neighbour.name)

        index = Index.load("photos.index")
        index.add("more_photos")
        index.save("photos.index")

    Args:
        network: R-MAC network that extracts the descriptors of images and queries. Default: the trained network of the
            package, see ``checkpoints.open_network``.
        settings: Of the extraction. Default: longer side 512 pixels.
        vectors: Descriptors that this network made with these settings. Default: none, an empty index.

    Raises:
        SearchIndexError: Another network or other settings made the vectors.

    Attributes:
        network: The network.
        settings: The settings of the extraction.
        vectors: The descriptors and their names.
        bad: (name, reason) of each image that the last addition left out.
        repeated: Names of the images that the last addition was given more than once.

    Examples:
        >>> from rmaclib.datasets import open_dataset
        >>> images = open_dataset("diorama").paths[:3]
        >>> index = Index.build(images)
        >>> len(index)
        3
        >>> nearest = index.search(images[1], k=2)[0]
        >>> nearest.name == str(images[1]), round(nearest.similarity, 3)
        (True, 1.0)
    """

    def __init__(self, network: RMAC | None = None, settings: ExtractionSettings | None = None,
                 vectors: VectorIndex | None = None):
        self.network, self.settings = network or open_network(), settings or EXTRACTION
        # The device is the machine's, not the index's.
        about = {"network": asdict(self.network.settings), "weights": fingerprint(self.network),
                 "describe": asdict(replace(self.settings, device="auto"))}
        if vectors is not None:
            _expect_made_by(about, vectors)
        self.vectors = VectorIndex(self.network.dim, about) if vectors is None else vectors
        self.bad: tuple[tuple[str, str], ...] = ()
        self.repeated: tuple[str, ...] = ()
        self._placed: RMAC | None = None  # the network on the device where queries are computed

    @classmethod
    def build(cls, images: Images, network: RMAC | str | os.PathLike | None = None,
              settings: ExtractionSettings | None = None, *, out: str | os.PathLike | None = None,
              progress: bool = True) -> "Index":
        """Build an index of images.

        Args:
            images: A folder of images, sub-folders included; a list or registered name that
                :func:`rmaclib.datasets.open_collection` takes; an image file; or a sequence of image files.
            network: A network, or what ``checkpoints.open_network`` takes: the name of a trained network of the package
                (the default) or of a backbone, or a checkpoint file.
            settings: Of the extraction. Default: longer side 512 pixels.
            out: Folder to save the index in. A run that was killed goes on where it was when it is called again.
                Another process that writes to the folder is waited for; what its index lacks is then added to it.
            progress: Show progress bars on a terminal.

        Returns:
            The index, saved where ``out`` is given. Images that can't be read are left out, see ``bad``.

        Raises:
            SearchIndexError: ``out`` contains an index already.
            OutputError: ``out`` contains other things, or can't be written.
            CheckpointError: The network is a file, and no checkpoint.
            BackboneError: The network is a name that no backbone has.
            DatasetError: The images are a folder, list or name that can't be opened.
        """
        if out is not None and (Path(out) / META).exists():
            raise SearchIndexError(f"{out}: contains an index already; load it and add to it, or choose another folder")
        if isinstance(network, str | os.PathLike):
            network = open_network(os.fspath(network))
        if out is None:
            index = cls(network, settings)
            index.add(images, progress)
            return index
        if isinstance(images, str | os.PathLike):
            refuse_inside(out, images)
        with index_folder(out) as folder:
            index = cls(network, settings)
            if (folder / META).exists():  # another process was first
                index = cls(index.network, index.settings, VectorIndex.load(out))
            else:
                index._save_network(folder)  # first: a full disk is noticed before the work
            index._add(images, out, progress)
            index.save(out)
        return index

    def __len__(self) -> int:
        """Number of images."""
        return len(self.vectors)

    def __str__(self) -> str:
        """How many images it contains and how they are searched."""
        return str(self.vectors)

    def add(self, images: Images, progress: bool = True) -> int:
        """Add the images that are not in the index yet; of the others not even the files are opened.

        ``save`` keeps the addition. An index that has a folder waits for others that write there, takes over what
        they saved, and goes on where a killed addition of the same images was.

        Args:
            images: See ``build``.
            progress: Show progress bars on a terminal.

        Returns:
            How many images were added. Files that can't be read, or whose name is no line of UTF-8 text, are left out,
            see ``bad``.

        Raises:
            DatasetError: The images are a folder, list or name that can't be opened.
            SearchIndexError: The index's folder contains another index now, or a damaged one.
            OutputError: The index's folder can't be written.
        """
        if self.vectors.home is None:
            return self._add(images, None, progress)
        with index_folder(self.vectors.home):
            self.vectors.catch_up()
            return self._add(images, self.vectors.home, progress)

    def _add(self, images: Images, folder: str | os.PathLike | None, progress: bool) -> int:
        """Add new images. folder: of the index, locked, for the descriptors of a run that may be killed."""
        files, left_out = image_files(images)
        listed = image_list([os.path.abspath(file) for file in files], left_out=left_out)
        self.repeated, self.bad = listed.repeated, tuple(listed.bad)
        tell_repeated(self.repeated)
        new = {name: item for name, item in zip(listed.names, listed.items, strict=True) if name not in self.vectors}
        if not new:
            return 0
        place = None
        if folder is not None:
            # Named after the images, so that what is left of another addition isn't in the way.
            place = Path(folder) / pending_folder(images_fingerprint(list(new.values()), list(new)))
            with index_folder(folder) as out:
                out.will_write([f"{place.name}/{name}" for name in (MARKER, LOCK)])
        descriptors = extract(self.network, list(new), self.settings, out=place, progress=progress)
        self.vectors.add(descriptors.vectors, descriptors.names, progress)
        self.bad += descriptors.bad
        return len(descriptors.names)

    def remove(self, images: str | os.PathLike | Sequence[str | os.PathLike]) -> None:
        """Remove images. ``save`` keeps the change.

        Args:
            images: An image's path, or a sequence of paths. The files need not exist any more.

        Raises:
            InputError: An image is not in the index, which stays as it was.
        """
        images = [images] if isinstance(images, str | os.PathLike) else images
        self.vectors.remove([os.path.abspath(path) for path in images])

    def search(self, image: str | os.PathLike | Image.Image, box: Box | None = None, k: int = 10,
               rerank: int = 0) -> list[Neighbour]:
        """Search the images nearest to a photograph.

        Args:
            image: The query, a file or a picture in memory.
            box: The part of the query to look for, (x1, y1, x2, y2) in its pixels. Default: all of it.
            k: How many to return, at least 1; all images where there are fewer.
            rerank: So many of the nearest are put in a new order by geometric verification, see
                :func:`rmaclib.search.reranking.rerank`. Default: none.

        Returns:
            At most k neighbours (``name``, ``similarity``, ``inliers``), nearest first.

        Raises:
            ImageError: The file can't be read.
            InputError: The box is outside of the picture, k or rerank is out of range, or rerank is given for a picture
                in memory.
        """
        whole_number("k", k, 1, int | np.integer)
        whole_number("rerank", rerank, 0, int | np.integer)
        if not isinstance(image, Image.Image):
            picture = read_image(image)
        elif not rerank:
            picture = image.convert("RGB")
        else:
            raise InputError("rerank: expected the query as a file, got a picture in memory")
        self._placed = on_device(self._placed or self.network, pick_device(self.settings.device))
        query = extract_image(self._placed, picture, self.settings, box)  # (D,)
        neighbours = self.vectors.search(query[None], max(k, rerank))[0]
        if rerank and neighbours and not isinstance(image, Image.Image):
            from rmaclib.search.reranking import rerank as rerank_paths  # OpenCV takes a moment to load

            first = neighbours[:rerank]
            order, inliers = rerank_paths(image, [neighbour.name for neighbour in first], box)
            neighbours[:rerank] = [first[number]._replace(inliers=int(inliers[number])) for number in order]
        return neighbours[:k]

    def save(self, folder: str | os.PathLike) -> None:
        """Write to a folder what it does not contain yet. It has the old state until the new one is complete.

        What other processes saved in the folder since this index was loaded is kept, and taken over.

        Args:
            folder: New, empty, or the folder that this index was loaded from or saved to.

        Raises:
            SearchIndexError: The folder contains another index.
            OutputError: The folder contains other things, or can't be written.
        """
        with index_folder(folder) as out:
            if not (out / META).exists():
                self._save_network(out)
            self.vectors.save(folder)
            remove_pending(out)

    def _save_network(self, out: OutputFolder) -> None:
        out.will_write([CHECKPOINT])
        save_network(out / CHECKPOINT, self.network)

    @classmethod
    def load(cls, folder: str | os.PathLike, network: RMAC | None = None) -> "Index":
        """Load the index saved in a folder; its vectors are memory-mapped.

        Args:
            folder: The folder of an index.
            network: The network that made it, where it is loaded already. Default: the one saved in the folder.

        Raises:
            SearchIndexError: There is no index, it is damaged, or another network made it.
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
    """Raise SearchIndexError where what made the vectors differs in anything that changes a descriptor."""
    if different := differences(vectors.about, about):
        raise SearchIndexError(f"{vectors.home}: was made with another network or other settings: "
                               f"{', '.join(different)}; leave them out, or make another index")
