"""Options that several commands have, each checked as soon as it is read: before anything is opened or computed.

Nothing here loads torch, so that a mistake is told at once. It is a usage error: option, expected, got.

A command imports this module whole: ``size: options.Size = None``. None means that the option wasn't given: then the
preset's value is taken.
"""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from rmaclib import networks, presets
from rmaclib.foundation.files import is_line
from rmaclib.sheet import FORMATS

WHITENING_SETS = ("landmarks48", "diorama_train")  # photographs first
BACKBONES = "efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, resnet50, resnet101, vgg16, timm:NAME"
NETWORKS = (f"A trained network of the package ({', '.join(networks.NAMES)}), a checkpoint (.safetensors), or an "
            f"untrained backbone ({BACKBONES}; NAME:LAYER+LAYER for several feature maps, see rmac backbones).")
_DEVICES = "auto, cpu, cuda, cuda:1, mps"
_DEVICE = re.compile(r"auto|cpu|(cuda|mps|xpu)(:[0-9]+)?")
PICTURES = (".jpeg", ".jpg", ".pdf", ".png", ".svg", ".webp")  # that plots.save_figure writes
LARGEST_SIDE = 100_000  # pixels; no photograph has more
MOST_LEVELS = 100  # a map of that many cells would be needed
MOST_SEED = 2**32 - 1


def refuse(expected: str, got: object) -> typer.BadParameter:
    """The error of an option; typer adds the option's name.

    Args:
        expected: In words.
        got: The value that was given.

    Returns:
        The error, to be raised.
    """
    return typer.BadParameter(f"expected {expected}, got {got!r}")


def whole(low: int, high: float = math.inf) -> Callable[[Any], Any]:
    """A check of an option that takes a whole number, several, or none.

    Args:
        low: The least number.
        high: The greatest number.

    Returns:
        A callback for typer.
    """
    return _in_range("a whole number", low, high)


def number(low: float, high: float = math.inf) -> Callable[[Any], Any]:
    """A check of an option that takes a finite number; see ``whole``."""
    return _in_range("a number", low, high)


def _in_range(what: str, low: float, high: float) -> Callable[[Any], Any]:
    expected = f"{what} of at least {low}" if math.isinf(high) else f"{what} in {low}..{high}"

    def check(value):
        for each in value if isinstance(value, list | tuple) else [value]:
            # A comparison with NaN is false: an error as well.
            if each is not None and not (low <= each <= high and math.isfinite(each)):
                raise refuse(expected, each)
        return value

    return check


# --- paths -----------------------------------------------------------------------------------------------------------
# os.path.exists and its like answer for every path: what can't be looked at isn't there. Those of Path raise OSError.


def _path(value: str | Path) -> Path:
    if not str(value):
        raise refuse("a path", str(value))
    return Path(value)


def _output(value: str | Path) -> Path:
    if not is_line(str(value)):
        raise refuse("a path that is one line of UTF-8 text", str(value))
    return _path(value)


def output_folder(value: str | Path) -> Path:
    """Parse a folder to write to, there or not."""
    path = _output(value)
    blocking = next((place for place in (path, *path.parents)
                     if os.path.exists(place) and not os.path.isdir(place)), None)
    if blocking is not None:
        raise typer.BadParameter(f"expected a folder, got {str(path)!r}"
                                 + (", a file" if blocking == path else f": {str(blocking)!r} is a file"))
    return path


def output_file(value: str | Path) -> Path:
    """Parse a file to write, there or not."""
    path = _output(value)
    if os.path.isdir(path):
        raise typer.BadParameter(f"expected a file, got {str(path)!r}, a folder")
    output_folder(path.parent)
    return path


def output_picture(value: str | Path) -> Path:
    """Parse a figure to write; .png where no format is named."""
    return _picture(value, PICTURES)


def output_sheet(value: str | Path) -> Path:
    """Parse a sheet of pictures to write; .png where no format is named."""
    return _picture(value, tuple(FORMATS))


def _picture(value: str | Path, formats: tuple[str, ...]) -> Path:
    path = _output(value)
    if not path.suffix and not os.path.isdir(path):
        path = path.with_name(f"{path.name}.png")
    if path.suffix.lower() not in formats:
        raise refuse(f"a picture ({', '.join(formats)})", str(path))
    return output_file(path)


def settings_file(value: str | Path) -> Path:
    """Parse a file that is there."""
    path = _path(value)
    if not os.path.isfile(path):
        raise typer.BadParameter(f"expected a file, got {str(path)!r}, "
                                 + ("a folder" if os.path.isdir(path) else "no file"))
    return path


def text(value: str | None) -> str | None:
    """Check that a name or path isn't empty."""
    if value is not None and not value.strip():
        raise refuse("a name or path", value)
    return value


def _device(value: str | None) -> str | None:
    if value is not None and not _DEVICE.fullmatch(value):
        raise refuse(f"one of {_DEVICES} …", value)
    return value


class Corners(NamedTuple):
    """A box in pixels, as ``rmaclib.boxes.Box``; a class, of which typer makes one option and not four."""

    x1: float
    y1: float
    x2: float
    y2: float


def box(value: str | Corners) -> Corners:
    """Parse a box, written x1,y1,x2,y2."""
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


def defaults(section: str, name: str, none: str = "none", more: str = "") -> str:
    """The defaults of an option for its help: the laptop's value, and the other presets' where they differ.

    Args:
        section: Of the presets.
        name: A setting of the section.
        none: The word for None.
        more: What is added at the end.

    Returns:
        Such as "[default: 512; paper: 550, 800, 1050]".
    """
    sections = {preset.name: preset.values(section) for preset in presets.PRESETS.values()}
    return _default_of({preset: values[name] for preset, values in sections.items() if name in values}, none, more)


def _default_of(values: dict[str, Any], none: str = "none", more: str = "") -> str:
    """The same for values by preset."""
    names: dict[str, str] = {}  # value as it is shown → the first preset that has it
    for preset, value in values.items():
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else none if value is None else str(value)
        names.setdefault(shown, preset)
    laptop, *others = names
    parts = [laptop, *(f"{names[shown]}: {shown}" for shown in others), *([more] if more else [])]
    return f"  [default: {'; '.join(parts)}]"


_OWN = "a trained network has its own"
Preset = Annotated[Literal["laptop", "paper", "authors_release"], typer.Option(
    help="Settings to start from: for this machine, the paper's, or those of its authors' release, which are the "
         "paper's with another grid. An option wins over the preset.")]
Images = Annotated[str, typer.Argument(
    callback=text, help="Folder of images, CSV, list, or name of a registered collection.")]
Network = Annotated[str | None, typer.Option(
    callback=text,
    help=NETWORKS + _default_of({name: preset.default_network for name, preset in presets.PRESETS.items()}))]
Size = Annotated[list[int] | None, typer.Option(
    callback=whole(1, LARGEST_SIDE), help="Longer side in pixels; give it several times for several resolutions."
                                          + defaults("extraction", "sizes"))]
Levels = Annotated[int | None, typer.Option(
    callback=whole(1, MOST_LEVELS), help="Levels L of the grid." + defaults("network", "levels", more=_OWN))]
Dim = Annotated[int | None, typer.Option(
    callback=whole(1), help="Whiten the regions of an untrained network and keep so many dimensions."
                            + defaults("network", "dim", "no whitening", _OWN))]
WhitenOn = Annotated[str | None, typer.Option(
    callback=text, help="Training images for whitening and codes: a name, list or folder; never the test set.  "
                        f"[default: {WHITENING_SETS[0]} if it is there, else {WHITENING_SETS[1]}]")]
WhitenImages = Annotated[int, typer.Option(callback=whole(2), help="Images of the whitening.")]
Shrinkage = Annotated[float, typer.Option(
    callback=number(0, 1), help="0..1, moves the whitening's covariance towards the identity.")]
Grid = Annotated[Literal["exact", "float32", "global", "pixel", "whole"] | None, typer.Option(
    help="Kind of grid." + defaults("network", "grid", more=_OWN))]
Pooling = Annotated[Literal["max", "average", "gem"] | None, typer.Option(
    help="Pooling of a region." + defaults("network", "pooling", more=_OWN))]
Regions = Annotated[Literal["grid", "proposals", "both"] | None, typer.Option(
    help="What is pooled; proposals need a network that was trained to make them.  [default: grid, or the "
         "trained network's]")]
Proposals = Annotated[int | None, typer.Option(
    callback=whole(1), help="Region proposals of an image, at most." + defaults("network", "proposals", more=_OWN))]
Enlarge = Annotated[bool, typer.Option("--enlarge", help="Also enlarge images that are smaller than the size.")]
Device = Annotated[str, typer.Option(callback=_device, help=f"{_DEVICES} …")]
DeviceOrNone = Annotated[str | None, typer.Option("--device", callback=_device, help=f"{_DEVICES} …  [default: auto]")]
Precision = Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(
    help="auto takes bfloat16 where descriptors stay nearly the same.")]
CropOrder = Annotated[Literal["resize-then-crop", "crop-then-resize"], typer.Option(
    help="How the box of a query is cut; the first is the paper's.")]
Seed = Annotated[int, typer.Option(callback=whole(0, MOST_SEED), help="Chooses the whitening's images.")]
NoWait = Annotated[bool, typer.Option(
    "--no-wait", help="Fail at once when another process is writing to the output folder.")]
SkipBad = Annotated[bool, typer.Option(
    "--skip-bad", help="Leave out rows of a list that can't be used, and list them.")]
