"""rmac index."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rmaclib.commands.common import command_group, say, tell_bad, telling
from rmaclib.commands.network import (
    NetworkOptions,
    check_device,
    describing,
    expected,
    open_unwhitened,
    prepare,
    seconds_per_image,
)
from rmaclib.commands.options import (
    Device,
    Dim,
    Enlarge,
    Grid,
    Images,
    Levels,
    Network,
    NoWait,
    Pooling,
    Precision,
    Proposals,
    Regions,
    Seed,
    Shrinkage,
    Size,
    SkipBad,
    WhitenImages,
    WhitenOn,
    output_folder,
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
_LEARNED = ("whiten_on", "whiten_images", "shrinkage", "seed")  # options that the network itself doesn't tell


@app.command("index")
def index_command(
    context: typer.Context,
    images: Images,
    out: Annotated[Path, typer.Option(parser=output_folder, metavar="FOLDER",
                                      help="Of the index; one that is there already is added to.")],
    network: Network = "efficientnet_lite0", size: Size = [512], levels: Levels = None, dim: Dim = None,  # noqa: B006
    whiten_on: WhitenOn = None, whiten_images: WhitenImages = 400, shrinkage: Shrinkage = 0.0,
    grid: Grid = None, pooling: Pooling = None, regions: Regions = None, proposals: Proposals = None,
    enlarge: Enlarge = False, device: Device = "auto", precision: Precision = "auto", seed: Seed = 0,
    skip_bad: SkipBad = False, no_wait: NoWait = False,
) -> None:
    """Make an index of images, to be searched by `rmac search`. A killed run goes on when started again.

    Examples:

    - `rmac index my_photos --out photos.index`

    - `rmac index more_photos --out photos.index`: only what is not in it yet is described and added

    An index keeps its network and settings; options that were given for it may be given again.
    """
    collection = read_photographs(images, out, skip_bad)
    with waiting(not no_wait), index_folder(out) as folder:
        with telling("loading what computes"):
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
            settings, options = describing(context), NetworkOptions.of(context)
            model = open_unwhitened(network, dim, **options.settings)
            write_json(folder / _OPTIONS, {name: context.params[name] for name in _LEARNED}, checksum=True)
            prepare(model, collection.paths, settings, options, out)
            index = Index.build(collection.paths, model, settings, out=out)
            added = len(index)
        bad = (*collection.left_out, *index.bad)
        _list_bad(bad, folder)
    tell_bad(bad, out / BAD)
    say(f"{added:,} images added; {out} contains {index}")


def _add(index: "Index", paths: Sequence[Path], out: Path) -> int:
    """How many images were new, and are in the index now."""
    new = [path for path in paths if os.path.abspath(path) not in index.vectors]
    if new:
        say(f"describing {len(new):,} images that are not in the index"
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
    """raises InputError naming an option given with another value than the index was made with, and both values"""
    given = {name: value for name, value in context.params.items()
             if context.get_parameter_source(name).name == "COMMANDLINE"}
    made_with = _made_with(index, folder, given)
    for name, value in given.items():
        if name in made_with and made_with[name] != value:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option}: {folder.path} was made with {_shown(made_with[name])}, got {_shown(value)}; "
                             "leave the option out to add to that index, or choose another folder")
    if "network" in given:
        _check_network(given["network"], index, folder.path)


def _made_with(index: "Index", folder: OutputFolder, given: dict) -> dict:
    """Option -> its value when the index was made."""
    network, settings = index.network.settings, index.settings
    about = {"size": list(settings.sizes), "enlarge": settings.enlarge, "precision": settings.precision,
             **{name: getattr(network, name) for name in ("levels", "grid", "pooling", "regions", "proposals", "dim")}}
    path = folder / _OPTIONS
    if path.exists():
        return about | read_json(path, OutputError, "the options that an index was made with", checksum=True)
    if unknown := [name for name in _LEARNED if name in given]:
        raise InputError(f"--{unknown[0].replace('_', '-')}: {folder.path} doesn't say what it was made with; leave "
                         "the option out to add to that index, or choose another folder")
    return about


def _check_network(name: str, index: "Index", out: Path) -> None:
    """raises InputError unless a network has the weights of the index's: all, or where the index has learned a
    whitening for it, those of the backbone"""
    from rmaclib.checkpoints import fingerprint

    model = open_unwhitened(name)
    model, other = (model, index.network) if model.fc is not None else (model.backbone, index.network.backbone)
    if fingerprint(model) != fingerprint(other):
        raise InputError(f"--network: {out} was made with other weights ({index.network.settings.backbone}), got "
                         f"{name}; leave the option out to add to that index, or choose another folder")


def _shown(value) -> str:
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)
