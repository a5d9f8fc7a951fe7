"""Options that several commands have, each checked as soon as it is read: before anything is opened or computed.

Nothing here loads torch, so that a wrong option is told at once. What is refused is a usage error: option, expected,
got.
"""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from rmaclib.foundation.files import is_line
from rmaclib.sheet import FORMATS

WHITENING_SETS = ("landmarks48", "diorama_train")  # photographs first
BACKBONES = "efficientnet_lite0, resnet50, resnet101, vgg16, timm:NAME"
_DEVICES = "auto, cpu, cuda, cuda:1, mps"
_DEVICE = re.compile(r"auto|cpu|(cuda|mps|xpu)(:[0-9]+)?")
PICTURES = (".jpeg", ".jpg", ".pdf", ".png", ".svg", ".webp")  # that plots.save_figure writes
LARGEST_SIDE = 100_000  # pixels; no photograph has more
MOST_LEVELS = 100  # a map of that many cells would be needed
MOST_SEED = 2**32 - 1


def refuse(expected: str, got) -> typer.BadParameter:
    """The error of an option; typer adds its name."""
    return typer.BadParameter(f"expected {expected}, got {got!r}")


def whole(low: int, high: float = math.inf) -> Callable[[Any], Any]:
    """A check of an option that takes a whole number, several, or none."""
    return _in_range("a whole number", low, high)


def number(low: float, high: float = math.inf) -> Callable[[Any], Any]:
    """A check of an option that takes a finite number."""
    return _in_range("a number", low, high)


def _in_range(what: str, low: float, high: float) -> Callable[[Any], Any]:
    expected = f"{what} of at least {low}" if math.isinf(high) else f"{what} in {low}..{high}"

    def check(value):
        for each in value if isinstance(value, list | tuple) else [value]:
            # A comparison with NaN is false, so that it is refused as well.
            if each is not None and not (low <= each <= high and math.isfinite(each)):
                raise refuse(expected, each)
        return value

    return check


# --- paths -----------------------------------------------------------------------------------------------------------
# os.path's questions have an answer for every path: what can't be looked at isn't there. Path's raise OSError.


def _path(value: str | Path) -> Path:
    if not str(value):
        raise refuse("a path", str(value))
    return Path(value)


def _output(value: str | Path) -> Path:
    if not is_line(str(value)):
        raise refuse("a path that is one line of UTF-8 text", str(value))
    return _path(value)


def output_folder(value: str | Path) -> Path:
    """A folder to write to, there or not."""
    path = _output(value)
    blocking = next((place for place in (path, *path.parents)
                     if os.path.exists(place) and not os.path.isdir(place)), None)
    if blocking is not None:
        raise typer.BadParameter(f"expected a folder, got {str(path)!r}"
                                 + (", a file" if blocking == path else f": {str(blocking)!r} is a file"))
    return path


def output_file(value: str | Path) -> Path:
    """A file to write, there or not."""
    path = _output(value)
    if os.path.isdir(path):
        raise typer.BadParameter(f"expected a file, got {str(path)!r}, a folder")
    output_folder(path.parent)
    return path


def output_picture(value: str | Path) -> Path:
    """A figure to write; .png where no format is named."""
    return _picture(value, PICTURES)


def output_sheet(value: str | Path) -> Path:
    """A sheet of pictures to write; .png where no format is named."""
    return _picture(value, tuple(FORMATS))


def _picture(value: str | Path, formats: tuple[str, ...]) -> Path:
    path = _output(value)
    if not path.suffix and not os.path.isdir(path):
        path = path.with_name(f"{path.name}.png")
    if path.suffix.lower() not in formats:
        raise refuse(f"a picture ({', '.join(formats)})", str(path))
    return output_file(path)


def settings_file(value: str | Path) -> Path:
    """A file that is there."""
    path = _path(value)
    if not os.path.isfile(path):
        raise typer.BadParameter(f"expected a file, got {str(path)!r}, "
                                 + ("a folder" if os.path.isdir(path) else "no file"))
    return path


def text(value: str | None) -> str | None:
    """A name or path that isn't empty."""
    if value is not None and not value.strip():
        raise refuse("a name or path", value)
    return value


def _device(value: str | None) -> str | None:
    if value is not None and not _DEVICE.fullmatch(value):
        raise refuse(f"one of {_DEVICES} …", value)
    return value


class Corners(NamedTuple):
    """A box in pixels, as rmaclib.boxes.Box; a class of its own, of which typer makes one option and not four."""

    x1: float
    y1: float
    x2: float
    y2: float


def box(value: str | Corners) -> Corners:
    """x1,y1,x2,y2"""
    if not isinstance(value, str):
        return value
    try:
        corners = Corners(*map(float, value.split(",")))
    except (TypeError, ValueError):
        raise refuse("x1,y1,x2,y2", value) from None
    if not (all(map(math.isfinite, corners)) and corners.x1 < corners.x2 and corners.y1 < corners.y2):
        raise refuse("x1,y1,x2,y2 with x1 < x2 and y1 < y2", value)
    return corners


# --- of several commands ---------------------------------------------------------------------------------------------

Images = Annotated[str, typer.Argument(
    callback=text, help="Folder of images, CSV, list, or name of a registered collection.")]
Network = Annotated[str, typer.Option(callback=text, help=f"A backbone ({BACKBONES}) or a checkpoint (.safetensors).")]
Size = Annotated[list[int], typer.Option(
    callback=whole(1, LARGEST_SIDE), help="Longer side in pixels; give it several times for several resolutions.")]
Levels = Annotated[int | None, typer.Option(
    callback=whole(1, MOST_LEVELS), help="Levels L of the grid.  [default: 3, or the checkpoint's]")]
Dim = Annotated[int | None, typer.Option(
    callback=whole(1), help="Whiten regions and keep so many dimensions.  [default: no whitening]")]
WhitenOn = Annotated[str | None, typer.Option(
    callback=text, help="Training images for whitening and codes: a name, list or folder; never the test set.  "
                         f"[default: {WHITENING_SETS[0]} if found, else {WHITENING_SETS[1]}]")]
WhitenImages = Annotated[int, typer.Option(callback=whole(2), help="Images of it to use.")]
Shrinkage = Annotated[float, typer.Option(
    callback=number(0, 1), help="0..1, moves the whitening's covariance towards the identity.")]
Grid = Annotated[Literal["exact", "float32", "global", "pixel", "whole"] | None, typer.Option(
    help="Kind of grid.  [default: exact, or the checkpoint's]")]
Pooling = Annotated[Literal["max", "average", "gem"] | None, typer.Option(
    help="Pooling of a region.  [default: max]")]
Regions = Annotated[Literal["grid", "proposals", "both"] | None, typer.Option(
    help="What is pooled; proposals need a network that was trained to make them.  [default: grid, or the "
         "checkpoint's]")]
Proposals = Annotated[int | None, typer.Option(
    callback=whole(1), help="Proposed regions of an image, at most.  [default: 32, or the checkpoint's]")]
Enlarge = Annotated[bool, typer.Option("--enlarge", help="Also enlarge images that are smaller than the size.")]
Device = Annotated[str, typer.Option(callback=_device, help=f"{_DEVICES} …")]
DeviceOrNone = Annotated[str | None, typer.Option("--device", callback=_device, help=f"{_DEVICES} …  [default: auto]")]
Precision = Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(
    help="auto takes bfloat16 where it is safe.")]
CropOrder = Annotated[Literal["resize-then-crop", "crop-then-resize"], typer.Option(
    help="How a box of a query is cut; the first is the paper's.")]
Seed = Annotated[int, typer.Option(callback=whole(0, MOST_SEED), help="Chooses the whitening's images.")]
NoWait = Annotated[bool, typer.Option(
    "--no-wait", help="Fail at once when another process is writing to the output folder.")]
SkipBad = Annotated[bool, typer.Option(
    "--skip-bad", help="Leave out rows of a list that can't be used, and tell them.")]
