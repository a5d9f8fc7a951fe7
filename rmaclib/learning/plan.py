"""The settings of a run: those given, over those that its start has chosen, or that a preset chooses."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from rmaclib.datasets.types import LabelledImages
from rmaclib.extraction.batches import pick_device
from rmaclib.foundation.files import read_json
from rmaclib.foundation.messages import duration
from rmaclib.foundation.settings import from_mapping
from rmaclib.learning.budget import PAPER, STAGES, Timing, laptop, within
from rmaclib.learning.errors import LearningError
from rmaclib.learning.folder import LOG, RUN, STATE
from rmaclib.learning.log import read_log
from rmaclib.learning.optimization import LoopSettings
from rmaclib.learning.state import read_state

StageName = Literal["ranking", "classification", "proposals"]
Preset = Literal["laptop", "paper"]
_TIMED = tuple(within("ranking", 8))  # settings that follow from how long an update takes
_NOT_SHOWN = ("momentum", "drop_at", "evaluate_every", "warmup")


class Plan:
    """What a run does, and what its folder says about its start.

    Attributes:
        goes_on: Whether the folder contains a run already.
        done: Updates of it.
    """

    def __init__(self, stage: StageName, preset: Preset | None, given: Mapping[str, Any], folder: Path):
        """Look at the folder of a run.

        Args:
            stage: What is learned.
            preset: Chooses what is not given; None: what the start has chosen, of a new run the laptop's.
            given: Settings of the stage.
            folder: Of the run.

        Raises:
            LearningError: A damaged state.
        """
        self.stage, self.preset, self.given, self.folder = stage, preset, given, folder
        self.goes_on = (folder / RUN).exists() or (folder / STATE).exists()
        state = read_state(folder)
        self.done, self.best, self.run = (state.update, state.best.update, state.run) if state else (0, 0, None)

    def settings(self, images: int) -> LoopSettings:
        """Choose the settings, before the updates are counted.

        Args:
            images: Of the training collection.

        Returns:
            Settings of the stage.
        """
        device = pick_device(self.given.get("device", "auto"))
        chosen = dict(PAPER[self.stage]) if self.preset == "paper" else laptop(self.stage, device, images)
        if self.goes_on:
            names = [name for name in chosen if self.preset is None or name in _TIMED]
            chosen |= {name: value for name, value in self._of_the_start().items() if name in names}
        elif "updates" in self.given and self.preset != "paper":
            chosen |= within(self.stage, self.given["updates"])
        if "optimizer" in self.given and "lr" not in self.given:
            chosen.pop("lr")  # it belongs to the preset's optimizer
        return from_mapping(STAGES[self.stage], {**chosen, **self.given})

    def _of_the_start(self) -> dict:
        if self.run is not None:
            return self.run["settings"]
        try:
            settings = read_json(self.folder / RUN, LearningError, "what a training run depends on").get("settings")
        except LearningError:
            if self.done:
                raise
            settings = None  # nothing was learned: it begins again
            self.goes_on = False
        return settings if isinstance(settings, dict) else {}

    def in_time(self, settings: LoopSettings, timing: Timing, seconds: float) -> LoopSettings:
        """Choose the number of updates of a new run, unless it is given or the paper's.

        Args:
            settings: Of ``settings``; their updates are the most.
            timing: How long an update takes.
            seconds: The time there is for the training.

        Returns:
            The settings, with the updates there is time for and what follows from their number.
        """
        if self.preset == "paper" or "updates" in self.given:
            return settings
        timed = within(self.stage, timing.updates(self.stage, settings, seconds))
        return from_mapping(STAGES[self.stage], {**asdict(settings), **timed, **self.given})

    def summary(self, settings: LoopSettings, training: LabelledImages) -> str:
        """Describe a new run.

        Args:
            settings: Of ``settings``.
            training: The training images.

        Returns:
            Preset, device, number of images and the settings that matter, one line.
        """
        names = [name for name in PAPER[self.stage] if name not in _NOT_SHOWN]
        values = asdict(settings)
        shown = ", ".join(f"{name} {values[name]}" for name in [*names, *(set(self.given) - set(names))]
                          if name != "updates" or name in self.given)
        counts = training.counts
        return (f"preset {self.preset or 'laptop'}, on {pick_device(settings.device)}, for {counts['images']} images "
                f"of {counts['landmarks']} landmarks: {shown}")

    def rest(self, settings: LoopSettings) -> str:
        """Describe what is left of a run that goes on.

        Args:
            settings: Of ``settings``.

        Returns:
            Updates and time; or why it stopped before the last update. One line.
        """
        if self.done < settings.updates and settings.ends(self.done, self.best):
            return f"{self.folder}: {settings.why_stopped(self.done)}"
        log = read_log(self.folder / LOG) if (self.folder / LOG).exists() else []
        seconds = [row["seconds"] for row in log if row["seconds"] is not None]
        left = settings.updates - self.done
        time = f", {duration(left * sum(seconds) / len(seconds))}" if seconds and left else ""
        return (f"{self.folder}: goes on with the settings of its start, {left} of {settings.updates} updates "
                f"left{time}")
