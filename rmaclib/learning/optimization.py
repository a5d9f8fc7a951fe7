"""How weights change in an update (Section 4.2): the settings that all stages have, the learning rate, one step."""

import math
from typing import Annotated, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from rmaclib.extraction.batches import ExtractionSettings
from rmaclib.foundation.settings import Field, settings
from rmaclib.learning.errors import diverged

OptimizerName = Literal["sgd", "adamw"]
Schedule = Literal["constant", "step", "cosine"]
Precision = Literal["float32", "bfloat16"]
_DEFAULT_LR: dict[OptimizerName, float] = {"sgd": 1e-3, "adamw": 1e-5}
_DROP = 0.1  # of the step schedule: 1e-3, then 1e-4
_GROWN = 1e3  # times the norm of all weights before an update: no step that learns anything is as long

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@settings
class LoopSettings:
    """What all stages have in common. Defaults are those of the preset ``paper`` (Section 4.2).

    Attributes:
        optimizer: ``"sgd"`` or ``"adamw"``.
        lr: Learning rate. None takes 1e-3 for SGD and 1e-5 for AdamW.
        momentum: Of SGD.
        weight_decay: Added to the gradient (SGD), or subtracted from the weights (AdamW).
        schedule: Of the learning rate. ``"step"`` goes on with a tenth after a share of the updates, ``"cosine"``
            falls to zero, ``"constant"`` stays.
        drop_at: Share of the updates, 0..1, after which ``"step"`` drops.
        warmup: Updates over which the learning rate rises linearly to its value.
        frozen: Dotted name of a layer of the backbone, such as "blocks.3" in efficientnet_lite0: the layers up to and
            including it keep their weights. None: all layers learn.
        updates: Steps of the optimizer; the paper's number is not known.
        clip: Largest norm of the gradient; longer ones are shortened to it. None: no limit.
        precision: ``"float32"``, or ``"bfloat16"``: the backbone computes in it (autocast).
        pixels: Of the images that go through the network together. None: a default for the device.
        size: Longer side of the images in pixels; smaller images are not enlarged.
        device: ``"auto"`` (CUDA, else Apple's MPS, else CPU) or a torch device name.
        evaluate_every: Updates between two validations.
        patience: Validations in a row without a better score, after which training ends. None: it goes on to the last
            update. The score before the first update counts too.
        save_every: Updates between two saved states.
        timeout: Seconds after which, of several processes, one that waits for another ends with an error.
        seed: Every random choice follows from it.
    """

    optimizer: OptimizerName = "sgd"
    lr: Annotated[float, Field(ge=0)] | None = None
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-5
    schedule: Schedule = "step"
    drop_at: Share = 0.5
    warmup: Annotated[int, Field(ge=0)] = 0
    frozen: str | None = None
    updates: Annotated[int, Field(ge=1, le=10**9)] = 4096
    clip: Annotated[float, Field(ge=1e-9)] | None = None
    precision: Precision = "float32"
    pixels: Count | None = None
    size: Count = 800
    device: str = "auto"
    evaluate_every: Count = 64
    patience: Count | None = None
    save_every: Count = 64
    timeout: Annotated[int, Field(ge=1, le=10**6)] = 1800
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", self.full_lr)

    @property
    def full_lr(self) -> float:
        """The learning rate after the warm-up and before the schedule lowers it."""
        return _DEFAULT_LR[self.optimizer] if self.lr is None else self.lr

    def ends(self, update: int, best: int) -> bool:
        """Tell whether training ends after an update.

        Args:
            update: Counted from 1; 0 is before the first.
            best: The update with the best validation score up to there.

        Returns:
            Whether it was the last of ``updates``, or the score has not improved in ``patience`` validations.
        """
        stale = update // self.evaluate_every - best // self.evaluate_every  # validations after the best one
        return update >= self.updates or (self.patience is not None and stale >= self.patience)

    def why_stopped(self, update: int) -> str:
        """Tell why training has ended before the last of ``updates``.

        Args:
            update: After which it has.

        Returns:
            One line.
        """
        return (f"stopped after {update} updates: the validation score has not improved in {self.patience} "
                f"validation{'s' if self.patience != 1 else ''}")

    @property
    def extraction(self) -> ExtractionSettings:
        """How descriptors of the pool and of the validation images are extracted."""
        return ExtractionSettings((self.size,), precision=self.precision, device=self.device)


def learning_rate(settings: LoopSettings, update: int) -> float:
    """Compute the learning rate of an update.

    Args:
        settings: Learning rate, schedule and warm-up.
        update: Counted from 1.

    Returns:
        At least 0.
    """
    lr = settings.full_lr
    if settings.schedule == "step" and update > settings.drop_at * settings.updates:
        lr *= _DROP
    if settings.schedule == "cosine":
        lr *= (1 + math.cos(math.pi * (update - 1) / settings.updates)) / 2
    return lr * min(1, update / settings.warmup) if settings.warmup else lr


def create_optimizer(parameters: list[nn.Parameter], settings: LoopSettings) -> Optimizer:
    """Create the optimizer of a run.

    Args:
        parameters: What is learned.
        settings: Which optimizer, momentum and weight decay.

    Returns:
        An optimizer with a single group of parameters.
    """
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, settings.full_lr, settings.momentum, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(parameters, settings.full_lr, weight_decay=settings.weight_decay)


def take_step(update: int, parameters: list[nn.Parameter], optimizer: Optimizer,
              settings: LoopSettings) -> tuple[float, float]:
    """Change the parameters by their gradients, in place.

    Args:
        update: Counted from 1.
        parameters: Of the optimizer, each with its gradient.
        optimizer: Of ``create_optimizer``.
        settings: Learning rate and largest norm of the gradient.

    Returns:
        The learning rate, and the norm of the gradient before it was clipped.

    Raises:
        LearningError: Training has diverged: a gradient that is not finite, or weights that have grown a thousandfold.
    """
    norm = float(nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf))
    if not math.isfinite(norm):
        raise diverged(update, f"the norm of the gradient is {norm}", settings.full_lr)
    before = _norm(parameters)
    lr = optimizer.param_groups[0]["lr"] = learning_rate(settings, update)
    optimizer.step()
    after = _norm(parameters)
    if not after <= _GROWN * max(before, 1.0):  # also when it is NaN
        raise diverged(update, f"the norm of all weights went from {before:.3g} to {after:.3g}", settings.full_lr)
    return lr, norm


@torch.no_grad()
def _norm(parameters: list[nn.Parameter]) -> float:
    return float(nn.utils.get_total_norm(parameters))
