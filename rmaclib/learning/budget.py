"""What `rmac train` chooses where nothing is given: the paper's settings, or those that suit a device and a collection.

``laptop`` gives all but the number of updates. How many there is time for is measured: see ``Timing``.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rmaclib import presets
from rmaclib.datasets.types import LabelledImages
from rmaclib.learning.classification import WHITENING_IMAGES, ClassificationSettings, train_classification
from rmaclib.learning.folder import measured_folder
from rmaclib.learning.loop import LoopSettings, Trained
from rmaclib.learning.proposals import ProposalSettings, train_proposals
from rmaclib.learning.ranking import RankingSettings, train_ranking
from rmaclib.network import RMAC

STAGES: Mapping[str, type[LoopSettings]] = {
    "ranking": RankingSettings, "classification": ClassificationSettings, "proposals": ProposalSettings}
_TRAIN: Mapping[str, Callable[..., Trained]] = {
    "ranking": train_ranking, "classification": train_classification, "proposals": train_proposals}
# The settings classes have the same defaults; here they are a choice among others. Sections 4.2 and 4.3.
PAPER: dict[str, dict[str, Any]] = {
    "ranking": presets.paper.values("ranking"),
    "classification": presets.paper.values("classification"),
    "proposals": presets.paper.values("proposals"),
}
SMALL = 1000  # images of a collection for which fewer updates do, and of which more are held out for validation
SECONDS = 600  # that a training takes by default, whitening and validation included
_LEAST, _STEP = 8, 4  # updates: no fewer, and how many more at a time
_PROBED, _EACH = 48, 6  # images that an update is measured on, and at most so many of a landmark
# What a GPU has the time for, over the preset of a processor; and updates: of a large collection, on a GPU.
_ON_GPU: Mapping[str, dict[str, Any]] = {
    "ranking": {"size": 512},
    "classification": {"batch": 64, "side": 224, "shorter": (256, 512), "fit": 20_000, "size": 512},
    "proposals": {"size": 800},
}
_UPDATES = {"ranking": (128, 512), "classification": (256, 1024), "proposals": (1024, 2048)}


def laptop(stage: str, device: torch.device, images: int) -> dict[str, Any]:
    """Settings that improve a network in minutes: the preset ``laptop``, with more where there is more time or data.

    Learning rates and schedule are those of the recorded runs on photographs (notebook 03), chosen by validation. A
    small collection on a processor has time for a few updates only, which take a learning rate five times as high.

    Args:
        stage: A name of ``STAGES``.
        device: Where the network is trained.
        images: Images of the training collection.

    Returns:
        Settings of the stage, as ``from_mapping`` takes them.
    """
    on_gpu = device.type == "cuda"
    settings = presets.laptop.values(stage)
    if not on_gpu and images < SMALL:
        return settings
    if stage == "ranking":
        settings |= {"lr": 2e-5, "triplets": 24}
    return settings | (_ON_GPU[stage] if on_gpu else {}) | within(stage, _UPDATES[stage][on_gpu])


def within(stage: str, updates: int) -> dict[str, Any]:
    """The settings that go with a number of updates: a few validations, a short warm-up.

    Args:
        stage: A name of ``STAGES``.
        updates: Steps of the optimizer.

    Returns:
        The updates, and the settings that follow from them.
    """
    pools = {"refresh": min(16, max(4, updates // 4))} if stage == "ranking" else {}
    return {"updates": updates, "warmup": min(16, updates // 8), "evaluate_every": max(1, updates // 8),
            "save_every": max(1, updates // 16), **pools}


@dataclass(frozen=True)
class Timing:
    """How long a training takes, measured on one update.

    Attributes:
        image: Seconds to compute the descriptor of an image.
        update: Seconds of an update beside that.
        before: Images whose descriptors or feature maps are computed before the first update.
        refresh: Images whose descriptors or feature maps are computed for each pool.
        validation: Images whose descriptors are computed in each validation.
    """

    image: float
    update: float
    before: int
    refresh: int
    validation: int

    def seconds(self, settings: LoopSettings) -> float:
        """The time of a training.

        Args:
            settings: Of the training.

        Returns:
            Seconds of all updates, with their pools and validations.
        """
        pools = -(-settings.updates // getattr(settings, "refresh", settings.updates))
        validations = 1 + -(-settings.updates // settings.evaluate_every)
        extracted = self.before + pools * self.refresh + validations * self.validation
        return self.image * extracted + self.update * settings.updates

    def updates(self, stage: str, settings: LoopSettings, seconds: float) -> int:
        """How many updates there is time for.

        Args:
            stage: A name of ``STAGES``.
            settings: Of the training; its updates are the most.
            seconds: The time there is.

        Returns:
            The largest number that takes no longer, but no fewer than eight updates.
        """
        most = settings.updates
        for updates in [most, *range(most - most % _STEP, _LEAST, -_STEP)]:
            if self.seconds(replace(settings, **within(stage, updates))) <= seconds:
                return updates
        return min(_LEAST, most)


def measure(stage: str, network: RMAC, collection: LabelledImages, settings: LoopSettings,
            validation: LabelledImages, out: Path) -> Timing:
    """Train a copy of the network for one update on a sample of the images, and time it.

    Args:
        stage: A name of ``STAGES``.
        network: Stays as it is.
        collection: Training images of the run that is to come.
        settings: Of that run.
        validation: Its validation images.
        out: Its folder, which contains the measurement's files until it ends.

    Returns:
        The time of the run, for any number of updates.
    """
    training_sample, validation_sample = _sample(collection), _sample(validation)
    single_update = replace(settings, updates=1, evaluate_every=1, save_every=2)
    with measured_folder(out) as folder:
        trained = _TRAIN[stage](deepcopy(network), training_sample, single_update, out=folder,
                                validation=validation_sample)
    start, update = (row["seconds"] or 0.0 for row in trained.history)
    _, refresh, validated = _extracted(settings, len(training_sample.names), len(validation_sample.names))
    image = start / max(1, validated)
    counts = _extracted(settings, len(collection.names), len(validation.names))
    return Timing(image, max(update / 10, update - image * (refresh + validated)), *counts)


def _extracted(settings: LoopSettings, images: int, validation: int) -> tuple[int, int, int]:
    """Images computed before the first update, for each pool, in each validation."""
    if isinstance(settings, RankingSettings):
        return 0, min(settings.pool, images), validation
    if isinstance(settings, ClassificationSettings):
        whitening = 0 if settings.dim is None else min(WHITENING_IMAGES, images)
        return min(settings.fit, images), 0, validation + whitening
    if isinstance(settings, ProposalSettings):
        return 0, min(settings.pool, images) * (1 + settings.flip), validation
    raise TypeError(f"settings: expected those of a stage, got {type(settings).__name__}")


def _sample(collection: LabelledImages) -> LabelledImages:
    """A few images of several landmarks, with boxes where there are any."""
    members: dict[int, list[int]] = {}
    boxed = any(box is not None for box in collection.boxes)
    for index, label in enumerate(collection.labels):
        if collection.boxes[index] is not None or not boxed:
            members.setdefault(label, []).append(index)
    largest = sorted(members.values(), key=len, reverse=True)[:_PROBED]  # landmarks of a single image come last
    # Two images of each landmark at a time: single ones would leave landmarks without a pair.
    turns = [[label[place:place + 2] for label in largest] for place in range(0, _EACH, 2)]
    chosen = [index for turn in turns for pair in turn for index in pair][:_PROBED]
    return collection.part(np.sort(chosen).tolist(), f"some of {collection.name}")
