"""The network of a command: opened as the options say, whitened, and how fast it is. What is heavy is imported inside
the functions, so that options are checked before it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from rmaclib.commands.common import note, say, telling
from rmaclib.commands.options import WHITENING_SETS
from rmaclib.datasets import LabelledImages, open_collection
from rmaclib.datasets.types import DatasetError
from rmaclib.extraction.folder import META, PARTIAL
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import need_space
from rmaclib.foundation.messages import duration
from rmaclib.search.index_folder import CHECKPOINT

if TYPE_CHECKING:
    from rmaclib.extraction.batches import ExtractionSettings
    from rmaclib.network import RMAC

_MEASURED = 8  # images whose time is measured, at most an eighth of all


class NetworkOptions(NamedTuple):
    """The options of a command that say which network describes images, under their names."""

    network: str
    levels: int | None
    grid: str | None
    pooling: str | None
    regions: str | None
    proposals: int | None
    dim: int | None
    whiten_on: str | None
    whiten_images: int
    shrinkage: float
    seed: int

    @classmethod
    def of(cls, context: typer.Context) -> "NetworkOptions":
        """Those that a command was given."""
        return cls(**{name: context.params[name] for name in cls._fields})

    @property
    def settings(self) -> dict:
        """Settings of the network that the options give."""
        given = {name: getattr(self, name) for name in ("levels", "grid", "pooling", "regions", "proposals")}
        return {name: value for name, value in given.items() if value is not None}


def check_device(device: str) -> None:
    """raises InputError when this machine has no such device"""
    from rmaclib.extraction.batches import pick_device

    try:
        pick_device(device)
    except ValueError as error:
        raise InputError(f"--{error}") from error


def describing(context: typer.Context, sizes: Sequence[int] | None = None) -> "ExtractionSettings":
    """How images are described, from the options of a command; sizes: in place of --size.

    raises InputError: a device that isn't there
    """
    options = context.params
    with telling("loading what computes"):
        from rmaclib.extraction.batches import ExtractionSettings

        check_device(options["device"])
    given = {name: options[name] for name in ("enlarge", "precision", "crop_order") if name in options}
    return ExtractionSettings(tuple(options["size"] if sizes is None else sizes), device=options["device"], **given)


def open_unwhitened(network: str, dim: int | None = None, **settings) -> "RMAC":
    """A checkpoint, or a backbone as it comes; dim: dimensions it is going to have. Settings that are not None are put
    over its own.

    raises InputError: more dimensions than it has, or others than it was saved with
    """
    with telling(f"opening {network}"):
        from rmaclib.checkpoints import open_network

        model = open_network(network, **{name: value for name, value in settings.items() if value is not None})
    saved, most = model.settings.dim, model.backbone.channels
    if dim is not None and saved is not None and dim != saved:
        raise InputError(f"--dim: expected {saved}, with which {network} was saved, got {dim}")
    if dim is not None and dim > most:
        raise InputError(f"--dim: expected at most {most}, the channels of {network}, got {dim}")
    return model


def is_to_be_whitened(model: "RMAC", options: NetworkOptions) -> bool:
    """Whether the options ask for a whitening that the network doesn't have."""
    return model.fc is None and (options.dim is not None or options.whiten_on is not None)


def whiten(model: "RMAC", training: LabelledImages, settings: "ExtractionSettings", options: NetworkOptions,
           pace: float | None = None) -> None:
    """Gives the network a whitening learned on some of the training images; pace: seconds an image, for the message."""
    from rmaclib.extraction.whitening import learn_whitening, training_sample

    sample = training_sample(training, options.whiten_images, options.seed)
    say(f"whitening learned on {len(sample)} images of {training.name}" + expected(len(sample), pace))
    model.set_whitening(learn_whitening(model, sample, settings, dim=options.dim, shrinkage=options.shrinkage))


def prepare(model: "RMAC", paths: Sequence[Path], settings: "ExtractionSettings", options: NetworkOptions,
            out: Path | None, *, training: LabelledImages | None = None, saved: bool = True) -> None:
    """All that comes before images are described: space on the disk, the time it will take, and the whitening.

    training: images for the whitening, where they are open already; saved: the network is going to be in `out` too
    raises OutputError: too little space in `out`
    """
    is_finished = out is not None and (out / META).exists()
    goes_on = is_finished or out is not None and any(path for name in (PARTIAL, META) for path in out.rglob(name))
    if out is not None:
        weights = sum(tensor.nbytes for tensor in model.state_dict().values())
        # Descriptors are written twice, in parts and joined. What a run that goes on lacks of them is counted where it
        # looks at its parts.
        descriptors = 0 if goes_on else 2 * 4 * (options.dim or model.dim) * len(paths)
        need_space(out, descriptors + weights * (saved and not (out / CHECKPOINT).exists()),
                   f"descriptors of {len(paths):,} images and the network" if saved else
                   f"descriptors of {len(paths):,} images")
    if not is_to_be_whitened(model, options):
        training = None
    elif training is None:
        training = whitening_collection(options.whiten_on)
    pace = None if is_finished and training is None else seconds_per_image(model, paths, settings)
    if training is not None:
        whiten(model, training, settings, options, pace)
    say(f"describing {len(paths):,} images at {' + '.join(map(str, settings.sizes))} px" + expected(len(paths), pace)
        + (", less what is done already" if goes_on else ""))


def seconds_per_image(model: "RMAC", paths: Sequence[Path], settings: "ExtractionSettings") -> float | None:
    """Measured on a few of the images; None where there are too few for that."""
    paths = list(dict.fromkeys(paths))  # queries may be among the database's images
    count = min(_MEASURED, len(paths) // 8)
    if not count:
        return None
    sample = [paths[number * len(paths) // count] for number in range(count)]
    with telling("measuring how fast images are described"):
        # What comes before the first image is taken off, as far as a busy machine lets it be told.
        first, all_of_them = _seconds(model, sample[:1], settings), _seconds(model, sample, settings)
    return max((all_of_them - first) / max(1, count - 1), all_of_them / count / 4)


def _seconds(model: "RMAC", paths: Sequence[Path], settings: "ExtractionSettings") -> float:
    from dataclasses import replace

    from rmaclib.extraction.descriptors import extract

    # "auto" would compare two precisions on them first.
    settings = replace(settings, precision="float32" if settings.precision == "auto" else settings.precision)
    started = time.monotonic()
    extract(model, paths, settings, progress=False)
    return time.monotonic() - started


def expected(count: int, pace: float | None) -> str:
    """The time for `count` images at `pace` seconds each, to be put behind what is done; "" when it isn't known."""
    return "" if pace is None else f": {duration(count * pace)}"


def whitening_collection(whiten_on: str | None) -> LabelledImages:
    """The images that whitening and codes are learned on."""
    if whiten_on is not None:
        return _opened(whiten_on)
    photographs, rendered = WHITENING_SETS
    try:
        return _opened(photographs)
    except DatasetError:
        note(f"no {photographs} under RMACLIB_DATA: the training images are the rendered {rendered}. Photographs are "
             "better: --whiten-on FOLDER")
        return _opened(rendered)


def _opened(collection: str) -> LabelledImages:
    with telling(f"looking for images in {collection}"):
        return open_collection(collection)
