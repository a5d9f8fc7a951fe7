"""rmac index."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rmaclib.commands import options
from rmaclib.commands.common import command_group, say, tell_bad, telling
from rmaclib.commands.network import (
    WHITENING,
    NetworkOptions,
    check_device,
    expected,
    extraction_settings,
    is_given,
    open_network,
    open_unwhitened,
    prepare,
    seconds_per_image,
)
from rmaclib.commands.reading import read_photographs
from rmaclib.extraction.folder import BAD
from rmaclib.foundation.errors import InputError, OutputError
from rmaclib.foundation.files import read_json, write_json, write_text
from rmaclib.foundation.folders import OutputFolder, waiting
from rmaclib.search.index_folder import META, index_folder

if TYPE_CHECKING:
    from rmaclib.search.index import Index

app = command_group()
_OPTIONS = "options.json"


@app.command("index")
def index_command(
    context: typer.Context,
    images: options.Images,
    out: Annotated[Path, typer.Option(
        parser=options.output_folder, metavar="FOLDER", help="Of the index; one that is there already is added to.")],
    preset: options.Preset = "laptop",
    network: options.Network = None, size: options.Size = None, levels: options.Levels = None, dim: options.Dim = None,
    whiten_on: options.WhitenOn = None, whiten_images: options.WhitenImages = 400, shrinkage: options.Shrinkage = 0.0,
    grid: options.Grid = None, pooling: options.Pooling = None, regions: options.Regions = None,
    proposals: options.Proposals = None, enlarge: options.Enlarge = False, device: options.Device = "auto",
    precision: options.Precision = "auto", seed: options.Seed = 0, skip_bad: options.SkipBad = False,
    no_wait: options.NoWait = False,
) -> None:
    """Make an index of images, to be searched by `rmac search`. A killed run goes on when started again.

    Examples:

    - `rmac index my_photos --out photos.index`

    - `rmac index more_photos --out photos.index`: only images that are not in it yet are added

    - `rmac index my_photos --out photos.index --preset paper`: ResNet-101, two levels, 2,048 dimensions, three
      resolutions

    An index keeps its network and settings; options that were given for it may be given again.
    """
    collection = read_photographs(images, out, skip_bad)
    with waiting(not no_wait), index_folder(out) as folder:
        with telling("loading PyTorch"):
            from rmaclib.search.index import Index

            check_device(device)
        folder.will_write([BAD, _OPTIONS])
        if (out / META).exists():
            with telling(f"opening {out}"):
                index = Index.load(out)
            _check_same(context, index, folder)
            index.settings = replace(index.settings, device=device)
            added = _add(index, collection.paths, out)
        else:
            settings, chosen = extraction_settings(context), NetworkOptions.of(context)
            model = open_unwhitened(chosen)
            write_json(folder / _OPTIONS, {name: context.params[name] for name in WHITENING}, checksum=True)
            prepare(model, collection.paths, settings, chosen, out)
            index = Index.build(collection.paths, model, settings, out=out)
            added = len(index)
        bad = (*collection.left_out, *index.bad)
        _list_bad(bad, folder)
    tell_bad(bad, out / BAD)
    say(f"{added:,} images added; {out} contains {index}")


def _add(index: "Index", paths: Sequence[Path], out: Path) -> int:
    """Add the images that are not in the index yet; returns their number."""
    new = [path for path in paths if os.path.abspath(path) not in index.vectors]
    if new:
        say(f"extracting the descriptors of {len(new):,} images that are not in the index"
            + expected(len(new), seconds_per_image(index.network, new, index.settings)))
    added = index.add(paths)
    with telling(f"writing {out}"):
        index.save(out)
    return added


def _list_bad(bad: Sequence[tuple[str, str]], folder: OutputFolder) -> None:
    lines = ("\t".join(" ".join(part.split()) for part in entry) for entry in bad)
    write_text(folder / BAD, "".join(f"{line}\n" for line in lines))


# --- the options of an index that is there ---------------------------------------------------------------------------


def _check_same(context: typer.Context, index: "Index", folder: OutputFolder) -> None:
    """Raises InputError naming an option given with another value than the index was made with, and both values."""
    given = _given(context)
    made_with = _made_with(index, folder, given)
    for name, (option, value) in given.items():
        if name in made_with and made_with[name] != value:
            raise InputError(f"{option}: {folder.path} was made with {_shown(made_with[name])}, got {_shown(value)}; "
                             "leave the option out to add to that index, or choose another folder")
    if "network" in given:
        _check_network(*given["network"], index, folder.path)


def _given(context: typer.Context) -> dict[str, tuple[str, Any]]:
    """Name → (option, value) of those on the command line, and of those that a preset there stands for."""
    given = {name: (_option(name), value) for name, value in context.params.items() if is_given(context, name)}
    if "preset" in given:
        chosen = NetworkOptions.of(context)
        values = {"network": chosen.network, "size": list(extraction_settings(context).sizes), **chosen.settings,
                  **({} if chosen.dim is None else {"dim": chosen.dim})}
        preset = given.pop("preset")[1]
        given = {name: (f"--preset {preset}, {_option(name)}", value) for name, value in values.items()} | given
    return given


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _made_with(index: "Index", folder: OutputFolder, given: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    """Name of an option → its value when the index was made."""
    network, settings = index.network.settings, index.settings
    about = {"size": list(settings.sizes), "enlarge": settings.enlarge, "precision": settings.precision,
             **{name: getattr(network, name) for name in ("levels", "grid", "pooling", "regions", "proposals", "dim")}}
    path = folder / _OPTIONS
    if path.exists():
        return about | read_json(path, OutputError, "the options that an index was made with", checksum=True)
    if unknown := [name for name in WHITENING if name in given]:
        raise InputError(f"{_option(unknown[0])}: {folder.path} doesn't say what it was made with; leave the option "
                         "out to add to that index, or choose another folder")
    return about


def _check_network(option: str, name: str, index: "Index", out: Path) -> None:
    """Raises InputError unless a network has the weights of the index's: all of them, or those of the backbone where
    the index has learned a whitening for it."""
    from rmaclib.checkpoints import fingerprint

    model = open_network(name)
    is_whole = model.fc is not None
    weights = fingerprint(model if is_whole else model.backbone)
    if weights != fingerprint(index.network if is_whole else index.network.backbone):
        raise InputError(f"{option}: {out} was made with other weights ({index.network.settings.backbone}), got "
                         f"{name}; leave the option out to add to that index, or choose another folder")


def _shown(value: object) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)
