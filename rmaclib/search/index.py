"""An index of images: build it from a folder, add to it, ask it for the neighbours of a photograph.

    index = Index.build("my_photos")
    print(index.search("query.jpg", k=5))

A network describes the images, a vector_index finds the nearest, and one folder on disk holds both.
"""

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from PIL import Image

from rmaclib.checkpoints import CheckpointError, fingerprint, load_checkpoint, save_checkpoint
from rmaclib.datasets import EXTENSIONS, open_collection
from rmaclib.images import Box, read_image
from rmaclib.rmac import RMAC, NetworkSettings, create_network
from rmaclib.search.descriptors import DescribeSettings, describe, describe_image, images_fingerprint
from rmaclib.search.reranking import rerank as rerank_paths
from rmaclib.search.vector_index import (
    META,
    Neighbour,
    SearchIndexError,
    VectorIndex,
    check_count,
    is_line,
)
from rmaclib.settings import from_mapping

NETWORK = NetworkSettings("efficientnet_lite0", levels=3)
DESCRIBE = DescribeSettings((512,))
CHECKPOINT = "network.safetensors"
_DESCRIBING = "describing-"  # folders of descriptors that aren't in the index yet

Images = str | os.PathLike | Sequence[str | os.PathLike]


class Index:
    """Images and their descriptors, to be searched by a photograph. An image's name is its absolute path.

    network, settings: describe every image and query; vectors: the descriptors; bad: (name, reason) of the images
    that the last addition left out
    raises SearchIndexError: vectors are given that another network made
    """

    def __init__(self, network: RMAC | None = None, settings: DescribeSettings | None = None,
                 vectors: VectorIndex | None = None):
        self.network, self.settings = network or create_network(NETWORK), settings or DESCRIBE
        # The device is the machine's, not the index's.
        about = {"network": asdict(self.network.settings), "weights": fingerprint(self.network),
                 "describe": asdict(replace(self.settings, device="auto"))}
        if vectors is not None and vectors.about["weights"] != about["weights"]:
            raise SearchIndexError(f"{vectors.home}: was made with another network ({vectors.about['network']}) than "
                                   f"this ({about['network']}), or with other weights of it")
        self.vectors = VectorIndex(self.network.dim, about) if vectors is None else vectors
        self.bad: tuple[tuple[str, str], ...] = ()

    @classmethod
    def build(cls, images: Images, network: RMAC | None = None, settings: DescribeSettings | None = None, *,
              out: str | os.PathLike | None = None, progress: bool = True) -> "Index":
        """An index of images.

        images: a folder, list or name that open_collection takes, an image file, or a sequence of image files
        network: R-MAC with EfficientNet-Lite0, three levels, by default; settings: longer side 512 by default
        out: folder to save it in. A run that was killed, called again, goes on describing where it was
        raises SearchIndexError: `out` holds an index already
        """
        if out is not None and (Path(out) / META).exists():
            raise SearchIndexError(f"{out}: holds an index already; load it and add to it, or choose another folder")
        index = cls(network, settings)
        index._add(images, out, progress)
        if out is not None:
            index.save(out)
        return index

    def __len__(self) -> int:
        return len(self.vectors)

    def __str__(self) -> str:
        return str(self.vectors)

    def add(self, images: Images, progress: bool = True) -> int:
        """Describe and add the images that are not in the index yet; the others are not looked at.

        images: see build; returns how many were added. Files that can't be read are left out, see `bad`. save() keeps
        the addition; an index that has a folder also goes on where a killed addition of the same images was.
        """
        return self._add(images, self.vectors.home, progress)

    def _add(self, images: Images, folder: str | os.PathLike | None, progress: bool) -> int:
        paths = {os.path.abspath(path): Path(path) for path in _paths(images)}
        unfit = tuple((repr(name), "its name is no line of UTF-8 text") for name in paths if not is_line(name))
        new = {name: path for name, path in paths.items() if is_line(name) and name not in self.vectors}
        self.bad = unfit
        if not new:
            return 0
        names, files = list(new), list(new.values())
        if folder is not None:
            # Named after the images, so that what is left of another addition isn't in the way.
            folder = Path(folder) / (_DESCRIBING + images_fingerprint([(file, None) for file in files], names)[:16])
        found = describe(self.network, files, self.settings, names=names, out=folder, progress=progress)
        self.vectors.add(found.vectors, found.names, progress)
        self.bad += found.bad
        return len(found.names)

    def remove(self, images: Images) -> None:
        """Take images out, by their paths; the files need not be there any more.

        images: an image's path, or a sequence of paths; raises ValueError when one isn't in the index
        """
        images = [images] if isinstance(images, str | os.PathLike) else images
        self.vectors.remove([os.path.abspath(path) for path in images])

    def search(self, image: str | os.PathLike | Image.Image, box: Box | None = None, k: int = 10,
               rerank: int = 0) -> list[Neighbour]:
        """The k images nearest to a photograph, nearest first; all where there are fewer.

        image: a file, or a picture in memory; box: the part to look for, (x1, y1, x2, y2) in its pixels
        rerank: so many of the nearest are compared in detail (reranking.rerank) and put in a new order
        raises ImageError when the file can't be read; ValueError: a box outside the picture, k under 1, rerank of a
          picture that is no file
        """
        check_count("k", k, 1)
        check_count("rerank", rerank, 0)
        in_memory = isinstance(image, Image.Image)
        if rerank and in_memory:
            raise ValueError("rerank: expected the query as a file, got a picture in memory")
        picture = image.convert("RGB") if in_memory else read_image(image)
        vector = describe_image(self.network, picture, self.settings, box)
        found = self.vectors.search(vector[None], max(k, rerank))[0]
        if rerank and found:
            first = found[:rerank]
            order, inliers = rerank_paths(image, [neighbour.name for neighbour in first], box)
            found[:rerank] = [first[number]._replace(inliers=int(inliers[number])) for number in order]
        return found[:k]

    def save(self, folder: str | os.PathLike) -> None:
        """Write what the folder does not hold yet: an index of the same images is never half there.

        raises SearchIndexError: the folder holds another index, or was saved by another process since
        """
        folder = Path(folder)
        if not (folder / META).exists():
            save_checkpoint(folder / CHECKPOINT, self.network)
        self.vectors.save(folder)
        for left_over in folder.glob(_DESCRIBING + "*"):
            shutil.rmtree(left_over)

    @classmethod
    def load(cls, folder: str | os.PathLike, network: RMAC | None = None) -> "Index":
        """The index saved in a folder, memory-mapped, with the network saved beside it or the one given.

        raises SearchIndexError: no index, a damaged one, or one made with another network
        """
        folder = Path(folder)
        vectors = VectorIndex.load(folder)
        try:
            settings = from_mapping(DescribeSettings, vectors.about["describe"], str(folder / META))
            network = network or load_checkpoint(folder / CHECKPOINT)
            return cls(network, settings, vectors)
        except (KeyError, TypeError, ValueError, CheckpointError) as error:
            raise SearchIndexError(f"{folder}: expected an index of images with its network ({error})") from error


def _paths(images: Images) -> list[str | os.PathLike]:
    if not isinstance(images, str | os.PathLike):
        return list(images)
    path = Path(images)
    return [path] if path.is_file() and path.suffix.lower() in EXTENSIONS else list(open_collection(images).paths)
