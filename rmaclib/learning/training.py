"""From a collection to a trained network in one call: ``train``, which ``rmac train`` calls too.

What is done, and how long it takes, goes to the logger "rmaclib", at level INFO; ``rmac train`` prints it.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from rmaclib.checkpoints import checkpoint_file, open_network
from rmaclib.datasets import LabelledImages, open_apart
from rmaclib.extraction.batches import pick_device
from rmaclib.foundation.errors import InputError
from rmaclib.foundation.messages import duration, tell
from rmaclib.foundation.settings import from_mapping, one_of, settings
from rmaclib.learning.budget import SECONDS, SMALL, STAGES, measure
from rmaclib.learning.classification import ClassificationSettings, train_classification
from rmaclib.learning.distributed import is_main, rank_and_count, wait
from rmaclib.learning.errors import LearningError
from rmaclib.learning.folder import CURVES, WHITENING, need_room, note_once, training_folder
from rmaclib.learning.frozen import early_parameters
from rmaclib.learning.loop import Trained
from rmaclib.learning.optimization import Count, LoopSettings
from rmaclib.learning.pairs import Positives, verified_pairs
from rmaclib.learning.plan import Plan, Preset, StageName
from rmaclib.learning.proposals import ProposalSettings, train_proposals
from rmaclib.learning.ranking import RankingSettings, train_ranking
from rmaclib.learning.validation import hold_out
from rmaclib.learning.whitening import whiten
from rmaclib.network import RMAC, NetworkSettings, create_network
from rmaclib.networks import DEFAULT
from rmaclib.presets import laptop

_DIM = 512  # of a whitening, where nothing else is requested
_SHARE, _SHARE_OF_FEW = 0.1, 0.2  # of the images of each landmark, held out for validation

Source = str | os.PathLike | LabelledImages


@settings
class StartSettings:
    """The whitening from which ranking starts, for a network without one.

    Attributes:
        dim: Dimensions of the descriptor; None: 512, or as many as the network has.
        whiten_images: Training images that it is learned on.
    """

    dim: Count | None = None
    whiten_images: Count = 400


def train(collection: Source, *, out: str | os.PathLike, stage: StageName = "ranking", preset: Preset | None = None,
          network: str | os.PathLike | NetworkSettings | RMAC | None = None, validation: Source | None = None,
          graphs: str | os.PathLike | None = None, settings: Mapping[str, Any] | None = None) -> Trained:
    """Train a network on a collection (Section 4.2 and 4.3): the whole way, in one call.

    Validation images are held out, settings chosen for the device and the time of an update (about ten minutes in all),
    a whitening is learned, the network is trained, and its curves are drawn. A killed run given the same arguments
    again goes on, with the settings of its start, and gives the same result.

    Example::

        trained = rmaclib.train("my_landmarks", out="trained", settings={"updates": 100})
        print(trained.score, trained.network)

    Args:
        collection: Labelled images, or their folder, list or registered name. Proposals need boxes.
        out: Folder for best.safetensors, log.csv, curves.png and the state: new, empty, or of a run that goes on.
        stage: "classification", "ranking" or "proposals".
        preset: "laptop" or "paper": what is not in settings. Default: of a new run the laptop's.
        network: For ``open_network``, new settings, or a network (changed in place). Default: start_network's.
        validation: Images that choose the best network, as collection. Default: some of the collection, held out.
        graphs: Folder of ``rmac clean``: its verified pairs are the positives. Default: images of one label.
        settings: Of the stage, such as ``RankingSettings``, by name; with ranking also those of ``StartSettings``.

    Returns:
        The best network, and how training went.

    Raises:
        InputError: An argument or a setting that can't be used.
        LearningError: A collection that can't be learned from, training that diverges, another run's folder.
        OutputError: A folder with other things in it, or in the folder that the images are read from.
    """
    started = time.monotonic()
    one_of("stage", stage, get_args(StageName))
    if preset is not None:
        one_of("preset", preset, get_args(Preset))
    given, start = _split(stage, settings or {})
    first = from_mapping(STAGES[stage], given)  # before anything is read
    if graphs is not None and stage != "ranking":
        raise InputError(f"graphs: expected with the stage ranking only, got {graphs} with {stage}")
    pick_device(first.device)
    training, held_out = _training_and_validation(collection, validation, first.seed, out)
    for images in (training, held_out):
        _check_images(stage, images)
    model, start = _open(network or start_network(stage, given), start)
    with training_folder(out) as folder:
        wait()  # until the main process has the folder
        plan = Plan(stage, preset, given, folder)
        positives = Positives()
        if graphs is not None:
            _tell(f"reading the match graphs in {graphs}")
            # Images held out here were cleaned with the others.
            positives = Positives(verified_pairs(training, graphs),
                                  verified_pairs(held_out, graphs) if validation is None else None)
        trained = _train(plan, model, training, held_out, positives, start, started)
        if is_main():
            from rmaclib.plots import save_figure, training_curves

            save_figure(training_curves(trained.history, f"{folder.name}: {stage}"), folder / CURVES)
    return trained


def start_network(stage: StageName, settings: Mapping[str, Any]) -> str:
    """Name the network that a stage starts from where none is given: the trained network of the package.

    Proposals need a network of one feature map, and start from an untrained one.

    Args:
        stage: As of ``train``.
        settings: Of the stage.

    Returns:
        For ``checkpoints.open_network``.
    """
    proposes = stage == "proposals" or settings.get("propose")
    return laptop.backbone if proposes else DEFAULT


def _tell(text: str) -> None:
    """Tell what is being done, in the main process only."""
    if is_main():
        tell(text)


def _split(stage: StageName, given: Mapping[str, Any]) -> tuple[dict[str, Any], StartSettings]:
    """The settings of the stage, and those of the whitening that ranking starts from."""
    names = ("dim", "whiten_images") if stage == "ranking" else ()
    return ({name: value for name, value in given.items() if name not in names},
            from_mapping(StartSettings, {name: given[name] for name in names if name in given}))


def _training_and_validation(collection: Source, validation: Source | None, seed: int,
                             out: str | os.PathLike) -> tuple[LabelledImages, LabelledImages]:
    images = open_apart(collection, out, note_once)
    if validation is not None:
        return images, open_apart(validation, out, note_once)
    # A tenth of a small collection would be too few images: the better network could be luck.
    training, held_out = hold_out(images, _SHARE_OF_FEW if len(images.names) < SMALL else _SHARE, seed)
    _tell(f"{len(held_out.names)} of {len(images.names)} images held out for validation (give a validation list to "
          "choose them)")
    return training, held_out


def _check_images(stage: StageName, images: LabelledImages) -> None:
    """What can be known before anything is computed."""
    if stage == "proposals" and not any(box is not None for box in images.boxes):
        raise LearningError(f"{images.name}: expected images with boxes (`path label x1 x2 y1 y2`, as rmac clean "
                            f"writes them), found none among {len(images.names)}")
    if stage != "proposals" and len(set(images.labels)) < 2:
        raise LearningError(f"{images.name}: expected images of two landmarks or more, found "
                            f"{len(set(images.labels))}")


def _open(network: str | os.PathLike | NetworkSettings | RMAC, start: StartSettings) -> tuple[RMAC, StartSettings]:
    """The network, and the whitening that it starts from, where its settings have the dimensions."""
    if isinstance(network, NetworkSettings):
        if None not in (network.dim, start.dim) and network.dim != start.dim:
            raise InputError(f"dim: expected {network.dim}, that of the network's settings, got {start.dim}")
        values = {**vars(network), "dim": None}
        start = StartSettings(start.dim if network.dim is None else network.dim, start.whiten_images)
        return create_network(NetworkSettings(**values)), start
    if not isinstance(network, RMAC):
        name = os.fspath(network)
        # The paper's L where a backbone is trained; off the shelf 3 is better.
        network = open_network(name, **({} if checkpoint_file(name) else {"levels": NetworkSettings.levels}))
    if start.dim is not None and network.settings.dim not in (None, start.dim):
        raise InputError(f"dim: expected {network.settings.dim}, the dimensions of the network, got {start.dim}; an "
                         f"untrained network, such as {laptop.backbone!r}, has any")
    return network, start


def _train(plan: Plan, model: RMAC, training: LabelledImages, validation: LabelledImages, positives: Positives,
           start: StartSettings, started: float) -> Trained:
    """Whitening, number of updates, and the stage itself; started: when the run was, in seconds."""
    settings = plan.settings(len(training.names))
    if settings.frozen is not None:
        early_parameters(model.backbone, settings.frozen)  # or an error, before anything is computed
    need_room(plan.folder, model, settings.optimizer)
    if isinstance(settings, RankingSettings) and model.fc is None:
        _whiten(plan.folder, model, training, settings, start)
    settings = _timed(plan, settings, model, training, validation, started)
    if isinstance(settings, RankingSettings):
        return train_ranking(model, training, settings, out=plan.folder, positives=positives, validation=validation)
    if isinstance(settings, ProposalSettings):
        return train_proposals(model, training, settings, out=plan.folder, validation=validation)
    if isinstance(settings, ClassificationSettings):
        return train_classification(model, training, settings, out=plan.folder, validation=validation)
    raise TypeError(f"settings: expected those of a stage, got {type(settings).__name__}")


def _whiten(folder: Path, model: RMAC, training: LabelledImages, settings: RankingSettings,
            start: StartSettings) -> None:
    dim = start.dim or min(_DIM, model.backbone.dims[-1])
    if not (folder / WHITENING).exists() and dim in model.backbone.dims:
        _tell(f"whitening learned on {min(start.whiten_images, len(training.names))} images of {training.name}")
    whiten(model, training, settings.extraction, dim=dim, images=start.whiten_images, seed=settings.seed, out=folder)


def _timed(plan: Plan, settings: LoopSettings, model: RMAC, training: LabelledImages, validation: LabelledImages,
           started: float) -> LoopSettings:
    """Tells what is going to be done and how long it takes; chooses the updates of a new run."""
    if plan.goes_on:
        _tell(plan.rest(settings))
        return settings
    _tell(plan.summary(settings, training))
    if rank_and_count()[1] > 1:
        _tell(f"{settings.updates} updates; how long they take isn't measured with several processes")
        return settings
    _tell("measuring one update on a few images …")
    timing = measure(plan.stage, model, training, settings, validation, plan.folder)
    settings = plan.in_time(settings, timing, SECONDS - (time.monotonic() - started))
    _tell(f"{settings.updates} updates of about {timing.update:.1f} s, and validation: "
          f"{duration(timing.seconds(settings))}")
    return settings
