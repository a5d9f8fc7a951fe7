"""What `rmac train` chooses where nothing is given: the paper's settings, or those that suit a device and a collection.

laptop() gives all but the number of updates; how many there is time for is measured: see Timing.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from rmaclib.datasets.types import LabelledImages
from rmaclib.learning.classification import WHITENING_IMAGES, ClassificationSettings, train_classification
from rmaclib.learning.folder import measured_folder
from rmaclib.learning.loop import LoopSettings, Trained
from rmaclib.learning.proposals import ProposalSettings, train_proposals
from rmaclib.learning.ranking import RankingSettings, train_ranking
from rmaclib.network import RMAC

STAGES = {"ranking": RankingSettings, "classification": ClassificationSettings, "proposals": ProposalSettings}
_TRAIN = {"ranking": train_ranking, "classification": train_classification, "proposals": train_proposals}
_SGD = {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-5, "schedule": "step", "drop_at": 0.5,
        "warmup": 0, "updates": 4096, "evaluate_every": 64}
# The settings classes have the same defaults; here they are a choice among others. Section 4.2 and 4.3.
PAPER: dict[str, dict] = {
    "ranking": {**_SGD, "triplets": 64, "pool": 5000, "refresh": 64, "size": 800},
    "classification": {**_SGD, "batch": 64, "shorter": (256, 512), "side": 224, "fit": 20_000, "size": 512},
    "proposals": {**_SGD, "images": 16, "size": 800},
}
_ADAMW = {"optimizer": "adamw", "weight_decay": 1e-4, "schedule": "cosine"}
SMALL = 1000  # images of a collection for which fewer updates do, and more of which judge
SECONDS = 600  # that a training takes by default, whitening and validation included
_LEAST, _STEP = 8, 4  # updates: no fewer, and how many more at a time
_PROBED, _EACH = 48, 6  # images that an update is measured on, and at most so many of a landmark


def laptop(stage: str, device: torch.device, images: int) -> dict:
    """Settings that improve a network in minutes; images: of the training collection.

    Learning rates and schedule are those of the recorded runs on photographs (notebook 03), chosen by validation. A
    small collection on a processor has time for a few updates only: it learns five times as fast.
    """
    on_gpu, small = device.type == "cuda", images < SMALL
    if stage == "ranking":
        few = small and not on_gpu
        return {**_ADAMW, "lr": 1e-4 if few else 2e-5, "size": 512 if on_gpu else 320, "triplets": 16 if few else 24,
                "pool": 1500, **within(stage, 512 if on_gpu else 32 if small else 128)}
    if stage == "classification":
        return {**_ADAMW, "lr": 1e-4, "batch": 64 if on_gpu else 32, "side": 224 if on_gpu else 160,
                "shorter": (256, 512) if on_gpu else (160, 256), "fit": 20_000 if on_gpu else 2000,
                "size": 512 if on_gpu else 320, **within(stage, 1024 if on_gpu else 64 if small else 256)}
    return {**_ADAMW, "lr": 1e-3, "images": 16, "size": 800 if on_gpu else 320,
            **within(stage, 2048 if on_gpu else 256 if small else 1024)}


def within(stage: str, updates: int) -> dict:
    """The settings that go with a number of updates: a few validations, a short warm-up."""
    more = {"refresh": min(16, max(4, updates // 4))} if stage == "ranking" else {}
    return {"updates": updates, "warmup": min(16, updates // 8), "evaluate_every": max(1, updates // 8),
            "save_every": max(1, updates // 16), **more}


@dataclass(frozen=True)
class Timing:
    """How long a training takes, measured on one update.

    image: seconds to compute the descriptor of an image; update: seconds of an update beside that
    before, refresh, validation: images whose descriptors or maps are computed before the first update, for each pool,
    and in each validation
    """

    image: float
    update: float
    before: int
    refresh: int
    validation: int

    def seconds(self, settings: LoopSettings) -> float:
        """Of all updates with their pools and validations."""
        pools = -(-settings.updates // getattr(settings, "refresh", settings.updates))
        validations = 1 + -(-settings.updates // settings.evaluate_every)
        described = self.before + pools * self.refresh + validations * self.validation
        return self.image * described + self.update * settings.updates

    def updates(self, stage: str, settings: LoopSettings, seconds: float) -> int:
        """How many there is time for, at most those of the settings."""
        most = settings.updates
        for updates in [most, *range(most - most % _STEP, _LEAST, -_STEP)]:
            if self.seconds(replace(settings, **within(stage, updates))) <= seconds:
                return updates
        return min(_LEAST, most)


def measure(stage: str, network: RMAC, collection: LabelledImages, settings: LoopSettings,
            validation: LabelledImages, out: Path) -> Timing:
    """Trains a copy of the network for one update on a few of the images and times it; out: folder of the run that is
    to come, which has its files for so long."""
    some, judged = _some(collection), _some(validation)
    once = replace(settings, updates=1, evaluate_every=1, save_every=2)
    with measured_folder(out) as folder:
        trained: Trained = _TRAIN[stage](deepcopy(network), some, once, out=folder, validation=judged)
    start, update = (row["seconds"] for row in trained.history)
    _, refresh, validated = _described(stage, settings, len(some.names), len(judged.names))
    image = start / max(1, validated)
    counts = _described(stage, settings, len(collection.names), len(validation.names))
    return Timing(image, max(update / 10, update - image * (refresh + validated)), *counts)


def _described(stage: str, settings: LoopSettings, images: int, validation: int) -> tuple[int, int, int]:
    """Images computed before the first update, for each pool, in each validation."""
    if stage == "ranking":
        return 0, min(settings.pool, images), validation
    if stage == "classification":
        whitening = 0 if settings.dim is None else min(WHITENING_IMAGES, images)
        return min(settings.fit, images), 0, validation + whitening
    return 0, min(settings.pool, images) * (1 + settings.flip), validation


def _some(collection: LabelledImages) -> LabelledImages:
    """A few images of several landmarks, with boxes where there are any."""
    members: dict[int, list[int]] = {}
    boxed = any(box is not None for box in collection.boxes)
    for index, label in enumerate(collection.labels):
        if collection.boxes[index] is not None or not boxed:
            members.setdefault(label, []).append(index)
    most = sorted(members.values(), key=len, reverse=True)[:_PROBED]  # those of one image alone come last
    # One of each landmark after the other would give landmarks of one image: pairs of them.
    turns = [[label[place:place + 2] for label in most] for place in range(0, _EACH, 2)]
    chosen = [index for turn in turns for pair in turn for index in pair][:_PROBED]
    return collection.part(np.sort(chosen).tolist(), f"some of {collection.name}")

