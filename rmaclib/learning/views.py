"""The images of one update as the network sees them: decoded when needed, resized, perhaps mirrored and cropped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from rmaclib.backbones import Backbone
from rmaclib.boxes import Box
from rmaclib.datasets.types import LabelledImages
from rmaclib.images import ImageError, read_image, read_size, resized_size
from rmaclib.learning.errors import UnreadableError


class Images(Protocol):
    """Images by their place in an update, each (3, H, W): a list of tensors, or what reads them from files."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Tensor: ...


def random_crop(width: int, height: int, least: float, box: Box | None,
                random: np.random.Generator) -> tuple[float, float, float, float]:
    """Draw a part of an image, of the same shape as the whole.

    Args:
        width: Of the image in pixels.
        height: The same.
        least: 0..1, the area is drawn uniformly between this share of the image's and 1.
        box: The crop contains it, as far as it lies in the image, and is as much larger as that needs.
        random: The random numbers.

    Returns:
        (x1, y1, x2, y2) in pixels.
    """
    share = np.sqrt(random.uniform(least, 1))
    x1, y1, x2, y2 = (width, height, 0, 0) if box is None else (max(0, box[0]), max(0, box[1]),
                                                               min(width, box[2]), min(height, box[3]))
    if x1 >= x2 or y1 >= y2:
        x1, y1, x2, y2 = width, height, 0, 0  # nothing that a crop has to contain
    share = min(1, max(share, (x2 - x1) / width, (y2 - y1) / height))
    across, down = width * share, height * share

    def start(first: float, last: float, length: float, side: float) -> float:
        """Between the lowest place from which `length` reaches `last`, and the highest that is before `first`."""
        lowest = max(0, last - length)
        return random.uniform(lowest, max(lowest, min(first, side - length)))

    left, top = start(x1, x2, across, width), start(y1, y2, down, height)
    return left, top, left + across, top + down


def random_square(width: int, height: int, shorter: tuple[int, int], side: int,
                  random: np.random.Generator) -> tuple[float, float, float, float]:
    """Draw a square of an image: what a random square crop shows when the image is resized to a random size.

    Args:
        width: Of the image in pixels.
        height: The same.
        shorter: The shorter side is resized to a random length in this range, in pixels.
        side: Of the square after resizing, in pixels.
        random: The random numbers.

    Returns:
        (x1, y1, x2, y2) in pixels of the image before resizing.
    """
    scale = random.integers(shorter[0], shorter[1], endpoint=True) / min(width, height)
    length = side / scale
    left, top = random.uniform(0, max(0, width - length)), random.uniform(0, max(0, height - length))
    return left, top, min(width, left + length), min(height, top + length)


def random_side(smallest: int, size: int, stride: int, random: np.random.Generator) -> int:
    """Draw the longer side to which an image is resized, each of a few lengths as likely.

    Args:
        smallest: The least length in pixels.
        size: The largest; the others differ from it by multiples of the stride, so that shapes repeat.
        stride: In pixels.
        random: The random numbers.

    Returns:
        The length in pixels, in smallest..size.
    """
    return size - stride * int(random.integers((size - smallest) // stride, endpoint=True))


class _FromFiles:
    """Images of a collection, each a part of it resized, perhaps mirrored.

    The same seed gives the same pixels of the same image, whatever the others are.
    """

    def __init__(self, collection: LabelledImages, indices: Sequence[int] | np.ndarray, flip: bool,
                 seed: Sequence[int]):
        self.collection, self.indices = collection, [int(index) for index in indices]
        self.flip, self.seed = flip, list(seed)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int, /) -> Tensor:
        index = self.indices[place]
        random = np.random.default_rng([*self.seed, index])
        mirrored = self.flip and random.random() < 0.5
        image = read_image(self.collection.paths[index])
        size, part = self._frame(place, image, random)
        return _pixels(image, size, part, mirrored)  # (3, H, W)

    def _frame(self, place: int, image: Image.Image, random: np.random.Generator) -> tuple[tuple[int, int], Box | None]:
        """(width, height) to which an image is resized, and the part of it that is seen, None for all."""
        raise NotImplementedError


class Views(_FromFiles):
    """Images of a collection for learning to rank, each (3, H, W) uint8; H and W follow from file, size and backbone.

    Reading one raises ImageError where the file can't be read.

    Attributes:
        sizes: (H, W) of each, from the files' headers.
    """

    def __init__(self, collection: LabelledImages, indices: Sequence[int] | np.ndarray, size: int | Sequence[int], *,
                 backbone: Backbone | None = None, flip: bool = False, crop: float = 1.0, seed: Sequence[int] = (0,)):
        """Choose images and read their sizes.

        Args:
            collection: The images.
            indices: Which of them.
            size: Longer side in pixels, of all or of each; smaller images are not enlarged. Images keep their shape,
                as when their descriptors are extracted: a network that learned from stretched ones retrieved less.
            backbone: Cut or pad the images (right, below, with its mean colour), after mirroring and cropping, to
                whole cells of its map: ``Backbone.whole_cells``. Few shapes save memory, as libraries keep data for
                each, and let a GPU compute more images together. None: leave them.
            flip: Mirror half of them.
            crop: Least share of the area kept (``random_crop``). A crop is resized to the size that the whole image
                would have, so that it is seen from nearer.
            seed: Numbers, such as those of run and update; the same ones give the same pixels of the same image.

        Raises:
            UnreadableError: Headers that can't be read.
        """
        super().__init__(collection, indices, flip, seed)
        self.crop = crop
        self._before: list[tuple[int, int]] = []  # (H, W) of each image before it is cut or padded
        unreadable, sides = [], [size] * len(self.indices) if isinstance(size, int) else size
        for place, (index, side) in enumerate(zip(self.indices, sides, strict=True)):
            try:
                width, height = resized_size(*read_size(collection.paths[index]), side)
                self._before.append((height, width))
            except ImageError:
                unreadable.append(place)
        if unreadable:
            raise UnreadableError(unreadable)
        self.sizes = self._before if backbone is None else [backbone.whole_cells(*before) for before in self._before]
        if backbone is not None:  # fetched here: from a GPU, readers would wait for its work each time
            mean: Tensor = backbone.get_buffer("mean")
            self._colour = (mean[0] * 255).round().to("cpu", torch.uint8)  # (3, 1, 1)

    def __getitem__(self, place: int, /) -> Tensor:
        view, (height, width) = super().__getitem__(place), self.sizes[place]
        if view.shape[1:] == (height, width):
            return view
        padded = self._colour.repeat(1, height, width)
        view = view[:, :height, :width]
        padded[:, :view.shape[1], :view.shape[2]] = view
        return padded

    def _frame(self, place: int, image: Image.Image, random: np.random.Generator) -> tuple[tuple[int, int], Box | None]:
        box, (height, width) = self.collection.boxes[self.indices[place]], self._before[place]
        return (width, height), random_crop(*image.size, self.crop, box, random) if self.crop < 1 else None


class Squares(_FromFiles):
    """Random square crops of images for learning to classify, each (3, side, side) uint8: see ``random_square``.

    Reading one raises ImageError where the file can't be read.
    """

    def __init__(self, collection: LabelledImages, indices: Sequence[int] | np.ndarray, shorter: tuple[int, int],
                 side: int, *, flip: bool = False, seed: Sequence[int] = (0,)):
        """Choose images.

        Args:
            collection: The images.
            indices: Which of them.
            shorter: Range of the shorter side in pixels.
            side: Of the squares in pixels.
            flip: Mirror half of them.
            seed: Numbers, such as those of run and update; the same ones give the same pixels of the same image.
        """
        super().__init__(collection, indices, flip, seed)
        self.shorter, self.side = shorter, side

    def _frame(self, place: int, image: Image.Image, random: np.random.Generator) -> tuple[tuple[int, int], Box | None]:
        return (self.side,) * 2, random_square(*image.size, self.shorter, self.side, random)


def _pixels(image: Image.Image, size: tuple[int, int], part: Box | None, mirrored: bool) -> Tensor:
    """A part of the image (None: all of it) resized to (width, height) pixels; (3, H, W) uint8."""
    if part or image.size != size:
        image = image.resize(size, Image.Resampling.BICUBIC, part)
    if mirrored:
        image = ImageOps.mirror(image)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def why_unreadable(path: Path) -> str:
    """Find out why an image can't be read that another process, or this one a moment ago, could not read.

    Args:
        path: The file.

    Returns:
        The reason, one line.
    """
    try:
        read_image(path)
    except ImageError as error:
        return str(error)
    return f"{path}: could not be read during training, and can be read now"
