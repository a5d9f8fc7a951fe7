"""rmac train."""

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from rmaclib.checkpoints import is_checkpoint, open_network
from rmaclib.commands.common import choice, command_group, messages, note, say, tell_bad, telling
from rmaclib.commands.network import expected, seconds_per_image
from rmaclib.commands.options import (
    BACKBONES,
    LARGEST_SIDE,
    MOST_LEVELS,
    MOST_SEED,
    DeviceOrNone,
    NoWait,
    Proposals,
    Regions,
    SkipBad,
    number,
    output_folder,
    settings_file,
    text,
    whole,
)
from rmaclib.commands.reading import refuse_outputs
from rmaclib.datasets import LabelledImages, open_collection
from rmaclib.extraction.batches import ExtractionSettings, pick_device
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.files import read_json
from rmaclib.foundation.folders import waiting
from rmaclib.foundation.messages import duration
from rmaclib.foundation.settings import from_mapping, read_yaml
from rmaclib.learning import (
    LOSSES,
    LearningError,
    Trained,
    hold_out,
    train_classification,
    train_proposals,
    train_ranking,
    verified_pairs,
)
from rmaclib.learning.budget import PAPER, SECONDS, SMALL, STAGES, laptop, measure, within
from rmaclib.learning.distributed import is_main, processes, rank_and_count, wait
from rmaclib.learning.folder import (
    BAD,
    BEST,
    CURVES,
    LOG,
    RUN,
    STATE,
    WHITENING,
    need_room,
    read_log,
    read_state,
    training_folder,
)
from rmaclib.learning.loop import OPTIMIZERS, LoopSettings
from rmaclib.learning.whitening import whiten
from rmaclib.network import RMAC, NetworkSettings
from rmaclib.plots import save_figure, training_curves

app = command_group()

_TRAINED_DIM = 512
_SHARE, _SHARE_OF_FEW = 0.1, 0.2  # of the images of each landmark, held out for validation
_MEASURED = tuple(within("ranking", 8))  # settings that follow from how long an update takes
Stage, Loss, Optimizer = choice("Stage", STAGES), choice("Loss", LOSSES), choice("Optimizer", OPTIMIZERS)
Preset = choice("Preset", ("laptop", "paper"))
_RANKING, _PROPOSALS = Stage("ranking"), Stage("proposals")


@app.command("train")
def train_command(
    images: Annotated[str, typer.Argument(
        metavar="COLLECTION", callback=text,
        help="Landmarks list, CSV, folder per landmark, or name of a registered collection.")],
    out: Annotated[Path, typer.Option(parser=output_folder, metavar="FOLDER",
                                      help=f"For {BEST}, {LOG}, and the state of the run: new, empty, or one of "
                                           "a run that goes on.")],
    stage: Annotated[Stage, typer.Option(
        help="What is learned: to rank; before that, to classify landmarks; after it, where they are.")] = _RANKING,
    preset: Annotated[Preset | None, typer.Option(
        help="Settings for minutes on this machine, or the paper's.  [default: laptop]")] = None,
    settings: Annotated[Path | None, typer.Option(
        parser=settings_file, metavar="FILE",
        help="YAML file with any setting, before those of the preset; options go before it.")] = None,
    validation: Annotated[str | None, typer.Option(
        metavar="LIST", callback=text,
        help="Images that choose the best network.  [default: some of COLLECTION, held out]")] = None,
    graphs: Annotated[Path | None, typer.Option(
        metavar="FOLDER", help="Of rmac clean: its verified pairs are the positives.  [default: equal labels]")] = None,
    network: Annotated[str, typer.Option(
        callback=text, help=f"A backbone ({BACKBONES}) or a checkpoint (.safetensors).")] = "efficientnet_lite0",
    levels: Annotated[int | None, typer.Option(
        callback=whole(1, MOST_LEVELS), help="Levels L of the grid.  [default: 2, or the checkpoint's]")] = None,
    dim: Annotated[int | None, typer.Option(
        callback=whole(1),
        help="Dimensions; the layer starts from a whitening.  [default: 512, or the checkpoint's]")] = None,
    size: Annotated[int | None, typer.Option(
        callback=whole(1, LARGEST_SIDE),
        help="Longer side in pixels; in the classification stage, of the validation.  [default: the preset's]")] = None,
    updates: Annotated[int | None, typer.Option(
        callback=whole(1),
        help="Steps of the optimizer.  [default: as many as there is time for; paper: 4096]")] = None,
    optimizer: Annotated[Optimizer | None, typer.Option(help="[default: the preset's]")] = None,
    lr: Annotated[float | None, typer.Option(
        callback=number(0), help="Learning rate.  [default: the preset's]")] = None,
    loss: Annotated[Loss | None, typer.Option(help="What is minimised.  [default: triplet]")] = None,
    regions: Regions = None, proposals: Proposals = None,
    seed: Annotated[int | None, typer.Option(
        callback=whole(0, MOST_SEED), help="Every random choice follows from it.  [default: 0]")] = None,
    device: DeviceOrNone = None,
    whiten_images: Annotated[int, typer.Option(callback=whole(2), help="Images of the whitening.")] = 400,
    skip_bad: SkipBad = False, no_wait: NoWait = False,
) -> None:
    """Train a network to rank, by hard triplets. A killed run goes on when started again, to the same result.

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
      --out trained` (a process for each GPU; they share the images of an update)

    OUT/best.safetensors is the network with the best retrieval among the validation images (in the stage proposals,
    the best recall of their boxes); --network of the other commands takes it. OUT/log.csv has a line for each update,
    and OUT/curves.png shows them at the end.
    --settings FILE takes all settings of rmaclib.learning.RankingSettings, such as `triplets: 32`, or `propose: 8` to
    learn proposals jointly, of ClassificationSettings, such as `batch: 32`, or of ProposalSettings, such as
    `anchors: 9`.
    """
    started = time.monotonic()
    options = {"size": size, "updates": updates, "optimizer": optimizer and optimizer.value, "lr": lr,
               "loss": loss and loss.value, "seed": seed, "device": device}
    given = read_yaml(settings) | {name: value for name, value in options.items() if value is not None}
    source = str(settings or "options")
    first = from_mapping(STAGES[stage.value], given, source)  # refused before anything is read
    _check_options(stage, graphs, dim)
    pick_device(first.device)
    with processes(first.timeout), waiting(not no_wait):
        messages.quiet = not is_main()
        training, held_out = _train_and_validation(images, validation, first.seed, out, skip_bad)
        _check_collection(stage, training, held_out)
        kinds = {"levels": levels, "regions": regions, "proposals": proposals}
        model = _network(network, dim, kinds)
        with training_folder(out) as folder:
            wait()
            run = _Run(stage.value, preset and preset.value, given, source, folder, started)
            trained = _trained(run, model, training, held_out, graphs, validation is None, dim, whiten_images)
            if is_main():
                with telling("drawing the curves"):
                    save_figure(training_curves(trained.history, f"{folder.name}: {stage.value}"), folder / CURVES)
    _tell_result(trained, stage, out)


class _Run:
    """The settings of a run: those given, over those that its start has chosen, or a preset chooses.

    given: settings of file and options; source: where they came from, for errors; started: seconds, when the command
    was
    """

    def __init__(self, stage: str, preset: str | None, given: dict, source: str, folder: Path, started: float):
        self.stage, self.preset, self.given, self.source = stage, preset, given, source
        self.folder, self.started = folder, started
        self.goes_on = (folder / RUN).exists() or (folder / STATE).exists()
        state = read_state(folder)
        self.done, self.run = (state.update, state.run) if state else (0, None)

    def settings(self, images: int) -> LoopSettings:
        """Settings before the updates are counted; images: of the training collection."""
        device = pick_device(self.given.get("device", "auto"))
        chosen = dict(PAPER[self.stage]) if self.preset == "paper" else laptop(self.stage, device, images)
        if self.goes_on:
            names = [name for name in chosen if self.preset is None or name in _MEASURED]
            chosen |= {name: value for name, value in self._chosen_before().items() if name in names}
        elif "updates" in self.given and self.preset != "paper":
            chosen |= within(self.stage, self.given["updates"])
        if "optimizer" in self.given and "lr" not in self.given:
            chosen.pop("lr")  # it belongs to the preset's optimizer
        return from_mapping(STAGES[self.stage], chosen | self.given, self.source)

    def _chosen_before(self) -> dict:
        if self.run is not None:
            return self.run["settings"]
        try:
            before = read_json(self.folder / RUN, LearningError, "what a training run depends on").get("settings")
        except LearningError:
            if self.done:
                raise
            before = None  # nothing was learned: it begins again
            self.goes_on = False
        return before if isinstance(before, dict) else {}

    def timed(self, settings: LoopSettings, model: RMAC, training: LabelledImages,
              held_out: LabelledImages) -> LoopSettings:
        """Says what will be done and how long it takes; chooses the updates of a new run with the laptop's preset."""
        if self.goes_on:
            self._tell_rest(settings)
            return settings
        _tell_settings(self.stage, self.preset or "laptop", settings, self.given, training)
        if rank_and_count()[1] > 1:
            say(f"{settings.updates} updates; how long they take isn't measured with several processes")
            return settings
        say("measuring one update on a few images …")
        timing = measure(self.stage, model, training, settings, held_out, self.folder)
        if self.preset != "paper" and "updates" not in self.given:
            left = SECONDS - (time.monotonic() - self.started)
            chosen = within(self.stage, timing.updates(self.stage, settings, left))
            settings = from_mapping(STAGES[self.stage], asdict(settings) | chosen | self.given, self.source)
        say(f"{settings.updates} updates of about {timing.update:.1f} s, and validation: "
            f"{duration(timing.seconds(settings))}")
        return settings

    def _tell_rest(self, settings: LoopSettings) -> None:
        log = read_log(self.folder / LOG) if (self.folder / LOG).exists() else []
        seconds = [row["seconds"] for row in log if row["seconds"] is not None]
        left = settings.updates - self.done
        about = f", {duration(left * sum(seconds) / len(seconds))}" if seconds and left else ""
        say(f"{self.folder}: goes on with the settings of its start, {left} of {settings.updates} updates "
            f"left{about}")


def _trained(run: _Run, model: RMAC, training: LabelledImages, held_out: LabelledImages, graphs: Path | None,
             same_graphs: bool, dim: int | None, whiten_images: int) -> Trained:
    """same_graphs: the graphs judge the validation images too, which were cleaned with the others."""
    settings = run.settings(len(training.names))
    need_room(run.folder, model, settings.optimizer)
    if run.stage == "ranking":
        positives = held_out_positives = None
        if graphs is not None:
            with telling(f"reading the match graphs in {graphs}"):
                positives = verified_pairs(training, graphs)
                held_out_positives = verified_pairs(held_out, graphs) if same_graphs else None
        if model.fc is None:
            _whiten(run, model, training, settings, dim or _TRAINED_DIM, whiten_images)
        settings = run.timed(settings, model, training, held_out)
        return train_ranking(model, training, settings, out=run.folder, positives=positives, validation=held_out,
                     validation_positives=held_out_positives)
    settings = run.timed(settings, model, training, held_out)
    learn = train_proposals if run.stage == "proposals" else train_classification
    return learn(model, training, settings, out=run.folder, validation=held_out)


def _whiten(run: _Run, model: RMAC, training: LabelledImages, settings: LoopSettings, dim: int, images: int) -> None:
    describing = ExtractionSettings((settings.size,), precision=settings.precision, device=settings.device)
    count = min(images, len(training.names))
    if is_main() and not (run.folder / WHITENING).exists() and dim <= model.backbone.channels:
        say(f"whitening learned on {count} images of {training.name}"
            + expected(count, seconds_per_image(model, training.paths, describing)))
    whiten(model, training, describing, dim=dim, images=images, seed=settings.seed, out=run.folder)


def _check_options(stage: Stage, graphs: Path | None, dim: int | None) -> None:
    for option, value in (("--graphs", graphs), ("--dim", dim)):
        if stage != _RANKING and value is not None:
            raise InputError(f"{option}: expected in the ranking stage only, got {value}; in classification labels are "
                             "learned, by the backbone, and proposals come from boxes")


def _check_collection(stage: Stage, training: LabelledImages, held_out: LabelledImages) -> None:
    """What can be known before anything is computed."""
    for images in (training, held_out):
        if stage == _PROPOSALS and not any(box is not None for box in images.boxes):
            raise LearningError(f"{images.name}: expected images with boxes (`path label x1 x2 y1 y2`, as rmac clean "
                                f"writes them), found none among {len(images.names)}")
        if stage != _PROPOSALS and len(set(images.labels)) < 2:
            raise LearningError(f"{images.name}: expected images of two landmarks or more, found "
                                f"{len(set(images.labels))}")


def _train_and_validation(images: str, validation: str | None, seed: int,
                          out: Path, skip_bad: bool) -> tuple[LabelledImages, LabelledImages]:
    collections = []
    for source in (images, validation):
        if source is None:
            continue
        with telling(f"looking for images in {source}"):
            collection = open_collection(source, skip_bad)
        if not os.path.isfile(source):  # a list may lie beside its results
            refuse_outputs(out, collection)
        for sentence in collection.notes:
            note(sentence)
        collections.append(collection)
    if validation is not None:
        return collections[0], collections[1]
    # Of few images a tenth would be too few to tell a better network from luck.
    training, held_out = hold_out(collections[0], _SHARE_OF_FEW if len(collections[0].names) < SMALL else _SHARE, seed)
    say(f"{len(held_out.names)} of {len(collections[0].names)} images held out for validation (--validation "
        "LIST to choose them)")
    return training, held_out


def _network(network: str, dim: int | None, kinds: dict) -> RMAC:
    """A checkpoint, or a backbone without a whitening; kinds: settings of the network, None where not given."""
    if kinds["levels"] is None and not is_checkpoint(network):
        kinds["levels"] = NetworkSettings.levels  # the paper's, where it trains; off the shelf 3 is better
    with telling(f"opening {network}"):
        model = open_network(network, **{name: value for name, value in kinds.items() if value is not None})
    if dim is not None and model.settings.dim is not None and dim != model.settings.dim:
        raise InputError(f"--dim: expected {model.settings.dim}, the dimensions of {network}, got {dim}")
    return model


def _tell_settings(stage: str, preset: str, settings: LoopSettings, given: dict, training: LabelledImages) -> None:
    names = [name for name in PAPER[stage] if name not in ("momentum", "drop_at", "evaluate_every", "warmup")]
    values = asdict(settings)
    shown = ", ".join(f"{name} {values[name]}" for name in [*names, *(set(given) - set(names))]
                      if name != "updates" or name in given)
    counts = training.counts
    say(f"preset {preset}, on {pick_device(settings.device)}, for {counts['images']} images of "
        f"{counts['landmarks']} landmarks: {shown}")


def _tell_result(trained: Trained, stage: Stage, out: Path) -> None:
    tell_bad(trained.bad.items(), out / BAD)
    start = trained.history[0]["validation"]
    measured = "average recall of boxes" if stage == _PROPOSALS else "mAP"
    say(f"validation {measured} {start:.4f} before, {trained.score:.4f} after {trained.best_update} of "
        f"{int(trained.history[-1]['update'])} updates\nnetwork: {out / BEST}\ncurves: {out / CURVES}")
