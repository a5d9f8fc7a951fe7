"""The network of a command: opened as the options say, whitened, and how fast it is.

What is heavy is imported inside the functions, so that options are checked before it.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from rmaclib import presets
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
_CHANGED = ("levels", "grid", "pooling", "regions", "proposals")  # settings of the network that need no other weights
WHITENING = ("whiten_on", "whiten_images", "shrinkage", "seed")  # options that can't be read off the network


class NetworkOptions(NamedTuple):
    """The options that say which network extracts the descriptors, and how it is whitened.

    Attributes:
        network: A trained network of the package, a backbone, or a checkpoint.
        levels: L of the grid; None, as for the following, keeps the checkpoint's.
        grid: Kind of grid.
        pooling: Of a region.
        regions: What is pooled.
        proposals: Region proposals of an image, at most.
        dim: Dimensions of the whitening, None for no whitening.
        dim_source: The option that ``dim`` comes from, for errors.
        whiten_on: Training images, None for the default.
        whiten_images: How many of them are used.
        shrinkage: 0..1, of their covariance.
        seed: Chooses the images.
        given: Which of those of the whitening stand on the command line.
    """

    network: str
    levels: int | None
    grid: str | None
    pooling: str | None
    regions: str | None
    proposals: int | None
    dim: int | None
    dim_source: str
    whiten_on: str | None
    whiten_images: int
    shrinkage: float
    seed: int
    given: frozenset[str]

    @classmethod
    def of(cls, context: typer.Context) -> "NetworkOptions":
        """The options that a command was given, over those of its preset.

        The preset's settings are for a backbone: a checkpoint has its own, and keeps them.

        Args:
            context: Of the command.

        Returns:
            The options.
        """
        from rmaclib.checkpoints import checkpoint_file

        given, preset = context.params, presets.preset(context.params["preset"])
        network = given["network"] or preset.default_network
        chosen = preset.values("network") if checkpoint_file(network) is None else {}
        values: dict[str, Any] = {name: given[name] for name in cls._fields if name in given}
        values |= {name: chosen.get(name) for name in (*_CHANGED, "dim") if given[name] is None}
        values["network"] = network
        values["given"] = frozenset(name for name in WHITENING if is_given(context, name))
        values["dim_source"] = "--dim" if given["dim"] is not None else f"--preset {preset.name}, --dim"
        return cls(**values)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the network that the options give."""
        given = {name: getattr(self, name) for name in _CHANGED}
        return {name: value for name, value in given.items() if value is not None}


def is_given(context: typer.Context, name: str) -> bool:
    """Find out whether a parameter of a command stands on the command line.

    Args:
        context: Of the command.
        name: Of the parameter.

    Returns:
        Whether it does, rather than having its default.
    """
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def check_device(device: str) -> None:
    """Check that this machine has a device.

    Args:
        device: As on the command line.

    Raises:
        InputError: There is no such device.
    """
    from rmaclib.extraction.batches import pick_device

    try:
        pick_device(device)
    except ValueError as error:
        raise InputError(f"--{error}") from error


def extraction_settings(context: typer.Context, sizes: Sequence[int] | None = None) -> "ExtractionSettings":
    """How descriptors are extracted: the options of a command, over those of its preset.

    Args:
        context: Of the command.
        sizes: Longer sides in pixels, in place of ``--size``.

    Returns:
        The settings.

    Raises:
        InputError: There is no such device.
    """
    given = context.params
    with telling("loading PyTorch"):
        from rmaclib.extraction.batches import ExtractionSettings

        check_device(given["device"])
    settings = presets.preset(given.get("preset", presets.laptop.name)).values("extraction")
    settings |= {name: given[name] for name in ("enlarge", "precision", "crop_order", "device") if name in given}
    if sizes or given["size"]:
        settings["sizes"] = tuple(sizes or given["size"])
    return ExtractionSettings(**settings)


def open_network(network: str, **settings: Any) -> "RMAC":
    """Open a checkpoint, or a backbone as it comes, and say so when it takes long.

    Args:
        network: Name of a trained network of the package or of a backbone, or path of a checkpoint.
        **settings: Of the network, put over its own.

    Returns:
        The network, on the CPU.

    Raises:
        RmacError: There is no such network, or a setting can't be used.
    """
    with telling(f"opening {network}"):
        from rmaclib import checkpoints

        return checkpoints.open_network(network, **settings)


def open_unwhitened(options: NetworkOptions) -> "RMAC":
    """Open the network of a command, before a whitening is learned for it.

    Args:
        options: Of the command; ``dim`` is what the network is going to have.

    Returns:
        The network, on the CPU.

    Raises:
        InputError: Dimensions that the network can't have, or others than it was saved with.
    """
    network, dim = options.network, options.dim
    model = open_network(network, **options.settings)
    saved, most = model.settings.dim, model.backbone.dims[-1]
    if dim is not None and saved is not None and dim != saved:
        raise InputError(f"{options.dim_source}: expected {saved}, with which {network} was saved, got {dim}; an "
                         f"untrained network has any: --network {presets.laptop.backbone}")
    if dim is not None and dim > most:
        raise InputError(f"{options.dim_source}: expected at most {most}, which {network} has channels for, got {dim}")
    return model


def is_to_be_whitened(model: "RMAC", options: NetworkOptions) -> bool:
    """Whether the options request a whitening that the network doesn't have.

    Args:
        model: The network.
        options: Of the command.

    Returns:
        Whether they do.
    """
    return model.fc is None and (options.dim is not None or options.whiten_on is not None)


def whiten(model: "RMAC", training: LabelledImages, settings: "ExtractionSettings", options: NetworkOptions,
           pace: float | None = None) -> None:
    """Give the network a whitening learned on some of the training images (Section 4.1).

    Args:
        model: The network, which is changed.
        training: Images that are not of the test set.
        settings: How their regions are extracted.
        options: Dimensions, number of images, shrinkage and seed.
        pace: Seconds an image takes, for the message; None where it isn't known.
    """
    from rmaclib.extraction.whitening import learn_whitening, training_sample

    sample = training_sample(training, options.whiten_images, options.seed)
    say(f"whitening learned on {len(sample)} images of {training.name}" + expected(len(sample), pace))
    model.set_whitening(learn_whitening(model, sample, settings, dim=options.dim, shrinkage=options.shrinkage))


def prepare(model: "RMAC", paths: Sequence[Path], settings: "ExtractionSettings", options: NetworkOptions,
            out: Path | None, *, training: LabelledImages | None = None, saved: bool = True) -> None:
    """All that comes before the extraction: space on the disk, the time it will take, and the whitening.

    Args:
        model: The network, which is whitened if the options say so.
        paths: The images.
        settings: How their descriptors are extracted.
        options: Of the command.
        out: Folder that the descriptors are written to, None for none.
        training: Images for the whitening, where they are open already.
        saved: Whether the network is going to be in ``out`` too.

    Raises:
        OutputError: There is too little space in ``out``.
    """
    is_finished = out is not None and (out / META).exists()
    goes_on = is_finished or out is not None and any(path for name in (PARTIAL, META) for path in out.rglob(name))
    if out is not None:
        _check_space(out, len(paths), model, 0 if goes_on else options.dim or model.dim, saved)
    if not is_to_be_whitened(model, options):
        if training is None and (given := [name for name in WHITENING if name in options.given]):
            why = "is not to be whitened, see --dim" if model.fc is None else "has a whitening"
            note(f"--{given[0].replace('_', '-')}: no effect, {options.network} {why}")
        training = None
    elif training is None:
        training = whitening_collection(options.whiten_on)
    pace = None if is_finished and training is None else seconds_per_image(model, paths, settings)
    if training is not None:
        whiten(model, training, settings, options, pace)
    say(f"extracting the descriptors of {len(paths):,} images at {' + '.join(map(str, settings.sizes))} px"
        + expected(len(paths), pace) + (", less what is done already" if goes_on else ""))


def _check_space(out: Path, images: int, model: "RMAC", dim: int, saved: bool) -> None:
    """Raises OutputError; a dim of 0 is for a run that goes on: it counts what it lacks where it looks at its parts."""
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    descriptors = 2 * 4 * dim * images  # they are written twice, in parts and joined
    need_space(out, descriptors + weights * (saved and not (out / CHECKPOINT).exists()),
               f"descriptors of {images:,} images" + (" and the network" if saved else ""))


def seconds_per_image(model: "RMAC", paths: Sequence[Path], settings: "ExtractionSettings") -> float | None:
    """Measure how long an image takes, on a few of them.

    Args:
        model: The network.
        paths: The images.
        settings: How their descriptors are extracted.

    Returns:
        Seconds an image; None where there are too few of them to measure it.
    """
    paths = list(dict.fromkeys(paths))  # queries may be among the database's images
    count = min(_MEASURED, len(paths) // 8)
    if not count:
        return None
    sample = [paths[number * len(paths) // count] for number in range(count)]
    with telling("measuring how fast descriptors are extracted"):
        # What comes before the first image is taken off, as far as a busy machine lets it be measured.
        first, together = _seconds(model, sample[:1], settings), _seconds(model, sample, settings)
    return max((together - first) / max(1, count - 1), together / count / 4)


def _seconds(model: "RMAC", paths: Sequence[Path], settings: "ExtractionSettings") -> float:
    from dataclasses import replace

    from rmaclib.extraction.descriptors import extract

    # "auto" would compare two precisions on them first.
    settings = replace(settings, precision="float32" if settings.precision == "auto" else settings.precision)
    started = time.monotonic()
    extract(model, paths, settings, progress=False)
    return time.monotonic() - started


def expected(count: int, pace: float | None) -> str:
    """The time that is expected, to be put behind what is done.

    Args:
        count: Number of images.
        pace: Seconds an image takes, None where it isn't known.

    Returns:
        Such as ": about 2 min"; "" where it isn't known.
    """
    return "" if pace is None else f": {duration(count * pace)}"


def whitening_collection(whiten_on: str | None) -> LabelledImages:
    """Open the images that whitening and codes are learned on.

    Args:
        whiten_on: As on the command line; None for photographs if they are there, else rendered pictures.

    Returns:
        The images.

    Raises:
        DatasetError: There are no such images.
    """
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
