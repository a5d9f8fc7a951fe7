"""A picture of a query and its nearest neighbours, drawn by Pillow: `rmac search` makes one each time, and matplotlib
(rmaclib.plots) alone takes a second of processor time."""

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
_SIDE, _FRAME, _GAP, _TEXT = 200, 4, 8, 11  # pixels: longer side of a picture, its frame, between two, text


def neighbours_sheet(query: str | os.PathLike, box: Box | None, neighbours: Sequence[tuple[str, str]],
                     columns: int = 5) -> Image.Image:
    """The query in a blue frame, its neighbours behind it, `columns` of them in a line.

    query: image file; box: the part of it that was looked for, in its pixels, drawn yellow
    neighbours: (caption, image file), nearest first; one that can't be read is a grey field that says so
    """
    across = 1 + min(columns, max(1, len(neighbours)))
    down = max(1, -(-len(neighbours) // columns))
    width, height = _SIDE + 2 * _FRAME + _GAP, _SIDE + 2 * _FRAME + 2 * _GAP + _TEXT
    sheet = Image.new("RGB", (across * width + _GAP, down * height + _GAP), "white")
    font = _font()
    for line in range(down):
        tiles = [(Path(query).name, query), *neighbours[line * columns:(line + 1) * columns]]
        for place, (caption, path) in enumerate(tiles):
            corner = _GAP + place * width, _GAP + line * height
            colour, tile = (QUERY, _tile(path, box, font)) if place == 0 else (NEIGHBOUR, _tile(path, None, font))
            _put(sheet, tile, caption, corner, colour, font)
    return sheet


def _tile(path: str | os.PathLike, box: Box | None, font: ImageFont.FreeTypeFont) -> Image.Image:
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
    left, top = corner
    draw = ImageDraw.Draw(sheet)
    draw.text(corner, _shortened(caption, font), colour, font)
    left, top = left + (_SIDE - tile.width) // 2, top + _TEXT + _GAP // 2 + (_SIDE - tile.height) // 2
    draw.rectangle((left, top, left + tile.width + 2 * _FRAME - 1, top + tile.height + 2 * _FRAME - 1), colour)
    sheet.paste(tile, (left + _FRAME, top + _FRAME))


def _shortened(text: str, font: ImageFont.FreeTypeFont) -> str:
    """As much of a caption as stands over its picture, on one line."""
    text = text if text.isprintable() else repr(text)[1:-1]
    while font.getlength(text) > _SIDE:
        text = f"{text[:-2].rstrip('…')}…"
    return text


def _font() -> ImageFont.FreeTypeFont:
    """matplotlib's, which knows more letters than Pillow's own; found without importing it."""
    (package,) = importlib.util.find_spec("matplotlib").submodule_search_locations
    return ImageFont.truetype(Path(package, "mpl-data/fonts/ttf/DejaVuSans.ttf"), _TEXT)


def save_sheet(sheet: Image.Image, path: str | os.PathLike) -> None:
    """Write the picture whole, in the format that the file's name ends with; an older file stays until then.

    raises InputError: another format; OutputError: it can't be written
    """
    kind = FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise InputError(f"{os.fspath(path)}: expected a picture that ends with {', '.join(FORMATS)}")
    with whole_file(path) as temporary:
        sheet.save(temporary, kind)
