"""rmac train."""

from pathlib import Path
from typing import Annotated

import typer

from rmaclib.checkpoints import is_checkpoint
from rmaclib.commands.common import choice, command_group, messages, tell_bad, tell_missing
from rmaclib.commands.network import open_unwhitened
from rmaclib.commands.options import Network, Proposals, Regions, WhitenImages
from rmaclib.datasets import LabelledImages, open_collection
from rmaclib.files import whole_file
from rmaclib.learning import (
    LOSSES,
    ClassifySettings,
    ProposeSettings,
    Trained,
    TrainSettings,
    hold_out,
    train,
    train_classifier,
    train_proposals,
    verified_pairs,
)
from rmaclib.learning.distributed import is_main, processes
from rmaclib.learning.loop import BEST, OPTIMIZERS
from rmaclib.plots import training_curves
from rmaclib.rmac import RMAC, NetworkSettings
from rmaclib.search.descriptors import DescribeSettings, learn_whitening
from rmaclib.search.retrieval import training_sample
from rmaclib.settings import from_mapping, read_yaml

app = command_group()

_TRAINED_DIM = 512
_CURVES = "curves.png"
_STAGES = {"ranking": TrainSettings, "classification": ClassifySettings, "proposals": ProposeSettings}
Stage, Loss, Optimizer = choice("Stage", _STAGES), choice("Loss", LOSSES), choice("Optimizer", OPTIMIZERS)
_RANKING, _PROPOSALS = Stage("ranking"), Stage("proposals")


@app.command("train")
def train_command(
    images: Annotated[str, typer.Argument(
        metavar="COLLECTION", help="Landmarks list, CSV, folder per landmark, or name of a registered collection.")],
    out: Annotated[Path, typer.Option(help=f"Folder for {BEST}, log.csv, and the state of the run.")],
    stage: Annotated[Stage, typer.Option(
        help="What is learned: to rank; before that, to name landmarks; after it, where they are.")] = _RANKING,
    settings: Annotated[Path | None, typer.Option(help="YAML file with any setting; options go before it.")] = None,
    validation: Annotated[str | None, typer.Option(
        metavar="LIST", help="Images that choose the best network.  [default: some of COLLECTION, held out]")] = None,
    graphs: Annotated[Path | None, typer.Option(
        metavar="FOLDER", help="Of rmac clean: its verified pairs are the positives.  [default: equal labels]")] = None,
    network: Network = "efficientnet_lite0",
    levels: Annotated[int | None, typer.Option(help="Levels L of the grid.  [default: 2, or the checkpoint's]")] = None,
    dim: Annotated[int | None, typer.Option(
        help="Dimensions; the layer starts from a whitening.  [default: 512, or the checkpoint's]")] = None,
    size: Annotated[int | None, typer.Option(
        help="Longer side in pixels; in the classification stage, of the validation.  [default: 800; 512]")] = None,
    updates: Annotated[int | None, typer.Option(help="Steps of the optimizer.  [default: 4096]")] = None,
    optimizer: Annotated[Optimizer | None, typer.Option(help="[default: sgd]")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.  [default: 1e-3; 1e-5 for adamw]")] = None,
    loss: Annotated[Loss | None, typer.Option(help="What is minimised.  [default: triplet]")] = None,
    regions: Regions = None, proposals: Proposals = None,
    seed: Annotated[int | None, typer.Option(help="Every random choice follows from it.  [default: 0]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps …  [default: auto]")] = None,
    whiten_images: WhitenImages = 400,
) -> None:
    """Train a network to rank, by hard triplets. A killed run goes on when started again, to the same result.

    Examples:

    - `rmac train my_landmarks --out trained --size 320 --updates 640` (a folder per landmark is enough)

    - `rmac train clean/annotation_clean.txt --graphs clean --validation my_validation --out trained`

    - `rmac train landmarks_full --validation landmarks_full_val --network resnet101 --stage classification --out named`

    - `rmac train landmarks_clean --validation landmarks_clean_val --network named/best.safetensors --dim 2048 --out
      ranked`

    - `rmac train clean/annotation_clean.txt --stage proposals --validation clean_val/annotation_clean.txt --network
      ranked/best.safetensors --out proposing`

    - `torchrun --nproc-per-node 8 -m rmaclib train landmarks_clean --validation landmarks_clean_val --out trained` (a
      process for each GPU; they share the images of an update)

    OUT/best.safetensors is the network with the best retrieval among the validation images (in the stage proposals,
    the best recall of their boxes); --network of the other commands takes it. OUT/log.csv has a line for each update,
    and OUT/curves.png shows them at the end.
    --settings FILE takes all settings of rmaclib.learning.TrainSettings, such as `triplets: 32`, or `propose: 8` to
    learn proposals jointly, of ClassifySettings, such as `batch: 32`, or of ProposeSettings, such as `anchors: 9`.
    """
    options = {"size": size, "updates": updates, "optimizer": optimizer and optimizer.value, "lr": lr,
               "loss": loss and loss.value, "seed": seed, "device": device}
    chosen = from_mapping(_STAGES[stage.value], read_yaml(settings) | {
        name: value for name, value in options.items() if value is not None}, str(settings or "options"))
    if stage != _RANKING and (graphs is not None or dim is not None):
        raise ValueError("--graphs and --dim belong to the ranking stage; in classification labels are learned, by "
                         "the backbone, and proposals come from boxes")
    with processes(chosen.timeout):
        messages.quiet = not is_main()
        training, held_out = _train_and_validation(images, validation, chosen.seed)
        if levels is None and not is_checkpoint(network):
            levels = NetworkSettings.levels  # the paper's, where it trains; off the shelf 3 is better
        model = open_unwhitened(network, dim, levels=levels, regions=regions, proposals=proposals)
        if stage == _PROPOSALS:
            trained = train_proposals(model, training, chosen, out=out, validation=held_out)
        elif stage == _RANKING:
            trained = _train_ranking(model, training, held_out, chosen, out, graphs, validation is None, dim,
                                     whiten_images)
        else:
            trained = train_classifier(model, training, chosen, out=out, validation=held_out)
        if is_main():
            with whole_file(out / _CURVES) as temporary:
                training_curves(trained.history, f"{out.name}: {stage.value}").savefig(temporary, format="png", dpi=130)
    tell_bad(trained.bad.items(), out / "bad.txt")
    start = trained.history[0]["validation"]
    measure = "average recall of boxes" if stage == _PROPOSALS else "mAP"
    messages.print(f"validation {measure} {start:.4f} before, {trained.score:.4f} after {trained.best_update} of "
                    f"{chosen.updates} updates\nnetwork: {out / BEST}\ncurves: {out / _CURVES}", soft_wrap=True)


def _train_ranking(model: RMAC, training: LabelledImages, held_out: LabelledImages, chosen: TrainSettings, out: Path,
                   graphs: Path | None, same_graphs: bool, dim: int | None, whiten_images: int) -> Trained:
    """same_graphs: the graphs judge the validation images too, which were cleaned with the others."""
    positives = None if graphs is None else verified_pairs(training, graphs)
    held_out_positives = verified_pairs(held_out, graphs) if graphs is not None and same_graphs else None
    if model.fc is None:
        describing = DescribeSettings((chosen.size,), precision=chosen.precision, device=chosen.device)
        sample = training_sample(training, whiten_images, chosen.seed)
        messages.print(f"whitening learned on {len(sample)} images of {training.name}")
        model.set_whitening(learn_whitening(model, sample, describing, dim=dim or _TRAINED_DIM))
    return train(model, training, chosen, out=out, positives=positives, validation=held_out,
                 validation_positives=held_out_positives)


def _train_and_validation(images: str, validation: str | None, seed: int) -> tuple[LabelledImages, LabelledImages]:
    collection = open_collection(images)
    tell_missing(collection.missing)
    if validation is not None:
        held_out = open_collection(validation)
        tell_missing(held_out.missing)
        return collection, held_out
    training, held_out = hold_out(collection, seed=seed)
    messages.print(f"{len(held_out.names)} of {len(collection.names)} images held out for validation (--validation "
                    "LIST to choose them)")
    return training, held_out
