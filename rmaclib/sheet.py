"""A picture of a query and its nearest neighbours, as `rmac search` writes it.

It is drawn by Pillow: importing matplotlib, which rmaclib.plots uses, would take a second for each search.
"""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from rmaclib.boxes import Box
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import whole_file
from rmaclib.images import ImageError, read_image, resize_longer

FORMATS = {".jpeg": "JPEG", ".jpg": "JPEG", ".pdf": "PDF", ".png": "PNG", ".webp": "WEBP"}
QUERY, NEIGHBOUR, BOX, EMPTY = "#0072b2", "#666666", "yellow", "#ebebeb"
_SIDE, _FRAME, _GAP, _TEXT = 200, 4, 8, 11  # pixels: longer side of an image, its frame, the gap, the text


def neighbours_sheet(query: str | os.PathLike, box: Box | None,
                     neighbours: Sequence[tuple[str, str | os.PathLike]], columns: int = 5) -> Image.Image:
    """Draw a query in a blue frame and its neighbours behind it.

    An image that can't be read is drawn as a grey field that says so.

    Args:
        query: The file of the query image.
        box: The query box in its pixels, drawn yellow; None for the whole image.
        neighbours: (caption, image file), nearest first.
        columns: Neighbours per line.

    Returns:
        The picture.
    """
    across = 1 + min(columns, max(1, len(neighbours)))
    down = max(1, -(-len(neighbours) // columns))
    width, height = _SIDE + 2 * _FRAME + _GAP, _SIDE + 2 * _FRAME + 2 * _GAP + _TEXT
    sheet = Image.new("RGB", (across * width + _GAP, down * height + _GAP), "white")
    font = _font()
    for line in range(down):
        top = _GAP + line * height
        _put(sheet, _tile(query, box, font), Path(query).name, (_GAP, top), QUERY, font)
        for place, (caption, path) in enumerate(neighbours[line * columns:(line + 1) * columns], start=1):
            _put(sheet, _tile(path, None, font), caption, (_GAP + place * width, top), NEIGHBOUR, font)
    return sheet


def _tile(path: str | os.PathLike, box: Box | None, font: ImageFont.FreeTypeFont) -> Image.Image:
    """An image at the size of the sheet, with its box, or a grey field."""
    try:
        picture = read_image(path)
    except ImageError:
        tile = Image.new("RGB", (_SIDE, 3 * _SIDE // 4), EMPTY)
        ImageDraw.Draw(tile).text((_SIDE / 2, 3 * _SIDE / 8), "can't be read", "black", font, anchor="mm")
        return tile
    tile = resize_longer(picture, _SIDE)
    if box is not None:
        scale = tile.width / picture.width
        ImageDraw.Draw(tile).rectangle([value * scale for value in box], outline=BOX, width=2)
    return tile


def _put(sheet: Image.Image, tile: Image.Image, caption: str, corner: tuple[int, int], colour: str,
         font: ImageFont.FreeTypeFont) -> None:
    """Draw a caption at a corner, and the framed image under it."""
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    draw.text(corner, _shortened(caption, font), colour, font)
    left, top = left + (_SIDE - tile.width) // 2, top + _TEXT + _GAP // 2 + (_SIDE - tile.height) // 2
    draw.rectangle((left, top, left + tile.width + 2 * _FRAME - 1, top + tile.height + 2 * _FRAME - 1), colour)
    sheet.paste(tile, (left + _FRAME, top + _FRAME))


def _shortened(text: str, font: ImageFont.FreeTypeFont) -> str:
    """As much of a caption as fits over its image, on one line."""
    text = text if text.isprintable() else repr(text)[1:-1]
    while font.getlength(text) > _SIDE:
        text = f"{text[:-2].rstrip('…')}…"
    return text


def _font() -> ImageFont.FreeTypeFont:
    """The font of matplotlib, which has more letters than Pillow's own; matplotlib isn't imported for it."""
    package = importlib.util.find_spec("matplotlib")
    assert package is not None and package.origin is not None, "rmaclib depends on matplotlib"
    return ImageFont.truetype(Path(package.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", _TEXT)


def save_sheet(sheet: Image.Image, path: str | os.PathLike) -> None:
    """Write the picture to a file, complete or not at all.

    Args:
        sheet: The picture.
        path: The file; its ending chooses the format, see ``FORMATS``.

    Raises:
        InputError: Another ending.
        OutputError: The file can't be written.
    """
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise InputError(f"{os.fspath(path)}: expected a picture that ends with {', '.join(FORMATS)}")
    with whole_file(path) as temporary:
        sheet.save(temporary, kind)
