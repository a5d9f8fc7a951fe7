"""Reading photographs upright and as RGB, resizing them by the longer side, and cropping query boxes.

Everything here works on Pillow images; nothing needs torch. A file that can't be used raises ImageError, which names
the file. Code that reads many images counts such files, reports them and goes on.
"""

import math
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
from PIL import Image

from rmaclib.boxes import Box
from rmaclib.foundation.errors import InputError, RmacError

# Pillow warns above this and raises above twice as much. Here a larger image is taken for a decompression bomb: its
# pixels alone would take more than 256 MiB.
MAX_PIXELS = 89_478_485
# One row or column of pixels is a spacer or a tracking pixel, never a photograph.
MIN_SIDE = 2

CropOrder = Literal["resize-then-crop", "crop-then-resize"]
CROP_ORDERS: tuple[CropOrder, ...] = get_args(CropOrder)
RESIZE_THEN_CROP: Final = "resize-then-crop"  # the paper's order (Section 5.1)
CROP_THEN_RESIZE: Final = "crop-then-resize"

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_ORIENTATION = 0x0112
_TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_90}  # EXIF orientation → the turn that makes the image upright
_SWAPPED = (5, 6, 7, 8)  # orientations that swap width and height
_HEADER_TELLS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP")  # formats whose header gives the size in pixels


class ImageError(RmacError, ValueError):
    """A file that can't be used as a photograph.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path, self.reason = Path(path), reason

    def __reduce__(self):  # a worker process returns the error as a pickle
        return type(self), (self.path, self.reason)


def read_image(path: str | os.PathLike) -> Image.Image:
    """Read a photograph upright (EXIF orientation applied) as 8-bit RGB.

    Transparent pixels become white, 16-bit grey is scaled to 8 bits, CMYK and palettes are converted. Of an animation
    the first frame is read. Embedded colour profiles are not applied. EXIF data that can't be read are ignored.

    Args:
        path: An image file.

    Returns:
        The image, of mode RGB.

    Raises:
        ImageError: The file is missing, empty, truncated, no regular file or no image; a side is under ``MIN_SIDE``
            pixels; the image has more than ``MAX_PIXELS`` pixels, or floating-point pixels, whose range is not defined.
    """
    with _opened(path) as image:
        image.load()
        turn = _TURNS.get(_orientation(image))
        return _to_rgb(image if turn is None else image.transpose(turn), path)


def read_size(path: str | os.PathLike) -> tuple[int, int]:
    """Read the size of the upright image that ``read_image`` gives.

    In the usual formats only the file's header is read, and no pixel is decoded.

    Args:
        path: An image file.

    Returns:
        (width, height) in pixels.

    Raises:
        ImageError: As ``read_image``, for what a header can tell.
    """
    with _opened(path) as image:
        if image.format not in _HEADER_TELLS:
            image.load()  # Pillow turns the pixels of a TIFF when it loads them
        width, height = image.size
        return (height, width) if _orientation(image) in _SWAPPED else (width, height)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) where there is none that can be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's reader of EXIF data raises almost anything on bad bytes
        return 1
    return orientation if orientation in range(1, 9) else 1


class _Quiet:
    """Context without Pillow's warnings, which name no file; a file that can't be used raises an error instead.

    Several threads may be in it at once: the first in changes the filters of warnings, the last out restores them.
    """

    def __init__(self) -> None:
        self.lock, self.threads = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if not self.threads:
                self.filters = warnings.catch_warnings()
                self.filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.threads += 1

    def __exit__(self, *error: object) -> None:
        with self.lock:
            self.threads -= 1
            if not self.threads:
                self.filters.__exit__(None, None, None)


_quiet = _Quiet()


@contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """An open Pillow image; any failure inside becomes an ImageError naming the file."""
    with _quiet:
        try:
            with _open(path) as image:
                yield image
        except Exception as error:
            # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, … on bad bytes.
            raise error if isinstance(error, ImageError) else ImageError(path, _reason(path, error)) from error


def _open(path: str | os.PathLike) -> Image.Image:
    """A Pillow image whose header has been read and checked."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # a read from a pipe would block, one from a device may never end
        raise ImageError(path, f"expected an image, found {_kind_of(status.st_mode)}")
    if status.st_size == 0:
        raise ImageError(path, "expected an image, found an empty file (0 bytes)")
    image = Image.open(path)
    width, height = image.size
    if width * height > MAX_PIXELS:
        image.close()
        raise ImageError(path, f"{width}×{height} pixels, at most {MAX_PIXELS} are read "
                               "(decompression bomb? else raise rmaclib.images.MAX_PIXELS)")
    if min(width, height) < MIN_SIDE:
        image.close()
        raise ImageError(path, f"expected sides of at least {MIN_SIDE} pixels, found {width}×{height}")
    return image


def _reason(path: str | os.PathLike, error: Exception) -> str:
    """What is wrong with a file, from the exception that reading it raised."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "expected an image, found a file of no known image format"
    if isinstance(error, Image.DecompressionBombError):
        return f"decompression bomb: {error}"
    if isinstance(error, FileNotFoundError):
        return "a link to a file that isn't there" if os.path.islink(path) else "no such file"
    if isinstance(error, PermissionError):
        return f"can't be read ({error.strerror})"
    return f"can't be decoded ({type(error).__name__}: {error})"


def _kind_of(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"


def _to_rgb(image: Image.Image, path: str | os.PathLike) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        values = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.clip(np.rint(values / 257), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ImageError(path, "floating-point pixels: expected 8 or 16 bits a channel")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def resized_size(width: int, height: int, longer: int, enlarge: bool = False) -> tuple[int, int]:
    """Compute the size after resizing by the longer side, which keeps the shape.

    Args:
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        longer: Length of the longer side afterwards, in pixels.
        enlarge: Whether smaller images are enlarged; by default their size stays.

    Returns:
        (width, height) in pixels, each at least 1.

    Raises:
        InputError: ``longer`` is under 1.
    """
    if not 1 <= longer < math.inf:
        raise InputError(f"longer side: expected at least 1 pixel, got {longer}")
    side = max(width, height)
    if side == longer or (side < longer and not enlarge):
        return width, height
    return max(1, round(width * longer / side)), max(1, round(height * longer / side))


def resize_longer(image: Image.Image, longer: int, enlarge: bool = False) -> Image.Image:
    """Resize an image by its longer side, bicubic with anti-aliasing; arguments and errors as in ``resized_size``."""
    size = resized_size(*image.size, longer, enlarge)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def crop_pixels(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Round a box to whole pixels and clip it to the image.

    Args:
        box: (x1, y1, x2, y2) in pixels, x2 and y2 exclusive.
        width: Of the image, in pixels.
        height: Of the image, in pixels.

    Returns:
        The nearest box of whole pixels inside the image, at least 1×1.

    Raises:
        InputError: The box isn't four finite numbers, is empty or lies outside the image.
    """
    try:
        x1, y1, x2, y2 = box
        usable = all(map(math.isfinite, (x1, y1, x2, y2))) and x1 < x2 and y1 < y2
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"box: expected four numbers x1, y1, x2, y2, got {box!r}") from None
    if not (usable and x1 < width and y1 < height and x2 > 0 and y2 > 0):
        raise InputError(f"box {tuple(box)}: expected finite numbers with x1 < x2, y1 < y2 and a part inside "
                         f"{width}×{height} pixels")
    left, top = min(max(round(x1), 0), width - 1), min(max(round(y1), 0), height - 1)
    return left, top, min(max(round(x2), left + 1), width), min(max(round(y2), top + 1), height)


def fitted_size(width: int, height: int, longer: int, box: Box | None = None,
                order: CropOrder = RESIZE_THEN_CROP, enlarge: bool = False) -> tuple[int, int]:
    """Compute the size that ``fit`` gives an image of width × height pixels; other arguments and errors as there.

    Returns:
        (width, height) in pixels.
    """
    if box is None:
        return resized_size(width, height, longer, enlarge)
    if order == RESIZE_THEN_CROP:
        x1, y1, x2, y2 = _scaled_crop(box, width, height, longer, enlarge)
        return x2 - x1, y2 - y1
    if order == CROP_THEN_RESIZE:
        x1, y1, x2, y2 = crop_pixels(box, width, height)
        return resized_size(x2 - x1, y2 - y1, longer, enlarge)
    raise InputError(f"crop order: expected one of {CROP_ORDERS}, got {order!r}")


def fit(image: Image.Image, longer: int, box: Box | None = None,
        order: CropOrder = RESIZE_THEN_CROP, enlarge: bool = False) -> Image.Image:
    """Resize an image to its working size and, for a query, crop its box (Section 5.1).

    Args:
        image: The image in its original size.
        longer: Longer side of the working size, in pixels.
        box: The query box in pixels of the original image; None keeps the whole image.
        order: "resize-then-crop" resizes the whole image to ``longer``, then crops the box, scaled alike. It is the
            paper's order: the object keeps the size that it has in the database. "crop-then-resize" crops first, then
            resizes the crop to ``longer``.
        enlarge: Whether smaller images are enlarged.

    Returns:
        The resized, cropped image.

    Raises:
        InputError: ``longer`` is under 1, the box can't be used (see ``crop_pixels``), or an unknown order.
    """
    if box is None:
        return resize_longer(image, longer, enlarge)
    if order == RESIZE_THEN_CROP:
        return resize_longer(image, longer, enlarge).crop(_scaled_crop(box, *image.size, longer, enlarge))
    if order == CROP_THEN_RESIZE:
        return resize_longer(image.crop(crop_pixels(box, *image.size)), longer, enlarge)
    raise InputError(f"crop order: expected one of {CROP_ORDERS}, got {order!r}")


def _scaled_crop(box: Box, width: int, height: int, longer: int, enlarge: bool) -> tuple[int, int, int, int]:
    """The box in whole pixels of the resized image."""
    new_width, new_height = resized_size(width, height, longer, enlarge)
    crop_pixels(box, width, height)  # an error then has the numbers that the user gave
    x1, y1, x2, y2 = box
    across, down = new_width / width, new_height / height
    return crop_pixels((x1 * across, y1 * down, x2 * across, y2 * down), new_width, new_height)
