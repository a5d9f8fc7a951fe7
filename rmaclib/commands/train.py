"""rmac train."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rmaclib import presets
from rmaclib.commands.common import command_group, messages, say, tell_bad, telling
from rmaclib.commands.options import (
    LARGEST_SIDE,
    MOST_LEVELS,
    MOST_SEED,
    NETWORKS,
    DeviceOrNone,
    NoWait,
    Regions,
    SkipBad,
    number,
    output_folder,
    settings_file,
    text,
    whole,
)
from rmaclib.commands.reading import read_photographs
from rmaclib.datasets import open_collection
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.folders import waiting
from rmaclib.foundation.settings import from_mapping, read_yaml

if TYPE_CHECKING:
    from rmaclib.learning import Trained
    from rmaclib.network import RMAC

app = command_group()

# The words of rmaclib.learning, here without loading it: a mistyped option is an error at once.
Stage = Literal["ranking", "classification", "proposals"]


@app.command("train")
def train_command(
    images: Annotated[str, typer.Argument(
        metavar="COLLECTION", callback=text,
        help="Landmarks list, CSV, folder per landmark, or name of a registered collection.")],
    out: Annotated[Path, typer.Option(
        parser=output_folder, metavar="FOLDER",
        help="For best.safetensors, log.csv, and the state of the run: new, empty, or one of a run that goes on.")],
    stage: Annotated[Stage, typer.Option(
        help="What is learned: to rank; before that, to classify landmarks; after it, where they are.")] = "ranking",
    preset: Annotated[Literal["laptop", "paper"] | None, typer.Option(
        help="Settings for minutes on this machine, or the paper's.  [default: laptop]")] = None,
    settings: Annotated[Path | None, typer.Option(
        parser=settings_file, metavar="FILE",
        help="YAML file with any setting, before those of the preset; options go before it.")] = None,
    validation: Annotated[str | None, typer.Option(
        metavar="LIST", callback=text,
        help="Images that choose the best network.  [default: some of COLLECTION, held out]")] = None,
    graphs: Annotated[Path | None, typer.Option(
        metavar="FOLDER", help="Of rmac clean: its verified pairs are the positives.  [default: equal labels]")] = None,
    network: Annotated[str | None, typer.Option(
        callback=text, help=f"{NETWORKS}  [default: {presets.laptop.default_network}; to learn proposals, which needs "
                            f"one feature map, {presets.laptop.backbone}]")] = None,
    levels: Annotated[int | None, typer.Option(
        callback=whole(1, MOST_LEVELS),
        help="Levels L of the grid.  [default: the trained network's; of a backbone 2]")] = None,
    dim: Annotated[int | None, typer.Option(
        callback=whole(1),
        help="Dimensions; the layer starts from a whitening.  [default: the trained network's; of a backbone 512]"
    )] = None,
    size: Annotated[int | None, typer.Option(
        callback=whole(1, LARGEST_SIDE),
        help="Longer side in pixels; in the classification stage, of the validation.  [default: the preset's]")] = None,
    smallest: Annotated[int | None, typer.Option(
        callback=whole(1, LARGEST_SIDE),
        help="Least longer side of training images, which are resized at random up to --size.  [default: --size]"
    )] = None,
    frozen: Annotated[str | None, typer.Option(
        metavar="LAYER", callback=text,
        help="The backbone's layers up to this one, such as blocks.3, keep their weights.  [default: all learn]"
    )] = None,
    updates: Annotated[int | None, typer.Option(
        callback=whole(1),
        help="Steps of the optimizer.  [default: as many as there is time for; paper: 4096]")] = None,
    patience: Annotated[int | None, typer.Option(
        callback=whole(1),
        help="Validations in a row without a better score, after which training ends.  [default: it goes on]")] = None,
    optimizer: Annotated[Literal["sgd", "adamw"] | None, typer.Option(help="[default: the preset's]")] = None,
    lr: Annotated[float | None, typer.Option(
        callback=number(0), help="Learning rate.  [default: the preset's]")] = None,
    loss: Annotated[Literal["triplet", "contrastive", "average_precision"] | None, typer.Option(
        help="What is minimised.  [default: triplet]")] = None,
    regions: Regions = None,
    proposals: Annotated[int | None, typer.Option(
        callback=whole(1),
        help="Region proposals of an image, at most.  [default: 32, or the trained network's]")] = None,
    seed: Annotated[int | None, typer.Option(
        callback=whole(0, MOST_SEED), help="Every random choice follows from it.  [default: 0]")] = None,
    device: DeviceOrNone = None,
    whiten_images: Annotated[int, typer.Option(callback=whole(2), help="Images of the whitening.")] = 400,
    skip_bad: SkipBad = False, no_wait: NoWait = False,
) -> None:
    """Train a network: to rank images by hard triplets, to classify landmarks, or to propose regions (`--stage`). A
    killed run goes on when started again, to the same result.

    Examples:

    - `rmac train my_landmarks --out trained` (a folder per landmark is enough): minutes on a laptop; it says how many
      before it starts

    - `rmac train clean/annotation_clean.txt --graphs clean --validation my_validation --out trained`

    - `rmac train landmarks_full --validation landmarks_full_val --network resnet101 --stage classification --preset
      paper --out classified`

    - `rmac train landmarks_clean --validation landmarks_clean_val --network classified/best.safetensors --dim 2048
      --preset paper --out ranked`

    - `rmac train clean/annotation_clean.txt --stage proposals --validation clean_val/annotation_clean.txt --network
      ranked/best.safetensors --out proposing`

    - `torchrun --nproc-per-node 8 -m rmaclib train landmarks_clean --validation landmarks_clean_val --preset paper
      --network resnet101 --out trained` (a process for each GPU; they share the images of an update)

    OUT/best.safetensors is the network with the best retrieval among the validation images (in the stage proposals,
    the best recall of their boxes); --network of the other commands takes it. OUT/log.csv has a line for each update,
    and OUT/curves.png shows them at the end.
    --settings FILE takes all settings of rmaclib.learning.RankingSettings, such as `triplets: 32`, or `propose: 8` to
    learn proposals jointly, of ClassificationSettings, such as `batch: 32`, or of ProposalSettings, such as
    `anchors: 9`.
    """
    given = _settings(stage, settings, {"size": size, "smallest": smallest, "frozen": frozen, "updates": updates,
                                        "patience": patience, "optimizer": optimizer, "lr": lr, "loss": loss,
                                        "seed": seed, "device": device})
    for option, value in (("--graphs", graphs), ("--dim", dim)):
        if stage != "ranking" and value is not None:
            raise InputError(f"{option}: expected in the ranking stage only, got {value}; in classification labels are "
                             "learned, by the backbone, and proposals come from boxes")
    if stage == "ranking":
        given |= {"whiten_images": whiten_images} | ({} if dim is None else {"dim": dim})
    from rmaclib.learning import LoopSettings, train
    from rmaclib.learning.distributed import is_main, processes
    from rmaclib.learning.training import start_network

    timeout = given.get("timeout", LoopSettings.timeout)
    with processes(timeout), waiting(not no_wait), _naming_the_file(settings):
        messages.quiet = not is_main()
        collection = read_photographs(images, out, skip_bad, open_collection)
        held_out = None if validation is None else read_photographs(validation, out, skip_bad,
                                                                        open_collection)
        model = _open_network(network or start_network(stage, given), dim,
                              {"levels": levels, "regions": regions, "proposals": proposals})
        trained = train(collection, out=out, stage=stage, preset=preset, network=model, validation=held_out,
                        graphs=graphs, settings=given)
    _tell_result(trained, stage, out)


def _settings(stage: Stage, file: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """What file and options give, checked before anything is read."""
    given = read_yaml(file) | {name: value for name, value in options.items() if value is not None}
    with telling("loading PyTorch"):
        from rmaclib.extraction.batches import pick_device
        from rmaclib.learning.budget import STAGES
    pick_device(from_mapping(STAGES[stage], given, str(file or "options")).device)
    return given


@contextmanager
def _naming_the_file(file: Path | None) -> Iterator[None]:
    """Settings that are good by themselves may not fit to those of the preset: the error names where they come from."""
    try:
        yield
    except InputError as error:
        if not str(error).startswith("settings: "):
            raise
        raise InputError(f"{file or 'options'}: {str(error).removeprefix('settings: ')}") from error


def _open_network(network: str, dim: int | None, options: dict[str, Any]) -> "RMAC":
    """A trained network, or a backbone without a whitening; options: settings of the network, None where not given."""
    from rmaclib.checkpoints import checkpoint_file, open_network
    from rmaclib.network import NetworkSettings

    if options["levels"] is None and checkpoint_file(network) is None:
        options["levels"] = NetworkSettings.levels  # the paper's, where it trains; off the shelf 3 is better
    with telling(f"opening {network}"):
        model = open_network(network, **{name: value for name, value in options.items() if value is not None})
    if dim is not None and model.settings.dim is not None and dim != model.settings.dim:
        raise InputError(f"--dim: expected {model.settings.dim}, the dimensions of {network}, got {dim}; an untrained "
                         f"network has any: --network {presets.laptop.backbone}")
    return model


def _tell_result(trained: "Trained", stage: Stage, out: Path) -> None:
    from rmaclib.learning.folder import BAD, BEST, CURVES

    tell_bad(trained.bad.items(), out / BAD)
    start, end = trained.history[0], trained.history[-1]
    measured = "average recall of boxes" if stage == "proposals" else "mAP"
    say(f"validation {measured} {start['validation'] or 0:.4f} before, {trained.score or 0:.4f} after "
        f"{trained.best_update} of {end['update'] or 0:.0f} updates\nnetwork: {out / BEST}\ncurves: {out / CURVES}")
